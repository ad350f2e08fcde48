/* The boot socket against good peers, dead ones and hostile ones. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "transport/boot.h"

enum { LIMIT = 5000 };

/* The head as it is on the wire: a change of it must show here. */
struct wire_head {
    uint32_t magic, type, len, fd_n;
};
#define MAGIC 0x30524654u

static struct tfr_boot ends[2];

static void pair_make(void)
{
    int socks[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
    for (int i = 0; i < 2; i++)
        ends[i] = (struct tfr_boot){.fd = socks[i]};
}

TestSuite(boot, .init = pair_make, .timeout = 120);

static int open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void raw_send(const void *bytes, size_t len, int fd, int fd_n)
{
    char space[CMSG_SPACE(sizeof(int) * 64)] = {0};
    struct iovec iov = {(void *)bytes, len};
    struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd_n) {
        struct cmsghdr *cmsg;
        hdr.msg_control = space;
        hdr.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fd_n);
        cmsg = CMSG_FIRSTHDR(&hdr);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fd_n);
        for (int i = 0; i < fd_n; i++)
            memcpy(CMSG_DATA(cmsg) + sizeof(int) * (size_t)i, &fd, sizeof(fd));
    }
    cr_assert_eq(sendmsg(ends[0].fd, &hdr, 0), (ssize_t)len);
}

static tfr_status recv_status(int limit_ms)
{
    struct tfr_boot_msg msg;
    tfr_status status = tfr_boot_recv(&ends[1], &msg, limit_ms);

    if (status == TFR_OK)
        tfr_boot_msg_fini(&msg);
    return status;
}

Test(boot, carries_a_message_with_descriptors)
{
    struct tfr_boot_msg out = {.type = 7, .len = 5, .body = "hello", .fd_n = 2}, in;
    int pipe_fds[2];
    char byte = 0;

    cr_assert_eq(pipe(pipe_fds), 0);
    out.fds[0] = pipe_fds[0];
    out.fds[1] = pipe_fds[1];
    cr_assert_eq(tfr_boot_send(&ends[0], &out, LIMIT), TFR_OK);
    cr_assert_eq(tfr_boot_recv(&ends[1], &in, LIMIT), TFR_OK);
    cr_assert_eq(in.type, 7);
    cr_assert_eq(in.len, 5);
    cr_assert_arr_eq(in.body, "hello", 5);
    cr_assert_eq(in.fd_n, 2);
    cr_assert_eq(write(in.fds[1], "x", 1), 1);
    cr_assert_eq(read(pipe_fds[0], &byte, 1), 1);
    cr_assert(fcntl(in.fds[0], F_GETFD) & FD_CLOEXEC);
    tfr_boot_msg_fini(&in);
    cr_assert_eq(fcntl(in.fds[0], F_GETFD), -1, "fini closes");
}

Test(boot, carries_an_empty_message)
{
    struct tfr_boot_msg out = {.type = 1}, in;

    cr_assert_eq(tfr_boot_send(&ends[0], &out, LIMIT), TFR_OK);
    cr_assert_eq(tfr_boot_recv(&ends[1], &in, LIMIT), TFR_OK);
    cr_assert_eq(in.len, 0);
    cr_assert_null(in.body);
}

static void *big_send(void *arg)
{
    struct tfr_boot_msg out = {.type = 2, .len = TFR_BOOT_MAX, .body = arg};

    return (void *)(intptr_t)tfr_boot_send(&ends[0], &out, LIMIT);
}

Test(boot, carries_the_largest_message_through_a_small_socket_buffer)
{
    struct tfr_boot_msg in;
    uint8_t *body = malloc(TFR_BOOT_MAX);
    pthread_t sender;
    void *sent;

    for (int i = 0; i < TFR_BOOT_MAX; i++)
        body[i] = (uint8_t)(i * 7 + (i >> 8));
    pthread_create(&sender, NULL, big_send, body);
    cr_assert_eq(tfr_boot_recv(&ends[1], &in, LIMIT), TFR_OK);
    pthread_join(sender, &sent);
    cr_assert_eq((intptr_t)sent, TFR_OK);
    cr_assert_eq(in.len, TFR_BOOT_MAX);
    cr_assert_eq(memcmp(in.body, body, TFR_BOOT_MAX), 0);
    tfr_boot_msg_fini(&in);
    free(body);
}

