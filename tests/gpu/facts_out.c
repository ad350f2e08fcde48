/* The three reports: a table for people, JSON for programs, Markdown for docs/GPU_FACTS.md.  Each
 * says first what was tested: a software GPU's answers must never be read as a GPU's. */
#include "facts.h"

#include <unistd.h>

const char *verdict_str(enum verdict verdict)
{
    switch (verdict) {
    case V_AGREES:
        return "agrees";
    case V_DIFFERS:
        return "DIFFERS";
    case V_CANNOT_TELL:
        return "cannot tell";
    case V_NOT_MODELLED:
        return "not modelled";
    case V_MEASURED:
        return "measured";
    case V_HANG:
        return "HANG";
    case V_CRASH:
        return "CRASH";
    case V_UNSEEN:
    case V_NONE:
        break;
    }
    return "assumed, not yet seen";
}

/* What the figures are figures of. */
static const char *what_gpu(const struct me *dev)
{
    if (dev->soft)
        return "STAND-IN";
    return access("/dev/nvidiactl", F_OK) == 0 ? "REAL" : "NOT LOCAL (no /dev/nvidiactl here)";
}

/* ---- table ---- */

static void wrapped(FILE *to, const char *text)
{
    enum { WIDTH = 112, INDENT = 6 };
    const char *at = text;
    while (*at) {
        size_t len = strlen(at), cut = len;
        if (len > WIDTH) {
            cut = WIDTH;
            while (cut > 40 && at[cut] != ' ')
                cut--;
        }
        fprintf(to, "%*s%.*s\n", INDENT, "", (int)cut, at);
        at += cut;
        while (*at == ' ')
            at++;
    }
}

static void table_fact(FILE *to, const struct fact *f, const struct result *r, bool soft)
{
    fprintf(to, "%-18s %-22s %5.1f s", f->name, verdict_str(r->verdict), r->seconds);
    if (r->agree_n + r->differ_n + r->open_n)
        fprintf(to, "   %u agree, %u differ, %u open", r->agree_n, r->differ_n, r->open_n);
    fputc('\n', to);
    wrapped(to, r->seen);
    for (unsigned int i = 0; i < r->measure_n; i++) {
        const struct measure *m = &r->measure[i];
        fprintf(to, "      %-46s %10.3f %-5s", m->name, m->p50, m->unit);
        if (m->n > 1)
            fprintf(to, " p99 %10.3f  max %10.3f  n %u", m->p99, m->max, m->n);
        fprintf(to, "%s\n", soft ? "  [STAND-IN]" : "");
    }
}

void print_table(FILE *to, const struct report *report)
{
    const struct me *d = report->dev;
    unsigned int count[V_UNSEEN + 1] = {0};
    fprintf(to,
            "# facts of a driver, %s\n# gpu=%s  %s (%s), compute capability %d.%d, %.1f GiB, %d "
            "device%s\n",
            report->date, what_gpu(d), d->name, d->pci, d->cc / 10, d->cc % 10,
            (double)d->mem / (double)GIB, d->device_n, d->device_n == 1 ? "" : "s");
    if (d->soft)
        fprintf(
            to,
            "# STAND-IN: this is TFR's software GPU; nothing below says anything about a GPU\n");
    fprintf(to, "# libcuda: %s, CUDA %d.%d; kernel driver: %s\n# host: %s\n", d->lib,
            d->driver / 1000, d->driver % 1000 / 10, report->kernel_driver, report->host);
    if (d->missing[0])
        fprintf(to, "# not exported: %s\n", d->missing);
    for (size_t i = 0; i < report->n; i++) {
        table_fact(to, report->fact[i], report->result[i], d->soft);
        count[report->result[i]->verdict]++;
    }
    fprintf(to, "# %zu facts in %.0f s:", report->n, report->seconds);
    for (unsigned int v = V_AGREES; v <= V_UNSEEN; v++)
        if (count[v])
            fprintf(to, " %u %s", count[v], verdict_str((enum verdict)v));
    fputc('\n', to);
}

/* ---- JSON ---- */

static void json_text(FILE *to, const char *name, const char *text, const char *end)
{
    fprintf(to, "\"%s\": \"", name);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c == '"' || *c == '\\')
            fprintf(to, "\\%c", *c);
        else if (*c < 0x20 || *c > 0x7e)
            fprintf(to, "\\u%04x", *c);
        else
            fputc(*c, to);
    fprintf(to, "\"%s", end);
}

static void json_fact(FILE *to, const struct fact *f, const struct result *r, bool last)
{
    fprintf(to, "    {");
    json_text(to, "name", f->name, ", ");
    json_text(to, "verdict", verdict_str(r->verdict), ",\n     ");
    json_text(to, "done", f->done, ",\n     ");
    json_text(to, "assumes", f->assumes, ",\n     ");
    json_text(to, "seen", r->seen, ",\n     ");
    fprintf(to, "\"agree\": %u, \"differ\": %u, \"open\": %u, \"seconds\": %.3f, \"measures\": [",
            r->agree_n, r->differ_n, r->open_n, r->seconds);
    for (unsigned int i = 0; i < r->measure_n; i++) {
        const struct measure *m = &r->measure[i];
        fprintf(to, "%s\n      {", i ? "," : "");
        json_text(to, "name", m->name, ", ");
        json_text(to, "unit", m->unit, ", ");
        fprintf(to, "\"p50\": %.4f, \"p99\": %.4f, \"max\": %.4f, \"n\": %u}", m->p50, m->p99,
                m->max, m->n);
    }
    fprintf(to, "]}%s\n", last ? "" : ",");
}

