/* Placement by hwloc.  Surprising: hwloc's own GPU components are kept out, because they would
 * initialise the driver once more; so is libpciaccess, which reads the names of all PCI devices in
 * the world for each worker (sysfs has the ones here, without names); and disallowed cores stay in
 * the picture, because the locality of devices gets lost with them. */
#define TFR_LOG_PART "transport"
#include "transport/topo.h"

#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

struct tfr_topo {
    hwloc_topology_t hw;
    hwloc_bitmap_t allowed; /* cores that we may use */
    bool here;
};

enum { DEPTH_MAX = 64 };

/* ---- opening ---- */

static tfr_status topology_load(const char *xml, hwloc_topology_t *hw_out)
{
    static const char *const unwanted[] = {"cuda", "nvml",      "opencl", "rsmi",
                                           "gl",   "levelzero", "pci"};
    hwloc_topology_t hw;
    if (hwloc_topology_init(&hw) != 0)
        return TFR_E_NOMEM;
    hwloc_topology_set_io_types_filter(hw, HWLOC_TYPE_FILTER_KEEP_ALL);
    hwloc_topology_set_cache_types_filter(hw, HWLOC_TYPE_FILTER_KEEP_NONE);
    hwloc_topology_set_flags(hw, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
    for (size_t i = 0; i < sizeof unwanted / sizeof unwanted[0]; i++)
        hwloc_topology_set_components(hw, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, unwanted[i]);
    if ((xml && hwloc_topology_set_xml(hw, xml) != 0) || hwloc_topology_load(hw) != 0) {
        hwloc_topology_destroy(hw);
        return tfr_fail(TFR_E_SYS, "hwloc does not describe %s: %m", xml ? xml : "this machine");
    }
    *hw_out = hw;
    return TFR_OK;
}

tfr_status tfr_topo_open(const char *xml, struct tfr_topo **topo_out)
{
    struct tfr_topo *topo = calloc(1, sizeof *topo);
    if (!topo)
        return TFR_E_NOMEM;
    tfr_status status = topology_load(xml, &topo->hw);
    if (status != TFR_OK) {
        free(topo);
        return status;
    }
    topo->here = hwloc_topology_is_thissystem(topo->hw);
    topo->allowed = hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(topo->hw));
    hwloc_bitmap_t bound = hwloc_bitmap_alloc();
    if (topo->here && hwloc_get_cpubind(topo->hw, bound, HWLOC_CPUBIND_THREAD) == 0)
        hwloc_bitmap_and(topo->allowed, topo->allowed, bound);
    hwloc_bitmap_free(bound);
    *topo_out = topo;
    return TFR_OK;
}

void tfr_topo_close(struct tfr_topo *topo)
{
    if (!topo)
        return;
    hwloc_bitmap_free(topo->allowed);
    hwloc_topology_destroy(topo->hw);
    free(topo);
}

bool tfr_topo_is_here(const struct tfr_topo *topo)
{
    return !topo || topo->here;
}

/* ---- devices ---- */

static bool is_gpu(hwloc_obj_t obj)
{
    unsigned base = obj->attr->pcidev.class_id >> 8;
    return base == 0x03 || base == 0x12; /* display; processing accelerators */
}

static void pci_text(hwloc_obj_t obj, char *text, size_t room)
{
    const struct hwloc_pcidev_attr_s *pci = &obj->attr->pcidev;
    snprintf(text, room, "%04x:%02x:%02x.%x", (unsigned)pci->domain, pci->bus, pci->dev, pci->func);
}

/* The software GPU's address may be that of anything. */
static hwloc_obj_t gpu_find(const struct tfr_topo *topo, const char *pci)
{
    hwloc_obj_t obj = pci ? hwloc_get_pcidev_by_busidstring(topo->hw, pci) : NULL;
    return obj && is_gpu(obj) ? obj : NULL;
}

/* Where both ways up meet; the steps of both. */
static hwloc_obj_t meet(hwloc_obj_t a, hwloc_obj_t b, int *hops_out)
{
    hwloc_obj_t up[DEPTH_MAX];
    int n = 0, steps = 0;
    for (; a && n < DEPTH_MAX; a = a->parent)
        up[n++] = a;
    for (; b; b = b->parent, steps++)
        for (int i = 0; i < n; i++)
            if (up[i] == b) {
                *hops_out = i + steps - 1;
                return b;
            }
    *hops_out = n + steps;
    return NULL;
}

static hwloc_obj_t package_of(const struct tfr_topo *topo, hwloc_obj_t obj)
{
    return obj->type == HWLOC_OBJ_PACKAGE
               ? obj
               : hwloc_get_ancestor_obj_by_type(topo->hw, HWLOC_OBJ_PACKAGE, obj);
}

