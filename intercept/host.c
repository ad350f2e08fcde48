/* What face/ must know of its host: current context, primary contexts, devices. */
#include <string.h>

#include "face/face.h"
#include "intercept/entry.h"

static CUcontext current(void)
{
    const struct tfr_context *ctx = tfr_thread_current();
    return ctx ? tfr_handle_ptr(ctx->id) : NULL;
}

static int device_n(void)
{
    return tfr_client.snapshot ? (int)tfr_client.snapshot->device_n : 0;
}

static CUcontext primary(CUdevice dev)
{
    return dev >= 0 && dev < device_n() ? tfr_handle_ptr(tfr_contexts[dev].id) : NULL;
}

static uint64_t context_key(CUcontext handle)
{
    const struct tfr_context *ctx = tfr_handle_object(TFR_KIND_CTX, handle);
    return ctx ? ctx->slot : 0;
}

static bool device(int at, struct tfr_face_device *device_out)
{
    if (at < 0 || at >= device_n())
        return false;
    const struct tfr_snapshot_device *d = &tfr_client.snapshot->device[at];
    memcpy(&device_out->uuid, d->uuid, sizeof d->uuid);
    device_out->pci_domain = d->attribute[CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID];
    device_out->pci_bus = d->attribute[CU_DEVICE_ATTRIBUTE_PCI_BUS_ID];
    device_out->pci_device = d->attribute[CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID];
    return true;
}

static int driver_version(void)
{
    int version = 0;
    cuDriverGetVersion(&version);
    return version;
}

/* The functions of a module are not enumerated yet: cuFFT, which asks, then refuses to plan. */
static uint64_t module_functions(CUcontext ctx, CUmodule module,
                                 void (*each)(void *user, CUfunction fn, void *owner), void *user)
{
    (void)ctx;
    (void)module;
    (void)each;
    (void)user;
    return 0;
}

const struct tfr_face_host tfr_face_host = {
    .current = current,
    .primary = primary,
    .context_key = context_key,
    .device_n = device_n,
    .device = device,
    .driver_version = driver_version,
    .module_load = cuModuleLoadData,
    .module_functions = module_functions,
};
