/* What runtime_test.py runs on mini.c, linked with NVIDIA's static runtime: one line per step, the
 * name and the runtime's error number. */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static cudaError_t copy_there_and_back(void)
{
    char text[] = "there and back", back[sizeof text] = "";
    void *mem;
    cudaError_t r = cudaMalloc(&mem, sizeof text);

    if (!r)
        r = cudaMemcpy(mem, text, sizeof text, cudaMemcpyHostToDevice);
    if (!r)
        r = cudaMemcpy(back, mem, sizeof text, cudaMemcpyDeviceToHost);
    if (!r)
        r = cudaFree(mem);
    return r ? r : strcmp(text, back) == 0 ? cudaSuccess : cudaErrorUnknown;
}

int main(void)
{
    int count = -1;
    cudaError_t r = cudaGetDeviceCount(&count);

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    printf("count %d %d\n", r, count);
    printf("copy %d\n", copy_there_and_back());
    printf("reset %d\n", cudaDeviceReset());
    printf("copy again %d\n", copy_there_and_back());
    if (r)
        _exit(0); /* a runtime that could not start may crash in its exit handlers */
    return 0;
}
