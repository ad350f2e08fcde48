/* A libcuda.so.1 of nothing but face/ and the few calls that cudart makes before and for a copy:
 * memory is malloc's, there are no kernels.  runtime_test.py runs a statically linked cudart on it,
 * and spoils one thing at a time:
 *
 *   TFR_TEST_REFUSE=<first 8 hex digits of a table's id>   that table is refused
 *   TFR_TEST_KEYED=corrupt                                 the keyed value is wrong by one bit
 *   TFR_TEST_VERSION=<n>                                   cuDriverGetVersion
 *   TFR_TEST_DEVICES=<n>                                   cuDeviceGetCount */
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "face/face.h"

#define EXPORT __attribute__((visibility("default")))

enum { DEVICES_MAX = 8 };

static char contexts[DEVICES_MAX];
static _Thread_local CUcontext here;

static int setting(const char *name, int def)
{
    const char *text = getenv(name);

    return text ? atoi(text) : def;
}

static int device_n(void)
{
    return setting("TFR_TEST_DEVICES", 1);
}

static CUcontext current(void)
{
    return here;
}

static CUcontext primary(CUdevice dev)
{
    return dev >= 0 && dev < device_n() && dev < DEVICES_MAX ? (CUcontext)&contexts[dev] : NULL;
}

static int device_of(CUcontext ctx)
{
    return (int)((char *)ctx - contexts);
}

static uint64_t context_key(CUcontext ctx)
{
    return (uint64_t)device_of(ctx) + 1;
}

static bool device(int at, struct tfr_face_device *device_out)
{
    memset(device_out, 0, sizeof *device_out);
    device_out->uuid.bytes[0] = (char)(at + 1);
    device_out->pci_bus = at + 1;
    return true;
}

static int driver_version(void)
{
    return setting("TFR_TEST_VERSION", 13000);
}

const struct tfr_face_host tfr_face_host = {
    .current = current,
    .primary = primary,
    .context_key = context_key,
    .device_n = device_n,
    .device = device,
    .driver_version = driver_version,
};

/* ---- what is spoilt: the linker sends the map's reference here (--wrap) ---- */

CUresult __real_cuGetExportTable(const void **table, const CUuuid *id);
CUresult __wrap_cuGetExportTable(const void **table, const CUuuid *id);
static const void *const *keyed;

static CUresult corrupt_value(uint32_t version, uint64_t unix_seconds, uint64_t value_out[2])
{
    CUresult (*value_of)(uint32_t, uint64_t, uint64_t[2]) = (void *)keyed[1];
    CUresult r = value_of(version, unix_seconds, value_out);

    value_out[1] ^= 1;
    return r;
}

static const void *corrupt_table[3];

CUresult __wrap_cuGetExportTable(const void **table, const CUuuid *id)
{
    const char *refuse = getenv("TFR_TEST_REFUSE");
    char start[9];
    CUresult r = __real_cuGetExportTable(table, id);

    for (int n = 0; n < 4; n++)
        snprintf(start + 2 * n, 3, "%02x", (unsigned char)id->bytes[n]);
    if (refuse && strcmp(refuse, start) == 0) {
        *table = NULL;
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (r == CUDA_SUCCESS && getenv("TFR_TEST_KEYED") && strcmp(start, "d4082055") == 0) {
        keyed = *table;
        memcpy(corrupt_table, keyed, sizeof corrupt_table);
        corrupt_table[1] = (const void *)corrupt_value;
        *table = corrupt_table;
    }
    return r;
}

/* ---- devices ---- */

EXPORT CUresult cuInit(unsigned int flags)
{
    (void)flags;
    return device_n() ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

EXPORT CUresult cuDriverGetVersion(int *version)
{
    *version = driver_version();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int *count)
{
    *count = device_n();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *dev, int ordinal)
{
    *dev = ordinal;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetName(char *name, int len, CUdevice dev)
{
    snprintf(name, (size_t)len, "device %d", dev);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
    (void)dev;
    *bytes = 1 << 30;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)
{
    struct tfr_face_device found;

    device(dev, &found);
    *uuid = found.uuid;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice dev)
{
    *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 9
             : attribute == CU_DEVICE_ATTRIBUTE_PCI_BUS_ID             ? dev + 1
             : attribute == CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING     ? 1
                                                                       : 0;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
    *mode = CU_MODULE_LAZY_LOADING;
    return CUDA_SUCCESS;
}

/* ---- contexts ---- */

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *ctx, CUdevice dev)
{
    *ctx = primary(dev);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
    (void)dev;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
    tfr_face_context_gone(primary(dev));
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *ctx)
{
    *ctx = here;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext ctx)
{
    here = ctx;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetDevice_v2(CUdevice *dev, CUcontext ctx)
{
    *dev = device_of(ctx ? ctx : here);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetDevice(CUdevice *dev)
{
    return cuCtxGetDevice_v2(dev, here);
}

EXPORT CUresult cuCtxGetApiVersion(CUcontext ctx, unsigned int *version)
{
    (void)ctx;
    *version = 3020;
    return CUDA_SUCCESS;
}

/* ---- memory ---- */

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *addr, size_t len)
{
    *addr = (CUdeviceptr)malloc(len);
    return *addr ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr addr)
{
    free((void *)addr);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr dst, const void *src, size_t len)
{
    memcpy((void *)dst, src, len);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpyDtoH_v2(void *dst, CUdeviceptr src, size_t len)
{
    memcpy(dst, (const void *)src, len);
    return CUDA_SUCCESS;
}