void print_json(FILE *to, const struct report *report)
{
    const struct me *d = report->dev;
    fprintf(to, "{\n  \"schema\": 1, ");
    json_text(to, "gpu", what_gpu(d), ", ");
    json_text(to, "device", d->name, ", ");
    json_text(to, "pci", d->pci, ",\n  ");
    json_text(to, "library", d->lib, ", ");
    json_text(to, "kernel_driver", report->kernel_driver, ",\n  ");
    json_text(to, "date", report->date, ", ");
    json_text(to, "host", report->host, ",\n  ");
    json_text(to, "command", report->command, ",\n  ");
    json_text(to, "not_exported", d->missing, ",\n  ");
    fprintf(to,
            "\"cuda\": %d, \"compute_capability\": %d, \"memory\": %zu, \"devices\": %d, "
            "\"quick\": %s, \"seconds\": %.1f,\n  \"facts\": [\n",
            d->driver, d->cc, d->mem, d->device_n, d->quick ? "true" : "false", report->seconds);
    for (size_t i = 0; i < report->n; i++)
        json_fact(to, report->fact[i], report->result[i], i + 1 == report->n);
    fprintf(to, "  ]\n}\n");
}

/* ---- Markdown ---- */

static const char intro[] = "# Facts of a real driver\n"
                            "\n"
                            "What the design assumes about NVIDIA's driver where documentation "
                            "leaves it open, fact by fact, and the "
                            "native figures that\nTFR is held against. `tests/gpu/facts*.c` checks "
                            "them on any machine with a GPU, a C "
                            "compiler and the CUDA toolkit, in about\na minute:\n"
                            "\n"
                            "    scripts/gpu-facts\n"
                            "\n"
                            "This page is written by that program (`facts --markdown`), so that "
                            "page and program cannot drift; a test "
                            "compares them.\nWhoever first has a GPU runs the command, commits the "
                            "page it writes, and changes the design "
                            "where a fact differs.\n";

static void markdown_measures(FILE *to, const struct result *r)
{
    if (!r->measure_n)
        return;
    fprintf(to,
            "\n| figure | p50 | p99 | max | unit | n |\n| --- | --- | --- | --- | --- | --- |\n");
    for (unsigned int i = 0; i < r->measure_n; i++) {
        const struct measure *m = &r->measure[i];
        fprintf(to, "| %s | %.3f | %.3f | %.3f | %s | %u |\n", m->name, m->p50, m->p99, m->max,
                m->unit, m->n);
    }
}

static void markdown_fact(FILE *to, const struct fact *f, const struct result *r, bool ran)
{
    bool base = (f->flags & FACT_BASELINE) != 0;
    fprintf(to, "\n### %s: %s\n\n", f->name, verdict_str(ran ? r->verdict : V_UNSEEN));
    fprintf(to, "- Done: %s\n", f->done);
    if (!base)
        fprintf(to, "- TFR assumes: %s\n- If it differs: %s\n", f->assumes, f->changes);
    fprintf(to, "- Leans on it: %s. Settled by `scripts/gpu-facts --only %s`\n", f->ref, f->name);
    if (ran && r->seen[0])
        fprintf(to, "- Seen: %s\n", r->seen);
    if (ran)
        markdown_measures(to, r);
}

static void markdown_state(FILE *to, const struct report *report)
{
    const struct me *d = report->dev;
    if (!report->ran) {
        fprintf(to, "\n## State\n\nNo GPU has been had yet. Every fact below is *assumed, not yet "
                    "seen*.\n");
        return;
    }
    fprintf(to,
            "\n## State\n\n| | |\n| --- | --- |\n| GPU | %s: %s, compute capability %d.%d, %.1f "
            "GiB |\n",
            what_gpu(d), d->name, d->cc / 10, d->cc % 10, (double)d->mem / (double)GIB);
    fprintf(to, "| driver | CUDA %d.%d; %s |\n| date | %s |\n| host | %s |\n| command | `%s` |\n",
            d->driver / 1000, d->driver % 1000 / 10, report->kernel_driver, report->date,
            report->host, report->command);
    if (d->soft)
        fprintf(to, "\n**STAND-IN**: this is TFR's software GPU; nothing here says anything about "
                    "a GPU.\n");
}

void print_markdown(FILE *to, const struct report *report)
{
    fputs(intro, to);
    markdown_state(to, report);
    for (unsigned int base = 0; base < 2; base++) {
        fprintf(to, "\n## %s\n", base ? "Native baselines" : "Facts");
        for (size_t i = 0; i < report->n; i++)
            if (((report->fact[i]->flags & FACT_BASELINE) != 0) == (base == 1))
                markdown_fact(to, report->fact[i], report->result[i], report->ran);
    }
}
