/* Releases compared.  Nothing here trusts the peer's rows: they may name calls twice, or none that
 * exist. */
#include "proto/edition.h"

#include <stdio.h>
#include <string.h>

#include "tfr_ops.h"

static_assert(TFR_CALL_N <= TFR_CALLS_MAX, "all calls travel in hello");

void tfr_edition_make(const char *release, struct tfr_edition *edition_out, void *calls_out)
{
    uint8_t *at = calls_out;
    *edition_out = (struct tfr_edition){.magic = TFR_WIRE_MAGIC,
                                        .version = TFR_WIRE_VERSION,
                                        .spec_hash = TFR_SPEC_HASH,
                                        .core_hash = TFR_CORE_HASH,
                                        .call_n = TFR_CALL_N};
    for (unsigned op = 0; op < TFR_OP_LIMIT; op++) {
        struct tfr_edition_call call = {.op = (uint16_t)op, .hash = tfr_op_hash(op)};
        if (!call.hash)
            continue;
        memcpy(at, &call, sizeof call);
        at += sizeof call;
    }
    memcpy(edition_out->release, release, strnlen(release, sizeof edition_out->release - 1));
}

static struct tfr_edition_call call_at(const void *calls, uint32_t at)
{
    struct tfr_edition_call call;
    memcpy(&call, (const uint8_t *)calls + at * sizeof call, sizeof call);
    return call;
}

bool tfr_edition_suits(const struct tfr_edition *peer, const void *calls, char *cause_out)
{
    *cause_out = 0;
    if (peer->version == TFR_WIRE_VERSION && peer->spec_hash == TFR_SPEC_HASH)
        return true;
    if (peer->version != TFR_WIRE_VERSION)
        return false;
    if (peer->core_hash != TFR_CORE_HASH) {
        snprintf(cause_out, TFR_EDITION_WHY_MAX, ", and their shared memory differs");
        return false;
    }
    for (uint32_t i = 0; i < peer->call_n; i++) {
        struct tfr_edition_call call = call_at(calls, i);
        if (!tfr_op_hash(call.op) || tfr_op_hash(call.op) == call.hash)
            continue;
        snprintf(cause_out, TFR_EDITION_WHY_MAX, ", and they disagree on %s", tfr_op_name(call.op));
        return false;
    }
    return true;
}

/* Printable ASCII alone: it ends on somebody's terminal. */
static const char *release_text(const struct tfr_edition *edition, char *room)
{
    size_t n = strnlen(edition->release, sizeof edition->release - 1);
    for (size_t i = 0; i < n; i++)
        room[i] =
            edition->release[i] >= ' ' && edition->release[i] < 127 ? edition->release[i] : '?';
    room[n] = 0;
    return n ? room : "another release";
}

void tfr_edition_refusal(const struct tfr_edition *executor, const struct tfr_edition *client,
                         const char *cause, char *why_out)
{
    char its[sizeof executor->release], ours[sizeof client->release];
    snprintf(
        why_out, TFR_EDITION_WHY_MAX,
        "the executor's TFR is %s (wire %u), the program's is %s (wire %u)%s: install the same "
        "release on both sides",
        release_text(executor, its), executor->version, release_text(client, ours), client->version,
        cause);
}

bool tfr_edition_knows(const struct tfr_edition *peer, const void *calls, unsigned op)
{
    if (peer->spec_hash == TFR_SPEC_HASH)
        return tfr_op_hash(op) != 0;
    for (uint32_t i = 0; i < peer->call_n; i++)
        if (call_at(calls, i).op == op)
            return true;
    return false;
}
