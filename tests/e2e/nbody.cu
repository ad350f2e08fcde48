/* Bodies that attract each other, by tiles in shared memory; energy stays nearly what it was. */
#include <math.h>

#include "check.h"

enum { N = 512, TILE = 128, STEPS = 8 };

__global__ void step(const float4 *from, float4 *to, float4 *speed, float dt)
{
    __shared__ float4 tile[TILE];
    int i = blockIdx.x * TILE + threadIdx.x;
    float4 me = from[i];
    float ax = 0, ay = 0, az = 0;
    for (int t = 0; t < N; t += TILE) {
        tile[threadIdx.x] = from[t + threadIdx.x];
        __syncthreads();
        for (int k = 0; k < TILE; k++) {
            float dx = tile[k].x - me.x, dy = tile[k].y - me.y, dz = tile[k].z - me.z;
            float d = dx * dx + dy * dy + dz * dz + 0.01f;
            float inv = rsqrtf(d), f = tile[k].w * inv * inv * inv;
            ax += f * dx;
            ay += f * dy;
            az += f * dz;
        }
        __syncthreads();
    }
    float4 v = speed[i];
    v.x += ax * dt;
    v.y += ay * dt;
    v.z += az * dt;
    speed[i] = v;
    to[i] = make_float4(me.x + v.x * dt, me.y + v.y * dt, me.z + v.z * dt, me.w);
}

static double energy(const float4 *at, const float4 *speed)
{
    double e = 0;
    for (int i = 0; i < N; i++) {
        e += 0.5 * at[i].w *
             ((double)speed[i].x * speed[i].x + (double)speed[i].y * speed[i].y +
              (double)speed[i].z * speed[i].z);
        for (int j = 0; j < i; j++) {
            double dx = at[i].x - at[j].x, dy = at[i].y - at[j].y, dz = at[i].z - at[j].z;
            e -= at[i].w * at[j].w / sqrt(dx * dx + dy * dy + dz * dz + 0.01);
        }
    }
    return e;
}

int main(void)
{
    static float4 at[N], speed[N];
    uint32_t seed = 77;
    for (int i = 0; i < N; i++) {
        at[i].x = (float)(check_random(&seed) % 2000) / 1000 - 1;
        at[i].y = (float)(check_random(&seed) % 2000) / 1000 - 1;
        at[i].z = (float)(check_random(&seed) % 2000) / 1000 - 1;
        at[i].w = 1.0f / N;
    }
    double before = energy(at, speed);
    float4 *a = (float4 *)device_alloc(sizeof at), *b = (float4 *)device_alloc(sizeof at);
    float4 *v = (float4 *)device_alloc(sizeof at);
    CUDA(cudaMemcpy(a, at, sizeof at, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(v, speed, sizeof at, cudaMemcpyHostToDevice));
    for (int s = 0; s < STEPS; s++) {
        step<<<N / TILE, TILE>>>(a, b, v, 0.001f);
        float4 *t = a;
        a = b;
        b = t;
    }
    LAUNCHED();
    CUDA(cudaMemcpy(at, a, sizeof at, cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(speed, v, sizeof at, cudaMemcpyDeviceToHost));
    double after = energy(at, speed), px = 0;
    for (int i = 0; i < N; i++)
        px += speed[i].x;
    printf("energy %.3f, kept: %d, momentum kept: %d\n", before,
           fabs(after - before) < 1e-3 * fabs(before), fabs(px) < 1e-3);
    CUDA(cudaFree(a));
    CUDA(cudaFree(b));
    CUDA(cudaFree(v));
    return 0;
}
