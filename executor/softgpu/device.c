/* Devices: how many, what they say of themselves.  The numbers are those of a mid-size GPU where
 * programs size their grids by them, and true where softgpu has a limit of its own; what we cannot
 * do (textures, arrays, IPC, sharing of handles) is answered as absent. */
#include "executor/softgpu/soft.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "base/visible.h"
#include "face/face.h"

int soft_arch = 90;
uint64_t soft_inline_copy = 64 << 10, soft_inline_work = 32 << 10;

/* Of every attribute that does not depend on the device. */
static const struct {
    int attribute, value;
} attributes[] = {
    {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, 1024},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y, 1024},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 64},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, 2147483647},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 65535},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z, 65535},
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, SOFT_SHARED_DEFAULT},
    {CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY, 65536},
    {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
    {CU_DEVICE_ATTRIBUTE_MAX_PITCH, 2147483647},
    {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK, SOFT_REGISTERS},
    {CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1000000},
    {CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT, 512},
    {CU_DEVICE_ATTRIBUTE_GPU_OVERLAP, 1},
    {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, SOFT_SM_N},
    {CU_DEVICE_ATTRIBUTE_INTEGRATED, 0},
    {CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1},
    {CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, CU_COMPUTEMODE_DEFAULT},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_WIDTH, 131072},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_WIDTH, 131072},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_HEIGHT, 65536},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_WIDTH, 16384},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_HEIGHT, 16384},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_DEPTH, 16384},
    {CU_DEVICE_ATTRIBUTE_SURFACE_ALIGNMENT, 512},
    {CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS, 1},
    {CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 1000000},
    {CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 256},
    {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 4 << 20},
    {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, SOFT_SM_THREADS},
    {CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 2},
    {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
    {CU_DEVICE_ATTRIBUTE_TEXTURE_PITCH_ALIGNMENT, 32},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LINEAR_WIDTH, 1 << 28},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_WIDTH, 131072},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_HEIGHT, 65000},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LINEAR_PITCH, 2097120},
    {CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_GLOBAL_L1_CACHE_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_LOCAL_L1_CACHE_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
     SOFT_SHARED_OPTIN + SOFT_SHARED_RESERVED},
    {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, SOFT_REGISTERS},
    {CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 1},
    {CU_DEVICE_ATTRIBUTE_HOST_NATIVE_ATOMIC_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO, 2},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, 1},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_MEM_OPS_V1, 1},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS_V1, 1},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR_V1, 1},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS, 1},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR, 1},
    {CU_DEVICE_ATTRIBUTE_COMPUTE_PREEMPTION_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, 1},
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, SOFT_SHARED_OPTIN},
    {CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR, SOFT_SM_BLOCKS},
    {CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK, SOFT_SHARED_RESERVED},
    {CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_UNIFIED_FUNCTION_POINTERS, 0},
    {CU_DEVICE_ATTRIBUTE_MEM_SYNC_DOMAIN_COUNT, 1},
    {CU_DEVICE_ATTRIBUTE_NUMA_ID, -1},
    {CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID, -1},
    {CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, 0},
    {CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID, 0},
};

