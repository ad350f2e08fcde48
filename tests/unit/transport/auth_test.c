/* Proof of identity and key files: what passes between two honest sides, and what
 * must not pass when somebody else is between them or at one end. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/auth.h"
#include "transport/seal.h"

static char folder[64];

static void folder_make(void)
{
    snprintf(folder, sizeof(folder), "/tmp/tfr_auth_XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

static void folder_remove(void)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

static void sodium_need(void)
{
    if (!tfr_sodium())
        cr_skip("skipped: no libsodium here\n");
}

TestSuite(key, .init = folder_make, .fini = folder_remove, .timeout = 240);
TestSuite(auth, .init = sodium_need, .timeout = 240);

/* ---- key files ---- */

static const char *in_folder(const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void file_write(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    fchmod(fd, mode);
    close(fd);
}

Test(key, is_made_once_and_private)
{
    const char *path = in_folder("a/b/key");
    uint8_t first[TFR_KEY_LEN], again[TFR_KEY_LEN];
    struct stat st;

    umask(0);
    cr_assert_eq(tfr_key_make(path), TFR_OK);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0600);
    cr_assert_eq(st.st_nlink, 1, "nothing is left beside it");
    cr_assert_eq(tfr_key_read(path, first), TFR_OK);
    cr_assert_eq(tfr_key_make(path), TFR_OK);
    cr_assert_eq(tfr_key_read(path, again), TFR_OK);
    cr_assert_arr_eq(first, again, sizeof(first));
    *strrchr((char *)(uintptr_t)path, '/') = 0;
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0700);
}

Test(key, is_one_however_many_make_it_at_once)
{
    enum { MAKERS = 8 };
    const char *path = in_folder("key");
    uint8_t key[TFR_KEY_LEN], all[MAKERS][TFR_KEY_LEN];
    int pipes[2], status;

    cr_assert_eq(pipe(pipes), 0);
    for (int i = 0; i < MAKERS; i++) {
        if (fork() == 0) {
            bool good = tfr_key_make(path) == TFR_OK && tfr_key_read(path, key) == TFR_OK &&
                        write(pipes[1], key, sizeof(key)) == sizeof(key);
            _exit(!good);
        }
    }
    for (int i = 0; i < MAKERS; i++) {
        cr_assert_gt(wait(&status), 0);
        cr_assert_eq(status, 0);
        cr_assert_eq(read(pipes[0], all[i], TFR_KEY_LEN), TFR_KEY_LEN);
        cr_assert_arr_eq(all[i], all[0], TFR_KEY_LEN);
    }
}

Test(key, that_others_may_read_is_refused)
{
    static const mode_t modes[] = {0644, 0640, 0604, 0620, 0601, 0660};
    const char *path = in_folder("key");
    uint8_t key[TFR_KEY_LEN];

    cr_assert_eq(tfr_key_make(path), TFR_OK);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        chmod(path, modes[i]);
        cr_assert_eq(tfr_key_read(path, key), TFR_E_ACCESS, "%o", (unsigned)modes[i]);
    }
    chmod(path, 0400);
    cr_assert_eq(tfr_key_read(path, key), TFR_OK);
}

#define DIGITS_62 "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEE"

Test(key, must_be_64_hexadecimal_digits)
{
    static const char *const bad[] = {
        "", "\n", DIGITS_62, DIGITS_62 "f", DIGITS_62 "fg", DIGITS_62 "ffa", DIGITS_62 "ff\nx"};
    const char *path = in_folder("key");
    uint8_t key[TFR_KEY_LEN];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        file_write(path, bad[i], 0600);
        cr_assert_eq(tfr_key_read(path, key), TFR_E_ACCESS, "%s", bad[i]);
    }
    file_write(path, DIGITS_62 "ff \r\n", 0600);
    cr_assert_eq(tfr_key_read(path, key), TFR_OK);
    cr_assert_eq(key[1], 0x11);
    cr_assert_eq(key[31], 0xff);
}

