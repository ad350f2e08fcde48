/* Blocks that were freed while streams were busy: natively a free waits for them, here the block
 * does.  Called with the lease's lock held.
 *
 * A ticket says where every busy stream was; frees with nothing in between share one.  Marks are
 * asked for only when enough lies here, so that a free posts nothing as a rule. */
#define TFR_LOG_PART "intercept"
#include <stdlib.h>
#include <string.h>

#include "intercept/lease.h"

enum { ROOM_MIN = 4, UNMARKED_N = 64, UNMARKED = 16 << 20 };

/* ---- tickets ---- */

static bool same(const struct tfr_ticket *ticket, const struct tfr_point *points, uint32_t n)
{
    if (!ticket || ticket->n != n)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (ticket->point[i].word != points[i].word || ticket->point[i].seq != points[i].seq)
            return false;
    return true;
}

static struct tfr_ticket *ticket_new(struct tfr_lease *lease, uint32_t n)
{
    struct tfr_ticket **at = &lease->tickets;
    while (*at && (*at)->room < n)
        at = &(*at)->next;
    struct tfr_ticket *ticket = *at;
    if (ticket) {
        *at = ticket->next;
        return ticket;
    }
    uint32_t room = n < ROOM_MIN ? ROOM_MIN : n;
    ticket = malloc(sizeof *ticket + room * sizeof *ticket->point);
    if (ticket)
        ticket->room = room;
    return ticket;
}

struct tfr_ticket *tfr_ticket_take(struct tfr_lease *lease, const struct tfr_point *points,
                                   uint32_t n)
{
    struct tfr_ticket *ticket = lease->last;
    if (!same(ticket, points, n)) {
        ticket = ticket_new(lease, n);
        if (!ticket)
            return NULL;
        ticket->refs = 0;
        ticket->n = n;
        memcpy(ticket->point, points, n * sizeof *points);
        lease->last = ticket;
    }
    ticket->refs++;
    return ticket;
}

void tfr_ticket_drop(struct tfr_lease *lease, struct tfr_ticket *ticket)
{
    if (--ticket->refs)
        return;
    if (lease->last == ticket)
        lease->last = NULL;
    ticket->next = lease->tickets;
    lease->tickets = ticket;
}

bool tfr_ticket_passed(const struct tfr_ticket *ticket)
{
    for (uint32_t i = 0; i < ticket->n; i++)
        if (!tfr_word_reached(ticket->point[i].word, ticket->point[i].seq))
            return false;
    return true;
}

CUresult tfr_ticket_wait(struct tfr_lease *lease, struct tfr_ticket *ticket)
{
    ticket->refs++;
    pthread_mutex_unlock(&lease->lock);
    CUresult result = tfr_points_wait(ticket->point, ticket->n);
    pthread_mutex_lock(&lease->lock);
    tfr_ticket_drop(lease, ticket);
    return result;
}

/* ---- blocks ---- */

void tfr_quarantine_add(struct tfr_lease *lease, struct tfr_block *block)
{
    block->state = TFR_BLOCK_QUARANTINED;
    block->next = NULL;
    block->prev_next = lease->quarantine_end;
    *lease->quarantine_end = block;
    lease->quarantine_end = &block->next;
    lease->quarantined += block->len;
    lease->unmarked += block->len;
    if (++lease->unmarked_n >= UNMARKED_N || lease->unmarked >= UNMARKED) {
        lease->unmarked = lease->unmarked_n = 0;
        tfr_points_mark(block->ticket->point, block->ticket->n);
    }
}

static void release(struct tfr_lease *lease, struct tfr_block *block)
{
    if (!block->next)
        lease->quarantine_end = block->prev_next;
    tfr_block_unlist(block);
    lease->quarantined -= block->len;
    tfr_ticket_drop(lease, block->ticket);
    block->ticket = NULL;
    tfr_lease_join(lease, block);
}

void tfr_quarantine_reap(struct tfr_lease *lease, bool all)
{
    for (struct tfr_block *b = lease->quarantine, *next; b; b = next) {
        next = b->next;
        if (tfr_ticket_passed(b->ticket))
            release(lease, b);
        else if (!all)
            break;
    }
}

CUresult tfr_quarantine_wait(struct tfr_lease *lease)
{
    if (!lease->quarantine)
        return CUDA_ERROR_NOT_FOUND;
    TFR_COUNT(quarantine_waits, 1);
    CUresult result = tfr_ticket_wait(lease, lease->quarantine->ticket);
    if (result == CUDA_SUCCESS)
        tfr_quarantine_reap(lease, true);
    return result;
}
