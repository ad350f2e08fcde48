/* What device code calls and no module defines: vprintf, __assertfail, malloc, free.  Called by
 * calls.c with the arguments of each lane in their blobs.  Strings and buffers are the kernel's:
 * every byte is checked. */
#include "executor/softgpu/devmem.h"
#include "executor/softgpu/vm_in.h"

#include "base/env.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_STRING = 1024, MAX_LINE = 8192 };

static uint64_t argument(const struct vm_warp *w, const struct vm_call *c, uint32_t i,
                         unsigned int lane)
{
    uint64_t v = 0;
    const struct vm_arg *a = &c->arg[i];
    memcpy(&v, w->reg + a->from + lane * a->from_stride, a->size > 8 ? 8 : a->size);
    return v;
}

static void answer(struct vm_warp *w, const struct vm_call *c, unsigned int lane, uint64_t v)
{
    if (c->ret_n)
        memcpy(w->reg + c->ret.to + lane * c->ret.to_stride, &v, c->ret.size > 8 ? 8 : c->ret.size);
}

/* Cut at MAX_STRING.  False: a fault was raised. */
static bool string(struct vm_warp *w, const struct vm_ins *in, unsigned int lane, uint64_t addr,
                   char *out)
{
    for (uint32_t i = 0; i < MAX_STRING; i++, addr++) {
        const char *p = vm_lane_ptr(w, in, lane, PS_GENERIC, addr, 1, SOFT_PAGE_READ);
        if (!p) {
            vm_fault_at(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, lane, addr, "generic");
            return false;
        }
        out[i] = *p;
        if (!*p)
            return true;
    }
    out[MAX_STRING - 1] = 0;
    return true;
}

struct print {
    struct vm_warp *w;
    const struct vm_ins *in;
    unsigned int lane;
    uint64_t args; /* address of the next one */
    char line[MAX_LINE];
    size_t n;
    int count;
};

static bool fetch(struct print *p, uint32_t size, uint64_t *v_out)
{
    p->args = (p->args + size - 1) & ~(uint64_t)(size - 1);
    const void *at = vm_lane_ptr(p->w, p->in, p->lane, PS_GENERIC, p->args, size, SOFT_PAGE_READ);
    *v_out = 0;
    if (!at) {
        vm_fault_at(p->w, p->in, CUDA_ERROR_ILLEGAL_ADDRESS, p->lane, p->args, "generic");
        return false;
    }
    memcpy(v_out, at, size);
    p->args += size;
    p->count++;
    return true;
}

static void put(struct print *p, const char *text, size_t n)
{
    if (n > sizeof(p->line) - p->n)
        n = sizeof(p->line) - p->n;
    memcpy(p->line + p->n, text, n);
    p->n += n;
}

/* One conversion, without its flags' stars: spec is "%...", wide says how large an integer is. */
static bool convert(struct print *p, char *spec, size_t n, char conv, unsigned int longs,
                    unsigned int shorts)
{
    char text[MAX_STRING + 512], str[MAX_STRING];
    uint64_t v;
    int len = 0;
    bool integer = strchr("diouxXc", conv) != NULL;
    spec[n] = 0;
    if (!fetch(p, strchr("diouxXc", conv) && !longs ? 4 : 8, &v))
        return false;
    if (integer) { /* the value is widened here, so the length is always ll */
        bool sign = conv == 'd' || conv == 'i';
        if (!longs)
            v = sign ? (uint64_t)(int64_t)(int32_t)v : (uint32_t)v;
        if (shorts == 1)
            v = sign ? (uint64_t)(int64_t)(int16_t)v : (uint16_t)v;
        if (shorts >= 2)
            v = sign ? (uint64_t)(int64_t)(int8_t)v : (uint8_t)v;
        if (conv == 'c') {
            memcpy(spec + n, "c", 2);
            len = snprintf(text, sizeof(text), spec, (int)(unsigned char)v);
        } else {
            memcpy(spec + n, (char[]){'l', 'l', conv, 0}, 4);
            len = snprintf(text, sizeof(text), spec, (unsigned long long)v);
        }
    } else if (conv == 's') {
        if (!string(p->w, p->in, p->lane, v, str))
            return false;
        memcpy(spec + n, "s", 2);
        len = snprintf(text, sizeof(text), spec, str);
    } else if (conv == 'p') {
        memcpy(spec + n, "p", 2);
        len = snprintf(text, sizeof(text), spec, (void *)(uintptr_t)v);
    } else {
        double f;
        memcpy(&f, &v, sizeof(f));
        memcpy(spec + n, (char[]){conv, 0}, 2);
        len = snprintf(text, sizeof(text), spec, f);
    }
    if (len > 0)
        put(p, text, (size_t)len < sizeof(text) ? (size_t)len : sizeof(text) - 1);
    return true;
}

