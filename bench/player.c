/* A player: runs cases as it is told, over the libcuda.so.1 of its way.  Under tf-run the name
 * leads to our client library; the native way takes what the executor would take: a driver with a
 * GPU, else the software GPU beside us. */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "bench/bench.h"

enum { SAMPLES_MIN = 3 };

/* ---- the library ---- */

/* tfr_cu_load is for drivers: it refuses our own library. */
static bool library_load(struct tfr_cu *cu, const char *path, bool ours)
{
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib || (dlsym(lib, "tfr_stub_marker") != NULL) != ours)
        return false;
    cu->lib = lib;
    for (const struct tfr_cu_row *row = tfr_cu_rows; row->name; row++) {
        void *at = dlsym(lib, row->name);
        memcpy((char *)cu + row->at, &at, sizeof at);
    }
    return cu->cuInit != NULL;
}

static bool has_device(struct tfr_cu *cu)
{
    int n = 0;
    return cu->cuInit(0) == CUDA_SUCCESS && cu->cuDeviceGetCount(&n) == CUDA_SUCCESS && n > 0;
}

static bool soft_load(struct tfr_cu *cu)
{
    static const char *const under[] = {"lib/soft", "lib/tfr/soft"};
    char self[4096], path[4200];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len <= 0)
        return false;
    self[len] = 0;
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(self, '/');
        if (!slash)
            return false;
        *slash = 0;
    }
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s/libcuda.so.1", self, under[i]);
        if (access(path, R_OK) == 0)
            return library_load(cu, path, false) && has_device(cu);
    }
    return false;
}

static CUresult open_device(struct bench *b, enum player_way way, char *name, int room)
{
    struct tfr_cu *cu = &b->cu;
    CUcontext ctx;
    bool there = way == WAY_TFR
                     ? library_load(cu, "libcuda.so.1", true) && has_device(cu)
                     : (library_load(cu, "libcuda.so.1", false) && has_device(cu)) || soft_load(cu);
    if (!there) {
        snprintf(name, (size_t)room, "no device");
        return CUDA_ERROR_NO_DEVICE;
    }
    CUresult result = cu->cuDeviceGetName(name, room, 0);
    if (result == CUDA_SUCCESS)
        result = cu->cuDevicePrimaryCtxRetain(&ctx, 0);
    return result == CUDA_SUCCESS ? cu->cuCtxSetCurrent(ctx) : result;
}

/* ---- what cases share ---- */

struct bench_case *bench_add(struct bench_list *list, const struct bench_case *kind,
                             const char *name, ...)
{
    va_list args;
    if (list->n == CASES_MAX)
        return NULL;
    struct bench_case *c = &list->cases[list->n++];
    *c = *kind;
    va_start(args, name);
    vsnprintf(c->name, sizeof c->name, name, args);
    va_end(args);
    return c;
}

CUresult bench_stream_open(struct bench *b)
{
    return b->cu.cuStreamCreate(&b->stream, CU_STREAM_DEFAULT);
}

CUresult bench_settle(struct bench *b)
{
    return b->cu.cuStreamSynchronize(b->stream);
}

void bench_close(struct bench *b)
{
    if (b->event)
        b->cu.cuEventDestroy_v2(b->event);
    if (b->stream)
        b->cu.cuStreamDestroy_v2(b->stream);
    if (b->other)
        b->cu.cuStreamDestroy_v2(b->other);
    if (b->module)
        b->cu.cuModuleUnload(b->module);
    for (size_t i = 0; i < sizeof b->mem / sizeof b->mem[0]; i++)
        if (b->mem[i])
            b->cu.cuMemFree_v2(b->mem[i]);
}

CUresult bench_kernel(struct bench *b, const char *ptx, const char *name)
{
    CUresult result = bench_stream_open(b);
    if (result == CUDA_SUCCESS)
        result = b->cu.cuModuleLoadData(&b->module, ptx);
    if (result == CUDA_SUCCESS)
        result = b->cu.cuModuleGetFunction(&b->fn, b->module, name);
    return result;
}

CUresult bench_launch(struct bench *b)
{
    return b->cu.cuLaunchKernel(b->fn, b->grid[0], b->grid[1], 1, b->block[0], b->block[1], 1, 0,
                                b->stream, b->params, NULL);
}

/* ---- orders ---- */

static CUresult batch_run(struct bench *b, uint32_t n, double *ns_out)
{
    const struct bench_case *c = b->c;
    CUresult result = CUDA_SUCCESS;
    uint64_t from = timer_now();
    for (uint32_t i = 0; i < n && result == CUDA_SUCCESS; i++)
        result = c->op(b);
    *ns_out = timer_ns(from, timer_now()) / n / bench_calls(c);
    if (result == CUDA_SUCCESS && c->settle)
        result = c->settle(b);
    return result;
}