Test(key, that_is_no_file_is_refused)
{
    uint8_t key[TFR_KEY_LEN];

    cr_assert_eq(tfr_key_read(in_folder("none"), key), TFR_E_ACCESS);
    cr_assert_eq(tfr_key_read(folder, key), TFR_E_ACCESS);
    cr_assert_eq(mkfifo(in_folder("fifo"), 0600), 0);
    cr_assert_eq(tfr_key_read(in_folder("fifo"), key), TFR_E_ACCESS, "and nothing waits for it");
}

Test(key, lies_in_the_home_unless_another_is_named)
{
    char path[TFR_KEY_PATH_MAX];

    setenv("HOME", "/home/somebody", 1);
    cr_assert_eq(tfr_key_path(NULL, path, sizeof(path)), TFR_OK);
    cr_assert_str_eq(path, "/home/somebody/.config/tfr/key");
    cr_assert_eq(tfr_key_path("/etc/key", path, sizeof(path)), TFR_OK);
    cr_assert_str_eq(path, "/etc/key");
    unsetenv("HOME");
    cr_assert_eq(tfr_key_path("", path, sizeof(path)), TFR_E_ACCESS);
}

/* ---- proofs ---- */

enum { CLIENT, EXECUTOR };

/* A conversation, with a place for somebody between the two. */
struct talk {
    struct tfr_auth_cfg cfg[2];
    struct tfr_auth *auth[2];
    tfr_status status[2];
    /* Message `at` (from 0): may change it. */
    void (*between)(int at, struct tfr_boot_msg *msg, void *arg);
    void *arg;
    int messages;
    struct tfr_seal *seal[2];
};

static void cfg_make(struct tfr_auth_cfg *cfg, uint8_t key)
{
    *cfg = (struct tfr_auth_cfg){.method = TFR_AUTH_KEY};
    memset(cfg->key, key, sizeof(cfg->key));
}

static void talk_run(struct talk *t)
{
    static uint8_t copy[TFR_AUTH_MAX + 1];
    struct tfr_boot_msg msg, in;

    for (int i = 0; i < 2; i++) {
        t->auth[i] = tfr_auth_new(&t->cfg[i], i == CLIENT);
        cr_assert_not_null(t->auth[i]);
        t->status[i] = TFR_AGAIN;
    }
    tfr_auth_begin(t->auth[CLIENT], &msg);
    for (int side = EXECUTOR; msg.type; side = !side) {
        cr_assert_leq(msg.len, TFR_AUTH_MAX);
        if (msg.len)
            memcpy(copy, msg.body, msg.len);
        in = msg;
        in.body = copy;
        if (t->between)
            t->between(t->messages, &in, t->arg);
        t->messages++;
        t->status[side] = tfr_auth_step(t->auth[side], &in, &msg);
    }
    for (int i = 0; i < 2; i++)
        t->seal[i] = t->status[i] == TFR_OK ? tfr_auth_seal(t->auth[i]) : NULL;
}

static void talk_end(struct talk *t)
{
    for (int i = 0; i < 2; i++) {
        tfr_auth_free(t->auth[i]);
        tfr_seal_free(t->seal[i]);
    }
}

static void talk_of_keys(struct talk *t, uint8_t client, uint8_t executor)
{
    *t = (struct talk){0};
    cfg_make(&t->cfg[CLIENT], client);
    cfg_make(&t->cfg[EXECUTOR], executor);
}

Test(auth, with_one_key_gives_both_sides_the_same_secrets)
{
    struct talk t;
    uint8_t secret[TFR_BOOT_SECRET];

    for (int i = 0; i < 2; i++) {
        talk_of_keys(&t, 7, 7);
        talk_run(&t);
        cr_assert_eq(t.status[CLIENT], TFR_OK);
        cr_assert_eq(t.status[EXECUTOR], TFR_OK);
        cr_assert_eq(t.messages, 4);
        cr_assert_arr_eq(t.seal[0]->secret, t.seal[1]->secret, TFR_BOOT_SECRET);
        cr_assert_arr_eq(t.seal[0]->out_key, t.seal[1]->in_key, TFR_SODIUM_KEY);
        cr_assert_arr_eq(t.seal[1]->out_key, t.seal[0]->in_key, TFR_SODIUM_KEY);
        cr_assert_neq(memcmp(t.seal[0]->out_key, t.seal[0]->in_key, TFR_SODIUM_KEY), 0);
        if (i)
            cr_assert_neq(memcmp(secret, t.seal[0]->secret, sizeof(secret)), 0,
                          "another conversation, another secret");
        memcpy(secret, t.seal[0]->secret, sizeof(secret));
        talk_end(&t);
    }
}

