/* tf-executor: the GPU node's daemon.
 *
 * Process model.  The parent (server.c, guest.c, crew.c) listens, proves who a client is, answers
 * device queries from a snapshot, and never touches CUDA.  A client's first context is handed, with
 * its socket, to a worker (worker.c): a fresh image of this program that has a driver initialised
 * and its memory prepared.  A worker serves one session and exits, so a fault, a leak or a hostile
 * client ends with that process.  Workers die with the parent, and the parent with its owner if it
 * was given one. */
#define TFR_LOG_PART "executor"
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "executor/server.h"
#include "executor/spin.h"
#include "transport/boot.h"
#include "transport/topo.h"
#include "transport/ways.h"

static const char usage[] =
    "usage: tf-executor --listen ADDR [--listen ADDR...] [--gpu auto|cuda|soft]\n"
    "                   [--max-sessions N] [--pin auto|none|CORES] [--auth key|munge]\n"
    "                   [--key-file FILE] [--allow-uid UID[,UID...]]\n"
    "Lets CUDA programs that run under tf-run use this machine's GPU.\n"
    "  --listen ADDR   tcp:HOST:PORT for other machines (HOST * for all addresses of this one,\n"
    "                  an IPv6 address in brackets; port 0: any), unix:PATH for this machine, or\n"
    "                  unix:@NAME for a socket without a file\n"
    "  --auth HOW      over TCP: key (the default): whoever holds the key file; munge: users\n"
    "                  that MUNGE vouches for\n"
    "  --key-file FILE the key; made if there is none; default: ~/.config/tfr/key\n"
    "  --allow-uid UID other users that may come, by unix sockets (whose files are then open to\n"
    "                  all, who connects is asked for its user) and by MUNGE\n"
    "  --gpu WHICH     cuda: NVIDIA's driver; soft: the software GPU; auto: the first that is "
    "there\n"
    "  --pin WHERE     auto: near the GPU; none; or the cores for its workers, as in 0-3,8\n"
    "  --max-sessions N  programs that may use the GPU at once (default 64); others wait in turn\n"
    "  --transport NAME  how bytes move, for every session (TFR_TRANSPORT); default: the best that "
    "both have\n"
    "  -v, --verbose   say more (TFR_LOG=info): which transport a session takes, and why\n"
    "  --private --ready-fd N --owner-pid PID   what tf-run uses for a private executor\n";

enum {
    OPT_LISTEN = 256,
    OPT_GPU,
    OPT_PRIVATE,
    OPT_READY,
    OPT_OWNER,
    OPT_WORKER,
    OPT_STAT,
    OPT_UID,
    OPT_SPIN,
    OPT_MAX,
    OPT_TRANSPORT,
    OPT_PIN,
    OPT_AUTH,
    OPT_KEY,
    OPT_ALLOW
};

static const struct option options[] = {{"listen", required_argument, NULL, OPT_LISTEN},
                                        {"gpu", required_argument, NULL, OPT_GPU},
                                        {"private", no_argument, NULL, OPT_PRIVATE},
                                        {"ready-fd", required_argument, NULL, OPT_READY},
                                        {"owner-pid", required_argument, NULL, OPT_OWNER},
                                        {"worker", required_argument, NULL, OPT_WORKER},
                                        {"stat-fd", required_argument, NULL, OPT_STAT},
                                        {"uid", required_argument, NULL, OPT_UID},
                                        {"spin-fd", required_argument, NULL, OPT_SPIN},
                                        {"max-sessions", required_argument, NULL, OPT_MAX},
                                        {"pin", required_argument, NULL, OPT_PIN},
                                        {"transport", required_argument, NULL, OPT_TRANSPORT},
                                        {"verbose", no_argument, NULL, 'v'},
                                        {"auth", required_argument, NULL, OPT_AUTH},
                                        {"key-file", required_argument, NULL, OPT_KEY},
                                        {"allow-uid", required_argument, NULL, OPT_ALLOW},
                                        {"help", no_argument, NULL, 'h'},
                                        {0}};

static int gpu_parse(const char *text, enum tfr_gpu_choice *choice_out)
{
    static const char *const words[] = {"auto", "cuda", "soft"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, words[i]) == 0) {
            *choice_out = (enum tfr_gpu_choice)i;
            return 0;
        }
    }
    return -1;
}

/* False: said. */
static bool pin_good(const char *text)
{
    cpu_set_t cpus, allowed, both;
    char list[96];
    if (strcmp(text, "auto") == 0 || strcmp(text, "none") == 0)
        return true;
    if (!tfr_topo_list_parse(text, &cpus)) {
        tfr_say("--pin %s: expected is auto, none, or cores as in 0-3,8", text);
        return false;
    }
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return true;
    CPU_AND(&both, &allowed, &cpus);
    if (CPU_EQUAL(&both, &cpus))
        return true;
    tfr_topo_list_text(&allowed, list, sizeof list);
    tfr_say("--pin %s: %s these may be used here, where cores %s may", text,
            CPU_COUNT(&both) ? "not all of" : "none of", list);
    return CPU_COUNT(&both) != 0;
}

