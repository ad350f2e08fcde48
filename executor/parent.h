/* What the parent's files share: server.c (the loop), listen.c (where clients come in), identity.c
 * (who they are), guest.c (connections, until a worker has them), crew.c (the workers).  One
 * thread (identity.c has another for MUNGE); nothing here ever waits, so that no guest can hold
 * up another. */
#ifndef TFR_EXECUTOR_PARENT_H
#define TFR_EXECUTOR_PARENT_H

#include <stdbool.h>
#include <sys/queue.h>
#include <sys/resource.h>

#include "executor/server.h"
#include "proto/hello.h"
#include "proto/stat.h"
#include "transport/address.h"
#include "transport/auth.h"
#include "transport/boot.h"

enum {
    TFR_SPARES = 2,           /* the most workers that wait for a client */
    TFR_QUEUE_MAX = 1024,     /* clients that may wait for a worker */
    TFR_GUESTS_MAX = 4096,    /* connections of programs that have a device list and no context */
    TFR_GUESTS_RESERVE = 512, /* of these, places for users who have at most */
    TFR_GUESTS_OWN = 64,      /* so many */
    TFR_STRANGERS_MAX = 512,  /* connections that have not proved who they are */
    TFR_ORIGINS = 256,        /* addresses that they come from are told apart by so many numbers */
    TFR_KNOWN_MAX = 1024      /* those that have proved it, and not said hello */
};

/* What cannot change once a worker has started: its user, and the settings that a driver fixes at
 * its start, as text: equal bytes, equal settings. */
struct tfr_fixed_env {
    uid_t uid;
    uint32_t len;
    char text[TFR_HELLO_ENV_MAX];
};

enum tfr_poll_kind {
    TFR_POLL_LISTEN,
    TFR_POLL_SIGNAL,
    TFR_POLL_OWNER,
    TFR_POLL_GUEST,
    TFR_POLL_WORKER,
    TFR_POLL_PROOF
};

enum tfr_guest_stage {
    GUEST_STRANGER, /* said nothing yet */
    GUEST_GREETED,  /* waits for the snapshot */
    GUEST_IDLE,     /* has it */
    GUEST_QUEUED,   /* waits for a worker */
    GUEST_TOOL,     /* asks for numbers */
    GUEST_GONE,     /* freed at the end of the turn: events may still name it */
};

struct tfr_guest {
    enum tfr_poll_kind kind; /* first: what an event points to begins with it */
    enum tfr_guest_stage stage;
    TAILQ_ENTRY(tfr_guest) all, queue, unproven;
    struct tfr_boot boot;
    bool tcp, known;             /* known: a user who may come */
    uint8_t origin;              /* where it comes from, if by TCP: below TFR_ORIGINS */
    struct tfr_auth *auth;       /* its proof of identity goes on */
    struct tfr_proof_job *job;   /* the thread has that */
    char from[TFR_ADDRESS_TEXT]; /* who it is, for people */
    pid_t pid;
    uid_t uid;
    uint64_t since_ns, told_ns;
    struct tfr_boot_in in;
    char program[64];
    struct tfr_fixed_env env;
    uint32_t attach_len;
    uint8_t *attach; /* its ways (transport/ways.h), for the worker */
};
TAILQ_HEAD(tfr_guests, tfr_guest);

struct tfr_door {
    enum tfr_poll_kind kind;
    int fd;
    bool tcp, open;                   /* open: being looked at */
    const char *addr;                 /* as it was given */
    char name[TFR_BOOT_ADDR_MAX + 8]; /* with the port that it has got */
};

enum tfr_worker_stage {
    WORKER_FREE,
    WORKER_STARTING,
    WORKER_WARM,
    WORKER_SERVING,
    WORKER_ENDING, /* told to go, or gone: free when it is reaped */
};

struct tfr_worker {
    enum tfr_poll_kind kind;
    enum tfr_worker_stage stage;
    struct tfr_boot boot; /* closed from the hand-over on */
    pid_t pid;
    uint64_t since_ns;
    struct tfr_fixed_env env;
    struct tfr_stat_page *stat; /* shared with it; NULL: none */
    /* of its client */
    pid_t client;
    uid_t uid;
    char program[64];
};

