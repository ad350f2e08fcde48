/* Hello: made and checked in one place, so that both sides agree on what may travel.  A variable
 * that names a path or a descriptor never does. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/hello.h"
#include "tfr_ops.h"

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

uint32_t tfr_hello_make(void *body)
{
    struct tfr_hello hello = {.magic = TFR_WIRE_MAGIC,
                              .version = TFR_WIRE_VERSION,
                              .spec_hash = TFR_SPEC_HASH,
                              .pid = (uint32_t)getpid()};
    const char *name = program_invocation_short_name;
    memcpy(hello.program, name, strnlen(name, sizeof hello.program - 1));
    hello.env_len = tfr_hello_env((char *)body + sizeof hello, TFR_HELLO_ENV_MAX);
    memcpy(body, &hello, sizeof hello);
    return (uint32_t)sizeof hello + hello.env_len;
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

const char *tfr_hello_check(const void *body, uint32_t len, bool *other_release_out)
{
    struct tfr_hello hello = {0};
    *other_release_out = false;
    if (len < offsetof(struct tfr_hello, pid))
        return "no hello";
    memcpy(&hello, body, len < sizeof hello ? len : sizeof hello);
    if (hello.magic != TFR_WIRE_MAGIC)
        return "no hello";
    if (hello.version != TFR_WIRE_VERSION || hello.spec_hash != TFR_SPEC_HASH) {
        *other_release_out = true;
        return "another release";
    }
    if (len < sizeof hello || hello.env_len > TFR_HELLO_ENV_MAX ||
        len != sizeof hello + hello.env_len)
        return "a hello of the wrong size";
    if (!env_good((const char *)body + sizeof hello, hello.env_len))
        return "a hello with settings that do not travel";
    return NULL;
}
