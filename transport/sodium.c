/* See sodium.h.  The library is never unloaded. */
#define TFR_LOG_PART "transport"
#include "transport/sodium.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "base/log.h"

static struct tfr_sodium functions;
static bool there;

static void *library_open(void)
{
    static const char *const names[] = {"libsodium.so.23", "libsodium.so.26", "libsodium.so"};
    void *lib = NULL;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && !lib; i++)
        lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return lib;
}

static bool look_up(void *lib, const char *name, void *to)
{
    void *found = dlsym(lib, name);

    memcpy(to, &found, sizeof(found)); /* ISO C has no cast from an object to a function */
    return found != NULL;
}

static void load(void)
{
    const struct {
        const char *name;
        void *to;
    } rows[] = {{"crypto_generichash", &functions.hash},
                {"crypto_aead_chacha20poly1305_ietf_encrypt", &functions.encrypt},
                {"crypto_aead_chacha20poly1305_ietf_decrypt", &functions.decrypt},
                {"crypto_scalarmult_base", &functions.point},
                {"crypto_scalarmult", &functions.shared},
                {"sodium_memcmp", &functions.compare}};
    int (*init)(void);
    void *lib = library_open();

    if (!lib) {
        tfr_info("libsodium: %s", dlerror());
        return;
    }
    there = look_up(lib, "sodium_init", &init);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        there = look_up(lib, rows[i].name, rows[i].to) && there;
    there = there && init() >= 0;
}

const struct tfr_sodium *tfr_sodium(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, load);
    return there ? &functions : NULL;
}
