/* Connecting and asking, for tf-run (addresses), tf-info and tf-stat. */
#define TFR_LOG_PART "tools"
#include "tools/ask.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "proto/hello.h"

enum { ANSWER_MS = 5000, PATIENCE_MS = 2000 };

bool tfr_ask_addresses_good(const char *list)
{
    while (*list) {
        size_t len = strcspn(list, ",");
        char *addr = strndup(list, len);
        const char *why = "out of memory";
        bool good = addr && tfr_boot_addr_good(addr, &why);
        if (!good)
            tfr_say("\"%.*s\" is no address of an executor: %s", (int)len, list, why);
        free(addr);
        if (!good)
            return false;
        list += len + (list[len] == ',');
    }
    return true;
}

bool tfr_ask_connect(const char *list, char *addr_out, struct tfr_boot *boot_out)
{
    int limit_ms = (int)tfr_env_u64("TFR_CONNECT_MS");
    tfr_status status = tfr_boot_connect_any(list, limit_ms, addr_out, boot_out);
    if (status == TFR_E_PEER)
        tfr_say("no executor reachable at %s: start one there (tf-executor --listen %s), or check "
                "address, port and firewall",
                list, strchr(list, ',') ? "ADDRESS" : list);
    return status == TFR_OK;
}

bool tfr_ask(struct tfr_boot *boot, uint32_t type, uint32_t want, struct tfr_boot_msg *msg_out)
{
    uint8_t hello[TFR_HELLO_MAX];
    struct tfr_boot_msg msg = {
        .type = type, .len = tfr_hello_make(tfr_release, hello), .body = hello};
    tfr_status status = tfr_boot_send(boot, &msg, ANSWER_MS);
    if (status == TFR_E_PEER)
        status = TFR_OK; /* it may have said why before it went */
    uint64_t begin = tfr_clock_now();
    bool told = false;
    while (status == TFR_OK) {
        status = tfr_boot_recv(boot, msg_out, ANSWER_MS);
        if (status != TFR_OK || msg_out->type == want)
            break;
        bool refused = msg_out->type == TFR_BOOT_REFUSED, queued = msg_out->type == TFR_BOOT_QUEUED;
        if (!queued)
            tfr_say("the executor %s: %.*s", refused ? "refused" : "spoke out of turn",
                    refused ? (int)msg_out->len : 0, refused ? (const char *)msg_out->body : "");
        tfr_boot_msg_fini(msg_out);
        if (!queued)
            return false;
        if (!told && tfr_clock_now() - begin > PATIENCE_MS * TFR_NS_PER_MS) {
            tfr_say("the executor is still starting: waiting for it");
            told = true;
        }
    }
    if (status != TFR_OK)
        tfr_say("the executor did not answer: %s", tfr_status_str(status));
    return status == TFR_OK;
}

void tfr_ask_tame(char *text, size_t room)
{
    text[room - 1] = 0;
    for (; *text; text++)
        if (*text < ' ' || *text > '~')
            *text = '?';
}