static void *drip(void *arg)
{
    struct {
        struct wire_head head;
        char body[4];
    } frame = {{MAGIC, 3, 4, 0}, "abc"};

    (void)arg;
    for (size_t i = 0; i < sizeof(frame); i++) {
        raw_send((char *)&frame + i, 1, -1, 0);
        usleep(500);
    }
    return NULL;
}

Test(boot, puts_a_message_together_that_comes_byte_by_byte)
{
    struct tfr_boot_msg in;
    pthread_t sender;

    pthread_create(&sender, NULL, drip, NULL);
    cr_assert_eq(tfr_boot_recv(&ends[1], &in, LIMIT), TFR_OK);
    pthread_join(sender, NULL);
    cr_assert_str_eq(in.body, "abc");
    tfr_boot_msg_fini(&in);
}

Test(boot, refuses_to_send_what_is_too_large)
{
    struct tfr_boot_msg out = {.type = 1, .len = TFR_BOOT_MAX + 1, .body = ""};

    cr_assert_eq(tfr_boot_send(&ends[0], &out, LIMIT), TFR_E_INVAL);
    out = (struct tfr_boot_msg){.fd_n = TFR_BOOT_FDS + 1};
    cr_assert_eq(tfr_boot_send(&ends[0], &out, LIMIT), TFR_E_INVAL);
}

Test(boot, does_not_believe_a_length)
{
    struct wire_head head = {MAGIC, 1, TFR_BOOT_MAX + 1, 0};

    raw_send(&head, sizeof(head), -1, 0);
    cr_assert_eq(recv_status(LIMIT), TFR_E_PROTO);
}

Test(boot, refuses_a_stranger)
{
    raw_send("GET / HTTP/1.1\r\n\r\n", 18, -1, 0);
    cr_assert_eq(recv_status(LIMIT), TFR_E_PROTO);
}

Test(boot, closes_descriptors_beyond_the_batch)
{
    struct wire_head head = {MAGIC, 1, 0, TFR_BOOT_FDS};
    int before = open_fds();

    raw_send(&head, sizeof(head), 0, TFR_BOOT_FDS + 5);
    cr_assert_eq(recv_status(LIMIT), TFR_E_PROTO);
    cr_assert_eq(open_fds(), before);
}

Test(boot, closes_descriptors_that_were_not_announced)
{
    struct wire_head head = {MAGIC, 1, 0, 1};
    int before = open_fds();

    raw_send(&head, sizeof(head), 0, 3);
    cr_assert_eq(recv_status(LIMIT), TFR_E_PROTO);
    cr_assert_eq(open_fds(), before);
}

Test(boot, gathers_no_descriptors_from_batches_on_every_byte)
{
    struct wire_head head = {MAGIC, 1, 0, 0};
    int before = open_fds();

    for (size_t i = 0; i < sizeof(head); i++)
        raw_send((char *)&head + i, 1, 0, 2);
    cr_assert_eq(recv_status(LIMIT), TFR_E_PROTO);
    close(ends[1].fd); /* what was not read closes with it */
    cr_assert_eq(open_fds(), before - 1);
}

Test(boot, refuses_descriptors_inside_the_body)
{
    struct wire_head head = {MAGIC, 1, 4, 0};
    int before = open_fds();

    raw_send(&head, sizeof(head), -1, 0);
    raw_send("body", 4, 0, 2);
    cr_assert_eq(recv_status(LIMIT), TFR_E_PROTO);
    cr_assert_eq(open_fds(), before);
}

Test(boot, gives_up_on_silence_in_time)
{
    uint64_t since = tfr_clock_now();

    cr_assert_eq(recv_status(50), TFR_E_TIMEOUT);
    cr_assert_geq(tfr_clock_now() - since, 50 * TFR_NS_PER_MS);
    cr_assert_lt(tfr_clock_now() - since, 20 * TFR_NS_PER_S);
    cr_assert_eq(recv_status(0), TFR_E_TIMEOUT);
}

