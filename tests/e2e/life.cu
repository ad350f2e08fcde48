/* The game of life in packed bits on a torus, two buffers swapped by events between two streams,
 * and frames copied out as rectangles while the game goes on. */
#include "check.h"

enum { W = 256, H = 128, WORDS = W / 32, GENERATIONS = 64, FRAME = 16 };

__global__ void generation(const unsigned *from, unsigned *to)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    unsigned out = 0;
    if (x >= WORDS || y >= H)
        return;
    for (int bit = 0; bit < 32; bit++) {
        int n = 0, self = 0;
        for (int dy = -1; dy <= 1; dy++)
            for (int dx = -1; dx <= 1; dx++) {
                int cx = (x * 32 + bit + dx + W) % W, cy = (y + dy + H) % H;
                int on = from[cy * WORDS + cx / 32] >> (cx % 32) & 1;
                if (dx || dy)
                    n += on;
                else
                    self = on;
            }
        out |= (unsigned)(n == 3 || (self && n == 2)) << bit;
    }
    to[y * WORDS + x] = out;
}

int main(void)
{
    static unsigned start[H][WORDS];
    unsigned *frame[GENERATIONS / FRAME], *board[2];
    cudaStream_t play, copy;
    cudaEvent_t played, copied;
    uint32_t seed = 31;
    for (int y = 0; y < H; y++)
        for (int x = 0; x < WORDS; x++)
            start[y][x] = check_random(&seed) << 16 ^ check_random(&seed);
    CUDA(cudaStreamCreateWithFlags(&play, cudaStreamNonBlocking));
    CUDA(cudaStreamCreateWithFlags(&copy, cudaStreamNonBlocking));
    CUDA(cudaEventCreateWithFlags(&played, cudaEventDisableTiming));
    CUDA(cudaEventCreateWithFlags(&copied, cudaEventDisableTiming));
    for (int i = 0; i < 2; i++)
        board[i] = (unsigned *)device_alloc(sizeof start);
    for (int i = 0; i < GENERATIONS / FRAME; i++)
        CUDA(cudaMallocHost(&frame[i], sizeof start));
    CUDA(cudaMemcpyAsync(board[0], start, sizeof start, cudaMemcpyHostToDevice, play));
    for (int g = 0; g < GENERATIONS; g++) {
        generation<<<dim3(1, H / 16), dim3(WORDS, 16), 0, play>>>(board[g & 1], board[1 - (g & 1)]);
        LAUNCHED();
        if (g % FRAME != FRAME - 1)
            continue;
        /* the middle of the board, in the other stream; the board must stay until it is copied */
        CUDA(cudaEventRecord(played, play));
        CUDA(cudaStreamWaitEvent(copy, played, 0));
        CUDA(cudaMemcpy2DAsync(frame[g / FRAME], 16, board[1 - (g & 1)] + 32 * WORDS + 2, WORDS * 4,
                               16, 64, cudaMemcpyDeviceToHost, copy));
        CUDA(cudaEventRecord(copied, copy));
        CUDA(cudaStreamWaitEvent(play, copied, 0));
    }
    CUDA(cudaDeviceSynchronize());
    for (int i = 0; i < GENERATIONS / FRAME; i++) {
        int alive = 0;
        unsigned sum = 0;
        for (int k = 0; k < 64 * 4; k++) {
            alive += __builtin_popcount(frame[i][k]);
            sum = sum * 31 + frame[i][k];
        }
        printf("frame %d: %d alive, %08x\n", i, alive, sum);
        CUDA(cudaFreeHost(frame[i]));
    }
    for (int i = 0; i < 2; i++)
        CUDA(cudaFree(board[i]));
    CUDA(cudaEventDestroy(played));
    CUDA(cudaEventDestroy(copied));
    CUDA(cudaStreamDestroy(play));
    CUDA(cudaStreamDestroy(copy));
    return 0;
}
