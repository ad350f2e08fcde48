/* See auth.h.  Everything that is said goes into a running hash, the transcript; a proof is a keyed
 * hash of it with the role's name, or a MUNGE credential that carries that hash and a random
 * secret. docs/WIRE.md has it bit by bit. */
#define TFR_LOG_PART "transport"
#include "transport/auth.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "transport/munge.h"
#include "transport/seal.h"

enum { VERSION = 1, HASH = 32, LABEL_MAX = 32, PROOF_MAX = TFR_AUTH_MAX - 128 };

enum message {
    HELLO = 0x7e000001, /* client: struct greeting */
    CHALLENGE,          /* executor: struct greeting, its proof */
    PROOF,              /* client: its proof */
    ACCEPT,             /* executor: a hash under the new keys */
    REFUSED,            /* either: the reason as text, or nothing */
};

struct greeting {
    uint32_t version, method;
    uint8_t nonce[32], point[TFR_SODIUM_POINT];
};

/* What a MUNGE credential carries. */
struct payload {
    uint8_t hash[HASH], secret[HASH];
};

struct tfr_auth {
    const struct tfr_auth_cfg *cfg;
    enum message awaited;
    bool first;
    struct greeting own;
    uint8_t exponent[TFR_SODIUM_KEY]; /* of own.point */
    uint8_t peer_point[TFR_SODIUM_POINT];
    uint8_t transcript[HASH];
    uint8_t shared[HASH]; /* the key, or what MUNGE's secrets came to */
    uint8_t root[HASH];   /* of the session */
    uid_t uid;
    struct tfr_seal *seal;
    char why[TFR_AUTH_WHY_MAX];
    uint8_t out[TFR_AUTH_MAX];
};

/* ---- whom and how ---- */

tfr_status tfr_auth_load(const char *method, const char *key_file, bool make_key,
                         struct tfr_auth_cfg *cfg_out)
{
    char path[TFR_KEY_PATH_MAX];
    tfr_status status;

    *cfg_out = (struct tfr_auth_cfg){0};
    method = method ? method : tfr_env_str("TFR_AUTH");
    key_file = key_file ? key_file : tfr_env_str("TFR_KEY_FILE");
    if (!tfr_sodium())
        return tfr_fail(TFR_E_ACCESS, "TCP needs libsodium for the proof of identity: "
                                      "install it (Debian: libsodium23; Red Hat: libsodium)");
    if (strcmp(method, "munge") == 0) {
        cfg_out->method = TFR_AUTH_MUNGE;
        return TFR_OK;
    }
    if (strcmp(method, "key") != 0)
        return tfr_fail(TFR_E_INVAL,
                        "\"%s\" is no way to prove an identity: there are key and "
                        "munge",
                        method);
    status = tfr_key_path(key_file, path, sizeof(path));
    if (status == TFR_OK && make_key)
        status = tfr_key_make(path);
    if (status == TFR_OK)
        status = tfr_key_read(path, cfg_out->key);
    if (status == TFR_OK)
        cfg_out->method = TFR_AUTH_KEY;
    return status;
}

tfr_status tfr_auth_uids(struct tfr_auth_cfg *cfg, const char *list)
{
    while (*list) {
        char *end;
        unsigned long uid = strtoul(list, &end, 10);
        if (*list < '0' || *list > '9' || (*end && *end != ',') || uid >= UINT32_MAX ||
            cfg->uid_n == TFR_AUTH_UIDS)
            return TFR_E_INVAL;
        cfg->uid[cfg->uid_n++] = (uid_t)uid;
        list = end + (*end == ',');
    }
    return TFR_OK;
}

bool tfr_auth_admits(const struct tfr_auth_cfg *cfg, uid_t uid)
{
    for (int i = 0; i < cfg->uid_n; i++)
        if (cfg->uid[i] == uid)
            return true;
    return uid == geteuid();
}

/* ---- hashes ---- */

/* What was said so far, and this. */
static void absorb(struct tfr_auth *auth, const void *said, size_t len)
{
    tfr_sodium()->hash(auth->transcript, HASH, said, len, auth->transcript, HASH);
}

/* out = hash under the key of (label, transcript) */
static void tag(const struct tfr_auth *auth, const uint8_t key[HASH], const char *label,
                uint8_t out[HASH])
{
    uint8_t text[LABEL_MAX + HASH] = {0};

    memcpy(text, label, strlen(label));
    memcpy(text + LABEL_MAX, auth->transcript, HASH);
    tfr_sodium()->hash(out, HASH, text, sizeof(text), key, HASH);
}

