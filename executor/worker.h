/* A worker: the process that holds one session's driver.  And the words between it and its parent.
 */
#ifndef TFR_EXECUTOR_WORKER_H
#define TFR_EXECUTOR_WORKER_H

#include <stdint.h>
#include <sys/types.h>

#include "transport/seal.h"
#include "transport/ways.h"

enum tfr_gpu_choice { TFR_GPU_AUTO, TFR_GPU_CUDA, TFR_GPU_SOFT };

/* Messages over the pair of sockets between parent and worker, in the frames of transport/boot.h.
 */
enum tfr_worker_msg {
    TFR_WORKER_READY = 100, /* worker -> parent: struct tfr_worker_ready, struct tfr_snapshot */
    TFR_WORKER_FAILED,      /* worker -> parent: text */
    TFR_WORKER_CLIENT,      /* parent -> worker: struct tfr_worker_client, the client's socket */
};

struct tfr_worker_ready {
    char gpu[128];    /* "NVIDIA H200 (libcuda.so.1)" or the software GPU's name */
    char place[4096]; /* where its devices are and what is near them, for people */
};

/* Bytes of an attach message: passed on unread. */
enum { TFR_ATTACH_MAX = sizeof(((struct tfr_ways *)0)->way) };

struct tfr_worker_client {
    uint32_t sealed, attach_len;
    struct tfr_seal seal; /* the connection's keys, and where its counters are */
    uint8_t attach[TFR_ATTACH_MAX];
};

struct tfr_worker_cfg {
    int fd;      /* its end of the pair */
    int stat_fd; /* memory for its numbers, or -1 */
    uid_t uid;   /* whom it becomes, if that is another than it is */
    enum tfr_gpu_choice gpu;
    const char *pin; /* see place.h */
};

int tfr_worker_main(const struct tfr_worker_cfg *cfg);

#endif
