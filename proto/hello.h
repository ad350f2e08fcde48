/* The first message of a connection: who is asking, and the settings that NVIDIA's driver fixes
 * when it is initialised, so that a worker can be started with them.  Made by the client and by
 * tools, judged by the executor's parent. */
#ifndef TFR_PROTO_HELLO_H
#define TFR_PROTO_HELLO_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/wire.h"

enum {
    TFR_HELLO_ENV_MAX = 1024,
    TFR_HELLO_MAX = sizeof(struct tfr_hello) + TFR_HELLO_ENV_MAX,
};

/* This build: version and revision.  Its own small library (tfr_release), so that a commit does not
 * link everything anew. */
extern const char tfr_release[];

/* Writes this process's hello into `body` (TFR_HELLO_MAX bytes); its length. */
uint32_t tfr_hello_make(void *body);

/* What is wrong with a hello of `len` bytes, or NULL.  A TFR_E_ACCESS kind of wrong, another
 * release, is told apart by *other_release_out. */
const char *tfr_hello_check(const void *body, uint32_t len, bool *other_release_out);

/* The names of the variables that travel, ended by NULL; a hello brings them in this order. */
extern const char *const tfr_hello_names[];

/* Writes the travelling variables of this process as NAME=VALUE texts, each ended by a zero; the
 * bytes written.  Values that could not pass the check are left out. */
uint32_t tfr_hello_env(char *text, size_t room);

#endif