struct asked {
    struct tfr_server_cfg cfg;
    struct tfr_worker_cfg worker; /* fd -1: we are the parent */
    bool help;
};

/* These answer what is wrong; NULL: nothing. */
static const char *listen_take(struct tfr_server_cfg *cfg)
{
    const char *why;
    if (cfg->listen_n == TFR_LISTEN_MAX)
        return "more than eight addresses: start another executor for the others";
    cfg->listen[cfg->listen_n++] = optarg;
    return tfr_boot_addr_good(optarg, &why) ? NULL : why;
}

static const char *sessions_take(struct tfr_server_cfg *cfg)
{
    char *end;
    long n = strtol(optarg, &end, 10);
    cfg->max_sessions = (int)n;
    return *optarg && !*end && n >= 1 && n <= 4096 ? NULL : "expected is a number from 1 to 4096";
}

static const char *text_take(int option, struct tfr_server_cfg *cfg)
{
    switch (option) {
    case OPT_LISTEN:
        return listen_take(cfg);
    case OPT_MAX:
        return sessions_take(cfg);
    case OPT_GPU:
        return gpu_parse(optarg, &cfg->gpu) == 0 ? NULL : "expected is auto, cuda or soft";
    case OPT_PIN:
        cfg->pin = optarg;
        break;
    case OPT_TRANSPORT:
        setenv("TFR_TRANSPORT", optarg, 1);
        break;
    case OPT_AUTH:
        cfg->auth = optarg;
        return strcmp(optarg, "key") == 0 || strcmp(optarg, "munge") == 0
                   ? NULL
                   : "expected is key or munge";
    case OPT_KEY:
        cfg->key_file = optarg;
        return *optarg ? NULL : "expected is a file";
    case OPT_ALLOW:
        cfg->allow_uid = optarg;
        break;
    }
    return NULL;
}

/* Those of a worker, and of tf-run. */
static bool own_take(int option, struct asked *asked)
{
    switch (option) {
    case OPT_PRIVATE:
        asked->cfg.private = true;
        return true;
    case OPT_READY:
        asked->cfg.ready_fd = atoi(optarg);
        return true;
    case OPT_OWNER:
        asked->cfg.owner = atoi(optarg);
        return true;
    case OPT_WORKER:
        asked->worker.fd = atoi(optarg);
        return true;
    case OPT_STAT:
        asked->worker.stat_fd = atoi(optarg);
        return true;
    case OPT_UID:
        asked->worker.uid = (uid_t)strtoul(optarg, NULL, 10);
        return true;
    case OPT_SPIN:
        tfr_spin_open(atoi(optarg));
        return true;
    default:
        return false;
    }
}

/* False: said what is wrong. */
static bool options_take(int argc, char **argv, struct asked *asked)
{
    const char *why;
    int option, at;
    while (!asked->help && (option = getopt_long(argc, argv, "hv", options, &at)) != -1) {
        asked->help = option == 'h';
        if (option == 'v')
            setenv("TFR_LOG", "info", 0);
        else if (option == '?')
            return false; /* said by getopt_long */
        else if (!asked->help && !own_take(option, asked) &&
                 (why = text_take(option, &asked->cfg))) {
            tfr_say("--%s %s: %s", options[at].name, optarg, why);
            return false;
        }
    }
    if (asked->help || asked->worker.fd >= 0)
        return true;
    if (optind != argc)
        tfr_say("\"%s\" is no option of tf-executor: see --help", argv[optind]);
    else if (!asked->cfg.listen_n)
        tfr_say("no address: --listen tcp:HOST:PORT for other machines, --listen unix:PATH for "
                "this one; --help has the rest");
    return optind == argc && asked->cfg.listen_n && pin_good(asked->cfg.pin);
}

/* Who starts us may have closed them: no socket of ours, nor of a worker, may take their place. */
static void first_three_fill(void)
{
    int fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO)
        fd = open("/dev/null", O_RDWR);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv)
{
    struct asked asked = {.cfg = {.ready_fd = -1, .max_sessions = 64, .pin = "auto"},
                          .worker = {.fd = -1, .stat_fd = -1, .uid = geteuid()}};
    const char *why;
    first_three_fill();
    if (!options_take(argc, argv, &asked))
        return 2;
    if (asked.help) {
        fputs(usage, stdout);
        return 0;
    }
    if (asked.worker.fd >= 0) {
        asked.worker.gpu = asked.cfg.gpu;
        asked.worker.pin = asked.cfg.pin;
        return tfr_worker_main(&asked.worker);
    }
    if (!tfr_ways_known(tfr_env_str("TFR_TRANSPORT"))) {
        tfr_say("transport %s: %s", tfr_env_str("TFR_TRANSPORT"),
                tfr_transport_why(tfr_env_str("TFR_TRANSPORT")));
        return 2;
    }
    /* Of a private executor the program itself says it. */
    if (!asked.cfg.private && !tfr_ways_able(tfr_env_str("TFR_TRANSPORT"), &why)) {
        tfr_say("nothing can be served (TFR_TRANSPORT=%s): %s", tfr_env_str("TFR_TRANSPORT"), why);
        return 1;
    }
    return tfr_server_run(&asked.cfg);
}
