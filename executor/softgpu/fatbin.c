/* From an image to PTX text: fatbin wrapper, container, entry choice, decompression.  Called by
 * vm_image_ptx's users only.  Image bytes are hostile: every read is checked against the limit
 * where one is known, and against the sizes in the headers otherwise.  libzstd is loaded at run
 * time, because only compressed fatbins need it. */
#include "executor/softgpu/ptx.h"
#include "executor/softgpu/vm.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WRAPPER_MAGIC = 0x466243b1,
    CONTAINER_MAGIC = 0xBA55ED50u - 0x100000000ll,
    KIND_PTX = 1,
    FLAG_LZ4 = 0x2000,
    FLAG_ZSTD = 0x8000,
    MAX_PARTS = 4096
};
static const uint64_t MAX_TEXT = 1ull << 30;

struct entry {
    const uint8_t *data;
    uint64_t stored, packed, full; /* bytes in the file, of these used, after decompression */
    uint64_t flags;
    uint32_t arch;
};

struct search {
    const uint8_t *from; /* readable range, to == NULL: unknown */
    const uint8_t *to;
    int arch;
    struct entry best;
    uint32_t lowest_ptx; /* smallest PTX target seen, UINT32_MAX: none */
    bool cubin;
};

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static bool readable(const struct search *s, const uint8_t *p, uint64_t n)
{
    if (!s->to)
        return true;
    return p >= s->from && p <= s->to && n <= (uint64_t)(s->to - p);
}

static CUresult fail(struct vm_text *why, CUresult result, const char *text)
{
    snprintf(why->s, sizeof(why->s), "%s", text);
    return result;
}

/* ---- decompression ---- */

static int lz4_length(const uint8_t **p, const uint8_t *end, uint64_t *len)
{
    uint8_t b;
    if (*len != 15)
        return 0;
    do {
        if (*p >= end)
            return -1;
        b = *(*p)++;
        *len += b;
    } while (b == 255);
    return 0;
}

/* One LZ4 block (no frame).  Returns the bytes written, or -1 for a corrupt block. */
static int64_t lz4_block(const uint8_t *in, uint64_t in_len, uint8_t *out, uint64_t cap)
{
    const uint8_t *p = in, *end = in + in_len;
    uint64_t at = 0;
    while (p < end) {
        uint8_t token = *p++;
        uint64_t lit = token >> 4, match = token & 15;
        if (lz4_length(&p, end, &lit) || lit > (uint64_t)(end - p) || lit > cap - at)
            return -1;
        memcpy(out + at, p, lit);
        p += lit;
        at += lit;
        if (p == end)
            return (int64_t)at;
        if (end - p < 2)
            return -1;
        uint64_t back = p[0] | (uint64_t)p[1] << 8;
        p += 2;
        if (lz4_length(&p, end, &match) || !back || back > at || match + 4 > cap - at)
            return -1;
        for (match += 4; match; match--, at++)
            out[at] = out[at - back];
    }
    return (int64_t)at;
}

static size_t (*zstd_decompress)(void *, size_t, const void *, size_t);
static unsigned int (*zstd_is_error)(size_t);

static void zstd_load(void)
{
    void *lib = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return;
    *(void **)&zstd_is_error = dlsym(lib, "ZSTD_isError");
    *(void **)&zstd_decompress = dlsym(lib, "ZSTD_decompress");
}

static CUresult unpack(const struct entry *e, char *out, struct vm_text *why)
{
    if (!(e->flags & (FLAG_LZ4 | FLAG_ZSTD))) {
        memcpy(out, e->data, e->full);
        return CUDA_SUCCESS;
    }
    if (e->flags & FLAG_LZ4) {
        if (lz4_block(e->data, e->packed, (uint8_t *)out, e->full) != (int64_t)e->full)
            return fail(why, CUDA_ERROR_INVALID_IMAGE, "the image's LZ4 data is corrupt");
        return CUDA_SUCCESS;
    }
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, zstd_load);
    if (!zstd_decompress || !zstd_is_error)
        return fail(why, CUDA_ERROR_NOT_SUPPORTED,
                    "the image is compressed with zstd and libzstd.so.1 is not installed "
                    "(install libzstd1, or compile with -compress-mode=none)");
    size_t n = zstd_decompress(out, e->full, e->data, e->packed);
    if (zstd_is_error(n) || n != e->full)
        return fail(why, CUDA_ERROR_INVALID_IMAGE, "the image's zstd data is corrupt");
    return CUDA_SUCCESS;
}

