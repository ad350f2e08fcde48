/* Two devices, one context each; see host.h. */
#include "tests/unit/face/host.h"

#include <stdlib.h>

#include "face/face.h"

static char contexts[2];
static _Thread_local CUcontext here;
int host_destroyed;
const void *host_loaded;

CUcontext host_context(int n)
{
    return (CUcontext)&contexts[n];
}

void host_make_current(CUcontext ctx)
{
    here = ctx;
}

CUresult cuCtxDestroy_v2(CUcontext ctx)
{
    (void)ctx;
    host_destroyed++;
    return CUDA_SUCCESS;
}

static CUcontext current(void)
{
    return here;
}

static CUcontext primary(CUdevice dev)
{
    return dev == 0 || dev == 1 ? host_context(dev) : NULL;
}

static uint64_t context_key(CUcontext ctx)
{
    return ctx == host_context(0) ? 7 : ctx == host_context(1) ? 8 : 0;
}

static int device_n(void)
{
    return 2;
}

static bool device(int at, struct tfr_face_device *device_out)
{
    memset(&device_out->uuid, at + 1, sizeof device_out->uuid);
    device_out->pci_domain = 0;
    device_out->pci_bus = 3 + at;
    device_out->pci_device = 0;
    return true;
}

static int driver_version(void)
{
    return 13000;
}

static CUresult module_load(CUmodule *module_out, const void *image)
{
    host_loaded = image;
    *module_out = (CUmodule)&contexts[0];
    return CUDA_SUCCESS;
}

static uint64_t module_functions(CUcontext ctx, CUmodule module,
                                 void (*each)(void *user, CUfunction fn, void *owner), void *user)
{
    (void)ctx;
    for (uintptr_t n = 1; n <= 3; n++)
        each(user, (CUfunction)n, module);
    return 3;
}

const struct tfr_face_host tfr_face_host = {
    .current = current,
    .primary = primary,
    .context_key = context_key,
    .device_n = device_n,
    .device = device,
    .driver_version = driver_version,
    .module_load = module_load,
    .module_functions = module_functions,
};

const void *const *host_table(const char *hex)
{
    CUuuid id;
    const void *table = &id;
    char pair[3] = "";

    for (int n = 0; n < 16; n++) {
        while (*hex == ' ')
            hex++;
        memcpy(pair, hex, 2);
        id.bytes[n] = (char)strtol(pair, NULL, 16);
        hex += 2;
    }
    return cuGetExportTable(&table, &id) == CUDA_SUCCESS ? table : NULL;
}