static const char *role(bool first)
{
    return first ? "proof of the client" : "proof of the executor";
}

/* ---- proofs ---- */

static tfr_status refuse(struct tfr_auth *auth, const char *why)
{
    snprintf(auth->why, sizeof(auth->why), "%s", why);
    return TFR_E_ACCESS;
}

/* A secret of each side, in the order of the messages. */
static void secret_mix(struct tfr_auth *auth, const uint8_t secret[HASH])
{
    tfr_sodium()->hash(auth->shared, HASH, secret, HASH, auth->shared, HASH);
}

/* Our own proof, to `out`. */
static tfr_status prove(struct tfr_auth *auth, uint8_t *out, size_t *len_out)
{
    struct payload payload;
    const char *why;
    tfr_status status;

    if (auth->cfg->method == TFR_AUTH_KEY) {
        tag(auth, auth->shared, role(auth->first), out);
        *len_out = HASH;
        return TFR_OK;
    }
    tag(auth, auth->transcript, role(auth->first), payload.hash);
    if (getrandom(payload.secret, HASH, 0) != HASH)
        return refuse(auth, "no random numbers are to be had");
    status = tfr_munge_encode(&payload, sizeof(payload), auth->first ? auth->uid : (uid_t)-1,
                              (char *)out, PROOF_MAX, &why);
    if (status == TFR_OK) {
        secret_mix(auth, payload.secret);
        *len_out = strlen((char *)out) + 1;
    } else {
        refuse(auth, why);
    }
    explicit_bzero(&payload, sizeof(payload));
    return status;
}

static tfr_status munge_verify(struct tfr_auth *auth, const char *text)
{
    struct payload payload = {0};
    uint8_t hash[HASH];
    const char *why;
    tfr_status status = tfr_munge_decode(text, &payload, sizeof(payload), &auth->uid, &why);

    tag(auth, auth->transcript, role(!auth->first), hash);
    if (status != TFR_OK) {
        snprintf(auth->why, sizeof(auth->why), "its MUNGE credential is not valid here: %s", why);
    } else if (tfr_sodium()->compare(hash, payload.hash, HASH) != 0) {
        status = refuse(auth, "its MUNGE credential was made for another connection");
    } else if (!tfr_auth_admits(auth->cfg, auth->uid)) {
        snprintf(auth->why, sizeof(auth->why),
                 auth->first ? "it runs as user %u: name that in TFR_EXECUTOR_UID if you trust it"
                             : "user %u is not admitted: tf-executor --allow-uid admits others",
                 (unsigned)auth->uid);
        status = TFR_E_ACCESS;
    } else {
        secret_mix(auth, payload.secret);
    }
    explicit_bzero(&payload, sizeof(payload));
    return status;
}

/* The peer's proof. */
static tfr_status verify(struct tfr_auth *auth, const uint8_t *proof, size_t len)
{
    uint8_t hash[HASH];

    if (auth->cfg->method == TFR_AUTH_MUNGE)
        return len && len <= PROOF_MAX && proof[len - 1] == 0
                   ? munge_verify(auth, (const char *)proof)
                   : TFR_E_PROTO;
    if (len != HASH)
        return TFR_E_PROTO;
    tag(auth, auth->shared, role(!auth->first), hash);
    if (tfr_sodium()->compare(hash, proof, HASH) != 0)
        return refuse(auth, "it holds another key: both sides need the same key file "
                            "(~/.config/tfr/key, or what TFR_KEY_FILE names)");
    return TFR_OK;
}

/* Both have proved themselves: the root of the session's keys. */
static tfr_status agree(struct tfr_auth *auth)
{
    uint8_t shared[HASH];

    if (tfr_sodium()->shared(shared, auth->exponent, auth->peer_point) != 0)
        return TFR_E_PROTO;
    absorb(auth, shared, sizeof(shared));
    explicit_bzero(shared, sizeof(shared));
    explicit_bzero(auth->exponent, sizeof(auth->exponent));
    tag(auth, auth->shared, "root of the session", auth->root);
    auth->seal = malloc(sizeof(*auth->seal));
    if (!auth->seal)
        return TFR_E_NOMEM;
    tfr_seal_init(auth->seal, auth->root, auth->first);
    return TFR_OK;
}

/* ---- messages ---- */

static void say(struct tfr_auth *auth, enum message type, size_t len, struct tfr_boot_msg *out)
{
    *out = (struct tfr_boot_msg){.type = (uint32_t)type, .len = (uint32_t)len, .body = auth->out};
}