Test(boot, calls_a_half_message_a_broken_protocol)
{
    struct wire_head head = {MAGIC, 1, 100, 0};

    raw_send(&head, sizeof(head), -1, 0);
    cr_assert_eq(recv_status(50), TFR_E_PROTO);
}

Test(boot, gives_up_on_a_peer_that_does_not_read)
{
    static char body[TFR_BOOT_MAX];
    struct tfr_boot_msg out = {.type = 1, .len = sizeof(body), .body = body};
    tfr_status status = TFR_OK;

    for (int i = 0; i < 20 && status == TFR_OK; i++)
        status = tfr_boot_send(&ends[0], &out, 50);
    cr_assert_eq(status, TFR_E_TIMEOUT);
}

Test(boot, notices_the_end_without_consuming)
{
    struct tfr_boot_msg out = {.type = 9}, in;

    cr_assert_not(tfr_boot_gone(&ends[1]));
    cr_assert_eq(tfr_boot_send(&ends[0], &out, LIMIT), TFR_OK);
    cr_assert_not(tfr_boot_gone(&ends[1]));
    close(ends[0].fd);
    cr_assert(tfr_boot_gone(&ends[1]));
    cr_assert_eq(tfr_boot_recv(&ends[1], &in, LIMIT), TFR_OK);
    cr_assert_eq(in.type, 9);
    cr_assert_eq(recv_status(LIMIT), TFR_E_PEER);
}

Test(boot, survives_a_send_to_the_dead)
{
    struct tfr_boot_msg out = {.type = 9};

    close(ends[1].fd);
    cr_assert_eq(tfr_boot_send(&ends[0], &out, LIMIT), TFR_E_PEER);
}

static char path[64], addr[80];

static void addr_make(const char *name)
{
    snprintf(path, sizeof(path), "/tmp/tfr_boot_%d_%s", (int)getpid(), name);
    snprintf(addr, sizeof(addr), "unix:%s", path);
}

static void connect_and_accept(int listener)
{
    struct tfr_boot client, server;
    uid_t uid;
    pid_t pid;

    cr_assert_eq(tfr_boot_connect(addr, LIMIT, &client), TFR_OK);
    cr_assert_eq(tfr_boot_accept(listener, &server), TFR_OK);
    cr_assert_eq(tfr_boot_peer(&server, &uid, &pid), TFR_OK);
    cr_assert_eq(uid, getuid());
    cr_assert_eq(pid, getpid());
    cr_assert(fcntl(server.fd, F_GETFD) & FD_CLOEXEC);
    cr_assert(fcntl(client.fd, F_GETFD) & FD_CLOEXEC);
    tfr_boot_close(&client);
    tfr_boot_close(&server);
}

Test(boot, listens_on_a_private_file)
{
    struct stat st;
    struct tfr_boot none;
    int listener;

    addr_make("file");
    umask(0);
    cr_assert_eq(tfr_boot_listen(addr, &listener), TFR_OK);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    cr_assert_eq(tfr_boot_accept(listener, &none), TFR_AGAIN);
    connect_and_accept(listener);
    tfr_boot_unlisten(addr, listener);
    cr_assert_neq(stat(path, &st), 0);
}

Test(boot, listens_on_an_abstract_name)
{
    int listener, second;

    snprintf(addr, sizeof(addr), "unix:@tfr_boot_%d", (int)getpid());
    cr_assert_eq(tfr_boot_listen(addr, &listener), TFR_OK);
    connect_and_accept(listener);
    cr_assert_eq(tfr_boot_listen(addr, &second), TFR_E_ACCESS);
}

Test(boot, replaces_what_a_killed_listener_left)
{
    int listener;
    pid_t child;

    addr_make("left");
    child = fork();
    if (child == 0) {
        _exit(tfr_boot_listen(addr, &listener) != TFR_OK);
    }
    waitpid(child, NULL, 0);
    cr_assert_eq(access(path, F_OK), 0);
    cr_assert_eq(tfr_boot_listen(addr, &listener), TFR_OK);
    connect_and_accept(listener);
    tfr_boot_unlisten(addr, listener);
}

