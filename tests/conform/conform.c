/* Which transports the conformance suite runs over.  Asked by Criterion once per test, before the
 * tests: the lab names verbs and what goes over it, which no other machine has. */
#include <stdlib.h>

#include "tests/conform/conform.h"

static const char everywhere[] = "shm,fault";

size_t conform_transports(struct transport_param params[CONFORM_TRANSPORT_MAX])
{
    const char *at = getenv("TFR_TEST_TRANSPORTS");
    size_t n = 0;

    if (!at || !*at)
        at = everywhere;
    for (; *at && n < CONFORM_TRANSPORT_MAX; at += *at == ',') {
        size_t len = strcspn(at, ",");

        if (len > 0 && len < sizeof(params->name)) {
            memcpy(params[n].name, at, len);
            params[n++].name[len] = 0;
        }
        at += len;
    }
    return n;
}
