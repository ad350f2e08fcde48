/* CUDA beside MPI in one process: ranks pass on what their kernels have made, out of memory that
 * CUDA allocated and memory that it did not.  With an argument CUDA is first to start, else MPI. */
#include "check.h"
#include <mpi.h>

enum { N = 1 << 18, ROUNDS = 5 };

static __global__ void step(const int *in, int *out, int add)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < N)
        out[i] = in[i] * 3 + add;
}

static void pass(int *to_next, int *from_before, int rank, int ranks)
{
    MPI_Sendrecv(to_next, N, MPI_INT, (rank + 1) % ranks, 0, from_before, N, MPI_INT,
                 (rank + ranks - 1) % ranks, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

int main(int argc, char **argv)
{
    int *host = (int *)malloc(N * sizeof(int)), *got = (int *)malloc(N * sizeof(int));
    int rank, ranks, wrong = 0, all, *in, *out, *pinned;
    cudaStream_t stream;

    if (argc > 1)
        CUDA(cudaFree(0));
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    CUDA(cudaStreamCreate(&stream));
    CUDA(cudaMalloc(&in, N * sizeof(int)));
    CUDA(cudaMalloc(&out, N * sizeof(int)));
    CUDA(cudaMallocHost(&pinned, N * sizeof(int)));
    for (int i = 0; i < N; i++)
        host[i] = i + rank;
    for (int round = 0; round < ROUNDS; round++) {
        CUDA(cudaMemcpyAsync(in, host, N * sizeof(int), cudaMemcpyHostToDevice, stream));
        step<<<(N + 255) / 256, 256, 0, stream>>>(in, out, round);
        CUDA(cudaMemcpyAsync(pinned, out, N * sizeof(int), cudaMemcpyDeviceToHost, stream));
        CUDA(cudaStreamSynchronize(stream));
        pass(pinned, got, rank, ranks);
        pass(host, pinned, rank, ranks); /* what it was made of */
        for (int i = 0; i < N; i++)
            wrong += got[i] != pinned[i] * 3 + round;
        memcpy(host, got, N * sizeof(int));
    }
    MPI_Allreduce(&wrong, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    MPI_Finalize();
    CUDA(cudaMemcpy(got, in, N * sizeof(int), cudaMemcpyDeviceToHost));
    CUDA(cudaFree(in));
    CUDA(cudaFree(out));
    CUDA(cudaFreeHost(pinned));
    if (rank == 0)
        printf("%d ranks, %d wrong\n", ranks, all);
    return all != 0;
}
