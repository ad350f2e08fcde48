/* tcp moves memory that nobody registered.  Where there is none, the transfer fails and not the
 * link. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../../pair.h"

enum { LEN = 1 << 20 };
#define NOT_DONE ((tfr_status)12345)

static struct pair_end ends[2];
static _Atomic tfr_status status;

static void done(void *arg, tfr_status what)
{
    (void)arg;
    status = what;
}

static tfr_status wait_done(void)
{
    while (status == NOT_DONE) {
        cr_assert_eq(pair_drive(&ends[0]), TFR_OK);
        cr_assert_eq(pair_drive(&ends[1]), TFR_OK);
    }
    return status;
}

/* `there` bytes of LEN can be had. */
static uint8_t *memory(size_t there)
{
    uint8_t *at = mmap(NULL, LEN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(at, MAP_FAILED);
    if (there) {
        cr_assert_eq(mprotect(at, there, PROT_READ | PROT_WRITE), 0);
        memset(at, 7, there);
    }
    return at;
}

static tfr_status put(uint8_t *from)
{
    const struct tfr_xfer xfer = {
        .channel = 1, .local = from, .peer = ends[0].peer, .len = LEN, .done = done};
    status = NOT_DONE;
    pair_put(&ends[0], &xfer);
    return wait_done();
}

static tfr_status get(uint8_t *to)
{
    const struct tfr_xfer xfer = {
        .channel = 1, .local = to, .peer = ends[0].peer, .len = LEN, .done = done};
    status = NOT_DONE;
    cr_assert_eq(ends[0].ops->get(ends[0].link, &xfer), TFR_OK);
    return wait_done();
}

static void set_up(void)
{
    pair_open_both(ends, "tcp", LEN);
}
TestSuite(gone, .init = set_up, .timeout = 240);

Test(gone, memory_that_cannot_be_read_fails_a_put_and_no_link)
{
    uint8_t *good = memory(LEN);
    for (size_t there = 0; there < LEN; there += LEN / 4 + 4096) {
        cr_assert_eq(put(memory(there)), TFR_E_INVAL, "%zu bytes are there", there);
        memset(good, 20 + (int)(there >> 16), LEN);
        cr_assert_eq(put(good), TFR_OK);
        while (memcmp(ends[1].area.addr, good, LEN) != 0) /* the limit is the test's */
            cr_assert_eq(pair_drive(&ends[0]), TFR_OK);
    }
}

Test(gone, memory_that_cannot_be_written_fails_a_get_and_no_link)
{
    uint8_t *good = memory(LEN);
    memset(ends[1].area.addr, 9, LEN);
    for (size_t there = 128 << 10; there < LEN; there += LEN / 4 + 4096) {
        cr_assert_eq(get(memory(there)), TFR_E_INVAL, "%zu bytes are there", there);
        memset(good, 0, LEN);
        cr_assert_eq(get(good), TFR_OK);
        cr_assert_arr_eq(ends[1].area.addr, good, LEN);
    }
}
