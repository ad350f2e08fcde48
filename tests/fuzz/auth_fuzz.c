/* Any messages in place of those of a proof of identity, to either side: no step may crash, and
 * none may end in a proof, because whoever made the bytes has no key.  Input: a byte that says
 * which side, then messages, each a byte for its type, a byte for what its beginning is made of,
 * two for its length, its bytes. */
#include <stdlib.h>
#include <string.h>

#include "transport/auth.h"
#include "transport/seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HELLO = 0x7e000001, GREETING = 72 };

/* A greeting that is right as far as it can be, so that the fuzzer gets past it. */
static void greeting_make(uint8_t *body, size_t len, uint8_t method)
{
    const uint32_t head[2] = {1, method % 4};

    if (len >= GREETING)
        memcpy(body, head, sizeof(head));
}

static size_t message_make(const uint8_t *data, size_t size, struct tfr_boot_msg *msg)
{
    size_t len = (size_t)data[2] | (size_t)data[3] << 8;

    if (len > size - 4)
        len = size - 4;
    *msg = (struct tfr_boot_msg){.type = HELLO - 1 + data[0] % 7, .len = (uint32_t)len};
    msg->body = len ? malloc(len) : NULL;
    if (len && msg->body) {
        memcpy(msg->body, data + 4, len);
        greeting_make(msg->body, len, data[1]);
    }
    return 4 + len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tfr_auth_cfg cfg = {.method = TFR_AUTH_KEY, .key = "what nobody knows"};
    struct tfr_boot_msg in, out;
    struct tfr_auth *auth;
    tfr_status status = TFR_AGAIN;

    if (size < 1 || !tfr_sodium())
        return 0;
    auth = tfr_auth_new(&cfg, data[0] & 1);
    if (!auth)
        return 0;
    if (data[0] & 1)
        tfr_auth_begin(auth, &out);
    data++, size--;
    while (size >= 4 && status == TFR_AGAIN) {
        size_t used = message_make(data, size, &in);
        data += used, size -= used;
        status = tfr_auth_step(auth, &in, &out);
        if (out.type && (out.len > TFR_AUTH_MAX || (out.len && !out.body)))
            abort();
        if (status == TFR_OK || strlen(tfr_auth_why(auth)) >= TFR_AUTH_WHY_MAX)
            abort();
        tfr_boot_msg_fini(&in);
    }
    tfr_auth_free(auth);
    return 0;
}