static void say_refused(struct tfr_auth *auth, struct tfr_boot_msg *out)
{
    size_t len = strlen(auth->why);

    memcpy(auth->out, auth->why, len);
    say(auth, REFUSED, len, out);
}

static const char *method_word(uint32_t method)
{
    return method == TFR_AUTH_MUNGE ? "munge"
           : method == TFR_AUTH_KEY ? "key"
                                    : "something unknown";
}

/* Is the peer's greeting one that we can go on with? */
static tfr_status greeting_check(struct tfr_auth *auth, const struct greeting *greeting)
{
    if (greeting->version != VERSION) {
        snprintf(auth->why, sizeof(auth->why),
                 "version %u of the proof of identity meets version %u: install the same release "
                 "on both sides",
                 greeting->version, VERSION);
        return TFR_E_ACCESS;
    }
    if (greeting->method == TFR_AUTH_NONE)
        return refuse(auth, "it has no usable key of its own");
    if (greeting->method != auth->cfg->method) {
        snprintf(auth->why, sizeof(auth->why),
                 "the client offers %s, the executor wants %s: see TFR_AUTH and --auth",
                 method_word(auth->first ? auth->cfg->method : greeting->method),
                 method_word(auth->first ? greeting->method : auth->cfg->method));
        return TFR_E_ACCESS;
    }
    return TFR_OK;
}

static tfr_status take_hello(struct tfr_auth *auth, const struct tfr_boot_msg *in,
                             struct tfr_boot_msg *out)
{
    struct greeting greeting;
    tfr_status status;
    size_t len = 0;

    if (in->len != sizeof(greeting))
        return TFR_E_PROTO;
    memcpy(&greeting, in->body, sizeof(greeting));
    status = greeting_check(auth, &greeting);
    if (status == TFR_OK) {
        memcpy(auth->peer_point, greeting.point, sizeof(auth->peer_point));
        absorb(auth, &greeting, sizeof(greeting));
        absorb(auth, &auth->own, sizeof(auth->own));
        memcpy(auth->out, &auth->own, sizeof(auth->own));
        status = prove(auth, auth->out + sizeof(auth->own), &len);
    }
    if (status != TFR_OK) {
        say_refused(auth, out);
        return status;
    }
    absorb(auth, auth->out + sizeof(auth->own), len);
    say(auth, CHALLENGE, sizeof(auth->own) + len, out);
    auth->awaited = PROOF;
    return TFR_AGAIN;
}

static tfr_status take_challenge(struct tfr_auth *auth, const struct tfr_boot_msg *in,
                                 struct tfr_boot_msg *out)
{
    const uint8_t *proof = (const uint8_t *)in->body + sizeof(struct greeting);
    struct greeting greeting;
    tfr_status status;
    size_t len = 0;

    if (in->len < sizeof(greeting))
        return TFR_E_PROTO;
    memcpy(&greeting, in->body, sizeof(greeting));
    status = greeting_check(auth, &greeting);
    if (status != TFR_OK)
        return status;
    memcpy(auth->peer_point, greeting.point, sizeof(auth->peer_point));
    absorb(auth, &greeting, sizeof(greeting));
    status = verify(auth, proof, in->len - sizeof(greeting));
    if (status == TFR_OK) {
        absorb(auth, proof, in->len - sizeof(greeting));
        status = prove(auth, auth->out, &len);
    }
    if (status == TFR_OK) {
        absorb(auth, auth->out, len);
        status = agree(auth);
    }
    if (status != TFR_OK) {
        say(auth, REFUSED, 0, out); /* so that the other side says a line, too */
        return status;
    }
    say(auth, PROOF, len, out);
    auth->awaited = ACCEPT;
    return TFR_AGAIN;
}

static tfr_status take_proof(struct tfr_auth *auth, const struct tfr_boot_msg *in,
                             struct tfr_boot_msg *out)
{
    tfr_status status = verify(auth, in->body, in->len);

    if (status == TFR_OK) {
        absorb(auth, in->body, in->len);
        status = agree(auth);
    }
    if (status == TFR_OK) {
        tag(auth, auth->root, "accepted", auth->out);
        say(auth, ACCEPT, HASH, out);
    } else if (status == TFR_E_ACCESS) {
        say_refused(auth, out);
    }
    return status;
}

static tfr_status take_accept(struct tfr_auth *auth, const struct tfr_boot_msg *in)
{
    uint8_t hash[HASH];

    tag(auth, auth->root, "accepted", hash);
    if (in->len != HASH || tfr_sodium()->compare(hash, in->body, HASH) != 0)
        return TFR_E_PROTO;
    return TFR_OK;
}

