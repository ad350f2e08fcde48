/* Images: how long they are, and sending each content once per session.
 * A bare pointer is all that a program gives; the length comes out of the headers, as for the
 * driver. */
#define TFR_LOG_PART "intercept"
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "intercept/memory.h"
#include "intercept/module.h"

enum { WRAPPER_MAGIC = 0x466243b1 };
static const uint32_t fatbin_magic = 0xba55ed50u;

struct wrapper {
    uint32_t magic, version;
    const void *data;
    const void *extra;
};

struct fatbin {
    uint32_t magic;
    uint16_t version, header_len;
    uint64_t body_len;
};

static uint64_t elf_len(const Elf64_Ehdr *elf)
{
    const uint8_t *base = (const uint8_t *)elf;
    uint64_t end = elf->e_shoff + (uint64_t)elf->e_shnum * elf->e_shentsize;
    uint64_t segments = elf->e_phoff + (uint64_t)elf->e_phnum * elf->e_phentsize;
    if (segments > end)
        end = segments;
    const Elf64_Shdr *section = (const Elf64_Shdr *)(base + elf->e_shoff);
    for (int i = 0; elf->e_shoff && i < elf->e_shnum; i++) {
        uint64_t last = section[i].sh_offset + section[i].sh_size;
        if (section[i].sh_type != SHT_NOBITS && last > end)
            end = last;
    }
    return end;
}

static bool looks_like_text(const char *text)
{
    for (int i = 0; i < 4; i++)
        if (!text[i] || ((unsigned char)text[i] < 0x20 && !strchr("\t\r\n", text[i])) ||
            (unsigned char)text[i] > 0x7e)
            return false;
    return true;
}

/* A fatbin's bytes by its header; what is behind them is somebody else's. */
static uint64_t fatbin_len(const void *image)
{
    struct fatbin f;
    memcpy(&f, image, sizeof f);
    return f.header_len + f.body_len;
}

bool tfr_image_bytes(const void *image, const void **start_out, uint64_t *len_out)
{
    uint32_t magic;
    memcpy(&magic, image, sizeof magic);
    if (magic == WRAPPER_MAGIC) {
        struct wrapper w;
        memcpy(&w, image, sizeof w);
        image = w.data;
        if (!image)
            return false;
        memcpy(&magic, image, sizeof magic);
    }
    *start_out = image;
    if (magic == fatbin_magic) {
        *len_out = fatbin_len(image);
        return true;
    }
    if (memcmp(image, ELFMAG, SELFMAG) == 0) {
        *len_out = elf_len(image);
        return true;
    }
    if (looks_like_text(image)) {
        *len_out = strlen(image) + 1;
        return true;
    }
    return false;
}

/* Relocatable code: behind `data`, the linked container, stand those it was made of.  They travel
 * end to end; the executor makes a wrapper of them again. */
bool tfr_image_parts(const void *image, void **copy_out, uint64_t *len_out)
{
    struct wrapper w;
    memcpy(&w, image, sizeof w.magic);
    if (w.magic != WRAPPER_MAGIC)
        return false;
    memcpy(&w, image, sizeof w);
    const void *const *extra = w.extra;
    if (w.version != 2 || !w.data || !extra || !extra[0])
        return false;
    uint64_t len = fatbin_len(w.data);
    int n = 0;
    for (; n < TFR_IMAGE_PARTS_MAX && extra[n]; n++)
        len += fatbin_len(extra[n]);
    uint8_t *copy = malloc(len), *at = copy;
    if (!copy)
        return false;
    for (int i = -1; i < n; i++) {
        const void *part = i < 0 ? w.data : extra[i];
        memcpy(at, part, fatbin_len(part));
        at += fatbin_len(part);
    }
    *copy_out = copy;
    *len_out = len;
    return true;
}

/* ---- sent once ---- */