Test(boot, leaves_a_live_listener_alone)
{
    int listener, second;

    addr_make("live");
    cr_assert_eq(tfr_boot_listen(addr, &listener), TFR_OK);
    cr_assert_eq(tfr_boot_listen(addr, &second), TFR_E_ACCESS);
    connect_and_accept(listener); /* nobody else is in its queue that would answer */
    tfr_boot_unlisten(addr, listener);
}

Test(boot, removes_its_file_though_a_child_still_has_the_listener)
{
    int listener, copy;

    addr_make("child");
    cr_assert_eq(tfr_boot_listen(addr, &listener), TFR_OK);
    copy = dup(listener);
    tfr_boot_unlisten(addr, listener);
    cr_assert_neq(access(path, F_OK), 0);
    close(copy);
}

Test(boot, leaves_the_file_of_who_came_after)
{
    int first, listener;

    addr_make("after");
    cr_assert_eq(tfr_boot_listen(addr, &first), TFR_OK);
    cr_assert_eq(unlink(path), 0); /* somebody tidied up */
    cr_assert_eq(tfr_boot_listen(addr, &listener), TFR_OK);
    tfr_boot_unlisten(addr, first);
    connect_and_accept(listener);
    tfr_boot_unlisten(addr, listener);
}

/* Answers "1" if it listens, and stays until `stay` ends; "0" if it may not. */
static void starter(int go, int stay, int answer)
{
    char word;
    int listener;
    bool got;

    if (read(go, &word, 1) != 1)
        _exit(1);
    got = tfr_boot_listen(addr, &listener) == TFR_OK;
    if (write(answer, got ? "1" : "0", 1) != 1)
        _exit(1);
    while (read(stay, &word, 1) > 0)
        continue;
    _exit(0);
}

/* How many of them listen. */
static int start_at_once(int n)
{
    int go[2], stay[2], answer[2], listening = 0;
    char word;

    cr_assert(pipe(go) == 0 && pipe(stay) == 0 && pipe(answer) == 0);
    for (int i = 0; i < n; i++) {
        if (fork() == 0) {
            close(stay[1]);
            starter(go[0], stay[0], answer[1]);
        }
    }
    for (int i = 0; i < n; i++)
        cr_assert_eq(write(go[1], "#", 1), 1);
    for (int i = 0; i < n; i++) {
        cr_assert_eq(read(answer[0], &word, 1), 1);
        listening += word == '1';
    }
    for (int i = 0; i < 2; i++) {
        close(go[i]);
        close(stay[i]);
        close(answer[i]);
    }
    while (wait(NULL) > 0)
        continue;
    return listening;
}

Test(boot, of_several_that_start_at_once_one_listens, .timeout = 500)
{
    addr_make("once");
    for (int i = 0; i < 300; i++) /* from the second on beside the file that the first left */
        cr_assert_eq(start_at_once(6), 1);
    unlink(path);
}

Test(boot, does_not_remove_a_file_that_is_no_socket)
{
    int fd, listener;

    addr_make("plain");
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(tfr_boot_listen(addr, &listener), TFR_E_ACCESS);
    cr_assert_eq(access(path, F_OK), 0);
    unlink(path);
}

Test(boot, says_at_once_that_nobody_listens)
{
    uint64_t since = tfr_clock_now();
    struct tfr_boot boot;

    addr_make("nobody");
    cr_assert_eq(tfr_boot_connect(addr, 60000, &boot), TFR_E_PEER);
    cr_assert_lt(tfr_clock_now() - since, 20 * TFR_NS_PER_S);
}

Test(boot, gives_up_on_a_listener_that_never_accepts)
{
    struct tfr_boot boot;
    int listener;
    tfr_status status = TFR_OK;

    addr_make("full");
    cr_assert_eq(tfr_boot_listen(addr, &listener), TFR_OK);
    for (int i = 0; i < 1000 && status == TFR_OK; i++)
        status = tfr_boot_connect(addr, 100, &boot);
    cr_assert_eq(status, TFR_E_TIMEOUT);
    tfr_boot_unlisten(addr, listener);
}

