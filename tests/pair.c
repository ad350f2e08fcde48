/* See pair.h. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/relax.h"
#include "tests/pair.h"

enum { MSG_KEY = 1, LIMIT_MS = 10000 };

void pair_need(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "pair: %s failed\n", what);
    exit(3);
}

static void key_send(struct pair_end *end)
{
    struct tfr_key key;
    struct tfr_boot_msg msg = {.type = MSG_KEY, .len = sizeof(key), .body = &key};

    end->ops->key(end->mem, &key);
    msg.fd_n = key.fd >= 0;
    msg.fds[0] = key.fd;
    pair_need(tfr_boot_send(&end->boot, &msg, LIMIT_MS) == TFR_OK, "send of the key");
}

static void key_recv(struct pair_end *end)
{
    struct tfr_boot_msg msg;
    struct tfr_key *key;

    pair_need(tfr_boot_recv(&end->boot, &msg, LIMIT_MS) == TFR_OK, "receive of the key");
    pair_need(msg.type == MSG_KEY && msg.len == sizeof(*key) && msg.fd_n <= 1, "key");
    key = msg.body;
    key->fd = msg.fd_n ? msg.fds[0] : -1;
    msg.fds[0] = -1;
    pair_need(end->ops->import(end->link, key, &end->peer) == TFR_OK, "import");
    tfr_boot_msg_fini(&msg);
}

/* TFR_TEST_NICS names one for each side, separated by a comma; default: the transport chooses. */
static struct tfr_dev_cfg nic_of(bool first, char name[64])
{
    struct tfr_dev_cfg cfg = {.numa_node = -1};
    const char *nics = getenv("TFR_TEST_NICS");
    const char *comma = nics ? strchr(nics, ',') : NULL;

    if (comma) {
        if (first)
            snprintf(name, 64, "%.*s", (int)(comma - nics), nics);
        else
            snprintf(name, 64, "%s", comma + 1);
        cfg.name = name;
    }
    return cfg;
}

void pair_open(struct pair_end *end, const char *transport, int sock, bool first, size_t len)
{
    char name[64];
    const struct tfr_dev_cfg cfg = nic_of(first, name);

    end->boot = (struct tfr_boot){.fd = sock};
    end->other = NULL;
    end->ops = tfr_transport_find(transport);
    pair_need(end->ops != NULL, "find");
    pair_need(end->ops->prepare(&cfg, &end->dev) == TFR_OK, "prepare");
    pair_need(tfr_memfd_create("pair", len, NULL, &end->area) == TFR_OK, "memfd");
    pair_need(end->ops->reg(end->dev, &end->area, &end->mem) == TFR_OK, "reg");
    pair_need(end->ops->open(end->dev, &end->boot, first, &end->link) == TFR_OK, "open");
    key_send(end);
    key_recv(end);
}

void pair_close(struct pair_end *end)
{
    if (end->mem)
        end->ops->unreg(end->mem);
    if (end->peer)
        end->ops->forget(end->peer);
    if (end->link)
        end->ops->close(end->link);
    end->ops->release(end->dev);
    munmap(end->area.addr, end->area.len);
    close(end->area.fd);
    tfr_boot_close(&end->boot);
}

void pair_cut(struct pair_end *end)
{
    end->ops->close(end->link);
    end->link = NULL;
    tfr_boot_close(&end->boot);
}

struct opening {
    struct pair_end *end;
    const char *transport;
    int sock;
    size_t len;
};

static void *other_main(void *arg)
{
    struct opening *opening = arg;

    pair_open(opening->end, opening->transport, opening->sock, false, opening->len);
    return NULL;
}

void pair_open_both(struct pair_end ends[2], const char *transport, size_t len)
{
    struct opening opening = {.end = &ends[1], .transport = transport, .len = len};
    pthread_t other;
    int socks[2];

    pair_need(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks) == 0, "socketpair");
    opening.sock = socks[1];
    pair_need(pthread_create(&other, NULL, other_main, &opening) == 0, "thread");
    pair_open(&ends[0], transport, socks[0], true, len);
    pthread_join(other, NULL);
    ends[0].other = &ends[1];
    ends[1].other = &ends[0];
}

void pair_part(struct pair_end ends[2])
{
    ends[0].other = ends[1].other = NULL;
}

tfr_status pair_drive(struct pair_end *end)
{
    struct pair_end *other = end->other;

    if (other && other->link && !(other->ops->caps & TFR_CAP_ONESIDED))
        other->ops->progress(other->link);
    return end->ops->progress(end->link);
}

void pair_put(struct pair_end *end, const struct tfr_xfer *xfer)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_TRANSFER);
    tfr_status status;

    while ((status = end->ops->put(end->link, xfer)) == TFR_AGAIN) {
        pair_drive(end);
        if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
            tfr_relax_nap(&relax);
    }
    pair_need(status == TFR_OK, "put");
}
