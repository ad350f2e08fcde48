// The device's half of the twins: one kernel each, over arrays.
#include "twin.h"

#define KERNEL(name)                                                                               \
    extern "C" __global__ void twin_##name(const uint64_t *in, uint64_t *out, unsigned int n)      \
    {                                                                                              \
        unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;                                    \
        if (i < n)                                                                                 \
            out[i] = name(in[3 * i], in[3 * i + 1], in[3 * i + 2]);                                \
    }
TWINS(KERNEL)