struct sent {
    struct sent *next;
    uint64_t len, hash[2], id;
    uint32_t users;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below, and uploads */
static struct sent *sent_images;                         /* what was used last stands first */
static uint64_t sent_bytes;

/* Two independent multiply-xor streams over 16-byte blocks: 128 bits, to know our own images again.
 */
static void image_hash(const uint8_t *bytes, uint64_t len, uint64_t hash[2])
{
    uint64_t a = 0x9e3779b97f4a7c15ull ^ len, b = 0xc2b2ae3d27d4eb4full + len, word[2];
    for (uint64_t at = 0; at < len; at += sizeof word) {
        uint64_t n = len - at < sizeof word ? len - at : sizeof word;
        word[0] = word[1] = 0;
        memcpy(word, bytes + at, n);
        a = (a ^ word[0]) * 0xff51afd7ed558ccdull;
        a = (a << 29 | a >> 35) + word[1];
        b = (b + word[1]) * 0xc4ceb9fe1a85ec53ull;
        b = (b << 31 | b >> 33) ^ word[0];
    }
    hash[0] = a ^ a >> 33;
    hash[1] = b ^ b >> 29;
}

/* As much from `at` on as there is room for: *n_out bytes. */
static CUresult put_piece(uint64_t id, const uint8_t *bytes, uint64_t total, uint64_t at,
                          uint64_t *n_out)
{
    struct tfr_extent extent;
    uint64_t n = total - at < TFR_LANE_CHUNK ? total - at : TFR_LANE_CHUNK;
    CUresult result = tfr_lane_take_some(&n, &extent);
    if (result != CUDA_SUCCESS)
        return result;
    extent.lane = 0; /* the executor's CPU reads it; the same bytes of ours */
    uint64_t stamp;
    memcpy(tfr_extent_twin(&extent), bytes + at, n);
    struct tfr_ask ask = {.result = tfr_lane_ship(&extent, n, &stamp)};
    struct tfr_image_put_req *req = NULL;
    if (ask.result == CUDA_SUCCESS)
        req = tfr_ask_begin(&ask, TFR_OP_image_put, sizeof *req);
    if (req) {
        req->image = id;
        req->total = total;
        req->at = at;
        req->lane_at = tfr_extent_place(&extent);
        req->len = n;
        req->stamp = stamp;
        tfr_ask_send(&ask, 0);
        result = tfr_ask_end(&ask);
        TFR_COUNT(bytes_image, n);
    } else {
        result = ask.result;
    }
    tfr_lane_free(extent);
    *n_out = n;
    return result;
}

static CUresult image_send(const uint8_t *bytes, uint64_t len, struct sent *sent)
{
    CUresult result = tfr_handle_new(TFR_KIND_IMAGE, &sent->id);
    for (uint64_t at = 0, n = 0; result == CUDA_SUCCESS && at < len; at += n)
        result = put_piece(sent->id, bytes, len, at, &n);
    return result;
}

/* The executor keeps it no longer. */
static void sent_drop(struct sent *s)
{
    struct tfr_ask ask;
    struct tfr_image_free_req *req =
        s->id ? tfr_ask_begin(&ask, TFR_OP_image_free, sizeof *req) : NULL;
    if (req) {
        req->image = s->id;
        tfr_ask_send(&ask, 0);
        tfr_ask_end(&ask);
    }
    if (s->id)
        tfr_handle_drop(TFR_KIND_IMAGE, s->id);
    free(s);
}

/* Those that were used last stay, as far as they go: a program may load any number. */
static void sent_trim(void)
{
    uint64_t most = tfr_env_u64("TFR_IMAGE_CACHE");
    if (sent_bytes <= most ||
        tfr_client.lacks[TFR_OP_image_free / 64] >> TFR_OP_image_free % 64 & 1)
        return;
    uint64_t kept = 0;
    for (struct sent **at = &sent_images, *s; (s = *at);) {
        kept += s->len;
        if (kept <= most || s->users) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        kept -= s->len;
        sent_bytes -= s->len;
        sent_drop(s);
        TFR_COUNT(images_dropped, 1);
    }
}

/* NULL: it was not sent yet, or is there no more. */
static struct sent *sent_find(uint64_t len, const uint64_t hash[2])
{
    struct sent **at = &sent_images, *s;
    while ((s = *at) && (s->len != len || s->hash[0] != hash[0] || s->hash[1] != hash[1]))
        at = &s->next;
    if (s)
        *at = s->next;
    return s;
}

CUresult tfr_image_upload(const void *start, uint64_t len, uint64_t *id_out)
{
    uint64_t hash[2];
    image_hash(start, len, hash);
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    struct sent *s = sent_find(len, hash);
    if (!s) {
        s = calloc(1, sizeof *s);
        result = s ? image_send(start, len, s) : CUDA_ERROR_OUT_OF_MEMORY;
        if (result == CUDA_SUCCESS) {
            s->len = len;
            s->hash[0] = hash[0];
            s->hash[1] = hash[1];
            sent_bytes += len;
        } else if (s) {
            sent_drop(s);
        }
    }
    if (result == CUDA_SUCCESS) {
        s->next = sent_images;
        sent_images = s;
        s->users++;
        *id_out = s->id;
        sent_trim();
    }
    pthread_mutex_unlock(&lock);
    return result;
}

void tfr_image_release(uint64_t id)
{
    pthread_mutex_lock(&lock);
    struct sent *s = sent_images;
    while (s && s->id != id)
        s = s->next;
    if (s && s->users) { /* it may be another session's by now */
        s->users--;
        sent_trim();
    }
    pthread_mutex_unlock(&lock);
}

void tfr_image_forget_all(void)
{
    pthread_mutex_lock(&lock);
    while (sent_images) {
        struct sent *s = sent_images;
        sent_images = s->next;
        free(s);
    }
    sent_bytes = 0;
    pthread_mutex_unlock(&lock);
    tfr_handle_clear(TFR_KIND_IMAGE, NULL);
}