Test(boot, refuses_addresses_it_does_not_know)
{
    static const char *const bad[] = {"",          "unix:",   "unix:@",
                                      "tcp:host",  "tcp::1",  "tcp:h:99999",
                                      "tcp:::1:5", "tcp:h:0", "/tmp/x"};
    char longer[200] = "unix:/";
    struct tfr_boot boot;
    int fd;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_eq(tfr_boot_connect(bad[i], 10, &boot), TFR_E_INVAL, "%s", bad[i]);
    memset(longer + 6, 'x', 150);
    cr_assert_eq(tfr_boot_connect(longer, 10, &boot), TFR_E_INVAL);
    cr_assert_eq(tfr_boot_listen(NULL, &fd), TFR_E_INVAL);
}

/* ---- messages in pieces ---- */

Test(boot, takes_a_message_however_it_is_cut)
{
    struct {
        struct wire_head head;
        char body[5];
    } __attribute__((packed)) frame = {{MAGIC, 7, 5, 0}, "four"};
    struct tfr_boot_in in = {0};
    struct tfr_boot_msg msg;

    for (size_t i = 0; i < sizeof(frame); i++) {
        cr_assert_eq(tfr_boot_recv_part(&ends[1], &in, 5, &msg), TFR_AGAIN);
        cr_assert_eq(send(ends[0].fd, (char *)&frame + i, 1, 0), 1);
    }
    cr_assert_eq(tfr_boot_recv_part(&ends[1], &in, 5, &msg), TFR_OK);
    cr_assert_eq(msg.type, 7);
    cr_assert_str_eq(msg.body, "four");
    tfr_boot_msg_fini(&msg);
    cr_assert_eq(send(ends[0].fd, &frame, sizeof(frame), 0), sizeof(frame));
    cr_assert_eq(tfr_boot_recv_part(&ends[1], &in, 5, &msg), TFR_OK, "ready for the next one");
    tfr_boot_msg_fini(&msg);
}

Test(boot, part_refuses_foreign_long_and_surplus)
{
    struct wire_head foreign = {1, 7, 0, 0}, big = {MAGIC, 7, 6, 0}, fds = {MAGIC, 7, 0, 1};
    struct tfr_boot_msg msg;

    for (int i = 0; i < 4; i++) {
        struct tfr_boot_in in = {0};
        int before;
        pair_make();
        before = open_fds();
        raw_send(i == 0 ? &foreign : i == 1 ? &big : &fds, sizeof(big), 0, i == 3);
        cr_assert_eq(tfr_boot_recv_part(&ends[1], &in, 5, &msg), TFR_E_PROTO, "%d", i);
        tfr_boot_in_fini(&in);
        cr_assert_eq(open_fds(), before, "no descriptor was let in");
    }
}

Test(boot, part_sees_the_end)
{
    struct tfr_boot_in in = {0};
    struct tfr_boot_msg msg;

    cr_assert_eq(send(ends[0].fd, "TFR0", 4, 0), 4);
    close(ends[0].fd);
    cr_assert_eq(tfr_boot_recv_part(&ends[1], &in, 5, &msg), TFR_E_PEER);
    tfr_boot_in_fini(&in);
}

Test(boot, knows_an_address_from_another_word)
{
    static const char *const bad[] = {"", "bogus", "unix", "unix:", "unix:@", "tcp://x", NULL};
    char longest[200] = "unix:";
    const char *why = NULL;

    cr_assert(tfr_boot_addr_good("unix:/x", &why));
    cr_assert(tfr_boot_addr_good("unix:@x", &why));
    for (int i = 0; bad[i]; i++) {
        cr_assert_not(tfr_boot_addr_good(bad[i], &why), "%s", bad[i]);
        cr_assert(strstr(why, "tcp:HOST:PORT"), "%s", why);
    }
    memset(longest + 5, 'x', 120);
    cr_assert_not(tfr_boot_addr_good(longest, &why));
    cr_assert(strstr(why, "longer"));
}
