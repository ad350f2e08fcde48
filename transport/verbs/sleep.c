/* Falling asleep across a network, by question and answer.
 *
 * Who is about to sleep puts a question number into the other's page (`ask`).  From the moment that
 * the other sees it, its next put with BELL also rings: a write with an immediate (or an empty send
 * behind it), which makes the sleeper's descriptor readable.  A put that was posted before the
 * question was seen does not ring; so the other, when it progresses, answers `ok` behind its
 * earlier puts of channel 0, and a put that the answer might have overtaken looks for the
 * question once more.  Until the answer is there the sleeper takes naps (a timer in the
 * descriptor); behind it no wake-up can be lost.  A question stands until it is rung, however
 * often its owner naps; one that a side asks while the other sleeps wakes that one, without
 * counting as its bell, so that it answers and goes on sleeping.
 *
 * The same descriptor tells of the device's events, of completions that somebody wants, and of the
 * boot socket's end. */
#define TFR_LOG_PART "transport"
#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/relax.h"
#include "transport/verbs/verbs.h"

/* Immediates: a bell carries the question that it answers, a question none (0). */
static const uint32_t is_question = 0;

#define NAP_MIN_NS (1 * TFR_NS_PER_MS)
#define NAP_MAX    4 /* doublings */

static uint64_t ctl_read(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_acquire); /* pairs with the peer's put */
}

/* ---- for the other side ---- */

bool verbs_bell_take(struct verbs_link *link, uint32_t *number_out)
{
    uint64_t ask = ctl_read(&link->ctl->ask);
    uint64_t rung = atomic_load_explicit(&link->rung, memory_order_relaxed);

    if (__builtin_expect(ask == rung, 1))
        return false;
    if (!atomic_compare_exchange_strong_explicit(&link->rung, &rung, ask, memory_order_relaxed,
                                                 memory_order_relaxed))
        return false; /* somebody else rings */
    *number_out = (uint32_t)ask & NUMBER_MASK;
    return true;
}

void verbs_bell_send(struct verbs_channel *channel, uint32_t number)
{
    struct verbs_link *link = channel->link;
    tfr_status status = TFR_OK;

    if (!link->imm_ok) {
        link->own->rung = number;
        status = verbs_extra(channel, &link->own->rung, offsetof(struct verbs_ctl, rung), NULL);
    }
    if (status == TFR_OK)
        status = verbs_extra(channel, NULL, 0, &number);
    if (status == TFR_AGAIN)
        atomic_store_explicit(&channel->owed, true, memory_order_relaxed); /* verbs_answer's */
}

/* A channel whose puts may not have arrived rings for itself, behind them. */
void verbs_ring(struct tfr_link *base)
{
    struct verbs_link *link = verbs_link_of(base);
    uint32_t number;

    if (verbs_error(link) != TFR_OK || !verbs_bell_take(link, &number))
        return;
    verbs_bell_count(link);
    for (int i = 0; i < TFR_CHANNELS; i++) {
        struct verbs_channel *channel = &link->channels[i];
        if (i == 0 || atomic_load_explicit(&channel->posted, memory_order_relaxed) !=
                          atomic_load_explicit(&channel->retired, memory_order_relaxed))
            verbs_bell_send(channel, number);
    }
}

/* With link->poll held. */
void verbs_answer(struct verbs_link *link)
{
    uint64_t ask = ctl_read(&link->ctl->ask);

    for (int i = 0; i < TFR_CHANNELS; i++) {
        struct verbs_channel *channel = &link->channels[i];
        if (atomic_load_explicit(&channel->owed, memory_order_relaxed)) {
            atomic_store_explicit(&channel->owed, false, memory_order_relaxed);
            verbs_bell_send(channel,
                            (uint32_t)atomic_load_explicit(&link->rung, memory_order_relaxed));
        }
    }
    if (ask == link->answered || ask == atomic_load_explicit(&link->rung, memory_order_relaxed))
        return; /* a bell is an answer, too */
    link->own->ok = ask;
    if (verbs_extra(&link->channels[0], &link->own->ok, offsetof(struct verbs_ctl, ok), NULL) ==
        TFR_OK)
        link->answered = ask;
}

/* ---- for this side ---- */

/* The question of ours with these low bits that was asked last. */
static uint64_t question_of(const struct verbs_link *link, uint32_t low)
{
    return link->asked - (((uint32_t)link->asked - low) & NUMBER_MASK);
}

void verbs_bell_came(struct verbs_channel *channel, const struct ibv_wc *wc)
{
    struct verbs_link *link = channel->link;
    uint32_t low =
        wc->wc_flags & IBV_WC_WITH_IMM ? ntohl(wc->imm_data) : (uint32_t)ctl_read(&link->ctl->rung);
    uint64_t number;

    if (low & NOTE_BIT && link->notes)
        verbs_note_came(channel, low & SAME_BIT);
    low &= NUMBER_MASK;
    number = question_of(link, low);
    if (low != is_question && number <= link->asked &&
        number > atomic_load_explicit(&link->bell_seen, memory_order_relaxed))
        atomic_store_explicit(&link->bell_seen, number, memory_order_relaxed);
}

