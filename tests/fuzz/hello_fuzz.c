/* Any bytes as a hello: the check must neither crash nor let settings through that an executor
 * would put into a worker's environment and should not.  The first bytes are made right, so that
 * the fuzzer gets past them. */
#include <stdlib.h>
#include <string.h>

#include "proto/hello.h"
#include "tfr_ops.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* The first byte says how many calls lead the rest. */
    uint32_t call_n = size ? data[0] % 4 : 0;
    size_t calls = call_n * sizeof(struct tfr_edition_call);
    struct tfr_edition its;
    char cause[TFR_EDITION_WHY_MAX];
    struct tfr_hello hello = {.edition = {.magic = TFR_WIRE_MAGIC,
                                          .version = TFR_WIRE_VERSION,
                                          .core_hash = TFR_CORE_HASH,
                                          .call_n = call_n},
                              .env_len = (uint32_t)(size - calls)};
    uint8_t *body = malloc(sizeof hello + size);

    tfr_hello_check(data, (uint32_t)size, &its, cause);
    if (!body || size < calls) {
        free(body);
        return 0;
    }
    memcpy(body, &hello, sizeof hello);
    if (size)
        memcpy(body + sizeof hello, data, size);
    if (!tfr_hello_check(body, (uint32_t)(sizeof hello + size), &its, cause)) {
        const char *text = tfr_hello_settings((const struct tfr_hello *)body);
        size -= calls;
        if (size > TFR_HELLO_ENV_MAX || (size && text[size - 1]))
            abort();
        for (size_t at = 0; at < size; at += strlen(text + at) + 1)
            if (strncmp(text + at, "CUDA_", 5) != 0 || strpbrk(text + at, "/$ \n"))
                abort();
    }
    free(body);
    return 0;
}
