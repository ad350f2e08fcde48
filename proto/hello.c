/* Hello: made and checked in one place, so that both sides agree on what may travel.  A variable
 * that names a path or a descriptor never does. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/hello.h"

enum { VALUE_MAX = 64 };

const char *const tfr_hello_names[] = {"CUDA_AUTO_BOOST",
                                       "CUDA_BINARY_LOADER_THREAD_COUNT",
                                       "CUDA_CACHE_DISABLE",
                                       "CUDA_DEVICE_MAX_CONNECTIONS",
                                       "CUDA_DEVICE_MAX_COPY_CONNECTIONS",
                                       "CUDA_DISABLE_PERF_BOOST",
                                       "CUDA_DISABLE_PTX_JIT",
                                       "CUDA_FORCE_PTX_JIT",
                                       "CUDA_GRAPHS_USE_NODE_PRIORITY",
                                       "CUDA_LAUNCH_BLOCKING",
                                       "CUDA_MODULE_DATA_LOADING",
                                       "CUDA_MODULE_LOADING",
                                       "CUDA_SCALE_LAUNCH_QUEUES",
                                       NULL};

static bool value_good(const char *value, size_t len)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "._%+-";
    return len < VALUE_MAX && strspn(value, allowed) == len;
}

uint32_t tfr_hello_env(char *text, size_t room)
{
    size_t at = 0;
    for (const char *const *name = tfr_hello_names; *name; name++) {
        const char *value = getenv(*name);
        size_t name_len = strlen(*name), len = value ? strlen(value) : 0;
        if (!value || !value_good(value, len) || name_len + len + 2 > room - at)
            continue;
        memcpy(text + at, *name, name_len);
        text[at + name_len] = '=';
        memcpy(text + at + name_len + 1, value, len + 1);
        at += name_len + len + 2;
    }
    return (uint32_t)at;
}

uint32_t tfr_hello_make(const char *release, void *body)
{
    struct tfr_hello hello = {.pid = (uint32_t)getpid()};
    uint8_t *at = (uint8_t *)body + sizeof hello;
    const char *name = program_invocation_short_name;
    memcpy(hello.program, name, strnlen(name, sizeof hello.program - 1));
    tfr_edition_make(release, &hello.edition, at);
    at += hello.edition.call_n * sizeof(struct tfr_edition_call);
    hello.env_len = tfr_hello_env((char *)at, TFR_HELLO_ENV_MAX);
    memcpy(body, &hello, sizeof hello);
    return (uint32_t)(at - (uint8_t *)body) + hello.env_len;
}

/* Known names alone, in the table's order, each once: equal settings are then equal bytes. */
static bool env_good(const char *text, uint32_t len)
{
    const char *const *name = tfr_hello_names;
    while (len) {
        size_t entry = strnlen(text, len);
        const char *eq = memchr(text, '=', entry);
        if (entry == len || !eq)
            return false;
        size_t name_len = (size_t)(eq - text);
        while (*name && (strncmp(*name, text, name_len) != 0 || (*name)[name_len]))
            name++;
        if (!*name++ || !value_good(eq + 1, entry - name_len - 1))
            return false;
        text += entry + 1;
        len -= (uint32_t)entry + 1;
    }
    return true;
}

const char *tfr_hello_settings(const struct tfr_hello *hello)
{
    return (const char *)(hello + 1) + hello->edition.call_n * sizeof(struct tfr_edition_call);
}

const char *tfr_hello_check(const void *body, uint32_t len, struct tfr_edition *edition_out,
                            char *cause_out)
{
    struct tfr_hello hello = {0};
    edition_out->magic = 0;
    if (len < offsetof(struct tfr_edition, core_hash))
        return "no hello";
    memcpy(&hello, body, len < sizeof hello ? len : sizeof hello);
    if (hello.edition.magic != TFR_WIRE_MAGIC)
        return "no hello";
    if (hello.edition.version != TFR_WIRE_VERSION) {
        memset(hello.edition.release, 0, sizeof hello.edition.release); /* it may lie elsewhere */
        *edition_out = hello.edition;
        *cause_out = 0;
        return "another release";
    }
    if (len < sizeof hello || hello.env_len > TFR_HELLO_ENV_MAX ||
        hello.edition.call_n > TFR_CALLS_MAX ||
        len !=
            sizeof hello + hello.edition.call_n * sizeof(struct tfr_edition_call) + hello.env_len)
        return "a hello of the wrong size";
    if (!tfr_edition_suits(&hello.edition, (const struct tfr_hello *)body + 1, cause_out)) {
        *edition_out = hello.edition;
        return "another release";
    }
    if (!env_good(tfr_hello_settings(body), hello.env_len))
        return "a hello with settings that do not travel";
    return NULL;
}