/* With link->lock held.  A peer that sleeps is woken by the question, unless it has been so often
 * without answering that its receives might run out. */
static void question_send(struct verbs_link *link)
{
    bool asleep =
        ctl_read(&link->ctl->ask) != atomic_load_explicit(&link->rung, memory_order_relaxed);
    bool wakes = asleep && link->protos < PROTO_MAX;
    const uint32_t *bell = wakes ? &is_question : NULL;
    uint64_t next = link->asked + 1;

    next += (next & NUMBER_MASK) == is_question;
    link->own->ask = next;
    if (verbs_extra(&link->channels[0], &link->own->ask, offsetof(struct verbs_ctl, ask),
                    link->imm_ok ? bell : NULL) != TFR_OK)
        return;
    if (bell && !link->imm_ok)
        verbs_extra(&link->channels[0], NULL, 0, bell);
    link->asked = next;
    link->naps = 0;
    link->protos += wakes;
}

static bool is_answered(struct verbs_link *link)
{
    if (ctl_read(&link->ctl->ok) < link->asked)
        return false;
    link->protos = 0;
    return true;
}

/* For the time that a message there and back may take. */
static bool answer_wait(struct verbs_link *link)
{
    uint64_t until = tfr_clock_now() + verbs_conf()->spin_us * TFR_NS_PER_US;

    while (!is_answered(link)) {
        if (tfr_clock_now() >= until)
            return false;
        verbs_poll_locked(link); /* the other may ask at the same time */
        tfr_pause();
    }
    return true;
}

static void timer_set(struct verbs_link *link, uint64_t ns)
{
    struct itimerspec spec = {.it_value = {.tv_nsec = (long)ns}};

    if (!ns && !link->timer_set)
        return;
    timerfd_settime(link->timer, 0, &spec, NULL);
    link->timer_set = ns != 0;
}

/* From here on completions that matter make the descriptor readable. */
static void events_ask(struct verbs_link *link)
{
    bool wanted = verbs_landings_busy(link);

    for (int i = 0; i < TFR_CHANNELS; i++)
        wanted |= atomic_load_explicit(&link->channels[i].wanted, memory_order_relaxed) >
                  atomic_load_explicit(&link->channels[i].retired, memory_order_relaxed);
    for (uint32_t i = 0; i < link->dev->nic_n; i++) {
        if (!link->cqs[i].events)
            continue;
        ibv_req_notify_cq(link->cqs[i].recv, 0);
        if (wanted)
            ibv_req_notify_cq(link->cqs[i].send, 0);
    }
    for (int i = 0; i < TFR_CHANNELS && wanted; i++)
        verbs_end_ask(&link->channels[i], false, true);
}

tfr_status verbs_arm(struct tfr_link *base, int *fd_out)
{
    struct verbs_link *link = verbs_link_of(base);
    tfr_status status;

    pthread_mutex_lock(&link->poll);
    verbs_look(link);
    verbs_poll_locked(link);
    if (verbs_error(link) == TFR_OK) {
        verbs_notes_return(link, true);
        events_ask(link);
        verbs_poll_locked(link); /* what came before that is seen here */
    }
    status = verbs_error(link);
    if (status != TFR_OK) {
        pthread_mutex_unlock(&link->poll);
        return status;
    }
    pthread_mutex_lock(&link->lock);
    link->armed++;
    if (atomic_load_explicit(&link->bell_seen, memory_order_relaxed) >= link->asked)
        question_send(link);
    if (answer_wait(link))
        timer_set(link, 0);
    else
        timer_set(link, NAP_MIN_NS << (link->naps < NAP_MAX ? link->naps++ : NAP_MAX));
    pthread_mutex_unlock(&link->lock);
    pthread_mutex_unlock(&link->poll);
    atomic_fetch_add_explicit(&link->sleeps, 1, memory_order_relaxed);
    *fd_out = link->epoll;
    return TFR_OK;
}

/* Only the last one drains: what woke one thread must stay for the others that are armed. */
void verbs_disarm(struct tfr_link *base)
{
    struct verbs_link *link = verbs_link_of(base);
    uint64_t expired;

    pthread_mutex_lock(&link->lock);
    if (--link->armed == 0) {
        for (uint32_t i = 0; i < link->dev->nic_n; i++) {
            struct ibv_cq *cq;
            void *context;
            while (link->cqs[i].events && ibv_get_cq_event(link->cqs[i].events, &cq, &context) == 0)
                ibv_ack_cq_events(cq, 1);
        }
        if (link->timer_set && read(link->timer, &expired, sizeof(expired)) < 0 && errno != EAGAIN)
            tfr_debug("verbs: timer: %s", strerror(errno));
    }
    pthread_mutex_unlock(&link->lock);
}
