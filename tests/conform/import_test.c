/* Memory that the peer shows: checked before it is mapped, mapped only where that is offered. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/conform/conform.h"

enum { AREA = 64 << 10, SEALS = F_SEAL_SHRINK | F_SEAL_GROW };

static int memfd_make(size_t len, int seals)
{
    int fd = memfd_create("test", MFD_ALLOW_SEALING);

    cr_assert_eq(ftruncate(fd, (off_t)len), 0);
    if (seals)
        cr_assert_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void refused(struct pair_end *end, int fd, uint64_t len, uint64_t at, const char *what)
{
    struct tfr_key key = {.len = len, .words = {at}, .fd = fd};
    struct tfr_peer_mem *peer;

    cr_assert_neq(end->ops->import(end->link, &key, &peer), TFR_OK, "%s", what);
    if (fd >= 0)
        cr_assert_eq(fcntl(fd, F_GETFD), -1, "%s: the descriptor is consumed", what);
}

CONFORM_TEST(import, refuses_memory_that_could_fault)
{
    struct pair_end ends[2];

    pair_open_both(ends, param->name, AREA);
    refused(&ends[0], memfd_make(AREA, 0), AREA, 0, "no seals");
    refused(&ends[0], memfd_make(AREA, F_SEAL_GROW), AREA, 0, "may shrink");
    refused(&ends[0], memfd_make(AREA, SEALS), AREA + 1, 0, "too short");
    refused(&ends[0], memfd_make(AREA, SEALS), AREA, 4096, "too short from there");
    refused(&ends[0], memfd_make(AREA, SEALS), 8192, UINT64_MAX - 4095, "overflow");
    refused(&ends[0], memfd_make(AREA, SEALS), 0, 0, "empty");
    refused(&ends[0], open("/dev/null", O_RDWR), AREA, 0, "not memory");
    refused(&ends[0], -1, AREA, 0, "no descriptor");
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(import, is_mapped_exactly_where_offered)
{
    struct pair_end ends[2];
    bool mapped;

    pair_open_both(ends, param->name, AREA);
    mapped = ends[0].ops->caps & TFR_CAP_MAPPED;
    cr_assert_eq(ends[0].ops->addr(ends[0].peer) != NULL, mapped);
    cr_assert_eq(ends[0].peer->len, AREA);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

/* Where the device checks keys, the link is what a wrong one costs. */
CONFORM_TEST(import, of_a_wrong_key_ends_the_link_at_the_first_put)
{
    struct pair_end ends[2];
    struct tfr_xfer xfer = {.len = 4096};
    struct tfr_peer_mem *wrong;
    struct tfr_key key;

    pair_open_both(ends, param->name, AREA);
    if (!strstr(param->name, "verbs"))
        cr_skip("keys are the device's over verbs alone");
    ends[1].ops->key(ends[1].mem, &key);
    key.words[1] ^= 0x00550055;
    cr_assert_eq(ends[0].ops->import(ends[0].link, &key, &wrong), TFR_OK);
    xfer.local = ends[0].area.addr;
    xfer.mem = ends[0].mem;
    xfer.peer = wrong;
    cr_assert_eq(ends[0].ops->put(ends[0].link, &xfer), TFR_OK);
    CONFORM_WAIT(&ends[0], ends[0].ops->progress(ends[0].link) == TFR_E_PEER);
    CONFORM_WAIT(&ends[1], ends[1].ops->progress(ends[1].link) == TFR_E_PEER);
    ends[0].ops->forget(wrong);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(reg, takes_plain_host_memory_as_a_source)
{
    struct pair_end ends[2];
    static char plain[8192];
    struct tfr_area area = {.kind = TFR_AREA_HOST, .addr = plain, .len = sizeof(plain), .fd = -1};
    struct tfr_mem *mem;
    struct tfr_key key;
    struct tfr_xfer xfer = {.local = plain, .len = sizeof(plain), .peer_at = 4096};

    pair_open_both(ends, param->name, AREA);
    cr_assert_eq(ends[0].ops->reg(ends[0].dev, &area, &mem), TFR_OK);
    ends[0].ops->key(mem, &key);
    cr_assert_eq(key.len, sizeof(plain));
    memset(plain, 'p', sizeof(plain));
    xfer.mem = mem;
    xfer.peer = ends[0].peer;
    pair_put(&ends[0], &xfer);
    word_put(&ends[0], 0, TFR_XFER_AFTER, 0, 1);
    CONFORM_WAIT(&ends[0], word_at(&ends[1], 0) == 1);
    cr_assert_eq(((char *)ends[1].area.addr)[4096 + 8191], 'p');
    ends[0].ops->unreg(mem);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(reg, refuses_kinds_it_does_not_know)
{
    struct pair_end ends[2];
    struct tfr_area area = {.kind = TFR_AREA_GPU, .len = 4096, .fd = -1};
    struct tfr_mem *mem;

    pair_open_both(ends, param->name, AREA);
    if (!(ends[0].ops->caps & TFR_CAP_GPU_MEM))
        cr_assert_eq(ends[0].ops->reg(ends[0].dev, &area, &mem), TFR_E_UNSUP);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}