static enum tfr_topo_span span_of(const struct tfr_topo *topo, hwloc_obj_t gpu, hwloc_obj_t nic,
                                  int *hops_out)
{
    hwloc_obj_t common = meet(gpu, nic, hops_out);
    if (common && (common->type == HWLOC_OBJ_BRIDGE || common->type == HWLOC_OBJ_PCI_DEVICE)) {
        bool host = common->type == HWLOC_OBJ_BRIDGE &&
                    common->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_HOST;
        return host ? TFR_SPAN_ROOT : TFR_SPAN_SWITCH;
    }
    hwloc_obj_t a = hwloc_get_non_io_ancestor_obj(topo->hw, gpu);
    hwloc_obj_t b = hwloc_get_non_io_ancestor_obj(topo->hw, nic);
    if (hwloc_bitmap_isequal(a->nodeset, b->nodeset))
        return TFR_SPAN_NODE;
    a = package_of(topo, a);
    b = package_of(topo, b);
    return !a || !b || a == b ? TFR_SPAN_PACKAGE : TFR_SPAN_FAR;
}

static int node_of(const struct tfr_topo *topo, hwloc_obj_t obj)
{
    hwloc_obj_t at = hwloc_get_non_io_ancestor_obj(topo->hw, obj);
    hwloc_const_nodeset_t all = hwloc_topology_get_topology_nodeset(topo->hw);
    bool anywhere = !at->nodeset || hwloc_bitmap_isequal(at->nodeset, all);
    return anywhere ? -1 : hwloc_bitmap_first(at->nodeset);
}

/* ---- NICs ---- */

/* Has one of its ports a link?  What a description of another machine does not say is taken for
 * granted. */
static bool nic_active(const struct tfr_topo *topo, const char *name)
{
    bool known = false;
    for (int port = 1; topo->here && port <= 8; port++) {
        char path[128];
        int state = 0;
        snprintf(path, sizeof path, "/sys/class/infiniband/%s/ports/%d/state", name, port);
        FILE *file = fopen(path, "re");
        if (!file)
            break;
        known = true;
        bool up = fscanf(file, "%d", &state) == 1 && state == 4;
        fclose(file);
        if (up)
            return true;
    }
    return !known;
}

static int nic_order(const void *a, const void *b)
{
    const struct tfr_topo_nic *x = a, *y = b;
    if (x->span != y->span)
        return x->span < y->span ? -1 : 1;
    if (x->hops != y->hops)
        return x->hops < y->hops ? -1 : 1;
    return strverscmp(x->name, y->name);
}

/* All with a link, or all if none has one. */
static uint32_t nics_collect(const struct tfr_topo *topo, hwloc_obj_t gpu, bool active,
                             struct tfr_topo_nic nic[static TFR_TOPO_NICS])
{
    uint32_t n = 0;
    for (hwloc_obj_t os = NULL; (os = hwloc_get_next_osdev(topo->hw, os));) {
        if (os->attr->osdev.type != HWLOC_OBJ_OSDEV_OPENFABRICS || n == TFR_TOPO_NICS ||
            (active && !nic_active(topo, os->name)))
            continue;
        struct tfr_topo_nic *out = &nic[n++];
        *out = (struct tfr_topo_nic){.span = TFR_SPAN_PACKAGE, .node = node_of(topo, os)};
        snprintf(out->name, sizeof out->name, "%s", os->name);
        if (os->parent && os->parent->type == HWLOC_OBJ_PCI_DEVICE)
            pci_text(os->parent, out->pci, sizeof out->pci);
        if (gpu)
            out->span = span_of(topo, gpu, os, &out->hops);
    }
    return n;
}

/* How many GPUs before this one share the NIC with it: they begin with other NICs. */
static uint32_t rank_of(const struct tfr_topo *topo, hwloc_obj_t gpu, const char *nic)
{
    uint32_t rank = 0;
    hwloc_obj_t os = NULL;
    int hops;
    while ((os = hwloc_get_next_osdev(topo->hw, os)))
        if (os->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS && strcmp(os->name, nic) == 0)
            break;
    if (!os)
        return 0;
    enum tfr_topo_span own = span_of(topo, gpu, os, &hops);
    for (hwloc_obj_t dev = NULL; (dev = hwloc_get_next_pcidev(topo->hw, dev)) && dev != gpu;)
        rank += is_gpu(dev) && span_of(topo, dev, os, &hops) == own;
    return rank;
}

static void nics_place(const struct tfr_topo *topo, hwloc_obj_t gpu, struct tfr_topo_place *p)
{
    struct tfr_topo_nic near[TFR_TOPO_NICS];
    p->nic_n = nics_collect(topo, gpu, true, p->nic);
    if (!p->nic_n)
        p->nic_n = nics_collect(topo, gpu, false, p->nic);
    qsort(p->nic, p->nic_n, sizeof p->nic[0], nic_order);
    while (p->near_n < p->nic_n && p->nic[p->near_n].span == p->nic[0].span &&
           p->nic[p->near_n].hops == p->nic[0].hops)
        p->near_n++;
    if (!gpu || !p->near_n)
        return;
    p->far = p->nic[0].span == TFR_SPAN_FAR;
    uint32_t rank = rank_of(topo, gpu, p->nic[0].name);
    memcpy(near, p->nic, sizeof near);
    for (uint32_t i = 0; i < p->near_n; i++)
        p->nic[i] = near[(i + rank) % p->near_n];
}