struct tfr_parent {
    const struct tfr_server_cfg *cfg;
    int epoll, signal_fd, owner_fd;
    struct tfr_door door[TFR_LISTEN_MAX];
    int door_n;
    struct tfr_auth_cfg auth;
    int spin_fd;                               /* the workers' budget of spinning; -1: none */
    struct rlimit files;                       /* as we found it: workers get it back */
    int guest_files;                           /* descriptors of guests are below */
    struct tfr_guests guests, queue, unproven; /* unproven: oldest first */
    int guest_n, queue_n;
    int stranger_n[2];         /* who has not said hello: unknown, known */
    int origin_n[TFR_ORIGINS]; /* the unproven, by where they come from */
    bool listening;            /* all doors are open */
    uint64_t deaf_to_ns;       /* no accept before: descriptors ran out */
    uint64_t unknown_said_ns, unknown_n, refused_said_ns, refused_n;

    struct tfr_worker *worker;
    int worker_n;
    struct tfr_snapshot *snapshot; /* and the calls that we know */
    size_t snapshot_len;
    char place[sizeof((struct tfr_worker_ready *)0)->place]; /* as the first worker drew it */
    struct tfr_fixed_env spare_env;                          /* what the last client wanted */
    uint64_t spare_at_ns; /* when to look after spares; 0: not now */
    uint64_t start_at_ns; /* no worker is started before: the last start failed */
    uint64_t handed_ns, handed_before_ns;
    uint64_t served, began_ns;
    int status;
    bool over;
};

/* ---- guest.c ---- */

void tfr_guest_accept(struct tfr_parent *p, struct tfr_door *door);
void tfr_guest_read(struct tfr_parent *p, struct tfr_guest *g);
/* It has proved who it is.  May drop it: there is room for so many of a user. */
void tfr_guest_known(struct tfr_parent *p, struct tfr_guest *g);
/* A whole message of at most `max` bytes; false: none yet, or the guest was dropped. */
bool tfr_guest_take(struct tfr_parent *p, struct tfr_guest *g, uint32_t max,
                    struct tfr_boot_msg *msg_out);
void tfr_guest_drop(struct tfr_parent *p, struct tfr_guest *g);
void tfr_guest_refuse(struct tfr_parent *p, struct tfr_guest *g, const char *why);

/* The snapshot is there: to all who wait for it. */
void tfr_guest_snapshot_all(struct tfr_parent *p);

/* Deadlines, and "you are queued" once a second.  End of a turn: frees who is gone. */
void tfr_guest_tick(struct tfr_parent *p);

/* ---- listen.c ---- */

bool tfr_doors_open(struct tfr_parent *p);
void tfr_doors_close(struct tfr_parent *p);
void tfr_doors_tend(struct tfr_parent *p);
/* Have as many come in by it and said nothing as may be? */
bool tfr_door_crowded(const struct tfr_parent *p, const struct tfr_door *door);
/* The addresses, each between the two texts (or, without the first, separated by the second). */
size_t tfr_doors_list(const struct tfr_parent *p, const char *before, const char *after,
                      char *text_out, size_t room);

/* ---- identity.c ---- */

bool tfr_identity_start(struct tfr_parent *p); /* the thread for MUNGE */
/* Somebody is at the door: finds out who, or begins to.  May drop the guest. */
void tfr_identity_meet(struct tfr_parent *p, struct tfr_guest *g);
void tfr_identity_read(struct tfr_parent *p, struct tfr_guest *g);
void tfr_identity_done(struct tfr_parent *p);
void tfr_identity_forget(struct tfr_guest *g);
/* A number for the address that a TCP connection comes from. */
uint8_t tfr_identity_origin(int fd);
/* Lines about who was turned away; of each kind at most one a second. */
void tfr_refused_say(struct tfr_parent *p, const struct tfr_guest *g, const char *why);
void tfr_unknown_say(struct tfr_parent *p);

/* ---- crew.c ---- */

bool tfr_crew_init(struct tfr_parent *p);
void tfr_crew_read(struct tfr_parent *p, struct tfr_worker *w);
void tfr_crew_reap(struct tfr_parent *p);

/* Queued clients to warm workers; starts and retires workers as needed. */
void tfr_crew_tick(struct tfr_parent *p);

/* As whom this user's worker runs. */
uid_t tfr_crew_uid(uid_t guest);

/* Ends all workers; at most a second. */
void tfr_crew_stop(struct tfr_parent *p);
int tfr_crew_count(const struct tfr_parent *p, enum tfr_worker_stage stage);

/* ---- server.c ---- */

bool tfr_parent_watch(struct tfr_parent *p, int fd, void *what);
void tfr_parent_close(struct tfr_parent *p, struct tfr_boot *boot);
void tfr_parent_ready(struct tfr_parent *p, const char *gpu);

#endif