static CUresult extract(const struct entry *e, char **ptx_out, size_t *len_out, struct vm_text *why)
{
    char *text = malloc(e->full + 1);
    if (!text)
        return fail(why, CUDA_ERROR_OUT_OF_MEMORY, "out of memory for the PTX text");
    CUresult r = unpack(e, text, why);
    if (r) {
        free(text);
        return r;
    }
    text[e->full] = 0;
    *len_out = strlen(text);
    *ptx_out = text;
    return CUDA_SUCCESS;
}

/* ---- containers ---- */

/* The text of the entry that was chosen, or why there is none. */
static CUresult found(const struct search *s, char **ptx_out, size_t *len_out, struct vm_text *why)
{
    if (s->best.data)
        return extract(&s->best, ptx_out, len_out, why);
    if (s->lowest_ptx == UINT32_MAX)
        return fail(
            why, CUDA_ERROR_NO_BINARY_FOR_GPU,
            "the image holds no PTX, only machine code: compile with PTX, e.g. -arch=sm_75");
    snprintf(why->s, sizeof(why->s),
             "the image's PTX is for compute_%u and newer, the device is sm_%d", s->lowest_ptx,
             s->arch);
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
}

static void consider(struct search *s, const uint8_t *h, uint64_t stored, uint32_t head)
{
    struct entry e = {.data = h + head, .stored = stored, .flags = get64(h + 0x28)};
    e.arch = get32(h + 0x1c);
    if ((h[0] | h[1] << 8) != KIND_PTX) {
        s->cubin = true;
        return;
    }
    bool packed = e.flags & (FLAG_LZ4 | FLAG_ZSTD);
    e.packed = packed ? get32(h + 0x10) : 0;
    e.full = packed ? get64(h + 0x38) : stored;
    if (e.packed > stored || e.full > MAX_TEXT)
        return;
    if (e.arch < s->lowest_ptx)
        s->lowest_ptx = e.arch;
    if ((int64_t)e.arch > s->arch || (s->best.data && s->best.arch >= e.arch))
        return;
    s->best = e;
}

static CUresult walk(struct search *s, const uint8_t *p, struct vm_text *why)
{
    if (!readable(s, p, 16) || get32(p) != (uint32_t)CONTAINER_MAGIC)
        return fail(why, CUDA_ERROR_INVALID_IMAGE, "not a fatbin container");
    uint64_t head = p[6] | (uint64_t)p[7] << 8, body = get64(p + 8);
    if (head < 16 || body > MAX_TEXT * 4 || !readable(s, p, head + body))
        return fail(why, CUDA_ERROR_INVALID_IMAGE, "the fatbin container is cut short");
    const uint8_t *at = p + head, *end = at + body;
    while (end - at >= 0x40) {
        uint32_t entry_head = get32(at + 4);
        uint64_t stored = get64(at + 8), left = (uint64_t)(end - at);
        if (entry_head < 0x40 || entry_head > left || stored > left - entry_head)
            return fail(why, CUDA_ERROR_INVALID_IMAGE, "a fatbin entry is cut short");
        consider(s, at, stored, entry_head);
        at += entry_head + stored;
    }
    return CUDA_SUCCESS;
}

/* What a search has found, as text behind that of the modules before it. */
static CUresult append(const struct search *s, char **text, size_t *len, struct vm_text *why)
{
    char *more = NULL;
    size_t n = 0;
    CUresult r = found(s, &more, &n, why);
    if (r || !*text) {
        *text = r ? *text : more;
        *len = r ? *len : n;
        return r;
    }
    char *both = realloc(*text, *len + n + 2);
    if (both) {
        both[*len] = PTX_NEXT_MODULE;
        memcpy(both + *len + 1, more, n + 1);
        *text = both;
        *len += n + 1;
    }
    free(more);
    return both ? CUDA_SUCCESS : fail(why, CUDA_ERROR_OUT_OF_MEMORY, "out of memory");
}

