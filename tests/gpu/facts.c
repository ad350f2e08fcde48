/* Settles, on any machine with a GPU and in about a minute, what the design assumes about a real
 * driver.
 *
 *     cc -O2 -o facts tests/gpu/facts*.c -I/usr/local/cuda/include -ldl -lpthread && ./facts --json
 * facts.json
 *
 * Each fact runs in a process of its own under a limit of its own: a hang or a crash is a finding,
 * and the next fact goes on.  This process never touches CUDA.  On TFR's software GPU it says so on
 * top. */
#include "facts.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FACT_MAX = 64, GRACE_S = 5 };

static const struct fact *all[FACT_MAX];
static size_t all_n;

struct options {
    const char *json, *markdown, *check;
    const char *only[FACT_MAX];
    size_t only_n;
    double scale;
    bool list, dry, strict;
};

static const char usage[] =
    "usage: facts [OPTION...] [LIBCUDA]\n"
    "  LIBCUDA               the library to test; default: $TFR_FACTS_LIBCUDA, else libcuda.so.1\n"
    "  --list                name the facts and what they assume\n"
    "  --only NAME           run this one (may be repeated)\n"
    "  --quick               fewer samples, smaller sizes: proves the flow\n"
    "  --json FILE           write the results for programs\n"
    "  --markdown FILE       write the results as docs/GPU_FACTS.md\n"
    "  --dry                 run nothing: with --markdown, every fact is assumed, not yet seen\n"
    "  --check FILE          run nothing: fail unless that page says what this program says\n"
    "  --strict              fail if a fact differs\n"
    "  --limit-scale X       stretch the time limits\n"
    "exit status: 0 all facts ran; 1 one hung, crashed or (--strict) differs; 2 usage, or no "
    "device\n";

static void collect_some(const struct fact *from, size_t n, unsigned int first)
{
    for (size_t i = 0; i < n; i++)
        if ((from[i].flags & FACT_FIRST) == first && all_n < FACT_MAX)
            all[all_n++] = &from[i];
}

static void collect(void)
{
    collect_some(facts_base, facts_base_n, FACT_FIRST);
    collect_some(facts_vmm, facts_vmm_n, 0);
    collect_some(facts_calls, facts_calls_n, 0);
    collect_some(facts_stream, facts_stream_n, 0);
    collect_some(facts_value, facts_value_n, 0);
    collect_some(facts_share, facts_share_n, 0);
    collect_some(facts_misc, facts_misc_n, 0);
    collect_some(facts_base, facts_base_n, 0);
}

/* ---- one process per fact ---- */

/* Waits for the child; false if it had to be killed. */
static bool reap(pid_t pid, double limit_s, int *status_out)
{
    uint64_t until = now_ns() + (uint64_t)(limit_s * 1e9);
    while (waitpid(pid, status_out, WNOHANG) == 0) {
        if (now_ns() > until)
            return false;
        nap_us(1000);
    }
    return true;
}

static void put_down(pid_t pid, struct result *r)
{
    int status;
    kill(-pid, SIGKILL); /* its own group: it and its second process */
    kill(pid, SIGKILL);
    if (!reap(pid, GRACE_S, &status))
        note(r, "it could not even be killed (process %d stays)", (int)pid);
}

static void run_child(void (*run)(struct result *r), struct result *r, pid_t parent)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    run(r);
    r->done = true;
    _exit(0);
}

static enum verdict judge(const struct fact *f, const struct result *r)
{
    if (f->flags & FACT_BASELINE)
        return r->measure_n ? V_MEASURED : me.soft ? V_NOT_MODELLED : V_CANNOT_TELL;
    if (me.soft && !(f->flags & FACT_SOFT))
        return V_NOT_MODELLED;
    if (r->differ_n)
        return V_DIFFERS;
    if (r->agree_n)
        return V_AGREES;
    return me.soft ? V_NOT_MODELLED : V_CANNOT_TELL;
}

static void run_fact(const struct fact *f, struct result *r, double scale)
{
    int status = 0;
    uint64_t from = now_ns();
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        run_child(f->run, r, parent);
    if (pid < 0) {
        open_end(r, "fork: %s", strerror(errno));
        r->verdict = V_CANNOT_TELL;
        return;
    }
    setpgid(pid, pid);
    if (!reap(pid, f->limit_s * scale, &status)) {
        r->verdict = V_HANG;
        note(r, "did not end within %.0f s, in: %s", f->limit_s * scale, r->step);
        put_down(pid, r);
    } else if (WIFSIGNALED(status)) {
        r->verdict = V_CRASH;
        note(r, "died of signal %d, in: %s", WTERMSIG(status), r->step);
    } else if (WEXITSTATUS(status) != 0 || !r->done) {
        r->verdict = V_CRASH;
        note(r, "ended with status %d, in: %s", WEXITSTATUS(status), r->step);
    } else {
        r->verdict = judge(f, r);
    }
    r->seconds = (double)(now_ns() - from) / 1e9;
}

