/* See munge.h.  The few declarations that we need of munge.h are here, so that it need not be
 * installed where we are built. */
#define TFR_LOG_PART "transport"
#include "transport/munge.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"

enum { MUNGE_OK = 0, MUNGE_SOCKET_ERROR = 6, OPT_SOCKET = 8, OPT_UID_RESTRICTION = 9 };

static struct {
    void *(*create)(void);
    void (*destroy)(void *ctx);
    int (*set)(void *ctx, int option, ...);
    int (*encode)(char **text, void *ctx, const void *payload, int len);
    int (*decode)(const char *text, void *ctx, void **payload, int *len, uid_t *uid, gid_t *gid);
    const char *(*strerror)(int error);
} munge;
static bool there;

static void load(void)
{
    static const char *const names[] = {"munge_ctx_create", "munge_ctx_destroy", "munge_ctx_set",
                                        "munge_encode",     "munge_decode",      "munge_strerror"};
    void *lib = dlopen("libmunge.so.2", RTLD_NOW | RTLD_LOCAL);
    void *found[sizeof(names) / sizeof(names[0])];

    if (!lib)
        return;
    there = true;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        found[i] = dlsym(lib, names[i]);
        there = there && found[i];
    }
    _Static_assert(sizeof(found) == sizeof(munge), "one place for each name, in order");
    memcpy(&munge, found, sizeof(found));
}

/* NULL: *why_out says why. */
static void *context(const char **why_out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const char *socket = tfr_env_str("TFR_MUNGE_SOCKET");
    void *ctx;

    pthread_once(&once, load);
    *why_out = "libmunge.so.2 is not there: install libmunge2 and munge, or use keys";
    if (!there)
        return NULL;
    *why_out = "MUNGE has no memory";
    ctx = munge.create();
    if (ctx && socket)
        munge.set(ctx, OPT_SOCKET, socket);
    return ctx;
}

static const char *reason(int error)
{
    return error == MUNGE_SOCKET_ERROR ? "munged does not answer on this machine: start it"
                                       : munge.strerror(error);
}

tfr_status tfr_munge_encode(const void *payload, size_t len, uid_t only, char *text_out,
                            size_t room, const char **why_out)
{
    void *ctx = context(why_out);
    tfr_status status = TFR_E_ACCESS;
    char *text = NULL;
    int error;

    if (!ctx)
        return TFR_E_ACCESS;
    if (only != (uid_t)-1)
        munge.set(ctx, OPT_UID_RESTRICTION, only);
    error = munge.encode(&text, ctx, payload, (int)len);
    *why_out = error == MUNGE_OK ? "MUNGE's credential is too long" : reason(error);
    if (error == MUNGE_OK && strlen(text) < room) {
        memcpy(text_out, text, strlen(text) + 1);
        status = TFR_OK;
    }
    free(text);
    munge.destroy(ctx);
    return status;
}

tfr_status tfr_munge_decode(const char *text, void *payload_out, size_t len, uid_t *uid_out,
                            const char **why_out)
{
    void *ctx = context(why_out);
    tfr_status status = TFR_E_ACCESS;
    void *payload = NULL;
    int got = 0, error;
    gid_t gid;

    if (!ctx)
        return TFR_E_ACCESS;
    error = munge.decode(text, ctx, &payload, &got, uid_out, &gid);
    *why_out = error == MUNGE_OK ? "it was made for another purpose" : reason(error);
    if (error == MUNGE_OK && (size_t)got == len) {
        memcpy(payload_out, payload, len);
        status = TFR_OK;
    }
    if (payload)
        explicit_bzero(payload, (size_t)(got > 0 ? got : 0));
    free(payload);
    munge.destroy(ctx);
    return status;
}
