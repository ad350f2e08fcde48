/* The two threads that keep a session honest when the pump cannot: the relief (feedback role,
 * heartbeat, the client's death; makes no call that could block) and the watch (asks the driver for
 * faults, because a mark never comes from a dead context; may block).  Both sleep while no marks
 * are expected: who asks for a mark wakes the relief, and the relief the watch. */
#define TFR_LOG_PART "executor"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "executor/out.h"
#include "executor/place.h"
#include "executor/stat.h"
#include "transport/boot.h"

enum {
    BEAT_MS = 50, /* between beats while all sleep */
    LINGER = 4,   /* naps of LINGER_US before that: marks come in crowds */
    LINGER_US = 5000,
    RELIEF_US = 200, /* between looks while marks are expected and the pump is away */
    WATCH_MS = 1,
    WATCH_IDLE_MS = 1000,
    LEAVE_MS = 300, /* the pump has so long to see that the session is over */
};

static int watch_fd = -1;             /* wakes the watch */
static _Atomic uint32_t watch_asleep; /* pairs with the look in watch_wake */

static void bell(int fd)
{
    uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof one);
    (void)n; /* full: it rings already */
}

static void hush(int fd)
{
    uint64_t n;
    ssize_t got = read(fd, &n, sizeof n);
    (void)got;
}

void tfr_relief_wake(struct tfr_session *s)
{
    if (atomic_exchange_explicit(&s->relief_asleep, 0, memory_order_relaxed))
        bell(s->relief_fd);
}

static void watch_wake(void)
{
    if (atomic_load_explicit(&watch_asleep, memory_order_relaxed))
        bell(watch_fd);
}

/* The client's process, so that its death is seen though a child of it keeps the socket open.  -1:
 * not to be had; it may be in a container of its own. */
static int client_watch(struct tfr_session *s)
{
    uid_t uid;
    pid_t pid = 0;
    if (tfr_boot_peer(&s->boot, &uid, &pid) != TFR_OK || pid <= 0)
        return -1;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0 && errno == ESRCH)
        atomic_store_explicit(&s->ended, 1, memory_order_release);
    return fd;
}

/* Sleeps so long, or until it is rung for, or the client is gone. */
static void relief_nap(struct tfr_session *s, int client_fd, uint64_t us)
{
    struct pollfd p[3] = {{.fd = s->boot.fd, .events = POLLRDHUP},
                          {.fd = client_fd, .events = POLLIN},
                          {.fd = s->relief_fd, .events = POLLIN}};
    struct timespec t = {.tv_nsec = (long)(us * TFR_NS_PER_US)};
    if (ppoll(p, 3, &t, NULL) <= 0)
        return;
    if (p[2].revents)
        hush(s->relief_fd);
    if (p[1].revents || (p[0].revents && tfr_boot_gone(&s->boot)))
        atomic_store_explicit(&s->ended, 1, memory_order_release);
}

static void relief_sleep(struct tfr_session *s, int client_fd)
{
    atomic_store_explicit(&s->relief_asleep, 1, memory_order_relaxed);
    /* pairs with the load in tfr_news_ask: it sees us asleep, or we see its mark */
    atomic_thread_fence(memory_order_seq_cst);
    if (!tfr_news_expected(s))
        relief_nap(s, client_fd, BEAT_MS * 1000);
    atomic_store_explicit(&s->relief_asleep, 0, memory_order_relaxed);
}

/* Between machines each beat is a message, and may wake a client that sleeps: no more than are
 * needed, however often the relief looks around. */
static void beat(struct tfr_session *s)
{
    static uint64_t last_ms; /* the relief's alone */
    uint64_t now_ms = tfr_clock_now() / TFR_NS_PER_MS;
    TFR_STAT_SET(heartbeat_ms, now_ms);
    if (!s->mapped && now_ms - last_ms < BEAT_MS / 2)
        return;
    last_ms = now_ms;
    tfr_out_word(s, &s->feedback->heartbeat, now_ms, TFR_OUT_QUIET);
}

/* Brings news while the pump is away in a driver call. */
static void relieve(struct tfr_session *s, uint32_t *seen)
{
    if (atomic_load_explicit(&s->news_pass, memory_order_relaxed) == *seen) {
        if (s->polled) /* take_in takes our own passes for the pump's */
            tfr_out_progress(s);
        tfr_news_bring(s);
    }
    *seen = atomic_load_explicit(&s->news_pass, memory_order_relaxed);
    watch_wake();
}

