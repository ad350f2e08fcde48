/* A peer over tcp that holds the key and breaks the protocol all the same, and strangers that hold
 * none.  The test speaks to an open link through bare sockets. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "transport/mac.h"
#include "transport/sodium.h"
#include "transport/tcp/tcp.h"

enum { GUARD = 4096, SHOWN = 64 << 10, LIMIT_MS = 10000 };

struct victim {
    struct tfr_dev *dev;
    struct tfr_link *link;
    struct tfr_mem *mem;
    struct tfr_boot boot, other; /* ours, and the attacker's */
    tfr_status opened;
    bool first;
    uint64_t id; /* of mem */
    int fds[TFR_CHANNELS];
    struct tcp_joint joint; /* as the attacker has it */
    uint8_t area[GUARD + SHOWN + GUARD];
};

static const struct tfr_transport_ops *ops;

static void *open_main(void *arg)
{
    struct victim *victim = arg;

    victim->opened = ops->open(victim->dev, &victim->boot, victim->first, &victim->link);
    return NULL;
}

static pthread_t open_begin(struct victim *victim, bool first)
{
    const struct tfr_dev_cfg cfg = {.numa_node = -1};
    struct tfr_area area = {
        .kind = TFR_AREA_HOST, .addr = victim->area + GUARD, .len = SHOWN, .fd = -1, .shown = true};
    struct tfr_key key;
    pthread_t thread;
    int socks[2];

    ops = tfr_transport_find("tcp");
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
    memset(victim->area, 0xaa, sizeof(victim->area));
    victim->boot = (struct tfr_boot){.fd = socks[0]};
    victim->other = (struct tfr_boot){.fd = socks[1]};
    victim->first = first;
    cr_assert_eq(ops->prepare(&cfg, &victim->dev), TFR_OK);
    cr_assert_eq(ops->reg(victim->dev, &area, &victim->mem), TFR_OK);
    ops->key(victim->mem, &key);
    victim->id = key.words[0];
    cr_assert_eq(pthread_create(&thread, NULL, open_main, victim), 0);
    return thread;
}

static struct victim *victim_open(void)
{
    struct victim *victim = calloc(1, sizeof(*victim));
    pthread_t thread = open_begin(victim, false);

    cr_assert_eq(tcp_connect(&victim->other, true, &victim->joint), TFR_OK);
    memcpy(victim->fds, victim->joint.fds, sizeof(victim->fds));
    pthread_join(thread, NULL);
    cr_assert_eq(victim->opened, TFR_OK);
    cr_assert_eq(victim->joint.sock_n, TFR_CHANNELS);
    return victim;
}

static void victim_close(struct victim *victim)
{
    for (size_t k = 0; k < GUARD; k++)
        cr_assert(victim->area[k] == 0xaa && victim->area[GUARD + SHOWN + k] == 0xaa,
                  "written outside of what was shown");
    if (victim->mem)
        ops->unreg(victim->mem);
    ops->close(victim->link);
    ops->release(victim->dev);
    for (int i = 0; i < TFR_CHANNELS; i++)
        close(victim->fds[i]);
    tfr_boot_close(&victim->boot);
    tfr_boot_close(&victim->other);
    free(victim);
}

static bool untouched(const struct victim *victim)
{
    for (size_t k = 0; k < SHOWN; k++)
        if (victim->area[GUARD + k] != 0xaa)
            return false;
    return true;
}

static tfr_status ends_with(struct victim *victim)
{
    uint64_t since_ns = tfr_clock_now();
    tfr_status status;

    do {
        status = ops->progress(victim->link);
    } while (status == TFR_OK && tfr_clock_now() - since_ns < LIMIT_MS * TFR_NS_PER_MS);
    return status;
}

