/* vm_run: the launch itself.  The caller takes blocks in order; once a launch has shown that it is
 * worth a wake-up, workers (one per further core) help.  A block whose warps only spin lets its
 * worker start a further block beside it, so kernels whose blocks wait for each other end too,
 * cooperative or not. Blocks' memory is kept per thread from launch to launch. */
#include "base/env.h"
#include "executor/softgpu/devmem.h"
#include "executor/softgpu/vm_in.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    WORTH_HELP = 64 * 1024, /* thread-instructions until others are woken */
    QUANTUM = 16 * 1024,    /* backward branches of a warp in a row */
    QUANTUM_COOP = 64,
    STACK_DEFAULT = 16 << 10,
    PATIENCE = 32, /* rounds without an end until a block more is started */
    MAX_RESIDENT = 4096,
    MAX_WORKERS = 64
};
static const size_t KEEP_BYTES = 64 << 20; /* of idle blocks' memory per thread */

static _Atomic uint64_t retired;

uint64_t vm_instructions(void)
{
    return atomic_load_explicit(&retired, memory_order_relaxed);
}

/* ---- memory of this thread's blocks ---- */

struct worker {
    struct vm_block *idle;
};

static pthread_key_t worker_key;
static _Thread_local struct worker *self;

static void worker_free(void *p)
{
    struct worker *w = p;
    while (w->idle) {
        struct vm_block *b = w->idle;
        w->idle = b->link;
        vm_block_free(b);
    }
    free(w);
}

static void worker_key_make(void)
{
    pthread_key_create(&worker_key, worker_free);
}

static struct worker *worker_get(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (self)
        return self;
    pthread_once(&once, worker_key_make);
    self = calloc(1, sizeof(*self));
    if (self)
        pthread_setspecific(worker_key, self);
    return self;
}

static struct vm_block *block_take(struct worker *w, struct vm_job *job)
{
    struct vm_block *b = w->idle;
    if (b)
        w->idle = b->link;
    else
        b = vm_block_new();
    if (b && vm_block_prepare(b, job))
        return b;
    vm_block_free(b);
    return NULL;
}

static void block_give(struct worker *w, struct vm_block *b)
{
    b->link = w->idle;
    w->idle = b;
}

/* Keeps a few small ones. */
static void trim(struct worker *w)
{
    struct vm_block **at = &w->idle;
    size_t sum = 0;
    while (*at) {
        struct vm_block *b = *at;
        sum += b->mem_len;
        if (sum > KEEP_BYTES) {
            *at = b->link;
            vm_block_free(b);
        } else {
            at = &b->link;
        }
    }
}

/* ---- one worker's part of a launch ---- */

struct part {
    struct vm_job *job;
    struct worker *worker;
    struct vm_block **resident;
    uint32_t n, cap, rounds, patience;
    uint64_t count;
    bool is_caller;
    struct vm_block *first[8];
};

static void pool_publish(struct vm_job *job);
static uint32_t pool_size(void);

static void give_up(struct vm_job *job, CUresult result, const char *text)
{
    pthread_mutex_lock(&job->lock);
    if (!job->fault_set && job->fault) {
        job->fault_set = true;
        *job->fault = (struct vm_fault){.result = result};
        snprintf(job->fault->text.s, sizeof(job->fault->text.s), "kernel %.300s: %s",
                 job->launch->kernel->info.name, text);
    }
    pthread_mutex_unlock(&job->lock);
    atomic_store_explicit(&job->failed, true, memory_order_relaxed); /* as in vm_fault_at */
}

static bool part_grow(struct part *p)
{
    if (p->n < p->cap)
        return true;
    struct vm_block **more = malloc(2 * p->cap * sizeof(struct vm_block *));
    if (!more)
        return false;
    memcpy(more, p->resident, p->n * sizeof(struct vm_block *));
    if (p->resident != p->first)
        free(p->resident);
    p->resident = more;
    p->cap *= 2;
    return true;
}

/* Starts the next block of the grid in a place of its own. */
static bool admit(struct part *p)
{
    struct vm_job *job = p->job;
    if (p->n >= MAX_RESIDENT || !part_grow(p))
        return false;
    if (atomic_load_explicit(&job->next, memory_order_relaxed) >= job->block_n)
        return false;
    uint64_t number = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed); /* a ticket */
    if (number >= job->block_n)
        return false;
    struct vm_block *b = block_take(p->worker, job);
    if (!b) {
        give_up(job, CUDA_ERROR_OUT_OF_MEMORY, "no memory for a block");
        return false;
    }
    vm_block_start(b, number);
    p->resident[p->n++] = b;
    return true;
}

