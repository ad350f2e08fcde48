/* What any libcuda must show to NVIDIA's runtime, ours or the software GPU's: cuGetProcAddress over
 * a map generated from cudaTypedefs.h, and the private export tables that cudart, cuBLAS and cuFFT
 * ask for.  Knows no session: what it must know of its host it asks through these callbacks. face
 * defines (strong, exported): cuGetProcAddress, cuGetProcAddress_v2, cuGetExportTable,
 * cuGetErrorName, cuGetErrorString (errors.c). */
#ifndef TFR_FACE_H
#define TFR_FACE_H

#include <cuda.h>
#include <stdbool.h>
#include <stdint.h>

struct tfr_face_device {
    CUuuid uuid;
    int32_t pci_domain, pci_bus, pci_device; /* as cuDeviceGetAttribute answers 50, 33, 34 */
};

/* Filled by the host, one constant object of this name per library.  Every callback is thread-safe,
 * makes no remote call and does not block. */
struct tfr_face_host {
    CUcontext (*current)(void);         /* of this thread, or NULL */
    CUcontext (*primary)(CUdevice dev); /* stable handle, retained or not; NULL: no such device */
    uint64_t (*context_key)(CUcontext ctx); /* unique, never 0; 0: no such context */
    int (*device_n)(void);
    bool (*device)(int at, struct tfr_face_device *device_out);
    int (*driver_version)(void);
    CUresult (*module_load)(CUmodule *module_out, const void *image);
    /* Calls each() for every function of the module; returns how many. */
    uint64_t (*module_functions)(CUcontext ctx, CUmodule module,
                                 void (*each)(void *user, CUfunction fn, void *owner), void *user);
};
extern const struct tfr_face_host tfr_face_host;

/* What an exported symbol that we do not implement answers: CUDA_ERROR_NOT_SUPPORTED, named once in
 * the log at level warn.  Called by the generated weak definitions. */
CUresult tfr_face_none(const char *name, _Atomic unsigned char *said);

/* The host destroyed or reset a context: calls the destructors stored for it in the context-local
 * storage table. */
void tfr_face_context_gone(CUcontext ctx);

#endif
