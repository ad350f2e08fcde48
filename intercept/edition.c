/* The executor's release: can we work with it, and which of our calls does it not know?  Such a
 * call answers not-supported without a record.  Called at connection, and by client.c for each
 * record. */
#define TFR_LOG_PART "intercept"
#include "proto/edition.h"

#include <string.h>

#include "base/log.h"
#include "intercept/client.h"
#include "proto/hello.h"
#include "tfr_ops.h"

static void lacks_note(const struct tfr_edition *its, const void *calls)
{
    tfr_client.lacks_any = false;
    memset(tfr_client.lacks, 0, sizeof tfr_client.lacks);
    for (unsigned op = 0; op < TFR_OP_LIMIT; op++)
        if (tfr_op_hash(op) && !tfr_edition_knows(its, calls, op)) {
            tfr_client.lacks[op / 64] |= 1ull << op % 64;
            tfr_client.lacks_any = true;
        }
}

bool tfr_edition_take(const struct tfr_snapshot *snapshot, size_t len)
{
    static struct tfr_edition_call calls[TFR_CALLS_MAX]; /* under set_up_lock */
    char cause[TFR_EDITION_WHY_MAX] = "", why[TFR_EDITION_WHY_MAX];
    struct tfr_edition own, its = {0};
    if (len >= sizeof its && snapshot->edition.magic == TFR_WIRE_MAGIC)
        its = snapshot->edition;
    if (its.magic && its.version == TFR_WIRE_VERSION && its.call_n <= TFR_CALLS_MAX &&
        len == sizeof *snapshot + its.call_n * sizeof calls[0] &&
        tfr_edition_suits(&its, snapshot + 1, cause)) {
        lacks_note(&its, snapshot + 1);
        return true;
    }
    tfr_edition_make(tfr_release, &own, calls);
    tfr_edition_refusal(&its, &own, cause, why);
    tfr_say("%s", why);
    return false;
}

CUresult tfr_edition_check(uint16_t op)
{
    static _Atomic uint64_t told[sizeof tfr_client.lacks / sizeof(uint64_t)];
    uint64_t bit = 1ull << op % 64;
    if (!(tfr_client.lacks[op / 64] & bit))
        return CUDA_SUCCESS;
    if (!(atomic_fetch_or_explicit(&told[op / 64], bit, memory_order_relaxed) & bit))
        tfr_warn("the executor is of an older release and does not know %s: not supported until it "
                 "is updated",
                 tfr_op_name(op));
    return CUDA_ERROR_NOT_SUPPORTED;
}