/* ---- the device under test, found by a child ---- */

static struct me *shared_me;

static void probe(struct result *r)
{
    if (begin_init(r))
        *shared_me = me;
}

static bool device_find(struct result *r, double scale)
{
    static const struct fact row = {.name = "probe", .limit_s = 60, .run = probe};
    bool quick = me.quick;
    run_fact(&row, r, scale);
    if (!shared_me->name[0]) {
        fprintf(stderr, "facts: no device to test through %s: %s\n", facts_lib, r->seen);
        return false;
    }
    me = *shared_me;
    me.quick = quick;
    return true;
}

/* Keeps the driver initialised, so that each fact does not pay for a cold GPU. */
static void hold(struct result *r)
{
    if (begin_init(r))
        r->agree_n = 1;
    for (;;)
        pause();
}

static pid_t holder_start(struct result *r)
{
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        run_child(hold, r, parent);
    uint64_t until = now_ns() + 20000000000ull;
    while (pid > 0 && now_ns() < until && !*(volatile unsigned int *)&r->agree_n && !r->seen[0])
        nap_us(2000);
    return pid;
}

static void holder_stop(pid_t pid)
{
    int status;
    if (pid <= 0)
        return;
    kill(pid, SIGKILL);
    (void)reap(pid, GRACE_S, &status);
}

/* ---- what is told about the machine ---- */

static void first_line(const char *path, const char *after, char *to, size_t len)
{
    char line[512];
    FILE *f = fopen(path, "r");
    if (!f)
        return;
    while (fgets(line, sizeof(line), f)) {
        char *at = after ? strstr(line, after) : line;
        if (!at)
            continue;
        at += after ? strlen(after) : 0;
        at += strspn(at, " \t:");
        at[strcspn(at, "\n")] = 0;
        snprintf(to, len, "%s", at);
        break;
    }
    fclose(f);
}

static void describe(struct report *report, const struct options *o)
{
    char cpu[96] = "unknown processor";
    struct utsname name;
    time_t now = time(NULL);
    struct tm utc;
    strftime(report->date, sizeof(report->date), "%Y-%m-%d %H:%M UTC", gmtime_r(&now, &utc));
    first_line("/proc/cpuinfo", "model name", cpu, sizeof(cpu));
    uname(&name);
    snprintf(report->host, sizeof(report->host), "%.80s, Linux %.40s", cpu, name.release);
    snprintf(report->kernel_driver, sizeof(report->kernel_driver), "unknown");
    first_line("/proc/driver/nvidia/version", "NVRM version", report->kernel_driver,
               sizeof(report->kernel_driver));
    size_t used = (size_t)snprintf(report->command, sizeof(report->command), "scripts/gpu-facts%s",
                                   me.quick ? " --quick" : "");
    for (size_t i = 0; i < o->only_n && used < sizeof(report->command); i++)
        used += (size_t)snprintf(report->command + used, sizeof(report->command) - used,
                                 " --only %s", o->only[i]);
}

/* ---- options ---- */

static bool parse(int argc, char **argv, struct options *o)
{
    enum { LIST = 1, ONLY, QUICK, JSON, MARKDOWN, DRY, CHECK, STRICT, SCALE, HELP };
    static const struct option names[] = {{"list", 0, NULL, LIST},
                                          {"only", 1, NULL, ONLY},
                                          {"quick", 0, NULL, QUICK},
                                          {"json", 1, NULL, JSON},
                                          {"markdown", 1, NULL, MARKDOWN},
                                          {"dry", 0, NULL, DRY},
                                          {"check", 1, NULL, CHECK},
                                          {"strict", 0, NULL, STRICT},
                                          {"limit-scale", 1, NULL, SCALE},
                                          {"help", 0, NULL, HELP},
                                          {NULL, 0, NULL, 0}};
    int c;
    memset(o, 0, sizeof(*o));
    o->scale = 1;
    if (getenv("TFR_FACTS_LIBCUDA"))
        facts_lib = getenv("TFR_FACTS_LIBCUDA");
    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (c == ONLY && o->only_n < FACT_MAX)
            o->only[o->only_n++] = optarg;
        o->list |= c == LIST;
        o->dry |= c == DRY;
        o->strict |= c == STRICT;
        me.quick |= c == QUICK;
        o->json = c == JSON ? optarg : o->json;
        o->markdown = c == MARKDOWN ? optarg : o->markdown;
        o->check = c == CHECK ? optarg : o->check;
        o->scale = c == SCALE ? atof(optarg) : o->scale;
        if (c == '?' || c == HELP)
            return false;
    }
    if (optind < argc)
        facts_lib = argv[optind++];
    return optind == argc && o->scale > 0;
}

