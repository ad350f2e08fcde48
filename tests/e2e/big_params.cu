/* Kernel parameters: structs by value up to the limit of 4 KiB together, with every alignment,
 * holes and pointers inside structs. */
#include "check.h"

struct mixed {
    char c;
    short s;
    double d;
    char tail[3];
};

struct __align__(16) vec
{
    float x, y, z, w;
};

struct big {
    int v[1000];
    int *out;
    char name[8];
};

__global__ void many(char c, struct mixed m, short s, struct vec v, long long l, char last,
                     float *out)
{
    out[0] = c;
    out[1] = m.c + m.s;
    out[2] = (float)m.d + m.tail[2];
    out[3] = s;
    out[4] = v.x + v.y * 10 + v.z * 100 + v.w * 1000;
    out[5] = (float)l;
    out[6] = last;
}

__global__ void large(struct big b, int add)
{
    int sum = add;
    for (int i = threadIdx.x; i < 1000; i += 32)
        sum += b.v[i];
    b.out[threadIdx.x] = sum + b.name[threadIdx.x & 7];
}

/* By an index that is not known at compile time. */
__global__ void pick(const struct big b, int *out)
{
    out[threadIdx.x] = b.v[(threadIdx.x * 37) % 1000];
}

__global__ void bytes(uchar3 a, uchar1 b, ushort2 c, int3 d, double2 e, bool f, double *out)
{
    out[0] = a.x + a.y * 2 + a.z * 3 + b.x * 4 + c.x * 5 + c.y * 6;
    out[1] = d.x + d.y * 2 + d.z * 3;
    out[2] = e.x - e.y;
    out[3] = f ? 1 : 2;
}

int main(void)
{
    float got[7], *dev = (float *)device_alloc(sizeof(got));
    struct mixed m = {1, -300, 2.5, {0, 0, 4}};
    struct vec v = {1, 2, 3, 4};
    many<<<1, 1>>>(-5, m, 12345, v, -(1ll << 40), 'z', dev);
    LAUNCHED();
    CUDA(cudaMemcpy(got, dev, sizeof(got), cudaMemcpyDeviceToHost));
    printf("%g %g %g %g %g %g %g\n", got[0], got[1], got[2], got[3], got[4], got[5], got[6]);

    static struct big b;
    int *out = (int *)device_alloc(32 * sizeof(int)), sums[32], total = 0;
    for (int i = 0; i < 1000; i++)
        b.v[i] = i * i;
    memcpy(b.name, "abcdefgh", 8);
    b.out = out;
    large<<<1, 32>>>(b, 3);
    memset(b.v, 0, 100); /* the launch has its own copy */
    LAUNCHED();
    CUDA(cudaMemcpy(sums, out, sizeof(sums), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 32; i++)
        total += sums[i];
    printf("a struct of %zu bytes: %d\n", sizeof(b), total);
    pick<<<1, 32>>>(b, out);
    LAUNCHED();
    CUDA(cudaMemcpy(sums, out, sizeof(sums), cudaMemcpyDeviceToHost));
    printf("picked: %d %d %d\n", sums[0], sums[1], sums[31]);

    double four[4], *dfour = (double *)device_alloc(sizeof(four));
    bytes<<<1, 1>>>(make_uchar3(1, 2, 3), make_uchar1(4), make_ushort2(5, 6), make_int3(7, 8, -9),
                    make_double2(1.5, 0.25), true, dfour);
    LAUNCHED();
    CUDA(cudaMemcpy(four, dfour, sizeof(four), cudaMemcpyDeviceToHost));
    printf("%g %g %g %g\n", four[0], four[1], four[2], four[3]);
    return 0;
}