/* Takes in what arrives meanwhile: the GPU, and so the driver call, may wait for a word of the
 * client.  True: the pump is in one.  *seen: passes made at the last look. */
static bool take_in(struct tfr_session *s, uint32_t *seen)
{
    uint32_t before = *seen;
    *seen = atomic_load_explicit(&s->news_pass, memory_order_relaxed);
    if (*seen != before || atomic_load_explicit(&s->pump_sleeps, memory_order_relaxed))
        return false;
    tfr_out_progress(s);
    return true;
}

static void *relief_main(void *arg)
{
    struct tfr_session *s = arg;
    int client_fd = client_watch(s);
    uint32_t seen = 0, taken = 0, idle = 0;
    prctl(PR_SET_NAME, "tfr-relief");
    tfr_place_thread();
    while (!atomic_load_explicit(&s->ended, memory_order_acquire)) {
        bool away = s->polled && take_in(s, &taken);
        beat(s);
        tfr_place_strays();
        if (tfr_news_expected(s)) {
            idle = 0;
            relieve(s, &seen);
            relief_nap(s, client_fd, RELIEF_US);
        } else if (away) {
            relief_nap(s, client_fd, RELIEF_US);
        } else if (idle < LINGER) {
            idle++;
            relief_nap(s, client_fd, LINGER_US);
        } else {
            relief_sleep(s, client_fd);
        }
    }
    /* The pump ends the process, unless it sits in a driver call that may never return. */
    poll(NULL, 0, LEAVE_MS);
    _exit(0);
}

static void watch_sleep(struct tfr_session *s)
{
    struct pollfd p = {.fd = watch_fd, .events = POLLIN};
    atomic_store_explicit(&watch_asleep, 1, memory_order_relaxed);
    if (!tfr_news_expected(s) && poll(&p, 1, WATCH_IDLE_MS) > 0)
        hush(watch_fd);
    atomic_store_explicit(&watch_asleep, 0, memory_order_relaxed);
}

/* Is the context of this index alive?  A stream goes with the life it was made in. */
static void context_ask(struct tfr_session *s, int i)
{
    static CUstream stream[TFR_CONTEXTS_MAX];
    static uint64_t life[TFR_CONTEXTS_MAX];
    CUresult result = CUDA_SUCCESS;
    bool asked = false;
    pthread_mutex_lock(&s->ctx_lock); /* it is not destroyed meanwhile */
    if (tfr_session_enter(s, (uint16_t)(i + 1)) == CUDA_SUCCESS) {
        if (life[i] != s->ctx_life[i])
            stream[i] = NULL;
        life[i] = s->ctx_life[i];
        asked = stream[i] != NULL;
        result = asked ? s->cu->cuStreamQuery(stream[i])
                       : s->cu->cuStreamCreate(&stream[i], CU_STREAM_NON_BLOCKING);
        if (!asked && result != CUDA_SUCCESS)
            stream[i] = NULL; /* no memory, perhaps: no fault of the program's */
    }
    pthread_mutex_unlock(&s->ctx_lock);
    bool fault = asked ? result != CUDA_SUCCESS && result != CUDA_ERROR_NOT_READY
                       : tfr_result_is_fatal(result);
    if (fault)
        tfr_session_sticky(s, result, NULL);
}

static void *watch_main(void *arg)
{
    struct tfr_session *s = arg;
    prctl(PR_SET_NAME, "tfr-watch");
    tfr_place_thread();
    while (!atomic_load_explicit(&s->ended, memory_order_acquire)) {
        if (tfr_news_expected(s)) {
            poll(NULL, 0, WATCH_MS);
            for (int i = 0; i < TFR_CONTEXTS_MAX; i++)
                if (s->ctx[i])
                    context_ask(s, i);
        } else {
            watch_sleep(s);
        }
    }
    return NULL;
}

tfr_status tfr_news_start(struct tfr_session *s)
{
    pthread_t thread;
    s->relief_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    watch_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->relief_fd < 0 || watch_fd < 0 || pthread_create(&thread, NULL, relief_main, s) != 0 ||
        pthread_create(&thread, NULL, watch_main, s) != 0)
        return tfr_fail(TFR_E_SYS, "no thread for the session: %m");
    return TFR_OK;
}