static int attribute_of(const struct soft_dev *dev, int attribute, int *value_out)
{
    if (attribute <= 0 || attribute >= CU_DEVICE_ATTRIBUTE_MAX)
        return -1;
    *value_out = 0;
    if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
        *value_out = soft_arch / 10;
    else if (attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
        *value_out = soft_arch % 10;
    else if (attribute == CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)
        *value_out = dev->number + 1;
    else if (attribute == CU_DEVICE_ATTRIBUTE_MULTI_GPU_BOARD_GROUP_ID)
        *value_out = dev->number;
    for (size_t i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++)
        if (attributes[i].attribute == attribute)
            *value_out = attributes[i].value;
    soft_direct_attribute(attribute, value_out);
    return 0;
}

/* "9.0", "90" and "sm_90" mean the same. */
static void read_arch(void)
{
    const char *text = tfr_env_str("TFR_SOFT_CC");
    int major = 0, minor = 0;
    if (!text)
        return;
    const char *digits = strncmp(text, "sm_", 3) == 0 ? text + 3 : text;
    if (sscanf(digits, "%d.%d", &major, &minor) == 2)
        major = 10 * major + minor;
    else
        major = atoi(digits);
    if (major >= 50 && major <= 129)
        soft_arch = major;
    else
        tfr_warn("TFR_SOFT_CC=%s is no compute capability, using %d", text, soft_arch);
}

static CUuuid uuid_of(int number)
{
    CUuuid uuid = {
        {'T', 'F', 'R', '-', 's', 'o', 'f', 't', '-', 'g', 'p', 'u', '-', '0', '0', '0'}};
    uuid.bytes[15] = (char)('0' + number);
    return uuid;
}

/* As CUDA_VISIBLE_DEVICES says. */
static void choose_devices(int n)
{
    struct tfr_visible_device all[SOFT_DEV_MAX];
    int number[SOFT_DEV_MAX];
    for (int i = 0; i < n; i++) {
        CUuuid uuid = uuid_of(i);
        memcpy(all[i].uuid, &uuid, sizeof(uuid));
    }
    soft_dev_n = tfr_visible_read(getenv("CUDA_VISIBLE_DEVICES"), all, n, number);
    for (int i = 0; i < soft_dev_n; i++)
        soft_devs[i].number = number[i];
}

CUresult soft_dev_init(void)
{
    uint64_t n = tfr_env_u64("TFR_SOFT_DEVICES");
    choose_devices(n > SOFT_DEV_MAX ? (int)SOFT_DEV_MAX : (int)n);
    read_arch();
    /* A client and an executor that spin leave a worker no core: there a hop costs more than this.
     */
    if (sysconf(_SC_NPROCESSORS_ONLN) <= 2) {
        soft_inline_copy = 1 << 20;
        soft_inline_work = 64 << 10;
    }
    return soft_dev_n ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

CUresult soft_dev_get(CUdevice dev, struct soft_dev **dev_out)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (dev < 0 || dev >= soft_dev_n)
        return CUDA_ERROR_INVALID_DEVICE;
    *dev_out = &soft_devs[dev];
    return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int *version)
{
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = SOFT_DRIVER_VERSION;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = soft_dev_n;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    struct soft_dev *dev;
    if (!device)
        return soft_ready() ? CUDA_ERROR_NOT_INITIALIZED : CUDA_ERROR_INVALID_VALUE;
    CUresult result = soft_dev_get(ordinal, &dev);
    if (result == CUDA_SUCCESS)
        *device = ordinal;
    return result;
}

CUresult cuDeviceGetName(char *name, int len, CUdevice device)
{
    struct soft_dev *dev;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if (!name || len <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(name, (size_t)len, "TFR software GPU");
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
    struct soft_dev *dev;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if (!uuid)
        return CUDA_ERROR_INVALID_VALUE;
    *uuid = uuid_of(dev->number);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice dev)
{
    return cuDeviceGetUuid_v2(uuid, dev);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    struct soft_dev *dev;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if (!bytes)
        return CUDA_ERROR_INVALID_VALUE;
    *bytes = dev->memory;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    struct soft_dev *dev;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if (!value || attribute_of(dev, (int)attribute, value))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device)
{
    struct soft_dev *dev;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if (!major || !minor)
        return CUDA_ERROR_INVALID_VALUE;
    *major = soft_arch / 10;
    *minor = soft_arch % 10;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetProperties(CUdevprop *prop, CUdevice device)
{
    struct soft_dev *dev;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if (!prop)
        return CUDA_ERROR_INVALID_VALUE;
    *prop = (CUdevprop){
        .maxThreadsPerBlock = 1024,
        .maxThreadsDim = {1024, 1024, 64},
        .maxGridSize = {2147483647, 65535, 65535},
        .sharedMemPerBlock = SOFT_SHARED_DEFAULT,
        .totalConstantMemory = 65536,
        .SIMDWidth = 32,
        .memPitch = 2147483647,
        .regsPerBlock = SOFT_REGISTERS,
        .clockRate = 1000000,
        .textureAlign = 512,
    };
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetPCIBusId(char *id, int len, CUdevice device)
{
    struct soft_dev *dev;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if (!id || len < 13)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(id, (size_t)len, "0000:%02x:00.0", (unsigned int)dev->number + 1);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetByPCIBusId(CUdevice *device, const char *id)
{
    unsigned int domain = 0, bus = 0, slot = 0;
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!device || !id)
        return CUDA_ERROR_INVALID_VALUE;
    if (sscanf(id, "%x:%x:%x", &domain, &bus, &slot) != 3) {
        domain = 0;
        if (sscanf(id, "%x:%x", &bus, &slot) != 2)
            return CUDA_ERROR_INVALID_VALUE;
    }
    for (int i = 0; i < soft_dev_n && !domain && !slot; i++) {
        if ((unsigned int)soft_devs[i].number + 1 != bus)
            continue;
        *device = i;
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer)
{
    struct soft_dev *a, *b;
    CUresult result = soft_dev_get(device, &a);
    if (result == CUDA_SUCCESS)
        result = soft_dev_get(peer, &b);
    if (result)
        return result;
    if (!can)
        return CUDA_ERROR_INVALID_VALUE;
    *can = a != b;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute attribute, CUdevice from,
                                 CUdevice to)
{
    struct soft_dev *a, *b;
    CUresult result = soft_dev_get(from, &a);
    if (result == CUDA_SUCCESS)
        result = soft_dev_get(to, &b);
    if (result)
        return result;
    if (!value || a == b)
        return CUDA_ERROR_INVALID_VALUE;
    *value = attribute == CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED ||
             attribute == CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetExecAffinitySupport(int *pi, CUexecAffinityType type, CUdevice device)
{
    struct soft_dev *dev;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if (!pi || type >= CU_EXEC_AFFINITY_TYPE_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    *pi = 0;
    return CUDA_SUCCESS;
}

/* ---- what face asks of its host ---- */

static CUcontext face_current(void)
{
    struct soft_ctx *ctx = soft_current();
    return ctx ? (CUcontext)ctx->handle : NULL;
}

static CUcontext face_primary(CUdevice device)
{
    struct soft_dev *dev;
    struct soft_ctx *ctx;
    if (soft_dev_get(device, &dev) || soft_primary(dev, &ctx))
        return NULL;
    return (CUcontext)ctx->handle;
}

static uint64_t face_context_key(CUcontext handle)
{
    struct soft_ctx *ctx = soft_handle_get((uint64_t)handle, SOFT_CTX);
    return ctx ? ctx->handle : 0;
}

static int face_device_n(void)
{
    return soft_ready() ? 0 : soft_dev_n;
}

static bool face_device(int at, struct tfr_face_device *out)
{
    if (at < 0 || at >= soft_dev_n)
        return false;
    *out = (struct tfr_face_device){.uuid = uuid_of(soft_devs[at].number),
                                    .pci_bus = soft_devs[at].number + 1};
    return true;
}

static int face_version(void)
{
    return SOFT_DRIVER_VERSION;
}

static CUresult face_load(CUmodule *module, const void *image)
{
    return cuModuleLoadData(module, image);
}

static uint64_t face_functions(CUcontext handle, CUmodule module,
                               void (*each)(void *user, CUfunction fn, void *owner), void *user)
{
    struct soft_module *m = soft_handle_get((uint64_t)module, SOFT_MODULE);
    (void)handle;
    for (size_t i = 0; m && i < m->func_n; i++)
        each(user, (CUfunction)m->func[i].handle, module);
    return m ? m->func_n : 0;
}

const struct tfr_face_host tfr_face_host = {
    .current = face_current,
    .primary = face_primary,
    .context_key = face_context_key,
    .device_n = face_device_n,
    .device = face_device,
    .driver_version = face_version,
    .module_load = face_load,
    .module_functions = face_functions,
};