/* The containers that the linked one was made of: one module each.  Device linking adds empty ones.
 */
static CUresult link_parts(const uint8_t *const *part, const struct search *how, char **text,
                           size_t *len, struct vm_text *why)
{
    CUresult r = CUDA_SUCCESS;
    for (int i = 0; !r && part[i] && i < MAX_PARTS; i++) {
        struct search one = *how;
        r = walk(&one, part[i], why);
        if (!r && (one.cubin || one.lowest_ptx != UINT32_MAX))
            r = append(&one, text, len, why);
    }
    if (r)
        free(*text);
    return r;
}

/* Version 2: the linked container, and behind `extra` an array of those it was made of.  The
 * pointers are the program's own; a limit covers the wrapper alone. */
static CUresult walk_wrapper(const uint8_t *p, int arch, char **ptx_out, size_t *len_out,
                             struct vm_text *why)
{
    struct search s = {.arch = arch, .lowest_ptx = UINT32_MAX};
    const struct search fresh = s;
    const uint8_t *data = (const uint8_t *)(uintptr_t)get64(p + 8);
    const uint8_t *const *extra = (const uint8_t *const *)(uintptr_t)get64(p + 16);
    char *text = NULL;
    size_t len = 0;
    if (!data)
        return fail(why, CUDA_ERROR_INVALID_IMAGE, "the fatbin wrapper is empty");
    CUresult r = walk(&s, data, why);
    if (!r && !s.best.data && get32(p + 4) >= 2 && extra)
        r = link_parts(extra, &fresh, &text, &len, why);
    if (r)
        return r;
    if (!text)
        return found(&s, ptx_out, len_out, why);
    *ptx_out = text;
    *len_out = len;
    return CUDA_SUCCESS;
}

static bool looks_like_text(const struct search *s, const uint8_t *p)
{
    for (int i = 0; i < 4096 && readable(s, p + i, 1); i++) {
        if (p[i] == '.' || p[i] == '/')
            return true;
        if (p[i] != ' ' && p[i] != '\t' && p[i] != '\n' && p[i] != '\r')
            return false;
    }
    return false;
}

CUresult vm_image_ptx(const void *image, size_t limit, int arch, char **ptx_out, size_t *len_out,
                      struct vm_text *why)
{
    const uint8_t *p = image;
    struct search s = {.from = p, .arch = arch, .lowest_ptx = UINT32_MAX};
    if (limit <= PTRDIFF_MAX && limit <= UINTPTR_MAX - (uintptr_t)p)
        s.to = p + limit;
    why->s[0] = 0;
    if (!p || !readable(&s, p, 4))
        return fail(why, CUDA_ERROR_INVALID_IMAGE, "the image is empty");
    if (get32(p) == WRAPPER_MAGIC && readable(&s, p, 24))
        return limit == SIZE_MAX
                   ? walk_wrapper(p, arch, ptx_out, len_out, why)
                   : fail(why, CUDA_ERROR_INVALID_IMAGE,
                          "a fatbin wrapper holds addresses: it cannot be read as bytes");
    if (get32(p) == (uint32_t)CONTAINER_MAGIC) {
        CUresult r = walk(&s, p, why);
        return r ? r : found(&s, ptx_out, len_out, why);
    }
    if (get32(p) == 0x464c457f) {
        return fail(why, CUDA_ERROR_NO_BINARY_FOR_GPU,
                    "the image is machine code (a cubin): the software GPU runs PTX, compile with "
                    "it, e.g. -arch=sm_75");
    }
    if (looks_like_text(&s, p)) {
        size_t n = s.to ? strnlen(image, limit) : strlen(image);
        struct entry e = {.data = p, .full = n};
        return extract(&e, ptx_out, len_out, why);
    }
    return fail(why, CUDA_ERROR_INVALID_IMAGE, "the image is neither a fatbin nor PTX");
}
