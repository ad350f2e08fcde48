/* The first message of a connection: who is asking, and the settings that NVIDIA's driver fixes
 * when it is initialised, so that a worker can be started with them.  Made by the client and by
 * tools, judged by the executor's parent. */
#ifndef TFR_PROTO_HELLO_H
#define TFR_PROTO_HELLO_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/edition.h"

enum {
    TFR_HELLO_ENV_MAX = 1024,
    TFR_HELLO_MAX = sizeof(struct tfr_hello) + TFR_CALLS_MAX * sizeof(struct tfr_edition_call) +
                    TFR_HELLO_ENV_MAX,
};

/* This build: version and revision.  Its own small library (tfr_release), so that a commit does not
 * link everything anew. */
extern const char tfr_release[];

/* Writes this process's hello into `body` (TFR_HELLO_MAX bytes); its length. */
uint32_t tfr_hello_make(const char *release, void *body);

/* What is wrong with a hello of `len` bytes, or NULL.  Another release, which is to be told why
 * (tfr_edition_refusal), has *edition_out and `cause_out` (TFR_EDITION_WHY_MAX bytes) filled and
 * its magic is right; what is no hello at all leaves edition_out->magic zero. */
const char *tfr_hello_check(const void *body, uint32_t len, struct tfr_edition *edition_out,
                            char *cause_out);

/* Of a hello that passed: where its settings lie, env_len bytes. */
const char *tfr_hello_settings(const struct tfr_hello *hello);

/* The names of the variables that travel, ended by NULL; a hello brings them in this order. */
extern const char *const tfr_hello_names[];

/* Writes the travelling variables of this process as NAME=VALUE texts, each ended by a zero; the
 * bytes written.  Values that could not pass the check are left out. */
uint32_t tfr_hello_env(char *text, size_t room);

#endif
