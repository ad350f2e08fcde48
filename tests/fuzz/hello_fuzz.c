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
    bool other;
    struct tfr_hello hello = {.magic = TFR_WIRE_MAGIC,
                              .version = TFR_WIRE_VERSION,
                              .spec_hash = TFR_SPEC_HASH,
                              .env_len = (uint32_t)size};
    uint8_t *body = malloc(sizeof hello + size);

    tfr_hello_check(data, (uint32_t)size, &other);
    if (!body)
        return 0;
    memcpy(body, &hello, sizeof hello);
    if (size)
        memcpy(body + sizeof hello, data, size);
    if (!tfr_hello_check(body, (uint32_t)(sizeof hello + size), &other)) {
        const char *text = (const char *)body + sizeof hello;
        if (size > TFR_HELLO_ENV_MAX || (size && text[size - 1]))
            abort();
        for (size_t at = 0; at < size; at += strlen(text + at) + 1)
            if (strncmp(text + at, "CUDA_", 5) != 0 || strpbrk(text + at, "/$ \n"))
                abort();
    }
    free(body);
    return 0;
}