Test(auth, with_another_key_is_refused_on_both_sides)
{
    struct talk t;

    talk_of_keys(&t, 7, 8);
    talk_run(&t);
    cr_assert_eq(t.status[CLIENT], TFR_E_ACCESS);
    cr_assert_eq(t.status[EXECUTOR], TFR_E_ACCESS);
    cr_assert(strstr(tfr_auth_why(t.auth[CLIENT]), "another key"));
    cr_assert(strstr(tfr_auth_why(t.auth[EXECUTOR]), "another key"));
    talk_end(&t);
}

Test(auth, without_a_key_is_refused_on_both_sides)
{
    struct talk t;

    talk_of_keys(&t, 0, 8);
    t.cfg[CLIENT].method = TFR_AUTH_NONE;
    talk_run(&t);
    cr_assert_eq(t.status[CLIENT], TFR_E_ACCESS);
    cr_assert_eq(t.status[EXECUTOR], TFR_E_ACCESS);
    cr_assert(strstr(tfr_auth_why(t.auth[EXECUTOR]), "no usable key"));
    talk_end(&t);
}

Test(auth, of_two_kinds_is_refused_with_both_names)
{
    struct talk t;

    talk_of_keys(&t, 7, 7);
    t.cfg[CLIENT].method = TFR_AUTH_MUNGE;
    talk_run(&t);
    cr_assert_eq(t.status[CLIENT], TFR_E_ACCESS);
    cr_assert_eq(t.status[EXECUTOR], TFR_E_ACCESS);
    cr_assert(strstr(tfr_auth_why(t.auth[CLIENT]), "the client offers munge, the executor wants"));
    talk_end(&t);
}

struct change {
    int at;
    uint32_t byte;
    bool shorter, longer;
    uint32_t len_out; /* of that message */
};

static void change_make(int at, struct tfr_boot_msg *msg, void *arg)
{
    struct change *change = arg;

    if (at != change->at)
        return;
    change->len_out = msg->len;
    if (change->shorter)
        msg->len--;
    else if (change->longer)
        msg->len++;
    else if (change->byte < msg->len)
        ((uint8_t *)msg->body)[change->byte] ^= 0x40;
}

/* Whoever heard the changed message must not be content, nor anybody after it. */
static void changed_run(struct change *change)
{
    struct talk t;

    talk_of_keys(&t, 7, 7);
    t.between = change_make;
    t.arg = change;
    talk_run(&t);
    cr_assert_neq(t.status[CLIENT], TFR_OK, "message %d, byte %u", change->at, change->byte);
    if (change->at < 3)
        cr_assert_neq(t.status[EXECUTOR], TFR_OK, "message %d, byte %u", change->at, change->byte);
    talk_end(&t);
}

Test(auth, ends_when_any_byte_is_changed)
{
    for (int at = 0; at < 4; at++) {
        struct change change = {.at = at};
        do {
            changed_run(&change);
        } while (++change.byte < change.len_out);
        cr_assert_geq(change.len_out, 32);
    }
}

Test(auth, ends_when_a_message_is_cut_or_longer)
{
    for (int at = 0; at < 4; at++) {
        changed_run(&(struct change){.at = at, .shorter = true});
        changed_run(&(struct change){.at = at, .longer = true});
    }
}

static struct {
    struct tfr_boot_msg msg[4];
    uint8_t body[4][TFR_AUTH_MAX];
} tape;

