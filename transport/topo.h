/* Where a GPU is on this machine, which NICs are near it, and which cores and memory belong to it.
 * For the executor's workers and for tools; a library of its own (tfr_topo), so that the client
 * never needs hwloc.  Without hwloc, or where it knows nothing of PCI, the answers are those of a
 * machine with one node.  Nothing here is thread-safe. */
#ifndef TFR_TRANSPORT_TOPO_H
#define TFR_TRANSPORT_TOPO_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { TFR_TOPO_NICS = 16, TFR_TOPO_CORES = 256, TFR_TOPO_TEXT = 4096 };

/* How far two devices are from each other, nearest first. */
enum tfr_topo_span {
    TFR_SPAN_SWITCH,  /* under one PCI switch */
    TFR_SPAN_ROOT,    /* under one host bridge */
    TFR_SPAN_NODE,    /* on one NUMA node */
    TFR_SPAN_PACKAGE, /* in one package, or nobody knows */
    TFR_SPAN_FAR,     /* in two packages */
};

struct tfr_topo_nic {
    char name[32], pci[16]; /* name: as verbs calls it */
    enum tfr_topo_span span;
    int node, hops; /* node -1: unknown.  hops: bridges and such between it and the GPU */
};

struct tfr_topo_place {
    char gpu[16];      /* its PCI address; "": it is not on this machine's buses */
    int package, node; /* -1: unknown, or the only one */
    bool far;          /* a GPU and its nearest NIC are in two packages */
    bool listed;       /* cpus are those that the user named */
    const char *why;   /* in a few words, for people */
    cpu_set_t cpus;    /* on which its threads may run */
    /* One CPU of each core of these, in the order in which pollers should take them. */
    uint32_t core_n;
    uint16_t core[TFR_TOPO_CORES];
    /* Nearest first; the first near_n are equally near.  A second GPU that has the same ones near
     * finds them in another order. */
    uint32_t nic_n, near_n;
    struct tfr_topo_nic nic[TFR_TOPO_NICS];
};

struct tfr_topo;

/* Looks at this machine, or at one that an hwloc XML file describes.  TFR_E_UNSUP: no hwloc here.
 * The others take NULL for a machine of which nothing is known but our own cores. */
tfr_status tfr_topo_open(const char *xml, struct tfr_topo **topo_out);
void tfr_topo_close(struct tfr_topo *topo);

/* Is it this machine?  If not (XML, also by HWLOC_XMLFILE), nothing should be bound by it. */
bool tfr_topo_is_here(const struct tfr_topo *topo);

/* The place of the GPU with this PCI address ("0000:17:00.0"; NULL: none).  cpus: those that the
 * user named, or NULL. */
void tfr_topo_find(struct tfr_topo *topo, const char *pci, const cpu_set_t *cpus,
                   struct tfr_topo_place *place_out);

/* A place on a machine of which nothing is known. */
void tfr_topo_plain(const char *why, const cpu_set_t *cpus, struct tfr_topo_place *place_out);

/* Later pages of the calling thread, and of threads that it starts, come from the node as long as
 * it has some.  False: not done. */
bool tfr_topo_memory(struct tfr_topo *topo, int node);

/* "0-3,8" as a set; false: it is none. */
bool tfr_topo_list_parse(const char *text, cpu_set_t *cpus_out);
void tfr_topo_list_text(const cpu_set_t *cpus, char *text, size_t room);

/* The names of the nearest NICs, separated by commas; "": none is known. */
void tfr_topo_near(const struct tfr_topo_place *place, char *names, size_t room);

/* A short tree for people; the bytes written. */
size_t tfr_topo_draw(const struct tfr_topo_place *place, char *text, size_t room);

#endif
