/* Initialisation and device queries, answered from the snapshot that came with hello: no record,
 * ever. Surprising: some attributes are overridden, because they promise what remoting cannot keep.
 */
#define TFR_LOG_PART "intercept"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "face/face.h"
#include "intercept/entry.h"

enum { NEWEST_DRIVER = 13000 }; /* what this stub implements */

CUresult cuInit(unsigned int flags)
{
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    return tfr_client_init();
}

CUresult cuDriverGetVersion(int *version)
{
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = NEWEST_DRIVER;
    if (tfr_client.snapshot && (int)tfr_client.snapshot->driver_version < NEWEST_DRIVER)
        *version = (int)tfr_client.snapshot->driver_version;
    return CUDA_SUCCESS;
}

/* The device of an ordinal that a caller gave, or an error. */
static CUresult device_at(CUdevice dev, const struct tfr_snapshot_device **device_out)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (dev < 0 || dev >= (int)tfr_client.snapshot->device_n)
        return CUDA_ERROR_INVALID_DEVICE;
    *device_out = &tfr_client.snapshot->device[dev];
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = (int)tfr_client.snapshot->device_n;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *dev, int ordinal)
{
    const struct tfr_snapshot_device *device;
    CUresult result = device_at(ordinal, &device);
    if (result == CUDA_ERROR_NOT_INITIALIZED)
        return result;
    if (!dev)
        return CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS)
        *dev = ordinal;
    return result;
}