/* The first batches wake the executor and warm the caches: they do not count. */
static CUresult round_run(struct bench *b, uint32_t limit_ms, double *samples, uint32_t *n_out)
{
    const struct bench_case *c = b->c;
    uint32_t warm = c->batch > 1 ? 2 : 1 + c->samples / 10;
    CUresult result = CUDA_SUCCESS;
    double ns;
    uint64_t until = tfr_clock_now() + limit_ms * TFR_NS_PER_MS;
    for (uint32_t i = 0; i < warm && result == CUDA_SUCCESS; i++) {
        result = batch_run(b, c->batch, &ns);
        if (tfr_clock_now() > until)
            break;
    }
    *n_out = 0;
    until = tfr_clock_now() + limit_ms * TFR_NS_PER_MS;
    while (result == CUDA_SUCCESS && *n_out < c->samples && *n_out < SAMPLES_MAX) {
        result = batch_run(b, c->batch, &samples[*n_out]);
        if (result == CUDA_SUCCESS)
            ++*n_out;
        if (*n_out >= SAMPLES_MIN && tfr_clock_now() > until)
            break;
    }
    return result;
}

static void open_case(struct bench *b, const struct bench_case *c)
{
    struct tfr_cu cu = b->cu;
    memset(b, 0, sizeof *b);
    b->cu = cu;
    b->c = c;
}

static CUresult obey(struct bench *b, const struct bench_list *list, const struct order *order,
                     struct answer *answer, double *samples)
{
    const struct bench_case *c = &list->cases[order->at];
    CUresult result = CUDA_SUCCESS;
    bool right = true;
    switch ((enum order_kind)order->kind) {
    case ORDER_OPEN:
        open_case(b, c);
        result = c->set_up(b);
        break;
    case ORDER_ROUND:
        result = round_run(b, order->limit_ms, samples, &answer->sample_n);
        break;
    case ORDER_CHECK:
        if (c->check)
            result = c->check(b, order->seed, &right);
        break;
    case ORDER_CLOSE:
        c->tear_down(b);
        break;
    }
    if (!right)
        snprintf(answer->text, sizeof answer->text, "the data is wrong");
    return right ? result : CUDA_ERROR_UNKNOWN;
}

static bool send_all(int fd, const void *data, size_t len)
{
    const char *at = data;
    while (len) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static void name_error(struct bench *b, const char *what, struct answer *answer)
{
    const char *name = NULL;
    if (answer->result == CUDA_SUCCESS || answer->text[0])
        return;
    if (b->cu.cuGetErrorName)
        b->cu.cuGetErrorName((CUresult)answer->result, &name);
    snprintf(answer->text, sizeof answer->text, "%s answered %s", what, name ? name : "an error");
}

static const char *order_name(uint32_t kind)
{
    static const char *const names[] = {"set-up", "a round", "the check", "tear-down"};
    return kind <= ORDER_CLOSE ? names[kind] : "an order";
}

int player_main(const struct bench_list *list, enum player_way way, int fd)
{
    static struct bench b;
    static double samples[SAMPLES_MAX];
    struct order order;
    struct answer answer = {0};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    answer.result = (int32_t)open_device(&b, way, answer.text, sizeof answer.text);
    if (!send_all(fd, &answer, sizeof answer) || answer.result != CUDA_SUCCESS)
        return 1;
    while (recv(fd, &order, sizeof order, MSG_WAITALL) == (ssize_t)sizeof order) {
        memset(&answer, 0, sizeof answer);
        if (order.kind > ORDER_CLOSE || order.at >= list->n)
            return 1;
        answer.result = (int32_t)obey(&b, list, &order, &answer, samples);
        name_error(&b, order_name(order.kind), &answer);
        if (!send_all(fd, &answer, sizeof answer) ||
            !send_all(fd, samples, answer.sample_n * sizeof *samples))
            return 1;
    }
    return 0;
}

int player_count_main(const struct bench_list *list, size_t at, uint32_t ops)
{
    static struct bench b;
    const struct bench_case *c = &list->cases[at];
    char text[120];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    CUresult result = open_device(&b, WAY_TFR, text, sizeof text);
    open_case(&b, c);
    if (result == CUDA_SUCCESS)
        result = c->set_up(&b);
    if (result == CUDA_SUCCESS)
        result = c->op(&b); /* the first is no steady state */
    if (result == CUDA_SUCCESS && c->settle)
        result = c->settle(&b);
    prctl(COUNT_MARK_BEGIN, 0, 0, 0, 0);
    for (uint32_t i = 0; i < ops && result == CUDA_SUCCESS; i++)
        result = c->op(&b);
    prctl(COUNT_MARK_END, 0, 0, 0, 0);
    if (result == CUDA_SUCCESS && c->settle)
        result = c->settle(&b);
    if (result != CUDA_SUCCESS)
        return 3;
    c->tear_down(&b);
    return 0; /* and the library writes its counters */
}
