/* Copies by direction, kind of host memory and size: the call and the wait for its stream, and for
 * small pageable sources the synchronous call alone.  The floor of what takes long is memcpy, that
 * of what is small the ping-pong: somebody else has to be told. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/bench.h"

enum memory { PAGEABLE, PINNED, REGISTERED };
enum { DIRECTION_FROM = 16, SMALL = 32768 };

static const char *const memory_name[] = {"pageable", "pinned", "registered"};

static CUresult host_open(struct bench *b, enum memory memory)
{
    if (memory == PINNED)
        return b->cu.cuMemHostAlloc((void **)&b->host, b->c->size, 0);
    void *at = mmap(NULL, b->c->size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (at == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    b->host = at;
    memset(b->host, 1, b->c->size);
    return memory == REGISTERED ? b->cu.cuMemHostRegister_v2(b->host, b->c->size, 0) : CUDA_SUCCESS;
}

static CUresult set_up(struct bench *b)
{
    CUresult result = bench_stream_open(b);
    if (result == CUDA_SUCCESS)
        result = b->cu.cuMemAlloc_v2(&b->mem[0], b->c->size);
    if (result == CUDA_SUCCESS)
        result = host_open(b, (enum memory)(b->c->arg % DIRECTION_FROM));
    return result;
}

static void tear_down(struct bench *b)
{
    enum memory memory = (enum memory)(b->c->arg % DIRECTION_FROM);
    if (b->host && memory == PINNED)
        b->cu.cuMemFreeHost(b->host);
    if (b->host && memory == REGISTERED)
        b->cu.cuMemHostUnregister(b->host);
    if (b->host && memory != PINNED)
        munmap(b->host, b->c->size);
    bench_close(b);
}

static CUresult copy_to(struct bench *b)
{
    CUresult result = b->cu.cuMemcpyHtoDAsync_v2(b->mem[0], b->host, b->c->size, b->stream);
    return result == CUDA_SUCCESS ? b->cu.cuStreamSynchronize(b->stream) : result;
}

static CUresult copy_from(struct bench *b)
{
    CUresult result = b->cu.cuMemcpyDtoHAsync_v2(b->host, b->mem[0], b->c->size, b->stream);
    return result == CUDA_SUCCESS ? b->cu.cuStreamSynchronize(b->stream) : result;
}

static CUresult call_to(struct bench *b)
{
    return b->cu.cuMemcpyHtoD_v2(b->mem[0], b->host, b->c->size);
}

static CUresult settle_all(struct bench *b)
{
    return b->cu.cuCtxSynchronize();
}

/* The measured direction carries the pattern, the other one is a plain pageable copy. */
static CUresult check(struct bench *b, uint32_t seed, bool *right_out)
{
    bool from = b->c->arg >= DIRECTION_FROM;
    uint64_t size = b->c->size;
    uint8_t *other = malloc(size);
    if (!other)
        return CUDA_ERROR_OUT_OF_MEMORY;
    uint8_t *source = from ? other : b->host, *target = from ? b->host : other;
    for (uint64_t i = 0; i < size; i++)
        source[i] = (uint8_t)((i * 7 + (i >> 12) + seed) % 251);
    memset(target, 255, size);
    CUresult result = from ? b->cu.cuMemcpyHtoD_v2(b->mem[0], other, size) : b->c->op(b);
    if (result == CUDA_SUCCESS)
        result = from ? b->c->op(b) : b->cu.cuMemcpyDtoH_v2(other, b->mem[0], size);
    if (result == CUDA_SUCCESS)
        *right_out = memcmp(source, target, size) == 0;
    free(other);
    return result;
}

static uint32_t times(uint64_t size, bool quick)
{
    uint64_t n = (quick ? 16ull << 20 : 512ull << 20) / size, most = quick ? 50 : 500;
    return n < 5 ? 5 : n > most ? (uint32_t)most : (uint32_t)n;
}

static const char *size_name(uint64_t size, char *text, size_t room)
{
    if (size >= 1 << 20)
        snprintf(text, room, "%lluMiB", (unsigned long long)(size >> 20));
    else if (size >= 1 << 10)
        snprintf(text, room, "%lluKiB", (unsigned long long)(size >> 10));
    else
        snprintf(text, room, "%lluB", (unsigned long long)size);
    return text;
}

static void add_sizes(struct bench_list *list, struct bench_case *c, const char *label)
{
    static const uint64_t sizes[] = {4, 1024, 4096, 65536, 1 << 20, 16 << 20, 64 << 20};
    static const uint64_t quick[] = {4, 65536, 1 << 20};
    const uint64_t *all = list->quick ? quick : sizes;
    size_t n = list->quick ? sizeof quick / sizeof *quick : sizeof sizes / sizeof *sizes;
    char text[24];
    for (size_t i = 0; i < n; i++) {
        if (c->op == call_to && all[i] > 65536)
            break;
        c->size = all[i];
        c->samples = times(c->size, list->quick);
        c->count_ops = c->size >= 1 << 20 ? 5 : 100;
        c->floor = c->size < SMALL ? FLOOR_PINGPONG : FLOOR_MEMCPY;
        c->floor_size = c->size;
        bench_add(list, c, "%s_%s", label, size_name(c->size, text, sizeof text));
    }
    /* The software GPU's copy engine is a CPU, which a raw socket has for itself. */
    if (bench_over_tcp() && !list->quick && c->op != call_to) {
        c->floor = c->op == copy_to ? FLOOR_TCP_IN : FLOOR_TCP_OUT;
        bench_add(list, c, "%s_%s_copied", label, size_name(c->size, text, sizeof text));
    }
}

void bench_add_copy(struct bench_list *list)
{
    struct bench_case c = {.batch = 1, .set_up = set_up, .check = check, .tear_down = tear_down};
    char label[24];
    c.what = "cuMemcpyHtoD alone, pageable source";
    c.op = call_to;
    c.settle = settle_all;
    add_sizes(list, &c, "h2d_call");
    c.settle = NULL;
    for (uint64_t memory = PAGEABLE; memory <= REGISTERED; memory++) {
        c.what = "cuMemcpyHtoDAsync + cuStreamSynchronize";
        c.op = copy_to;
        c.arg = memory;
        snprintf(label, sizeof label, "h2d_%s", memory_name[memory]);
        add_sizes(list, &c, label);
        c.what = "cuMemcpyDtoHAsync + cuStreamSynchronize";
        c.op = copy_from;
        c.arg = DIRECTION_FROM + memory;
        snprintf(label, sizeof label, "d2h_%s", memory_name[memory]);
        add_sizes(list, &c, label);
    }
}
