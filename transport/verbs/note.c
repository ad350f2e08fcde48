/* Puts on fabrics that may deliver out of order (TFR_VERBS_NOTIFY=imm).  There a word that is seen
 * in memory says nothing of what was written before it; only a completion does.  So a put with
 * AFTER travels as a note: a write with an immediate into the peer's inbox, one queue of slots per
 * channel, that says where its bytes belong, unless they go where those of the note before went:
 * then the immediate says so, and a word takes eight bytes.  The peer stores them there when it has
 * the completion, which is why this way needs progress.  Slots come back by a word of the peer's
 * page, a quarter of the inbox at a time.  What a note names is checked as the device would: by key
 * and span, each time, and never beyond memory that is shown. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/rec.h"
#include "transport/verbs/verbs.h"

enum { SLOT_LEN = 320 };
static_assert(sizeof(struct verbs_note) <= SLOT_LEN, "note");
#define INBOX_LEN ((size_t)TFR_CHANNELS * NOTE_N * SLOT_LEN)

static size_t slot_at(uint32_t channel, uint64_t number)
{
    return (channel * (size_t)NOTE_N + number % NOTE_N) * SLOT_LEN;
}

tfr_status verbs_inbox_make(struct verbs_link *link)
{
    struct verbs_dev *dev = link->dev;

    link->inbox = mmap(NULL, INBOX_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (link->inbox == MAP_FAILED) {
        link->inbox = NULL;
        return tfr_fail(TFR_E_NOMEM, "verbs inbox");
    }
    madvise(link->inbox, INBOX_LEN, MADV_DONTFORK);
    for (uint32_t i = 0; i < dev->nic_n; i++) {
        link->inbox_mrs[i] = ibv_reg_mr(dev->nics[i].pd, link->inbox, INBOX_LEN,
                                        IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
        if (!link->inbox_mrs[i])
            return verbs_reg_failed(INBOX_LEN, errno);
    }
    return TFR_OK;
}

void verbs_inbox_free(struct verbs_link *link)
{
    for (int i = 0; i < VERBS_NIC_MAX; i++)
        if (link->inbox_mrs[i])
            ibv_dereg_mr(link->inbox_mrs[i]);
    if (link->inbox)
        munmap(link->inbox, INBOX_LEN);
}

/* ---- whoever puts ---- */

/* pairs with the peer's write of what it has taken */
static bool has_slot(const struct verbs_channel *channel)
{
    uint64_t taken =
        atomic_load_explicit(&channel->link->ctl->taken[channel->at], memory_order_acquire);

    return channel->notes_sent - taken < NOTE_N;
}

static bool is_same(const struct verbs_place *a, const struct verbs_place *b)
{
    return a->at == b->at && a->key == b->key && a->len == b->len;
}

/* The put as a note, which is certain to go; false: there is no room for it. */
bool verbs_note_make(struct verbs_channel *channel, const struct tfr_xfer *xfer,
                     struct verbs_note *note, struct tfr_xfer *out, uint32_t *imm_out)
{
    const struct verbs_peer_mem *peer = (const struct verbs_peer_mem *)xfer->peer;
    size_t skip = offsetof(struct verbs_note, bytes);

    if (!has_slot(channel))
        return false;
    note->place = (struct verbs_place){peer->at + xfer->peer_at, peer->rkeys[channel->peer_nic],
                                       (uint32_t)xfer->len};
    *imm_out = NOTE_BIT | SAME_BIT;
    *out = *xfer;
    out->mem = NULL;
    out->peer = &channel->link->peer_inbox.base;
    out->peer_at = slot_at(channel->at, channel->notes_sent++) + skip;
    if (is_same(&note->place, &channel->note_sent))
        return true;
    channel->note_sent = note->place;
    *imm_out = NOTE_BIT;
    memcpy(note->bytes, xfer->local, xfer->len);
    out->local = note;
    out->peer_at -= skip;
    out->len += skip;
    return true;
}

/* ---- whoever progresses ---- */

static uint8_t *place_find(struct verbs_dev *dev, uint32_t nic, const struct verbs_place *place)
{
    uint8_t *found = NULL;

    pthread_mutex_lock(&dev->mems_lock);
    for (struct verbs_mem *mem = dev->mems; mem && !found; mem = mem->next) {
        uint64_t at = place->at - (uintptr_t)mem->area.addr;
        if (mem->area.kind < TFR_AREA_GPU && mem->mrs[nic]->rkey == place->key &&
            tfr_span_inside(at, place->len, mem->area.len))
            found = (uint8_t *)mem->area.addr + at;
    }
    pthread_mutex_unlock(&dev->mems_lock);
    return found;
}

/* The peer may write its inbox at any time: what is checked is a copy. */
void verbs_note_came(struct verbs_channel *channel, bool same)
{
    struct verbs_link *link = channel->link;
    struct verbs_place *place = &channel->note_taken;
    struct verbs_note note;
    uint8_t *to;

    memcpy(&note, link->inbox + slot_at(channel->at, channel->notes_taken), sizeof(note));
    channel->notes_taken++;
    if (!same)
        *place = note.place;
    to = place->len <= TFR_SMALL_MAX ? place_find(link->dev, channel->own_nic, place) : NULL;
    if (to)
        tfr_bytes_store(to, note.bytes, place->len);
    else
        verbs_fail(link, TFR_E_PROTO, "the peer wrote where nothing is shown");
}

/* Gives slots back, `all` of them or when a quarter has gathered. */
void verbs_notes_return(struct verbs_link *link, bool all)
{
    for (int i = 0; i < TFR_CHANNELS; i++) {
        struct verbs_channel *channel = &link->channels[i];
        uint64_t owed = channel->notes_taken - channel->notes_told;
        if (owed < (all ? 1 : NOTE_N / 4))
            continue;
        link->own->taken[i] = channel->notes_taken;
        if (verbs_extra(channel, &link->own->taken[i],
                        offsetof(struct verbs_ctl, taken) + sizeof(uint64_t) * (size_t)i,
                        NULL) == TFR_OK)
            channel->notes_told = channel->notes_taken;
    }
}
