/* Any bytes as an image: vm_image_ptx must neither crash nor read past them, and what it gives is
 * text with an end. */
#include <stdlib.h>
#include <string.h>

#include "executor/softgpu/vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vm_text why;
    char *text = NULL;
    size_t len;
    uint8_t *exact = malloc(size ? size : 1); /* the sanitizer knows its end */
    if (!exact)
        return 0;
    memcpy(exact, data, size);
    CUresult result = vm_image_ptx(exact, size, 90, &text, &len, &why);
    if (result == CUDA_SUCCESS && strlen(text) != len)
        abort();
    if (result != CUDA_SUCCESS && !why.s[0])
        abort();
    if (result == CUDA_SUCCESS)
        free(text);
    free(exact);
    return 0;
}