static void stuck(struct vm_block *b)
{
    for (uint32_t i = 0; i < b->warp_n; i++)
        if (b->warp[i].group_n) {
            const struct vm_group *g = &b->warp[i].group[0];
            vm_fault_at(&b->warp[i], g->pc, CUDA_ERROR_LAUNCH_FAILED,
                        (unsigned int)__builtin_ctz(g->mask), 0,
                        "deadlock: every thread waits at a barrier that cannot complete");
            return;
        }
}

static void account(struct part *p, struct vm_block *b)
{
    struct vm_job *job = p->job;
    uint64_t n = vm_block_count(b);
    p->count += n;
    if (job->has_budget &&
        atomic_fetch_sub_explicit(&job->budget, (int64_t)n, memory_order_relaxed) < (int64_t)n)
        give_up(job, CUDA_ERROR_LAUNCH_TIMEOUT, "instruction budget (TFR_SOFT_BUDGET) exceeded");
    if (job->launch->stop && atomic_load_explicit(job->launch->stop, memory_order_relaxed))
        give_up(job, CUDA_ERROR_LAUNCH_FAILED, "stopped");
    if (p->is_caller && !job->shared_out && p->count > WORTH_HELP &&
        atomic_load_explicit(&job->next, memory_order_relaxed) < job->block_n)
        pool_publish(job);
}

/* One turn for each resident block; ended ones make room or take the next number in place. */
static void round_of_blocks(struct part *p)
{
    struct vm_job *job = p->job;
    for (uint32_t i = 0; i < p->n && !atomic_load_explicit(&job->failed, memory_order_relaxed);) {
        struct vm_block *b = p->resident[i];
        enum vm_step step = vm_block_step(b);
        account(p, b);
        if (step == VM_STEP_STUCK)
            stuck(b);
        if (step == VM_STEP_YIELD) {
            i++;
            continue;
        }
        p->rounds = 0;
        uint64_t number = job->block_n;
        if (atomic_load_explicit(&job->next, memory_order_relaxed) < job->block_n)
            number = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed); /* a ticket */
        if (number < job->block_n) {
            vm_block_start(b, number);
        } else {
            block_give(p->worker, b);
            p->resident[i] = p->resident[--p->n];
        }
    }
}

static void run_part(struct vm_job *job, bool is_caller)
{
    struct part p = {.job = job, .worker = worker_get(), .cap = 8, .is_caller = is_caller};
    p.resident = p.first;
    p.patience = job->launch->cooperative ? 1 : PATIENCE;
    if (!p.worker) {
        give_up(job, CUDA_ERROR_OUT_OF_MEMORY, "out of memory");
        return;
    }
    admit(&p);
    while (p.n && !atomic_load_explicit(&job->failed, memory_order_relaxed)) {
        round_of_blocks(&p);
        if (++p.rounds < p.patience)
            continue;
        p.rounds = 0; /* everybody waits: as many blocks again */
        for (uint32_t more = p.n; more; more--)
            if (!admit(&p))
                break;
    }
    while (p.n) {
        struct vm_block *b = p.resident[--p.n];
        p.count += vm_block_count(b);
        b->code_id = 0; /* cut off in the middle: calls may have left things behind */
        block_give(p.worker, b);
    }
    if (p.resident != p.first)
        free(p.resident);
    if (p.worker->idle && (p.worker->idle->link || p.worker->idle->mem_len > KEEP_BYTES))
        trim(p.worker);
    atomic_fetch_add_explicit(&retired, p.count, memory_order_relaxed);
}

/* ---- helpers ---- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    struct vm_job *jobs;
    uint32_t started;
    pid_t pid; /* threads do not survive a fork */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER,
          .work = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

static uint32_t core_n;

/* At once: whoever submits later may be bound to a core of its own. */
__attribute__((constructor)) static void cores_count(void)
{
    cpu_set_t set;
    core_n = sched_getaffinity(0, sizeof(set), &set) ? 1 : (uint32_t)CPU_COUNT(&set);
}

static uint32_t pool_size(void)
{
    static _Atomic uint32_t size; /* + 1; several threads may find the same */
    uint32_t n = atomic_load_explicit(&size, memory_order_relaxed);
    if (n)
        return n - 1;
    const char *s = tfr_env_str("TFR_SOFT_WORKERS"); /* the caller is one of them */
    if (s && *s)
        n = (uint32_t)strtoul(s, NULL, 10);
    else
        n = core_n;
    n = n ? n - 1 : 0;
    n = n > MAX_WORKERS ? MAX_WORKERS : n;
    atomic_store_explicit(&size, n + 1, memory_order_relaxed);
    return n;
}

static struct vm_job *pool_find(void)
{
    for (struct vm_job *j = pool.jobs; j; j = j->link)
        if (atomic_load_explicit(&j->next, memory_order_relaxed) < j->block_n &&
            !atomic_load_explicit(&j->failed, memory_order_relaxed))
            return j;
    return NULL;
}