static void tape_record(int at, struct tfr_boot_msg *msg, void *arg)
{
    (void)arg;
    tape.msg[at] = *msg;
    tape.msg[at].body = tape.body[at];
    memcpy(tape.body[at], msg->body, msg->len);
}

Test(auth, is_not_convinced_by_what_another_said_before)
{
    struct tfr_boot_msg out;
    struct tfr_auth *auth;
    struct talk t;

    talk_of_keys(&t, 7, 7);
    t.between = tape_record;
    talk_run(&t);
    cr_assert_eq(t.status[EXECUTOR], TFR_OK);
    auth = tfr_auth_new(&t.cfg[EXECUTOR], false);
    cr_assert_eq(tfr_auth_step(auth, &tape.msg[0], &out), TFR_AGAIN);
    cr_assert_eq(tfr_auth_step(auth, &tape.msg[2], &out), TFR_E_ACCESS);
    tfr_auth_free(auth);
    auth = tfr_auth_new(&t.cfg[CLIENT], true);
    tfr_auth_begin(auth, &out);
    cr_assert_eq(tfr_auth_step(auth, &tape.msg[1], &out), TFR_E_ACCESS);
    tfr_auth_free(auth);
    talk_end(&t);
}

/* A client's own messages, sent back to it, prove nothing. */
Test(auth, is_not_convinced_by_its_echo)
{
    struct tfr_auth_cfg cfg;
    struct tfr_boot_msg out, echo;
    struct tfr_auth *auth;

    cfg_make(&cfg, 7);
    auth = tfr_auth_new(&cfg, true);
    tfr_auth_begin(auth, &out);
    echo = out;
    cr_assert_eq(tfr_auth_step(auth, &echo, &out), TFR_E_PROTO);
    tfr_auth_free(auth);
}

Test(auth, takes_messages_in_their_order_alone)
{
    struct tfr_boot_msg out;
    struct talk t;

    talk_of_keys(&t, 7, 7);
    t.between = tape_record;
    talk_run(&t);
    for (int i = 1; i < 4; i++) {
        struct tfr_auth *auth = tfr_auth_new(&t.cfg[EXECUTOR], false);
        cr_assert_eq(tfr_auth_step(auth, &tape.msg[i], &out), TFR_E_PROTO, "%d", i);
        tfr_auth_free(auth);
    }
    talk_end(&t);
}

Test(auth, shows_a_refusal_in_printable_letters)
{
    struct tfr_boot_msg out, refusal = {.type = 0x7e000005, .len = 10, .body = "a\033[31mb\n\0c"};
    struct tfr_auth_cfg cfg;
    struct tfr_auth *auth;

    cfg_make(&cfg, 7);
    auth = tfr_auth_new(&cfg, true);
    tfr_auth_begin(auth, &out);
    cr_assert_eq(tfr_auth_step(auth, &refusal, &out), TFR_E_ACCESS);
    cr_assert_str_eq(tfr_auth_why(auth), "it says: a?[31mb??c");
    tfr_auth_free(auth);
}

Test(auth, admits_ourselves_and_who_is_listed)
{
    struct tfr_auth_cfg cfg = {0};

    cr_assert(tfr_auth_admits(&cfg, geteuid()));
    cr_assert_not(tfr_auth_admits(&cfg, geteuid() + 1));
    cr_assert_eq(tfr_auth_uids(&cfg, "4000000000,77"), TFR_OK);
    cr_assert(tfr_auth_admits(&cfg, 77));
    cr_assert(tfr_auth_admits(&cfg, 4000000000));
    cr_assert_eq(tfr_auth_uids(&cfg, "x"), TFR_E_INVAL);
    cr_assert_eq(tfr_auth_uids(&cfg, "1 2"), TFR_E_INVAL);
    cr_assert_eq(tfr_auth_uids(&cfg, "-1"), TFR_E_INVAL);
    cr_assert_eq(tfr_auth_uids(&cfg, "4294967295"), TFR_E_INVAL, "is no user");
}