/* ---- cores ---- */

static void set_take(hwloc_const_bitmap_t from, cpu_set_t *out)
{
    CPU_ZERO(out);
    for (int cpu = hwloc_bitmap_first(from); cpu >= 0 && cpu < CPU_SETSIZE;
         cpu = hwloc_bitmap_next(from, cpu))
        CPU_SET((size_t)cpu, out);
}

static void core_add(struct tfr_topo_place *p, hwloc_const_bitmap_t core)
{
    for (int cpu = hwloc_bitmap_first(core); cpu >= 0 && cpu < CPU_SETSIZE;
         cpu = hwloc_bitmap_next(core, cpu))
        if (CPU_ISSET((size_t)cpu, &p->cpus)) {
            if (p->core_n < TFR_TOPO_CORES)
                p->core[p->core_n++] = (uint16_t)cpu;
            return;
        }
}

/* The first core serves most interrupts: it is taken last. */
static void cores_list(const struct tfr_topo *topo, struct tfr_topo_place *p)
{
    int n = hwloc_get_nbobjs_by_type(topo->hw, HWLOC_OBJ_CORE);
    hwloc_obj_type_t type = n > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    for (hwloc_obj_t core = NULL; (core = hwloc_get_next_obj_by_type(topo->hw, type, core));)
        core_add(p, core->cpuset);
    if (p->core_n > 1 && !p->listed) {
        uint16_t first = p->core[0];
        memmove(&p->core[0], &p->core[1], (p->core_n - 1) * sizeof p->core[0]);
        p->core[p->core_n - 1] = first;
    }
}

static void cpus_place(const struct tfr_topo *topo, hwloc_obj_t near, const cpu_set_t *cpus,
                       struct tfr_topo_place *p)
{
    cpu_set_t allowed, node;
    set_take(topo->allowed, &allowed);
    p->cpus = allowed;
    if (near) {
        set_take(near->cpuset, &node);
        CPU_AND(&p->cpus, &allowed, &node);
    }
    if (!CPU_COUNT(&p->cpus)) {
        p->cpus = allowed;
        p->why = "no core of the GPU's node may be used here";
    }
    if (cpus) {
        CPU_AND(&node, &allowed, cpus);
        if (CPU_COUNT(&node)) {
            p->cpus = node;
            p->listed = true;
        } else {
            p->why = "none of the cores that were named may be used here";
        }
    }
    cores_list(topo, p);
}

/* ---- the whole ---- */

static const char *reason(const struct tfr_topo_place *p)
{
    if (!p->gpu[0])
        return "the GPU is on no PCI bus that can be seen: memory and threads stay where they are";
    if (p->far)
        return "GPU and NIC are far apart, in two packages";
    if (p->node < 0)
        return "this machine has one node, or does not say where its devices are";
    return p->near_n > 1 ? "cores and memory of the GPU's node, large copies over all near NICs"
                         : "cores and memory of the GPU's node";
}

void tfr_topo_find(struct tfr_topo *topo, const char *pci, const cpu_set_t *cpus,
                   struct tfr_topo_place *place_out)
{
    struct tfr_topo_place *p = place_out;
    if (!topo) {
        tfr_topo_plain("hwloc does not know this machine", cpus, p);
        return;
    }
    hwloc_obj_t gpu = gpu_find(topo, pci), at = NULL;
    *p = (struct tfr_topo_place){.package = -1, .node = -1};
    if (gpu) {
        pci_text(gpu, p->gpu, sizeof p->gpu);
        at = hwloc_get_non_io_ancestor_obj(topo->hw, gpu);
        p->node = node_of(topo, gpu);
        hwloc_obj_t package = package_of(topo, at);
        p->package = package ? (int)package->logical_index : -1;
    }
    nics_place(topo, gpu, p);
    cpus_place(topo, at, cpus, p);
    if (!p->why)
        p->why = reason(p);
}

bool tfr_topo_memory(struct tfr_topo *topo, int node)
{
    if (!topo || !topo->here || node < 0)
        return false;
    hwloc_nodeset_t set = hwloc_bitmap_alloc();
    hwloc_bitmap_only(set, (unsigned)node);
    int result = hwloc_set_membind(topo->hw, set, HWLOC_MEMBIND_BIND,
                                   HWLOC_MEMBIND_THREAD | HWLOC_MEMBIND_BYNODESET);
    hwloc_bitmap_free(set);
    return result == 0;
}
