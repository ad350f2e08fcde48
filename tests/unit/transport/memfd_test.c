/* Shared memory is accepted only if the other side cannot pull it away. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "transport/transport.h"

static int memfd_make(size_t len, int seals)
{
    int fd = memfd_create("test", MFD_ALLOW_SEALING);

    cr_assert_eq(ftruncate(fd, (off_t)len), 0);
    if (seals)
        cr_assert_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

Test(memfd, is_sealed_and_shared)
{
    struct tfr_area area;
    void *other;

    cr_assert_eq(tfr_memfd_create("t", 5000, NULL, &area), TFR_OK);
    cr_assert_eq(area.len, 8192);
    cr_assert_eq(area.kind, TFR_AREA_MEMFD);
    cr_assert_eq(ftruncate(area.fd, 4096), -1);
    cr_assert_eq(ftruncate(area.fd, 16384), -1);
    cr_assert_eq(tfr_memfd_map(area.fd, 4096, 4096, NULL, &other), TFR_OK);
    memset((char *)area.addr + 4096, 'x', 10);
    cr_assert_eq(((char *)other)[9], 'x');
}

Test(memfd, lies_where_it_was_asked_to)
{
    struct tfr_area area, none;
    void *at = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    munmap(at, 1 << 20);
    cr_assert_eq(tfr_memfd_create("t", 4096, at, &area), TFR_OK);
    cr_assert_eq(area.addr, at);
    cr_assert_neq(tfr_memfd_create("t", 4096, at, &none), TFR_OK, "never over something else");
}

Test(memfd, refuses_memory_that_may_shrink)
{
    void *addr;
    int plain = open("/tmp", O_TMPFILE | O_RDWR, 0600);

    cr_assert_eq(tfr_memfd_map(memfd_make(8192, 0), 0, 8192, NULL, &addr), TFR_E_PROTO);
    cr_assert_eq(tfr_memfd_map(memfd_make(8192, F_SEAL_GROW), 0, 8192, NULL, &addr), TFR_E_PROTO);
    cr_assert_eq(tfr_memfd_map(memfd_make(8192, F_SEAL_SHRINK), 0, 8192, NULL, &addr), TFR_E_PROTO);
    cr_assert_eq(tfr_memfd_map(plain, 0, 4096, NULL, &addr), TFR_E_PROTO);
    cr_assert_eq(tfr_memfd_map(-1, 0, 4096, NULL, &addr), TFR_E_PROTO);
}

Test(memfd, refuses_a_piece_outside)
{
    int fd = memfd_make(8192, F_SEAL_GROW | F_SEAL_SHRINK);
    void *addr;

    cr_assert_eq(tfr_memfd_map(fd, 0, 8193, NULL, &addr), TFR_E_PROTO);
    cr_assert_eq(tfr_memfd_map(fd, 4096, 8192, NULL, &addr), TFR_E_PROTO);
    cr_assert_eq(tfr_memfd_map(fd, UINT64_MAX - 4095, 8192, NULL, &addr), TFR_E_PROTO);
    cr_assert_eq(tfr_memfd_map(fd, 100, 4096, NULL, &addr), TFR_E_PROTO);
    cr_assert_eq(tfr_memfd_map(fd, 0, 0, NULL, &addr), TFR_E_PROTO);
    cr_assert_eq(tfr_memfd_map(fd, 4096, 4096, NULL, &addr), TFR_OK);
}

Test(transport, is_found_by_name)
{
    cr_assert_str_eq(tfr_transport_find("shm")->name, "shm");
    cr_assert_str_eq(tfr_transport_find("fault")->name, "fault");
    cr_assert_eq(tfr_transport_find("fault:shm"), tfr_transport_find("fault"));
    cr_assert_null(tfr_transport_find("fault:fault"));
    cr_assert_null(tfr_transport_find("faulty"));
    cr_assert_null(tfr_transport_find("nothing"));
    cr_assert_null(tfr_transport_find(NULL));
}

Test(transport, answers_unsupported_for_what_is_left_out)
{
    struct tfr_transport_ops ops = {.name = "empty"};
    struct tfr_link link = {&ops};
    struct tfr_peer_mem *peer;
    struct tfr_key key = {.fd = dup(0)};
    struct tfr_xfer xfer = {0};
    struct tfr_mem mem = {&ops};
    int fd;

    tfr_transport_defaults(&ops);
    cr_assert_eq(ops.put(&link, &xfer), TFR_E_UNSUP);
    cr_assert_eq(ops.get(&link, &xfer), TFR_E_UNSUP);
    cr_assert_eq(ops.arm(&link, &fd), TFR_E_UNSUP);
    cr_assert_eq(ops.import(&link, &key, &peer), TFR_E_UNSUP);
    cr_assert_eq(fcntl(key.fd, F_GETFD), -1, "import consumes the descriptor");
    cr_assert_eq(ops.progress(&link), TFR_OK);
    ops.key(&mem, &key);
    cr_assert_eq(key.fd, -1);
    ops.ring(&link);
    ops.disarm(&link);
    ops.forked(&link);
    ops.close(&link);
}
