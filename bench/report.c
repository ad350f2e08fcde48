/* What was measured, for people and for programs.  Whether the GPU was real is said at the head, in
 * every row and in the JSON, so that figures of the software GPU cannot be taken for a GPU's. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "bench/bench.h"

static bool real_gpu; /* as env_info says: for the rows */

/* ---- environment ---- */

static void cpu_name(char *text, size_t room)
{
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "re");
    snprintf(text, room, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (colon && strncmp(line, "model name", 10) == 0) {
            line[strcspn(line, "\n")] = 0;
            snprintf(text, room, "%s", colon + 2);
            break;
        }
    }
    if (f)
        fclose(f);
}

/* Time stolen by the hypervisor, and all time, in ticks since boot. */
static void steal_read(double *stolen, double *all)
{
    unsigned long long v[8] = {0};
    FILE *f = fopen("/proc/stat", "re");
    *stolen = *all = 0;
    if (f && fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3],
                    &v[4], &v[5], &v[6], &v[7]) == 8)
        for (int i = 0; i < 8; i++)
            *all += (double)v[i];
    *stolen = (double)v[7];
    if (f)
        fclose(f);
}

static double stolen_before, all_before;

void env_take(struct env_info *env)
{
    struct utsname u;
    time_t now = time(NULL);
    struct tm tm;
    double load = 0;
    memset(env, 0, sizeof *env);
    cpu_name(env->cpu, sizeof env->cpu);
    if (uname(&u) == 0)
        snprintf(env->kernel, sizeof env->kernel, "%s %s", u.release, u.machine);
    strftime(env->when, sizeof env->when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    env->cores = sysconf(_SC_NPROCESSORS_ONLN);
    env->load = getloadavg(&load, 1) == 1 ? load : -1;
    steal_read(&stolen_before, &all_before);
}

void env_done(struct env_info *env)
{
    double stolen, all;
    steal_read(&stolen, &all);
    env->steal = all > all_before ? (stolen - stolen_before) / (all - all_before) : 0;
}

/* ---- text ---- */

static void time_text(double ns, char *text, size_t room)
{
    if (ns < 999.5)
        snprintf(text, room, "%.1fns", ns);
    else if (ns < 999.5e3)
        snprintf(text, room, "%.2fus", ns / 1e3);
    else
        snprintf(text, room, "%.2fms", ns / 1e6);
}

static void put_time(FILE *to, bool known, double ns)
{
    char text[32] = "-";
    if (known)
        time_text(ns, text, sizeof text);
    fprintf(to, " %9s", text);
}

static void put_ratio(FILE *to, const struct ratio *r)
{
    char text[48] = "-";
    if (r->known)
        snprintf(text, sizeof text, r->value < 100 ? "%.2f[%.2f-%.2f]" : "%.0f[%.0f-%.0f]",
                 r->value, r->low, r->high);
    fprintf(to, " %18s", text);
}

/* Of the quietest rounds: on a busy machine the only figure that says something of the code. */
static void put_best(FILE *to, const struct result *r)
{
    if (r->tfr.known && r->floor.known && r->floor.best > 0)
        fprintf(to, " %6.2f", r->tfr.best / r->floor.best);
    else
        fprintf(to, " %6s", "-");
}

static void put_count(FILE *to, bool known, double value)
{
    if (known)
        fprintf(to, value < 0.0005 && value > -0.0005 ? " %6.0f" : " %6.3f", fabs(value));
    else
        fprintf(to, " %6s", "n/a");
}

void report_head(FILE *to, const struct bench_cfg *cfg, const struct env_info *env)
{
    real_gpu = env->real;
    fprintf(to, "# tf-bench git:%s %s load:%.2f\n", bench_git, env->when, env->load);
    fprintf(to, "# cpu: %s, %ld cores; kernel: %s; timer: %s (+%.1fns, subtracted)\n", env->cpu,
            env->cores, env->kernel, timer_name(), timer_cost_ns());
    fprintf(to, "# gpu=%s native: %s; through tfr: %s (%s)\n", env->real ? "REAL" : "STAND-IN",
            env->gpu, env->executor, cfg->executor ? cfg->executor : "private executor");
    if (!env->real)
        fprintf(to, "# STAND-IN: the software GPU did the work; nothing here is a GPU's figure\n");
    fprintf(to,
            "# %u rounds, native, tfr and floor in turn; p50: median of the rounds' medians,\n# "
            "best: the quietest round's median, and its ratio to the floor's;\n",
            cfg->rounds);
    fprintf(to, "# ratios are tfr/native and tfr/floor with a 95%% interval; times per operation,\n"
                "# counts per operation: rt round trips, wait stream waits, mark, rec records,\n"
                "# sys system calls of the calling thread\n");
    fprintf(to,
            "%-26s %8s %9s %9s %9s %18s %9s %-8s %18s %6s %9s %9s %9s %9s %6s %6s %6s %6s %6s\n",
            "test", "gpu", "native", "tfr", "best", "x native", "floor", "", "x floor", "best",
            "min", "p99", "max", "rate", "rt", "wait", "mark", "rec", "sys");
}

static void put_rate(FILE *to, const struct result *r)
{
    char text[32] = "-";
    if (r->tfr.known && r->c->work > 0)
        snprintf(text, sizeof text, "%.0fMi/s", r->c->work / r->tfr.p50 * 1e3);
    else if (r->tfr.known && r->c->size)
        snprintf(text, sizeof text, "%.2fGB/s", (double)r->c->size / r->tfr.p50);
    fprintf(to, " %9s", text);
}

void report_row(FILE *to, const struct result *r)
{
    const struct counts *n = &r->counts;
    fprintf(to, "%-26s %8s", r->c->name, real_gpu ? "REAL" : "STAND-IN");
    put_time(to, r->native.known, r->native.p50);
    put_time(to, r->tfr.known, r->tfr.p50);
    put_time(to, r->tfr.known, r->tfr.best);
    put_ratio(to, &r->to_native);
    put_time(to, r->floor.known, r->floor.p50);
    fprintf(to, " %-8s", r->floor.known ? floor_name(r->c->floor) : "");
    put_ratio(to, &r->to_floor);
    put_best(to, r);
    put_time(to, r->tfr.known, r->tfr.min);
    put_time(to, r->tfr.known, r->tfr.p99);
    put_time(to, r->tfr.known, r->tfr.max);
    put_rate(to, r);
    put_count(to, n->known, n->round_trips);
    put_count(to, n->known, n->stream_waits);
    put_count(to, n->known, n->marks);
    put_count(to, n->known, n->records);
    put_count(to, n->known && n->syscalls_known, n->syscalls);
    if (r->failed[0])
        fprintf(to, "  FAILED: %s", r->failed);
    fputc('\n', to);
    fflush(to);
}

void report_notes(FILE *to, const struct env_info *env)
{
    fprintf(to,
            "# rate: GB/s moved, or million thread instructions per second; stolen time %.1f%%\n",
            env->steal * 100);
    if (strcmp(env->gpu, env->executor) != 0)
        fprintf(to, "# native and tfr ran on different devices: \"x native\" compares nothing\n");
}

/* ---- JSON ---- */

static void put_string(FILE *to, const char *text)
{
    fputc('"', to);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fprintf(to, "\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            fprintf(to, "\\u%04x", (unsigned char)*text);
        else
            fputc(*text, to);
    }
    fputc('"', to);
}

static void put_summary(FILE *to, const char *name, const struct summary *s)
{
    fprintf(to, ",\n     \"%s\": ", name);
    if (s->known)
        fprintf(to,
                "{\"p50\": %.3f, \"best\": %.3f, \"p99\": %.3f, \"p999\": %.3f, \"min\": %.3f, "
                "\"max\": %.3f, "
                "\"mean\": %.3f, \"samples\": %zu}",
                s->p50, s->best, s->p99, s->p999, s->min, s->max, s->mean, s->n);
    else
        fputs("null", to);
}

static void put_ratio_json(FILE *to, const char *name, const struct ratio *r)
{
    fprintf(to, ",\n     \"%s\": ", name);
    if (r->known)
        fprintf(to, "{\"value\": %.5f, \"low\": %.5f, \"high\": %.5f}", r->value, r->low, r->high);
    else
        fputs("null", to);
}

static void put_counts(FILE *to, const struct counts *n)
{
    if (!n->known) {
        fputs(",\n     \"per_op\": null", to);
        return;
    }
    fputs(",\n     \"per_op\": {", to);
#define PUT(name, text) fprintf(to, "\"%s\": %.6g, ", #name, n->name);
    TFR_COUNTERS(PUT)
#undef PUT
    if (n->syscalls_known)
        fprintf(to, "\"syscalls\": %.6g, \"wakes\": %.6g}", n->syscalls, n->wakes);
    else
        fputs("\"syscalls\": null, \"wakes\": null}", to);
}

static void put_result(FILE *to, const struct result *r, bool last)
{
    fprintf(to, "    {\"name\": \"%s\", \"what\": \"%s\", \"gpu\": \"%s\", \"unit\": \"ns\",\n",
            r->c->name, r->c->what, real_gpu ? "REAL" : "STAND-IN");
    fprintf(to, "     \"size\": %llu, \"batch\": %u, \"issue\": %s, \"floor_kind\": \"%s\", ",
            (unsigned long long)r->c->size, r->c->batch, r->c->issue ? "true" : "false",
            floor_name(r->c->floor));
    fprintf(to, "\"ok\": %s, \"failed\": ", r->failed[0] ? "false" : "true");
    put_string(to, r->failed);
    put_summary(to, "native", &r->native);
    put_summary(to, "tfr", &r->tfr);
    put_summary(to, "floor", &r->floor);
    put_ratio_json(to, "to_native", &r->to_native);
    put_ratio_json(to, "to_floor", &r->to_floor);
    if (r->c->work > 0 && r->tfr.known)
        fprintf(to, ",\n     \"thread_instructions_per_s\": %.0f", r->c->work / r->tfr.p50 * 1e9);
    if (r->c->size && r->tfr.known)
        fprintf(to, ",\n     \"bytes_per_s\": %.0f", (double)r->c->size / r->tfr.p50 * 1e9);
    put_counts(to, &r->counts);
    fprintf(to, "}%s\n", last ? "" : ",");
}

static void put_settings(FILE *to)
{
    bool first = true;
    fputs("    \"settings\": {", to);
    for (const struct tfr_env_row *row = tfr_env_rows(); row->name; row++) {
        const char *value = tfr_env_str(row->name);
        if (!value)
            continue;
        fprintf(to, "%s\"%s\": ", first ? "" : ", ", row->name);
        put_string(to, value);
        first = false;
    }
    fputs("}\n", to);
}

static void put_field(FILE *to, const char *name, const char *value)
{
    fprintf(to, "    \"%s\": ", name);
    put_string(to, value);
    fputs(",\n", to);
}

static void put_environment(FILE *to, const struct bench_cfg *cfg, const struct env_info *env)
{
    fputs("  \"environment\": {\n", to);
    put_field(to, "git", bench_git);
    put_field(to, "when", env->when);
    put_field(to, "cpu", env->cpu);
    put_field(to, "kernel", env->kernel);
    put_field(to, "gpu", env->real ? "REAL" : "STAND-IN");
    put_field(to, "native_device", env->gpu);
    put_field(to, "tfr_device", env->executor);
    put_field(to, "executor", cfg->executor ? cfg->executor : "private");
    put_field(to, "timer", timer_name());
    fprintf(to,
            "    \"cores\": %ld, \"timer_cost_ns\": %.2f, \"load\": %.2f, \"steal\": %.4f, "
            "\"rounds\": %u, \"quick\": %s,\n",
            env->cores, timer_cost_ns(), env->load, env->steal, cfg->rounds,
            cfg->quick ? "true" : "false");
    put_settings(to);
    fputs("  },\n", to);
}

bool report_json(const struct bench_cfg *cfg, const struct env_info *env,
                 const struct result *results, size_t n)
{
    bool to_stdout = strcmp(cfg->json, "-") == 0;
    FILE *to = to_stdout ? stdout : fopen(cfg->json, "we");
    if (!to) {
        tfr_say("cannot write %s: %m", cfg->json);
        return false;
    }
    fputs("{\n  \"schema\": \"tf-bench\", \"schema_version\": 1,\n", to);
    put_environment(to, cfg, env);
    fputs("  \"results\": [\n", to);
    for (size_t i = 0; i < n; i++)
        put_result(to, &results[i], i + 1 == n);
    fputs("  ]\n}\n", to);
    bool written = fflush(to) == 0 && !ferror(to);
    if (!to_stdout)
        written &= fclose(to) == 0;
    if (!written)
        tfr_say("%s is incomplete: %m", cfg->json);
    return written;
}
