/* What the programs of this folder share.  A program prints only what is the same on every device
 * and in every run (no times, no addresses); its golden output is <name>.out.  The first unexpected
 * answer ends it with status 1 and a line on stderr.  Works for nvcc and for a plain C compiler. */
#ifndef TFR_E2E_CHECK_H
#define TFR_E2E_CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void check_true(int holds, const char *what, int line)
{
    if (holds)
        return;
    fflush(stdout);
    fprintf(stderr, "line %d: %s does not hold\n", line, what);
    exit(1);
}
#define CHECK(cond) check_true(!!(cond), #cond, __LINE__)

/* A small generator, so that inputs are the same everywhere. */
static inline uint32_t check_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

#ifdef __CUDACC__
#include <cuda_runtime.h>

static inline void check_cuda(cudaError_t got, const char *what, int line)
{
    if (got == cudaSuccess)
        return;
    fflush(stdout);
    fprintf(stderr, "line %d: %s: %s (%s)\n", line, what, cudaGetErrorName(got),
            cudaGetErrorString(got));
    exit(1);
}
#define CUDA(call) check_cuda((call), #call, __LINE__)

/* After a launch: the launch itself was accepted. */
#define LAUNCHED() check_cuda(cudaGetLastError(), "launch", __LINE__)

static inline void *device_alloc(size_t len)
{
    void *at = NULL;
    check_cuda(cudaMalloc(&at, len), "cudaMalloc", __LINE__);
    return at;
}

/* Prints the name of an answer, for programs whose subject is errors. */
static inline void show(const char *what, cudaError_t got)
{
    printf("%s: %s\n", what, cudaGetErrorName(got));
}
#endif

#endif
