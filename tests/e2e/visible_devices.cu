/* CUDA_VISIBLE_DEVICES: the program runs itself once per list, and prints which of the machine's
 * devices each run saw, in order; every run uses the last device that it sees.  With fewer than
 * four devices it has nothing to show. */
#include <unistd.h>

#include "check.h"

enum { MAX = 16 };

struct seen {
    int n;
    char bus[MAX][32], uuid[MAX][48];
    char error[64];
};

__global__ void set(int *x, int value)
{
    *x = value;
}

/* In a run of its own: what it sees, for the parent to read. */
static int list_devices(void)
{
    int n = 0, got = 0;
    cudaError_t error = cudaGetDeviceCount(&n);
    if (error != cudaSuccess) {
        printf("error %s\n", cudaGetErrorName(error));
        return 0;
    }
    for (int i = 0; i < n; i++) {
        cudaDeviceProp prop;
        char bus[32];
        CUDA(cudaGetDeviceProperties(&prop, i));
        CUDA(cudaDeviceGetPCIBusId(bus, sizeof(bus), i));
        printf("%s GPU-", bus);
        for (int k = 0; k < 16; k++)
            printf("%s%02x", k == 4 || k == 6 || k == 8 || k == 10 ? "-" : "",
                   (unsigned char)prop.uuid.bytes[k]);
        putchar('\n');
    }
    CUDA(cudaSetDevice(n - 1));
    int *x = (int *)device_alloc(sizeof(*x));
    set<<<1, 1>>>(x, 41 + n);
    LAUNCHED();
    CUDA(cudaMemcpy(&got, x, sizeof(got), cudaMemcpyDeviceToHost));
    CHECK(got == 41 + n);
    return 0;
}

static struct seen run(const char *self, const char *list)
{
    struct seen s = {0};
    char line[256];
    fflush(stdout);
    if (list)
        setenv("CUDA_VISIBLE_DEVICES", list, 1);
    else
        unsetenv("CUDA_VISIBLE_DEVICES");
    snprintf(line, sizeof(line), "'%s' list", self);
    FILE *out = popen(line, "r");
    CHECK(out);
    while (s.n < MAX && fgets(line, sizeof(line), out))
        if (sscanf(line, "error %63s", s.error) != 1 &&
            sscanf(line, "%31s %47s", s.bus[s.n], s.uuid[s.n]) == 2)
            s.n++;
    CHECK(pclose(out) == 0);
    return s;
}

static void show_run(const char *self, const struct seen *all, const char *what, const char *list)
{
    struct seen s = run(self, list);
    printf("%s:", what);
    for (int i = 0; i < s.n; i++)
        for (int k = 0; k < all->n; k++)
            if (strcmp(s.bus[i], all->bus[k]) == 0 && strcmp(s.uuid[i], all->uuid[k]) == 0)
                printf(" %d", k);
    printf("%s%s\n", *s.error ? " " : "", s.error);
}

/* A program may set it itself before its first call. */
static void show_own(const struct seen *all)
{
    char bus[32];
    int n = 0;
    setenv("CUDA_VISIBLE_DEVICES", "3,1", 1);
    CUDA(cudaGetDeviceCount(&n));
    CUDA(cudaDeviceGetPCIBusId(bus, sizeof(bus), 0));
    printf("set by itself: %d devices, the first is 3: %d\n", n, strcmp(bus, all->bus[3]) == 0);
    setenv("CUDA_VISIBLE_DEVICES", "0", 1);
    CUDA(cudaGetDeviceCount(&n));
    printf("set again: %d devices\n", n);
}

static const struct {
    const char *list, *want;
} lists[] = {{"2", " 2"},
             {"3,0,1", " 3 0 1"},
             {"0,9,1", " 0"},
             {"1,-1,2", " 1"},
             {"", " cudaErrorNoDevice"},
             {"-1", " cudaErrorNoDevice"},
             {"1,1", " cudaErrorNoDevice"},
             {"GPU-zz", " cudaErrorNoDevice"}};

int main(int argc, char **argv)
{
    char both[128];
    if (argc > 1)
        return list_devices();
    struct seen all = run(argv[0], NULL);
    if (all.n != 4) {
        for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
            printf("\"%s\":%s\n", lists[i].list, lists[i].want);
        puts("by UUID: 2\nby two UUIDs: 3 1\nset by itself: 2 devices, the first is 3: 1");
        puts("set again: 2 devices");
        return 0;
    }
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        snprintf(both, sizeof(both), "\"%s\"", lists[i].list);
        show_run(argv[0], &all, both, lists[i].list);
    }
    show_run(argv[0], &all, "by UUID", all.uuid[2]);
    snprintf(both, sizeof(both), "%s,%s", all.uuid[3], all.uuid[1]);
    show_run(argv[0], &all, "by two UUIDs", both);
    show_own(&all);
    return 0;
}