static bool wanted(const struct options *o, const struct fact *f)
{
    for (size_t i = 0; i < o->only_n; i++)
        if (strcmp(o->only[i], f->name) == 0)
            return true;
    return o->only_n == 0;
}

static bool names_known(const struct options *o)
{
    for (size_t i = 0; i < o->only_n; i++) {
        bool known = false;
        for (size_t k = 0; k < all_n; k++)
            known |= strcmp(o->only[i], all[k]->name) == 0;
        if (!known) {
            fprintf(stderr, "facts: no fact is named %s (--list names them)\n", o->only[i]);
            return false;
        }
    }
    return true;
}

/* ---- the page and the program ---- */

static char *read_all(const char *path)
{
    enum { MOST = 1 << 20 };
    FILE *f = fopen(path, "r");
    char *text = f ? calloc(1, MOST) : NULL;
    if (text)
        (void)!fread(text, 1, MOST - 1, f);
    if (f)
        fclose(f);
    return text;
}

static int check_page(const char *path)
{
    int bad = 0;
    char *text = read_all(path);
    if (!text) {
        fprintf(stderr, "facts: cannot read %s\n", path);
        return 2;
    }
    for (size_t i = 0; i < all_n; i++) {
        const struct fact *f = all[i];
        bool base = (f->flags & FACT_BASELINE) != 0;
        if (!strstr(text, f->name) || !strstr(text, f->done) ||
            (!base && (!strstr(text, f->assumes) || !strstr(text, f->changes)))) {
            fprintf(stderr, "facts: %s does not say what this program says about %s\n", path,
                    f->name);
            bad = 1;
        }
    }
    free(text);
    return bad;
}

static int write_file(const char *path, void (*print)(FILE *, const struct report *),
                      const struct report *report)
{
    FILE *f = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
    if (!f) {
        fprintf(stderr, "facts: cannot write %s: %s\n", path, strerror(errno));
        return 2;
    }
    print(f, report);
    if (f != stdout)
        fclose(f);
    return 0;
}

/* ---- main ---- */

static int run_all(const struct options *o, struct result *store, struct report *report)
{
    static const struct fact *picked[FACT_MAX];
    static const struct result *result[FACT_MAX];
    struct result *spare = store + FACT_MAX;
    pid_t holder = 0;
    uint64_t from = now_ns();
    bool found = false;
    for (size_t i = 0; i < all_n; i++) {
        if (!wanted(o, all[i]))
            continue;
        /* The facts that want a cold driver come first; then the device is asked who it is. */
        if (!found && !(all[i]->flags & FACT_FIRST)) {
            if (!device_find(spare, o->scale))
                return 2;
            found = true;
            holder = me.soft ? 0 : holder_start(spare + 1);
        }
        struct result *r = &store[report->n];
        fprintf(stderr, "facts: %s ...\n", all[i]->name);
        run_fact(all[i], r, o->scale);
        picked[report->n] = all[i];
        result[report->n++] = r;
    }
    holder_stop(holder);
    if (!found && !device_find(spare, o->scale))
        return 2;
    report->fact = picked;
    report->result = result;
    report->seconds = (double)(now_ns() - from) / 1e9;
    report->ran = true;
    return 0;
}

static int outcome(const struct options *o, const struct report *report)
{
    int rc = 0;
    for (size_t i = 0; i < report->n; i++) {
        enum verdict v = report->result[i]->verdict;
        if (v == V_HANG || v == V_CRASH || (o->strict && v == V_DIFFERS))
            rc = 1;
    }
    return rc;
}

static void list(void)
{
    for (size_t i = 0; i < all_n; i++)
        printf("%-18s %s\n", all[i]->name,
               all[i]->flags & FACT_BASELINE ? all[i]->done : all[i]->assumes);
}

int main(int argc, char **argv)
{
    struct options o;
    struct report report = {.dev = &me};
    struct result *store = shared_alloc((FACT_MAX + 2) * sizeof(*store));
    const struct result *unseen[FACT_MAX];
    int rc = 0;
    shared_me = shared_alloc(sizeof(*shared_me));
    collect();
    if (!parse(argc, argv, &o) || !store || !shared_me) {
        fputs(usage, stderr);
        return 2;
    }
    if (!names_known(&o))
        return 2;
    if (o.list) {
        list();
        return 0;
    }
    if (o.check)
        return check_page(o.check);
    describe(&report, &o);
    if (o.dry) {
        for (size_t i = 0; i < all_n; i++)
            unseen[i] = store;
        report.fact = all;
        report.result = unseen;
        report.n = all_n;
    } else {
        rc = run_all(&o, store, &report);
        if (rc)
            return rc;
        print_table(stdout, &report);
        rc = outcome(&o, &report);
    }
    int wrote = o.json ? write_file(o.json, print_json, &report) : 0;
    if (o.markdown && !wrote)
        wrote = write_file(o.markdown, print_markdown, &report);
    return wrote ? wrote : rc;
}