/* What comes from a stranger is not to be trusted with a terminal. */
static tfr_status take_refusal(struct tfr_auth *auth, const struct tfr_boot_msg *in)
{
    const char *text = in->body;
    size_t len = in->len < sizeof(auth->why) - 16 ? in->len : sizeof(auth->why) - 16;
    int at;

    if (!auth->first)
        return refuse(auth, "it does not believe our proof: it holds another key, or expects "
                            "another user");
    at = snprintf(auth->why, sizeof(auth->why), "it says: ");
    for (size_t i = 0; i < len; i++)
        auth->why[at++] = text[i] >= ' ' && text[i] < 127 ? text[i] : '?';
    auth->why[at] = 0;
    return TFR_E_ACCESS;
}

tfr_status tfr_auth_step(struct tfr_auth *auth, const struct tfr_boot_msg *in,
                         struct tfr_boot_msg *out)
{
    *out = (struct tfr_boot_msg){0};
    if (in->type == REFUSED)
        return take_refusal(auth, in);
    if (in->type != (uint32_t)auth->awaited || !in->body)
        return TFR_E_PROTO;
    switch (auth->awaited) {
    case HELLO:
        return take_hello(auth, in, out);
    case CHALLENGE:
        return take_challenge(auth, in, out);
    case PROOF:
        return take_proof(auth, in, out);
    case ACCEPT:
        return take_accept(auth, in);
    case REFUSED:
        break;
    }
    return TFR_E_PROTO;
}

void tfr_auth_begin(struct tfr_auth *auth, struct tfr_boot_msg *out)
{
    memcpy(auth->out, &auth->own, sizeof(auth->own));
    absorb(auth, &auth->own, sizeof(auth->own));
    say(auth, HELLO, sizeof(auth->own), out);
    auth->awaited = CHALLENGE;
}

/* ---- life ---- */

static pthread_mutex_t pair_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint64_t made_ns;
    uint8_t exponent[TFR_SODIUM_KEY], point[TFR_SODIUM_POINT];
} pair; /* guarded by pair_lock */

/* Our half of the exchange.  The executor's serves all who come within a second, because making
 * one is most of what a proof costs that fails. */
static bool pair_take(struct tfr_auth *auth)
{
    uint64_t now = tfr_clock_now();
    bool good = true;

    if (auth->first)
        return getrandom(auth->exponent, TFR_SODIUM_KEY, 0) == TFR_SODIUM_KEY &&
               tfr_sodium()->point(auth->own.point, auth->exponent) == 0;
    pthread_mutex_lock(&pair_lock);
    if (!pair.made_ns || now - pair.made_ns > TFR_NS_PER_S) {
        good = getrandom(pair.exponent, TFR_SODIUM_KEY, 0) == TFR_SODIUM_KEY &&
               tfr_sodium()->point(pair.point, pair.exponent) == 0;
        pair.made_ns = good ? now : 0;
    }
    memcpy(auth->exponent, pair.exponent, sizeof(auth->exponent));
    memcpy(auth->own.point, pair.point, sizeof(auth->own.point));
    pthread_mutex_unlock(&pair_lock);
    return good;
}

struct tfr_auth *tfr_auth_new(const struct tfr_auth_cfg *cfg, bool first)
{
    struct tfr_auth *auth = tfr_sodium() ? calloc(1, sizeof(*auth)) : NULL;

    if (!auth)
        return NULL;
    auth->cfg = cfg;
    auth->first = first;
    auth->awaited = HELLO;
    auth->uid = geteuid();
    auth->own.version = VERSION;
    auth->own.method = (uint32_t)cfg->method;
    memcpy(auth->shared, cfg->key, sizeof(auth->shared));
    if (getrandom(auth->own.nonce, sizeof(auth->own.nonce), 0) != sizeof(auth->own.nonce) ||
        !pair_take(auth)) {
        tfr_auth_free(auth);
        return NULL;
    }
    return auth;
}

void tfr_auth_free(struct tfr_auth *auth)
{
    if (!auth)
        return;
    tfr_seal_free(auth->seal);
    explicit_bzero(auth, sizeof(*auth));
    free(auth);
}

const char *tfr_auth_why(const struct tfr_auth *auth)
{
    return auth->why;
}

struct tfr_seal *tfr_auth_seal(struct tfr_auth *auth)
{
    struct tfr_seal *seal = auth->seal;

    auth->seal = NULL;
    return seal;
}

uid_t tfr_auth_uid(const struct tfr_auth *auth)
{
    return auth->uid;
}
