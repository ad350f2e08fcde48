/* Thrust as a program uses it: sort, reduce, transform, unique, and a scan. */
#include <thrust/copy.h>
#include <thrust/device_vector.h>
#include <thrust/host_vector.h>
#include <thrust/reduce.h>
#include <thrust/scan.h>
#include <thrust/sequence.h>
#include <thrust/sort.h>
#include <thrust/transform.h>
#include <thrust/unique.h>

#include "check.h"

struct halve {
    __host__ __device__ unsigned operator()(unsigned x) const
    {
        return x / 2;
    }
};

int main()
{
    const int n = 20000;
    uint32_t seed = 99;
    thrust::host_vector<unsigned> h(n);
    for (int i = 0; i < n; i++)
        h[i] = check_random(&seed) % 5000;
    thrust::device_vector<unsigned> d = h;

    thrust::sort(d.begin(), d.end());
    thrust::host_vector<unsigned> sorted = d;
    for (int i = 1; i < n; i++)
        CHECK(sorted[i - 1] <= sorted[i]);
    printf("sorted: %u .. %u .. %u\n", sorted[0], sorted[n / 2], sorted[n - 1]);
    printf("sum: %u\n", thrust::reduce(d.begin(), d.end(), 0u));

    thrust::transform(d.begin(), d.end(), d.begin(), halve());
    int left = (int)(thrust::unique(d.begin(), d.end()) - d.begin());
    printf("unique halves: %d\n", left);

    thrust::device_vector<unsigned> keys = h, values(n);
    thrust::sequence(values.begin(), values.end());
    thrust::stable_sort_by_key(keys.begin(), keys.end(), values.begin());
    thrust::host_vector<unsigned> k = keys, v = values;
    for (int i = 0; i < n; i++)
        CHECK(h[v[i]] == k[i] && (!i || k[i - 1] < k[i] || v[i - 1] < v[i]));
    printf("sorted by key: first %u at %u, last %u at %u\n", k[0], v[0], k[n - 1], v[n - 1]);

    thrust::exclusive_scan(values.begin(), values.end(), values.begin());
    printf("scan: %u\n", (unsigned)values[n - 1]);
    return 0;
}
