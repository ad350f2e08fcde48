/* Helpers: an elastic pool of threads for driver calls that may block, so that the pump never does.
 * There is at most one job per waiting client thread, because the client waits for each. */
#define TFR_LOG_PART "executor"
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/log.h"
#include "executor/place.h"
#include "executor/session.h"

/* Beyond any client of ours: each waits in a reply slot, and those answered may not be counted out
 * yet. */
enum { JOBS_MAX = 2 * TFR_REPLY_SLOTS };

struct job {
    struct job *next;
    struct tfr_session *s;
    const struct tfr_op_info *info;
    struct tfr_rec *rec;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static struct job *first, **last = &first;
static int idle, waiting, working;
static int threads; /* ever started; the pump alone starts them */

static struct job *job_take(void)
{
    pthread_mutex_lock(&lock);
    idle++;
    while (!first)
        pthread_cond_wait(&wake, &lock);
    idle--;
    waiting--;
    working++;
    struct job *job = first;
    first = job->next;
    if (!first)
        last = &first;
    pthread_mutex_unlock(&lock);
    return job;
}

static void job_run(void)
{
    struct job *job = job_take();
    tfr_session_run(job->s, job->info, job->rec);
    free(job);
    pthread_mutex_lock(&lock);
    working--;
    pthread_mutex_unlock(&lock);
}

bool tfr_helper_busy(void)
{
    pthread_mutex_lock(&lock);
    bool busy = waiting || working;
    pthread_mutex_unlock(&lock);
    return busy;
}

static void *helper_main(void *arg)
{
    (void)arg;
    prctl(PR_SET_NAME, "tfr-helper");
    tfr_place_thread();
    for (;;)
        job_run();
    return NULL;
}

/* Only the pump starts helpers, and they never end.  Without a single one it does the work itself,
 * late rather than never. */
static void helper_start(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, helper_main, NULL) == 0) {
        pthread_detach(thread);
        threads++;
        return;
    }
    tfr_warn("no further helper thread");
    if (!threads)
        job_run();
}

void tfr_helper_run(struct tfr_session *s, const struct tfr_op_info *info,
                    const struct tfr_rec *rec)
{
    struct job *job = malloc(sizeof *job + rec->size);
    if (!job) {
        tfr_session_run(s, info, rec);
        return;
    }
    *job = (struct job){.s = s, .info = info, .rec = (struct tfr_rec *)(job + 1)};
    memcpy(job->rec, rec, rec->size);
    pthread_mutex_lock(&lock);
    if (waiting + working >= JOBS_MAX) {
        pthread_mutex_unlock(&lock);
        free(job);
        tfr_session_bad(s, rec, "more waiting calls than reply slots");
        return;
    }
    *last = job;
    last = &job->next;
    bool more = ++waiting > idle;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
    if (more)
        helper_start();
}
