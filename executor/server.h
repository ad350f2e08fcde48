/* The parent: listens, answers hello from a snapshot, hands sessions to workers.  Never touches
 * CUDA. */
#ifndef TFR_EXECUTOR_SERVER_H
#define TFR_EXECUTOR_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

#include "executor/worker.h"

enum { TFR_LISTEN_MAX = 8 };

struct tfr_server_cfg {
    const char *listen[TFR_LISTEN_MAX];
    int listen_n;
    const char *auth, *key_file, *allow_uid; /* NULL: not given */
    enum tfr_gpu_choice gpu;
    bool private; /* one program's own: says nothing on stderr while all is well */
    int ready_fd; /* one line goes there when clients may come; -1: none */
    int max_sessions;
    const char *pin; /* "auto", "none" or a list of cores */
    pid_t owner;     /* ends when this process ends; 0: none */
};

/* Runs until SIGTERM, SIGINT or the owner's end; the exit status. */
int tfr_server_run(const struct tfr_server_cfg *cfg);

#endif