static void *pool_main(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        struct vm_job *job = pool_find();
        if (!job) {
            pthread_cond_wait(&pool.work, &pool.lock);
            continue;
        }
        job->users++;
        pthread_mutex_unlock(&pool.lock);
        run_part(job, false);
        pthread_mutex_lock(&pool.lock);
        if (!--job->users)
            pthread_cond_broadcast(&pool.done);
    }
    return NULL;
}

static void pool_start(void)
{
    sigset_t all, old;
    pthread_attr_t attr;
    if (pool.pid != getpid()) {
        pool.pid = getpid();
        pool.started = 0;
        pool.jobs = NULL;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    while (pool.started < pool_size()) {
        pthread_t t;
        if (pthread_create(&t, &attr, pool_main, NULL))
            break;
        pool.started++;
    }
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void pool_publish(struct vm_job *job)
{
    job->shared_out = true;
    if (!pool_size())
        return;
    pthread_mutex_lock(&pool.lock);
    pool_start();
    job->link = pool.jobs;
    pool.jobs = job;
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
}

static void pool_withdraw(struct vm_job *job)
{
    pthread_mutex_lock(&pool.lock);
    for (struct vm_job **at = &pool.jobs; *at; at = &(*at)->link)
        if (*at == job) {
            *at = job->link;
            break;
        }
    while (job->users)
        pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

/* ---- launch ---- */

static uint64_t budget(void)
{
    static _Atomic uint64_t value =
        UINT64_MAX; /* not read yet; several threads may find the same */
    uint64_t v = atomic_load_explicit(&value, memory_order_relaxed);
    if (v == UINT64_MAX) {
        const char *s = tfr_env_str("TFR_SOFT_BUDGET");
        v = s ? strtoull(s, NULL, 10) : 0;
        v = v > INT64_MAX ? INT64_MAX : v;
        atomic_store_explicit(&value, v, memory_order_relaxed);
    }
    return v;
}

static bool launch_ok(const struct vm_launch *l)
{
    uint64_t threads = (uint64_t)l->block[0] * l->block[1];
    const uint32_t *req = l->kernel->fn->req; /* .reqntid */
    if (req[0] && memcmp(req, l->block, sizeof(l->block)) != 0)
        return false;
    return threads && threads <= 1024 && l->block[2] && threads * l->block[2] <= 1024 &&
           l->grid[0] && l->grid[1] && l->grid[2] && l->shared_len <= 1u << 28;
}

/* Two words of device memory: the size, and the barrier that grid_group::sync counts in. */
static bool workspace_make(struct vm_job *job)
{
    static const uint32_t words[2] = {8, 0};
    CUdeviceptr p;
    if (soft_mem_alloc(sizeof(words), 16, &p)) {
        give_up(job, CUDA_ERROR_OUT_OF_MEMORY, "no device memory for the grid barrier");
        return false;
    }
    memcpy((void *)(uintptr_t)p, words, sizeof(words));
    job->workspace = p;
    return true;
}

CUresult vm_run(const struct vm_launch *launch, struct vm_fault *fault)
{
    static _Atomic uint64_t ids;
    struct vm_job job = {.launch = launch, .fault = fault, .lock = PTHREAD_MUTEX_INITIALIZER};
    /* acquire: with vm_kernel_prepare's store */
    job.code = atomic_load_explicit(&launch->kernel->code, memory_order_acquire);
    fault->result = CUDA_SUCCESS;
    if (!job.code || !launch_ok(launch)) {
        give_up(&job, CUDA_ERROR_INVALID_VALUE, "not prepared, or a grid that is none");
        return CUDA_ERROR_INVALID_VALUE;
    }
    job.block_n = (uint64_t)launch->grid[0] * launch->grid[1] * launch->grid[2];
    job.id =
        atomic_fetch_add_explicit(&ids, 1, memory_order_relaxed) + 1; /* only has to be unique */
    job.quantum = launch->cooperative ? QUANTUM_COOP : QUANTUM;
    job.stack_len = job.code->stack_len;
    if (job.code->frame_n > 1)
        job.stack_len += ((launch->stack_len ? launch->stack_len : STACK_DEFAULT) + 63) & ~63u;
    job.has_budget = budget() != 0;
    atomic_init(&job.budget, (int64_t)budget());
    if (launch->cooperative && !workspace_make(&job))
        return fault->result;
    run_part(&job, true);
    if (job.shared_out)
        pool_withdraw(&job);
    if (job.workspace)
        soft_mem_free(job.workspace);
    if (atomic_load_explicit(&job.printed, memory_order_relaxed))
        fflush(stdout);
    return job.fault_set ? fault->result : CUDA_SUCCESS;
}
