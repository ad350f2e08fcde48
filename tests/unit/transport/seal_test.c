/* Sealed boot messages, in the hands of somebody between the two sides. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/auth.h"
#include "transport/seal.h"

static void sodium_need(void)
{
    if (!tfr_sodium())
        cr_skip("skipped: no libsodium here\n");
}

TestSuite(seal, .init = sodium_need, .timeout = 240);

static struct tfr_boot sealed[2];

static void sealed_make(void)
{
    static const uint8_t root[TFR_SODIUM_KEY] = "the root of both sides";
    int socks[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
    for (int i = 0; i < 2; i++) {
        sealed[i] = (struct tfr_boot){.fd = socks[i], .seal = malloc(sizeof(struct tfr_seal))};
        tfr_seal_init(sealed[i].seal, root, i == 0);
    }
}

static void sealed_close(void)
{
    tfr_boot_close(&sealed[0]);
    tfr_boot_close(&sealed[1]);
}

static void text_send(int from, const char *text)
{
    struct tfr_boot_msg msg = {
        .type = 5, .len = (uint32_t)strlen(text), .body = (void *)(uintptr_t)text};

    cr_assert_eq(tfr_boot_send(&sealed[from], &msg, 20000), TFR_OK);
}

static void text_expect(int at, const char *text)
{
    struct tfr_boot_msg msg;

    cr_assert_eq(tfr_boot_recv(&sealed[at], &msg, 20000), TFR_OK);
    cr_assert_eq(msg.type, 5);
    cr_assert_eq(msg.len, strlen(text));
    cr_assert_arr_eq(msg.body, text, msg.len);
    tfr_boot_msg_fini(&msg);
}

/* The bytes of the next message on their way to `at`. */
static ssize_t grab(int at, uint8_t *bytes, size_t room)
{
    return recv(sealed[at].fd, bytes, room, MSG_DONTWAIT);
}

static tfr_status next_status(int at)
{
    struct tfr_boot_msg msg;
    tfr_status status = tfr_boot_recv(&sealed[at], &msg, 20000);

    if (status == TFR_OK)
        tfr_boot_msg_fini(&msg);
    return status;
}

Test(seal, carries_messages_both_ways)
{
    sealed_make();
    text_send(0, "one");
    text_send(0, "");
    text_send(1, "back");
    text_expect(1, "one");
    text_expect(1, "");
    text_expect(0, "back");
    cr_assert_not_null(tfr_boot_secret(&sealed[0]));
    sealed_close();
}

Test(seal, shows_nothing_of_what_is_said)
{
    uint8_t bytes[256];

    sealed_make();
    text_send(0, "a secret text");
    text_send(0, "a secret text");
    cr_assert_eq(grab(1, bytes, sizeof(bytes)), 2 * (16 + 13 + TFR_SODIUM_TAG));
    cr_assert_null(memmem(bytes, sizeof(bytes), "secret", 6));
    cr_assert_neq(memcmp(bytes + 16, bytes + 16 + 13 + TFR_SODIUM_TAG + 16, 13), 0,
                  "equal texts look different");
    sealed_close();
}

Test(seal, breaks_when_any_byte_is_changed)
{
    uint8_t bytes[64];

    for (size_t i = 0; i < 16 + 4 + TFR_SODIUM_TAG; i++) {
        sealed_make();
        text_send(0, "text");
        cr_assert_eq(grab(1, bytes, sizeof(bytes)), 16 + 4 + TFR_SODIUM_TAG);
        bytes[i] ^= 1;
        cr_assert_gt(send(sealed[0].fd, bytes, 16 + 4 + TFR_SODIUM_TAG, 0), 0);
        shutdown(sealed[0].fd, SHUT_WR);
        cr_assert_neq(next_status(1), TFR_OK, "byte %zu", i);
        sealed_close();
    }
}

