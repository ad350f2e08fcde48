/* Placement where hwloc was left out of the build. */
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
    (void)topo;
    (void)pci;
    tfr_topo_plain("built without hwloc: memory and threads are not placed", cpus, place_out);
}

bool tfr_topo_memory(struct tfr_topo *topo, int node)
{
    (void)topo;
    (void)node;
    return false;
}
