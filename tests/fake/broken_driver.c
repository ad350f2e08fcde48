/* A driver that is installed and does not start, as after an update without a restart.  Loaded by
 * name (LD_LIBRARY_PATH). */
#include <cuda.h>
#include <stdlib.h>

__attribute__((visibility("default"))) CUresult cuInit(unsigned int flags)
{
    const char *text = getenv("FAKE_CUINIT");
    (void)flags;
    return (CUresult)(text ? atoi(text) : CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
}