Test(seal, breaks_when_a_message_comes_twice)
{
    uint8_t bytes[64];

    sealed_make();
    text_send(0, "text");
    cr_assert_eq(grab(1, bytes, sizeof(bytes)), 16 + 4 + TFR_SODIUM_TAG);
    for (int i = 0; i < 2; i++)
        cr_assert_gt(send(sealed[0].fd, bytes, 16 + 4 + TFR_SODIUM_TAG, 0), 0);
    text_expect(1, "text");
    cr_assert_eq(next_status(1), TFR_E_PROTO);
    text_send(0, "more");
    cr_assert_eq(next_status(1), TFR_E_PROTO, "for good");
    sealed_close();
}

Test(seal, breaks_when_a_message_is_left_out)
{
    uint8_t bytes[64];

    sealed_make();
    text_send(0, "lost");
    cr_assert_eq(grab(1, bytes, sizeof(bytes)), 16 + 4 + TFR_SODIUM_TAG);
    text_send(0, "next");
    cr_assert_eq(next_status(1), TFR_E_PROTO);
    sealed_close();
}

Test(seal, breaks_when_messages_change_places)
{
    uint8_t bytes[2][36];

    sealed_make();
    text_send(0, "1111");
    text_send(0, "2222");
    cr_assert_eq(grab(1, bytes[0], sizeof(bytes[0])), 36);
    cr_assert_eq(grab(1, bytes[1], sizeof(bytes[1])), 36);
    cr_assert_eq(send(sealed[0].fd, bytes[1], 36, 0), 36);
    cr_assert_eq(send(sealed[0].fd, bytes[0], 36, 0), 36);
    cr_assert_eq(next_status(1), TFR_E_PROTO);
    sealed_close();
}

Test(seal, does_not_take_a_side_s_own_message_for_the_other_s)
{
    uint8_t bytes[64];

    sealed_make();
    text_send(0, "text");
    cr_assert_eq(grab(1, bytes, sizeof(bytes)), 36);
    cr_assert_eq(send(sealed[1].fd, bytes, 36, 0), 36);
    cr_assert_eq(next_status(0), TFR_E_PROTO);
    sealed_close();
}

Test(seal, of_a_cut_message_is_not_taken)
{
    uint8_t bytes[64];

    sealed_make();
    text_send(0, "text");
    cr_assert_eq(grab(1, bytes, sizeof(bytes)), 36);
    cr_assert_eq(send(sealed[0].fd, bytes, 35, 0), 35);
    shutdown(sealed[0].fd, SHUT_WR);
    cr_assert_eq(next_status(1), TFR_E_PEER);
    sealed_close();
}

Test(seal, holds_for_messages_in_pieces)
{
    struct tfr_boot_in in = {0};
    struct tfr_boot_msg msg;
    tfr_status status = TFR_AGAIN;
    uint8_t bytes[64];

    sealed_make();
    for (int round = 0; round < 2; round++) {
        text_send(0, "text");
        cr_assert_eq(grab(1, bytes, sizeof(bytes)), 36);
        bytes[20] ^= round; /* the second time it is another one's */
        for (int i = 0; i < 36; i++) {
            cr_assert_eq(send(sealed[0].fd, bytes + i, 1, 0), 1);
            status = tfr_boot_recv_part(&sealed[1], &in, 100, &msg);
            cr_assert(i == 35 || status == TFR_AGAIN);
        }
        cr_assert_eq(status, round ? TFR_E_PROTO : TFR_OK);
        if (!round)
            tfr_boot_msg_fini(&msg);
    }
    tfr_boot_in_fini(&in);
    sealed_close();
}

Test(seal, lets_no_descriptor_through)
{
    struct tfr_boot_msg msg = {.type = 5, .fds = {0}, .fd_n = 1};

    sealed_make();
    cr_assert_eq(tfr_boot_send(&sealed[0], &msg, 20000), TFR_E_UNSUP);
    sealed_close();
}