static void bytes_send(struct victim *victim, int channel, const void *bytes, size_t len)
{
    cr_assert_eq(send(victim->fds[channel], bytes, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* A frame, and a kilobyte behind it that would be its payload. */
static void refused(uint64_t what, bool known, uint64_t at, const char *why)
{
    for (int channel = 0; channel < 2; channel++) {
        struct victim *victim = victim_open();
        struct tcp_head head = {what, known ? victim->id : victim->id ^ 1ull << 40, at};
        char bytes[sizeof(head) + 1024] = {0};

        memcpy(bytes, &head, sizeof(head));
        bytes_send(victim, channel, bytes, sizeof(bytes));
        cr_assert_eq(ends_with(victim), TFR_E_PROTO, "%s", why);
        cr_assert(untouched(victim), "%s", why);
        victim_close(victim);
    }
}

Test(tcp, a_span_outside_of_what_was_shown_ends_the_link)
{
    refused(tcp_what(TCP_PUT, 0, 16), true, SHOWN - 15, "past the end");
    refused(tcp_what(TCP_PUT, 0, 8), true, SHOWN, "behind the end");
    refused(tcp_what(TCP_PUT, 0, 16), true, UINT64_MAX - 7, "overflow");
    refused(tcp_what(TCP_PUT, 0, SHOWN + 1), true, 0, "longer than all");
    refused(tcp_what(TCP_PUT, 0, (1ull << 48) - 1), true, 4096, "huge");
    refused(tcp_what(TCP_GET, 0, 16), true, SHOWN - 15, "get past the end");
    refused(tcp_what(TCP_GET, 0, (1ull << 48) - 1), true, UINT64_MAX, "get of all");
}

Test(tcp, memory_that_was_not_shown_cannot_be_named)
{
    refused(tcp_what(TCP_PUT, 0, 16), false, 0, "put");
    refused(tcp_what(TCP_GET, 0, 16), false, 0, "get");
}

Test(tcp, unknown_frames_end_the_link)
{
    refused(0, true, 0, "kind 0");
    refused(tcp_what((enum tcp_kind)4, 0, 0), true, 0, "kind 4");
    refused(tcp_what((enum tcp_kind)255, 255, 0), true, 0, "kind 255");
}

Test(tcp, answers_that_nobody_asked_for_end_the_link)
{
    refused(tcp_what(TCP_DATA, 0, 16), true, 0, "none asked for");
    refused(tcp_what(TCP_DATA, 0, 0), true, 0, "empty");
}

/* The answer to a get of 100 bytes. */
static void answered(uint8_t number, uint64_t len, tfr_status want)
{
    struct victim *victim = victim_open();
    struct tfr_key key = {.len = 4096, .fd = -1};
    struct tfr_xfer get = {
        .channel = 1, .local = victim->area + GUARD, .mem = victim->mem, .len = 100};
    struct {
        struct tcp_head head;
        char bytes[4096];
    } frame = {.head = {.what = tcp_what(TCP_DATA, number, len)}};
    tfr_status status;

    ops->key(victim->mem, &key); /* as good as any */
    cr_assert_eq(ops->import(victim->link, &key, &get.peer), TFR_OK);
    cr_assert_eq(ops->get(victim->link, &get), TFR_OK);
    bytes_send(victim, 1, &frame, sizeof(frame.head) + len);
    for (int i = 0; i < 1000 && (status = ops->progress(victim->link)) == TFR_OK; i++)
        usleep(want == TFR_OK ? 10 : 1000);
    cr_assert_eq(status, want);
    for (size_t k = 100; k < SHOWN; k++)
        cr_assert_eq(victim->area[GUARD + k], 0xaa);
    ops->forget(get.peer);
    victim_close(victim);
}

Test(tcp, an_answer_must_be_of_its_get)
{
    answered(0, 100, TFR_OK);
    answered(1, 100, TFR_E_PROTO);
    answered(0, 99, TFR_E_PROTO);
    answered(0, 4096, TFR_E_PROTO);
}

Test(tcp, a_flood_of_gets_ends_the_link)
{
    struct victim *victim = victim_open();
    struct tcp_head head = {tcp_what(TCP_GET, 0, SHOWN), victim->id, 0};

    for (int i = 0; i < 4000; i++) /* 256 MB of answers that nobody reads */
        bytes_send(victim, 2, &head, sizeof(head));
    cr_assert_eq(ends_with(victim), TFR_E_PROTO);
    victim_close(victim);
}

Test(tcp, half_a_frame_and_the_end_is_the_end)
{
    struct victim *victim = victim_open();
    struct {
        struct tcp_head head;
        uint64_t word;
    } frame = {{tcp_what(TCP_PUT, 0, 8), victim->id, 64}, 0};

    bytes_send(victim, 0, &frame, sizeof(frame) - 3);
    for (int i = 0; i < 50; i++) {
        cr_assert_eq(ops->progress(victim->link), TFR_OK);
        usleep(1000);
    }
    cr_assert(untouched(victim), "a word is whole or not there");
    shutdown(victim->fds[0], SHUT_RDWR);
    cr_assert_eq(ends_with(victim), TFR_E_PEER);
    cr_assert(untouched(victim));
    victim_close(victim);
}

Test(tcp, frames_may_come_byte_by_byte)
{
    struct victim *victim = victim_open();
    struct {
        struct tcp_head head;
        uint64_t word;
    } frame = {{tcp_what(TCP_PUT, 0, 8), victim->id, 64}, 0x0123456789abcdef};
    uint64_t since_ns = tfr_clock_now(), seen = 0;

    for (size_t i = 0; i < sizeof(frame); i++) {
        bytes_send(victim, 3, (char *)&frame + i, 1);
        usleep(2000);
        cr_assert_eq(ops->progress(victim->link), TFR_OK);
    }
    while (seen != frame.word && tfr_clock_now() - since_ns < LIMIT_MS * TFR_NS_PER_MS) {
        cr_assert_eq(ops->progress(victim->link), TFR_OK);
        memcpy(&seen, victim->area + GUARD + 64, 8);
    }
    cr_assert_eq(seen, frame.word);
    victim_close(victim);
}

Test(tcp, bytes_for_memory_that_goes_meanwhile_are_not_written)
{
    struct victim *victim = victim_open();
    struct tcp_head head = {tcp_what(TCP_PUT, 0, SHOWN), victim->id, 0};
    char bytes[2000] = {0};

    bytes_send(victim, 1, &head, sizeof(head));
    bytes_send(victim, 1, bytes, sizeof(bytes));
    while (victim->area[GUARD] == 0xaa)
        cr_assert_eq(ops->progress(victim->link), TFR_OK);
    ops->unreg(victim->mem); /* must not wait for the rest */
    victim->mem = NULL;
    memset(victim->area, 0xaa, sizeof(victim->area));
    bytes_send(victim, 1, bytes, sizeof(bytes));
    cr_assert_eq(ends_with(victim), TFR_E_PROTO);
    cr_assert(untouched(victim));
    victim_close(victim);
}

Test(tcp, noise_writes_nothing_outside, .timeout = 240)
{
    uint32_t seed = 1;

    for (int round = 0; round < 60; round++) {
        struct victim *victim = victim_open();
        uint8_t noise[2048];
        for (size_t k = 0; k < sizeof(noise); k++) {
            seed = seed * 1664525u + 1013904223u;
            noise[k] = (uint8_t)(seed >> 24);
        }
        for (size_t at = 0; at + 200 < sizeof(noise) && round % 4; at += 24 + seed % 64) {
            struct tcp_head head = {tcp_what(TCP_PUT, 0, noise[at]), victim->id,
                                    SHOWN - (uint64_t)noise[at + 1]};
            memcpy(noise + at, &head, sizeof(head)); /* often well-formed, at the edge */
            seed = seed * 1664525u + 1013904223u;
        }
        bytes_send(victim, round % TFR_CHANNELS, noise, sizeof(noise));
        cr_assert_eq(ends_with(victim), TFR_E_PROTO);
        victim_close(victim);
    }
}

/* ---- sealed ---- */

struct sealed {
    struct tcp_head head;
    char text[1000];
};

/* A frame in its box, as it goes over the wire. */
static size_t box_make(struct victim *victim, char fill, uint8_t *box_out, size_t room)
{
    struct sealed frame = {{tcp_what(TCP_PUT, 0, 1000), victim->id, 0}, {0}};
    struct iovec iov = {&frame, sizeof(frame)};
    struct tcp_crypt *crypt;
    int socks[2];
    ssize_t got;

    memset(frame.text, fill, sizeof(frame.text));
    cr_assert_eq(tcp_crypt_make(&victim->joint, 1, &crypt), TFR_OK);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, socks), 0);
    cr_assert_eq(tcp_crypt_send(crypt, socks[0], &iov, 1), (ssize_t)sizeof(frame));
    got = recv(socks[1], box_out, room, 0);
    cr_assert_gt(got, (ssize_t)sizeof(frame));
    cr_assert_null(memmem(box_out, (size_t)got, frame.text, 16), "in the clear");
    close(socks[0]);
    close(socks[1]);
    tcp_crypt_free(crypt);
    return (size_t)got;
}

Test(tcp, a_sealed_stream_takes_each_box_once_and_as_it_was)
{
    uint8_t box[4096];
    size_t len;

    setenv("TFR_TCP_ENCRYPT", "1", 1);
    if (!tfr_sodium())
        cr_skip("libsodium is not here");
    for (int change = 0; change < 4; change++) {
        struct victim *victim = victim_open();
        cr_assert(victim->joint.encrypt);
        len = box_make(victim, 's', box, sizeof(box));
        box[change == 1 ? 0 : change == 2 ? 30 : 0] ^= change == 1 || change == 2;
        if (change == 3) /* of another channel */
            bytes_send(victim, 2, box, len);
        else
            bytes_send(victim, 1, box, len);
        if (change == 0) {
            while (victim->area[GUARD + 999] != 's')
                cr_assert_eq(ops->progress(victim->link), TFR_OK);
            memset(victim->area, 0xaa, sizeof(victim->area));
            bytes_send(victim, 1, box, len); /* once more */
        } else if (change == 1) {
            bytes_send(victim, 1, box, len); /* the length was one more: there must be more */
        }
        cr_assert_eq(ends_with(victim), TFR_E_PROTO, "change %d", change);
        cr_assert(untouched(victim), "change %d", change);
        victim_close(victim);
    }
}

Test(tcp, a_sealed_stream_is_not_in_the_clear)
{
    struct victim *victim;
    struct tfr_key key = {.len = SHOWN, .fd = -1};
    struct tfr_xfer put = {.channel = 1, .len = 64};
    struct pollfd poller = {.events = POLLIN};
    char text[64], wire[4096] = "";
    ssize_t got;

    setenv("TFR_TCP_ENCRYPT", "1", 1);
    if (!tfr_sodium())
        cr_skip("libsodium is not here");
    victim = victim_open();
    memset(text, 's', sizeof(text));
    ops->key(victim->mem, &key);
    cr_assert_eq(ops->import(victim->link, &key, &put.peer), TFR_OK);
    put.local = text;
    cr_assert_eq(ops->put(victim->link, &put), TFR_OK);
    poller.fd = victim->fds[1];
    cr_assert_eq(poll(&poller, 1, LIMIT_MS), 1);
    got = recv(victim->fds[1], wire, sizeof(wire), 0);
    cr_assert_gt(got, 64);
    cr_assert_null(memmem(wire, (size_t)got, text, 8));
    ops->forget(put.peer);
    victim_close(victim);
}

/* ---- before the link is there ---- */

/* What the listening side has told its client so far: where it listens. */
static void offer_take(struct victim *victim, struct tfr_boot_msg *msg_out,
                       struct sockaddr_in *addr_out)
{
    uint16_t port;

    cr_assert_eq(tfr_boot_recv(&victim->other, msg_out, LIMIT_MS), TFR_OK);
    memcpy(&port, (char *)msg_out->body + 8, sizeof(port));
    *addr_out = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    addr_out->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
}

/* A client that is told what the listener said, changed or not. */
static tfr_status client_open(struct victim *victim, const struct tfr_boot_msg *msg)
{
    struct tfr_boot_msg answer;
    struct victim *client = calloc(1, sizeof(*client));
    pthread_t thread = open_begin(client, true);
    tfr_status status;

    cr_assert_eq(tfr_boot_send(&client->other, msg, LIMIT_MS), TFR_OK);
    cr_assert_eq(tfr_boot_recv(&client->other, &answer, LIMIT_MS), TFR_OK);
    cr_assert_eq(tfr_boot_send(&victim->other, &answer, LIMIT_MS), TFR_OK);
    tfr_boot_msg_fini(&answer);
    pthread_join(thread, NULL);
    status = client->opened;
    if (status == TFR_OK)
        ops->close(client->link);
    ops->unreg(client->mem);
    ops->release(client->dev);
    tfr_boot_close(&client->boot);
    tfr_boot_close(&client->other);
    free(client);
    return status;
}

Test(tcp, strangers_that_come_first_disturb_nobody)
{
    enum { STRANGERS = 40 };
    struct victim *victim = calloc(1, sizeof(*victim));
    pthread_t thread = open_begin(victim, false);
    struct sockaddr_in addr;
    struct tfr_boot_msg msg;
    int strangers[STRANGERS];
    char noise[64] = "GET / HTTP/1.1\r\nHost: somebody\r\n\r\n";

    offer_take(victim, &msg, &addr);
    for (int i = 0; i < STRANGERS; i++) {
        strangers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        cr_assert_eq(connect(strangers[i], (struct sockaddr *)&addr, sizeof(addr)), 0);
        if (i % 3) /* the others say nothing */
            send(strangers[i], noise, i % 3 == 1 ? sizeof(noise) : 10, MSG_NOSIGNAL);
    }
    cr_assert_eq(client_open(victim, &msg), TFR_OK);
    pthread_join(thread, NULL);
    cr_assert_eq(victim->opened, TFR_OK);
    for (int i = 0; i < STRANGERS; i++)
        close(strangers[i]);
    tfr_boot_msg_fini(&msg);
    for (int i = 0; i < TFR_CHANNELS; i++)
        victim->fds[i] = -1;
    victim_close(victim);
}

struct crowd {
    struct sockaddr_in addr;
    _Atomic bool over;
    _Atomic uint32_t n;
};

/* Connections that say nothing, in bursts, some hundred open at once. */
static void *crowd_main(void *arg)
{
    enum { OPEN = 400, BURST = 50, PAUSE_US = 500 };
    struct crowd *crowd = arg;
    int fds[OPEN] = {0};
    uint32_t n = 0;

    while (!atomic_load_explicit(&crowd->over, memory_order_relaxed)) {
        int *fd = &fds[n++ % OPEN];
        if (*fd > 0)
            close(*fd);
        *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        connect(*fd, (struct sockaddr *)&crowd->addr, sizeof(crowd->addr));
        atomic_store_explicit(&crowd->n, n, memory_order_relaxed);
        if (n % BURST == 0)
            usleep(PAUSE_US);
    }
    for (int i = 0; i < OPEN; i++)
        if (fds[i] > 0)
            close(fds[i]);
    return NULL;
}

Test(tcp, strangers_that_keep_coming_keep_nobody_out)
{
    struct victim *victim = calloc(1, sizeof(*victim));
    pthread_t thread = open_begin(victim, false), flood;
    struct crowd crowd = {.over = false};
    struct tfr_boot_msg msg;

    offer_take(victim, &msg, &crowd.addr);
    cr_assert_eq(pthread_create(&flood, NULL, crowd_main, &crowd), 0);
    while (atomic_load_explicit(&crowd.n, memory_order_relaxed) < 300)
        usleep(1000);
    cr_assert_eq(client_open(victim, &msg), TFR_OK);
    pthread_join(thread, NULL);
    cr_assert_eq(victim->opened, TFR_OK);
    atomic_store_explicit(&crowd.over, true, memory_order_relaxed);
    pthread_join(flood, NULL);
    tfr_boot_msg_fini(&msg);
    for (int i = 0; i < TFR_CHANNELS; i++)
        victim->fds[i] = -1;
    victim_close(victim);
}

Test(tcp, who_was_told_another_secret_is_refused)
{
    struct victim *victim = calloc(1, sizeof(*victim));
    pthread_t thread = open_begin(victim, false);
    struct sockaddr_in addr;
    struct tfr_boot_msg msg;

    offer_take(victim, &msg, &addr);
    ((uint8_t *)msg.body)[20] ^= 1;
    cr_assert_neq(client_open(victim, &msg), TFR_OK);
    pthread_join(thread, NULL);
    cr_assert_neq(victim->opened, TFR_OK);
    tfr_boot_msg_fini(&msg);
    ops->unreg(victim->mem);
    ops->release(victim->dev);
    tfr_boot_close(&victim->boot);
    tfr_boot_close(&victim->other);
    free(victim);
}

/* SipHash's own vector: key 00..0f, message 00..0e. */
Test(tcp, the_keyed_hash_is_the_one_it_should_be)
{
    static const uint8_t want[16] = {0x54, 0x93, 0xe9, 0x99, 0x33, 0xb0, 0xa8, 0x11,
                                     0x7e, 0x08, 0xec, 0x0f, 0x97, 0xcf, 0xc3, 0xd9};
    uint8_t key[16], text[15], mac[16];

    for (uint8_t i = 0; i < 16; i++)
        key[i] = i;
    memcpy(text, key, 15);
    tfr_mac(key, text, sizeof(text), mac);
    cr_assert_eq(memcmp(mac, want, 16), 0, "%02x%02x", mac[0], mac[1]);
}

struct sleeper {
    struct tfr_link *link;
    _Atomic int step; /* 1: it has armed; 2: it may go */
};

static void *sleep_main(void *arg)
{
    struct sleeper *sleeper = arg;
    int fd;

    if (ops->arm(sleeper->link, &fd) != TFR_OK)
        return arg;
    sleeper->step = 1;
    while (sleeper->step != 2)
        usleep(200);
    ops->disarm(sleeper->link);
    return NULL;
}

Test(tcp, news_keep_nobody_awake_who_came_after_them, .timeout = 240)
{
    struct victim *victim = victim_open();
    struct sleeper sleeper = {.link = victim->link};
    struct pollfd poller = {.events = POLLIN};
    pthread_t thread;
    void *failed;

    cr_assert_eq(pthread_create(&thread, NULL, sleep_main, &sleeper), 0);
    while (sleeper.step != 1)
        usleep(200);
    tcp_news((struct tcp_link *)victim->link);
    cr_assert_eq(ops->arm(victim->link, &poller.fd), TFR_OK);
    cr_assert_eq(poll(&poller, 1, 0), 1, "the one that was told may not have woken yet");
    sleeper.step = 2;
    pthread_join(thread, &failed);
    cr_assert_null(failed);
    cr_assert_eq(poll(&poller, 1, 0), 0);
    tcp_news((struct tcp_link *)victim->link);
    cr_assert_eq(poll(&poller, 1, 0), 1);
    ops->disarm(victim->link);
    victim_close(victim);
}