CUresult cuDeviceGetName(char *name, int len, CUdevice dev)
{
    const struct tfr_snapshot_device *device;
    CUresult result = device_at(dev, &device);
    if (result != CUDA_SUCCESS)
        return result;
    if (!name || len <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(name, (size_t)len, "%s", device->name);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)
{
    const struct tfr_snapshot_device *device;
    CUresult result = device_at(dev, &device);
    if (result != CUDA_SUCCESS)
        return result;
    if (!uuid)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(uuid, device->uuid, sizeof device->uuid);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice dev)
{
    return cuDeviceGetUuid_v2(uuid, dev);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
    const struct tfr_snapshot_device *device;
    CUresult result = device_at(dev, &device);
    if (result != CUDA_SUCCESS)
        return result;
    if (!bytes)
        return CUDA_ERROR_INVALID_VALUE;
    *bytes = device->total_mem;
    return CUDA_SUCCESS;
}

/* What the executor's device has and a remote one has not (yet).  One row, one reason. */
static const struct {
    CUdevice_attribute attribute;
    int value;
} overrides[] = {
    {CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 0},            /* not forwarded */
    {CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS, 0}, /* host and device do not share pages */
    {CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, 0},    /* the same */
    {CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES, 0},
    {CU_DEVICE_ATTRIBUTE_DIRECT_MANAGED_MEM_ACCESS_FROM_HOST, 0},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM,
     0}, /* registered memory is staged */
    {CU_DEVICE_ATTRIBUTE_HOST_NATIVE_ATOMIC_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 0}, /* not forwarded */
    {CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1}, /* ours, whatever the driver has */
    {CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES, 0},
    {CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED,
     0}, /* that is about NICs beside the application */
    {CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS, 0},
    {CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING, 0},
    {CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_HOST_ALLOC_DMA_BUF_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_HOST_MEMORY_POOLS_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_HOST_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_HOST_NUMA_MULTINODE_IPC_SUPPORTED, 0},
};

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice dev)
{
    const struct tfr_snapshot_device *device;
    CUresult result = device_at(dev, &device);
    if (result != CUDA_SUCCESS)
        return result;
    if (!value || (int)attribute <= 0 || attribute >= CU_DEVICE_ATTRIBUTE_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < sizeof overrides / sizeof overrides[0]; i++) {
        if (overrides[i].attribute == attribute) {
            *value = overrides[i].value;
            return CUDA_SUCCESS;
        }
    }
    *value = (int)attribute < TFR_ATTRIBUTES ? device->attribute[attribute] : 0;
    if (attribute == CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY &&
        !atomic_load_explicit(&tfr_client.sees, memory_order_relaxed))
        *value = 0; /* a network lies between kernels and the host's memory */
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetProperties(CUdevprop *prop, CUdevice dev)
{
    const struct tfr_snapshot_device *device;
    CUresult result = device_at(dev, &device);
    if (result != CUDA_SUCCESS)
        return result;
    if (!prop)
        return CUDA_ERROR_INVALID_VALUE;
    const int32_t *a = device->attribute;
    *prop = (CUdevprop){
        .maxThreadsPerBlock = a[CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK],
        .maxThreadsDim = {a[CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X],
                          a[CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y],
                          a[CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z]},
        .maxGridSize = {a[CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X],
                        a[CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y],
                        a[CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z]},
        .sharedMemPerBlock = a[CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK],
        .totalConstantMemory = a[CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY],
        .SIMDWidth = a[CU_DEVICE_ATTRIBUTE_WARP_SIZE],
        .memPitch = a[CU_DEVICE_ATTRIBUTE_MAX_PITCH],
        .regsPerBlock = a[CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK],
        .clockRate = a[CU_DEVICE_ATTRIBUTE_CLOCK_RATE],
        .textureAlign = a[CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT],
    };
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetExecAffinitySupport(int *supported, CUexecAffinityType type, CUdevice dev)
{
    const struct tfr_snapshot_device *device;
    CUresult result = device_at(dev, &device);
    if (result != CUDA_SUCCESS)
        return result;
    if (!supported || (unsigned int)type >= CU_EXEC_AFFINITY_TYPE_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    *supported = 0;
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice dev)
{
    CUresult result =
        cuDeviceGetAttribute(major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, dev);
    if (result == CUDA_SUCCESS)
        result = cuDeviceGetAttribute(minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, dev);
    return result;
}

static void pci_text(const struct tfr_snapshot_device *device, char text[32])
{
    snprintf(text, 32, "%04x:%02x:%02x.0",
             (unsigned)device->attribute[CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID] & 0xffff,
             (unsigned)device->attribute[CU_DEVICE_ATTRIBUTE_PCI_BUS_ID] & 0xff,
             (unsigned)device->attribute[CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID] & 0xff);
}

CUresult cuDeviceGetPCIBusId(char *text, int len, CUdevice dev)
{
    const struct tfr_snapshot_device *device;
    char full[32];
    CUresult result = device_at(dev, &device);
    if (result != CUDA_SUCCESS)
        return result;
    pci_text(device, full);
    if (!text || len < (int)sizeof "0000:00:00" + 2) /* without the end it would be another's */
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(text, (size_t)len, "%s", full);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetByPCIBusId(CUdevice *dev, const char *text)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!dev || !text)
        return CUDA_ERROR_INVALID_VALUE;
    unsigned int domain = 0, bus, slot, fn = 0;
    if (sscanf(text, "%x:%x:%x.%x", &domain, &bus, &slot, &fn) < 3) {
        domain = 0;
        if (sscanf(text, "%x:%x.%x", &bus, &slot, &fn) < 2)
            return CUDA_ERROR_INVALID_VALUE;
    }
    for (uint32_t i = 0; i < tfr_client.snapshot->device_n; i++) {
        const int32_t *a = tfr_client.snapshot->device[i].attribute;
        if ((unsigned)a[CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID] == domain &&
            (unsigned)a[CU_DEVICE_ATTRIBUTE_PCI_BUS_ID] == bus &&
            (unsigned)a[CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID] == slot) {
            *dev = (CUdevice)i;
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
    if (!mode)
        return CUDA_ERROR_INVALID_VALUE;
    const char *want = getenv("CUDA_MODULE_LOADING");
    *mode = want && strcmp(want, "EAGER") == 0 ? CU_MODULE_EAGER_LOADING : CU_MODULE_LAZY_LOADING;
    return CUDA_SUCCESS;
}

CUresult cuProfilerStart(void)
{
    return tfr_enter();
}

CUresult cuProfilerStop(void)
{
    return tfr_enter();
}