/* The star of a width or precision becomes digits. */
static bool star(struct print *p, char *spec, size_t *n)
{
    uint64_t v;
    if (!fetch(p, 4, &v))
        return false;
    int32_t i = (int32_t)v;
    i = i > 400 ? 400 : i < -400 ? -400 : i;
    int len = snprintf(spec + *n, 8, "%d", i);
    *n += (size_t)len;
    return true;
}

static bool format(struct print *p, const char *fmt)
{
    for (; *fmt; fmt++) {
        char spec[64] = "%";
        size_t n = 1;
        unsigned int longs = 0, shorts = 0, digits = 0;
        if (*fmt != '%' || fmt[1] == '%') {
            put(p, fmt, 1);
            fmt += *fmt == '%';
            continue;
        }
        for (fmt++; *fmt && strchr("-+ #0123456789.*", *fmt) && n < 40; fmt++) {
            digits = *fmt >= '0' && *fmt <= '9' ? digits + 1 : 0;
            if (*fmt == '*') {
                if (!star(p, spec, &n))
                    return false;
            } else if (digits <= 3) {
                spec[n++] = *fmt;
            }
        }
        for (; *fmt && strchr("hlLqjzt", *fmt); fmt++) {
            longs += *fmt != 'h' && *fmt != 'L';
            shorts += *fmt == 'h';
        }
        if (!*fmt)
            return true;
        if (!strchr("diouxXcsfFeEgGaAp", *fmt)) {
            put(p, "%", 1);
            put(p, fmt, 1);
        } else if (!convert(p, spec, n, *fmt, longs, shorts)) {
            return false;
        }
    }
    return true;
}

/* TFR_SOFT_LATE_TEXT: lines that no synchronisation has handed on yet. */
static pthread_mutex_t late_lock = PTHREAD_MUTEX_INITIALIZER;
static char *late;
static size_t late_n, late_room;

static void line_keep(const struct print *p)
{
    pthread_mutex_lock(&late_lock);
    if (late_n + p->n > late_room) {
        size_t room = 2 * (late_n + p->n);
        char *grown = realloc(late, room);
        late = grown ? grown : late;
        late_room = grown ? room : late_room;
    }
    if (late_n + p->n <= late_room) {
        memcpy(late + late_n, p->line, p->n);
        late_n += p->n;
    }
    pthread_mutex_unlock(&late_lock);
}

void vm_text_flush(void)
{
    pthread_mutex_lock(&late_lock);
    if (late_n) {
        fwrite(late, 1, late_n, stdout);
        fflush(stdout);
        late_n = 0;
    }
    pthread_mutex_unlock(&late_lock);
}

static void line_print(const struct print *p)
{
    if (tfr_env_bool("TFR_SOFT_LATE_TEXT", false))
        line_keep(p);
    else
        fwrite(p->line, 1, p->n, stdout); /* locks stdout: lines of workers do not mix */
}

static bool print_lane(struct vm_warp *w, const struct vm_ins *in, unsigned int lane)
{
    char fmt[MAX_STRING];
    struct print *p = malloc(sizeof(*p));
    bool ok = p && string(w, in, lane, argument(w, in->call, 0, lane), fmt);
    if (ok) {
        p->w = w;
        p->in = in;
        p->lane = lane;
        p->args = argument(w, in->call, 1, lane);
        p->n = 0;
        p->count = 0;
        ok = format(p, fmt);
    }
    if (ok) {
        line_print(p);
        answer(w, in->call, lane, (uint64_t)(uint32_t)p->count);
        /* relaxed: read after the workers have been joined */
        atomic_store_explicit(&w->blk->job->printed, true, memory_order_relaxed);
    }
    free(p);
    return ok || !atomic_load_explicit(&w->blk->job->failed, memory_order_relaxed);
}

