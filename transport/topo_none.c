/* Placement where hwloc was left out of the build: what the kernel says of our own cores. */
#include <string.h>

#include "transport/topo.h"

tfr_status tfr_topo_open(const char *xml, struct tfr_topo **topo_out)
{
    (void)xml;
    *topo_out = NULL;
    return TFR_E_UNSUP;
}

void tfr_topo_close(struct tfr_topo *topo)
{
    (void)topo;
}

bool tfr_topo_is_here(const struct tfr_topo *topo)
{
    (void)topo;
    return true;
}

void tfr_topo_find(struct tfr_topo *topo, const char *pci, const cpu_set_t *cpus,
                   struct tfr_topo_place *place_out)
{
    struct tfr_topo_place *p = place_out;
    cpu_set_t listed;
    (void)topo;
    (void)pci;
    *p = (struct tfr_topo_place){
        .package = -1, .node = -1, .why = "built without hwloc: memory and threads are not placed"};
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

bool tfr_topo_memory(struct tfr_topo *topo, int node)
{
    (void)topo;
    (void)node;
    return false;
}
