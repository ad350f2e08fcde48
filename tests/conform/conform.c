/* What the conformance suite shares, and which transports it runs over.  That is asked by Criterion
 * once per test, before the tests: the lab names verbs and what goes over it, which no other
 * machine has. */
#include <stdlib.h>

#include "tests/conform/conform.h"

static const char everywhere[] = "shm,fault,tcp,fault:tcp";

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

static void *driver_main(void *arg)
{
    struct driver *driver = arg;

    while (!atomic_load(&driver->stop))
        driver->end->ops->progress(driver->end->link);
    return NULL;
}

void driver_start(struct driver *driver, struct pair_end *end)
{
    driver->end = end;
    atomic_init(&driver->stop, false);
    cr_assert_eq(pthread_create(&driver->thread, NULL, driver_main, driver), 0);
}

void driver_stop(struct driver *driver)
{
    atomic_store(&driver->stop, true);
    pthread_join(driver->thread, NULL);
}