/* message, file, line, function, size of a character */
static bool assert_lane(struct vm_warp *w, const struct vm_ins *in, unsigned int lane)
{
    char msg[MAX_STRING], file[MAX_STRING], func[MAX_STRING], text[256];
    const uint32_t *b = w->blk->ctaid, *dim = w->blk->job->launch->block;
    uint32_t t = w->index * VM_LANES + lane;
    if (!string(w, in, lane, argument(w, in->call, 0, lane), msg) ||
        !string(w, in, lane, argument(w, in->call, 1, lane), file) ||
        !string(w, in, lane, argument(w, in->call, 3, lane), func))
        return false;
    fprintf(stderr, "%s:%u: %s: block: [%u,%u,%u], thread: [%u,%u,%u] Assertion `%s` failed.\n",
            file, (uint32_t)argument(w, in->call, 2, lane), func, b[0], b[1], b[2], t % dim[0],
            t / dim[0] % dim[1], t / dim[0] / dim[1], msg);
    snprintf(text, sizeof(text), "%.200s", msg);
    vm_fault_at(w, in, CUDA_ERROR_ASSERT, lane, 0, text);
    return true;
}

/* In front of what malloc gives, in memory that kernels may write: a spoilt length spoils the
 * count and no more. */
struct piece {
    uint64_t len, mark;
};
static const uint64_t piece_mark = 0x7c3a915e2bd8f064ull;

static uint64_t heap_take(struct vm_warp *w, uint64_t size)
{
    struct vm_heap *heap = w->blk->job->launch->heap;
    struct piece piece = {((size + 15) & ~15ull) + sizeof(piece), piece_mark};
    CUdeviceptr p;
    if (size > 1ull << 40)
        return 0;
    /* relaxed: a count, and the memory has locks of its own */
    uint64_t used =
        heap ? atomic_fetch_add_explicit(&heap->used, piece.len, memory_order_relaxed) : 0;
    bool fits =
        !heap || used + piece.len <= atomic_load_explicit(&heap->limit, memory_order_relaxed);
    if (fits && soft_mem_alloc(piece.len, 16, &p) == CUDA_SUCCESS) {
        memcpy((void *)(uintptr_t)p, &piece, sizeof(piece));
        return p + sizeof(piece);
    }
    if (heap)
        atomic_fetch_sub_explicit(&heap->used, piece.len, memory_order_relaxed);
    return 0;
}

static bool heap_give(struct vm_warp *w, const struct vm_ins *in, unsigned int lane, uint64_t p)
{
    struct vm_heap *heap = w->blk->job->launch->heap;
    struct piece piece;
    const void *at = vm_lane_ptr(w, in, lane, PS_GLOBAL, p - sizeof(piece), sizeof(piece),
                                 SOFT_PAGE_READ | SOFT_PAGE_WRITE);
    if (!at || p & 15)
        return false;
    memcpy(&piece, at, sizeof(piece));
    if (piece.mark != piece_mark || soft_mem_free(p - sizeof(piece)))
        return false;
    uint64_t used = heap ? atomic_load_explicit(&heap->used, memory_order_relaxed) : 0;
    while (heap && !atomic_compare_exchange_weak_explicit(
                       &heap->used, &used, used > piece.len ? used - piece.len : 0,
                       memory_order_relaxed, memory_order_relaxed))
        ;
    return true;
}

bool vm_native_call(struct vm_warp *w, const struct vm_ins *in, uint32_t m)
{
    bool failed = false;
    for (uint32_t left = m; left && !failed; left &= left - 1) {
        unsigned int i = (unsigned int)__builtin_ctz(left);
        CUdeviceptr p = 0;
        switch (in->call->native) {
        case VN_VPRINTF:
            failed = !print_lane(w, in, i);
            break;
        case VN_ASSERT: /* every failing thread of the warp says so */
            if (!assert_lane(w, in, i))
                failed = true;
            break;
        case VN_MALLOC:
            answer(w, in->call, i, heap_take(w, argument(w, in->call, 0, i)));
            break;
        default:
            p = argument(w, in->call, 0, i);
            if (p && !heap_give(w, in, i, p))
                vm_fault_at(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, i, p, "free of device");
            break;
        }
    }
    return !atomic_load_explicit(&w->blk->job->failed, memory_order_relaxed);
}
