/* Placement that needs no hwloc: our own cores, and places in words. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/topo.h"

static const char *const spans[] = {
    [TFR_SPAN_SWITCH] = "under the same PCI switch",
    [TFR_SPAN_ROOT] = "under the same host bridge",
    [TFR_SPAN_NODE] = "on the same node",
    [TFR_SPAN_PACKAGE] = "in the same package",
    [TFR_SPAN_FAR] = "far: in another package",
};

bool tfr_topo_list_parse(const char *text, cpu_set_t *cpus_out)
{
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    while (*text) {
        char *end;
        if (*text < '0' || *text > '9')
            return false;
        unsigned long first = strtoul(text, &end, 10), last = first;
        if (*end == '-') {
            if (end[1] < '0' || end[1] > '9')
                return false;
            last = strtoul(end + 1, &end, 10);
        }
        if (last < first || last >= CPU_SETSIZE || (*end && *end != ',') || (*end && !end[1]))
            return false;
        for (unsigned long cpu = first; cpu <= last; cpu++)
            CPU_SET(cpu, &cpus);
        text = end + (*end == ',');
    }
    if (!CPU_COUNT(&cpus))
        return false;
    *cpus_out = cpus;
    return true;
}

/* Appends, as far as there is room; *at stays below it. */
__attribute__((format(printf, 4, 5))) static void add(char *text, size_t room, size_t *at,
                                                      const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text + *at, room - *at, format, args);
    va_end(args);
    if (n > 0)
        *at += (size_t)n < room - *at ? (size_t)n : room - *at - 1;
}

void tfr_topo_list_text(const cpu_set_t *cpus, char *text, size_t room)
{
    size_t at = 0;
    text[0] = 0;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        size_t last = cpu;
        if (!CPU_ISSET(cpu, cpus))
            continue;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, cpus))
            last++;
        add(text, room, &at, last > cpu ? "%s%zu-%zu" : "%s%zu", at ? "," : "", cpu, last);
        cpu = last;
    }
}

void tfr_topo_near(const struct tfr_topo_place *place, char *names, size_t room)
{
    size_t at = 0;
    names[0] = 0;
    for (uint32_t i = 0; i < place->near_n; i++)
        add(names, room, &at, "%s%s", i ? "," : "", place->nic[i].name);
}

void tfr_topo_plain(const char *why, const cpu_set_t *cpus, struct tfr_topo_place *place_out)
{
    struct tfr_topo_place *p = place_out;
    cpu_set_t listed;
    *p = (struct tfr_topo_place){.package = -1, .node = -1, .why = why};
    if (sched_getaffinity(0, sizeof p->cpus, &p->cpus) != 0)
        CPU_ZERO(&p->cpus);
    if (cpus) {
        CPU_AND(&listed, &p->cpus, cpus);
        p->listed = CPU_COUNT(&listed) != 0;
        if (p->listed)
            p->cpus = listed;
        else
            p->why = "none of the cores that were named may be used here";
    }
    for (size_t cpu = 0; cpu < CPU_SETSIZE && p->core_n < TFR_TOPO_CORES; cpu++)
        if (CPU_ISSET(cpu, &p->cpus))
            p->core[p->core_n++] = (uint16_t)cpu;
}

size_t tfr_topo_draw(const struct tfr_topo_place *p, char *text, size_t room)
{
    char cpus[128];
    size_t at = 0;
    tfr_topo_list_text(&p->cpus, cpus, sizeof cpus);
    if (p->package >= 0)
        add(text, room, &at, "package %d, ", p->package);
    if (p->node >= 0)
        add(text, room, &at, "node %d", p->node);
    else
        add(text, room, &at, "any node");
    add(text, room, &at, ": cores %s%s\n", cpus, p->listed ? " (as --pin says)" : "");
    add(text, room, &at, "|- GPU %s\n", p->gpu[0] ? p->gpu : "on no PCI bus");
    for (uint32_t i = 0; i < p->nic_n; i++) {
        const struct tfr_topo_nic *nic = &p->nic[i];
        add(text, room, &at, "|- %c NIC %s %s", i < p->near_n ? '*' : ' ', nic->name, nic->pci);
        if (p->gpu[0])
            add(text, room, &at, " %s, hops: %d\n", spans[nic->span], nic->hops);
        else
            add(text, room, &at, "\n");
    }
    add(text, room, &at, "`- %s\n", p->why);
    return at;
}
