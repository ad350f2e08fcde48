/* Frames: where a function's parameters, variables and registers lie in the register file, and
 * which calls may come back to a function that is active.  Called by decode.c and dec_ctl.c. */
#include "executor/softgpu/decode.h"

#include <stdlib.h>

uint64_t dec_round_up(uint64_t v, uint64_t align)
{
    return (v + align - 1) & ~(align - 1);
}

void dec_lay_var(struct dec *d, struct vm_frame *fr, const struct ptx_var *v, uint64_t *local)
{
    if (v->space == PS_LOCAL) {
        *local = dec_round_up(*local, v->align);
        d->local_at[v->index] = (uint32_t)*local;
        *local += v->size;
        if (v->size > 1u << 29 || *local > 1u << 29) {
            dec_refuse(d, "too much local memory");
            *local = 0;
        }
    } else if (v->space == PS_BLOB && !d->bad) {
        uint32_t stride = (uint32_t)dec_round_up(v->size ? v->size : 1, 16);
        fr->blob_stride[v->index] = stride;
        fr->blob_size[v->index] = (uint32_t)v->size;
        fr->blob_at[v->index] = dec_slot(d, dec_place(d, stride * VM_LANES, 64), VS_BLOB, stride);
    } else if (v->space == PS_GLOBAL || v->space == PS_CONST) {
        if (!v->addr)
            dec_refuse(d, "a global variable inside a function is not supported");
    }
}

/* Adds the places made since `from` to what recursion into the frame saves. */
void dec_keep_slots(struct dec *d, struct vm_frame *fr, uint32_t from)
{
    uint32_t n = d->slot_n - from;
    struct vm_slot *all = dec_alloc(d, (fr->slot_n + n + 1) * sizeof(*all));
    if (d->bad)
        return;
    if (fr->slot_n)
        memcpy(all, fr->slot, fr->slot_n * sizeof(*all));
    memcpy(all + fr->slot_n, d->slot + from, n * sizeof(*all));
    for (uint32_t i = fr->slot_n; i < fr->slot_n + n; i++)
        fr->slot_len += all[i].kind == VS_64 ? 8 : all[i].kind == VS_BLOB ? all[i].stride : 4;
    fr->slot = all;
    fr->slot_n += n;
}

void dec_edge(struct dec *d, struct vm_call *call, const struct vm_frame *to)
{
    d->edge = dec_more(d, d->edge, d->edge_n, &d->edge_cap, sizeof(*d->edge));
    if (d->edge)
        d->edge[d->edge_n++] = (struct dec_edge){d->fr->id, to->id, call};
}

/* A call saves the callee's frame if the callee can come back to the caller. */
void dec_find_recursion(struct dec *d)
{
    uint8_t *seen = calloc(d->frame_n, 1);
    if (!seen) {
        dec_refuse(d, "out of memory");
        return;
    }
    for (uint32_t i = 0; i < d->edge_n; i++) {
        struct dec_edge *e = &d->edge[i];
        bool grew = true;
        memset(seen, 0, d->frame_n);
        seen[e->to] = 1;
        while (grew && !seen[e->from]) {
            grew = false;
            for (uint32_t k = 0; k < d->edge_n; k++)
                if (seen[d->edge[k].from] && !seen[d->edge[k].to]) {
                    seen[d->edge[k].to] = 1;
                    grew = true;
                }
        }
        e->call->save = d->indirect || seen[e->from];
    }
    free(seen);
}

/* The frame's parameters have to have places before any call to it is decoded. */
struct vm_frame *dec_frame(struct dec *d, const struct ptx_fn *fn)
{
    for (uint32_t i = 0; i < d->frame_n; i++)
        if (d->frame[i]->fn == fn)
            return d->frame[i];
    struct vm_frame *fr = dec_alloc(d, sizeof(*fr));
    d->frame = dec_more(d, d->frame, d->frame_n, &d->frame_cap, sizeof(*d->frame));
    if (!fr || !d->frame)
        return NULL;
    fr->fn = fn;
    fr->id = d->frame_n;
    fr->blob_at = dec_alloc(d, (fn->var_n + 1) * sizeof(uint32_t));
    fr->blob_stride = dec_alloc(d, (fn->var_n + 1) * sizeof(uint32_t));
    fr->blob_size = dec_alloc(d, (fn->var_n + 1) * sizeof(uint32_t));
    d->frame[d->frame_n++] = fr;
    uint64_t none = 0;
    uint32_t from = d->slot_n;
    for (const struct ptx_var *v = fn->entry ? NULL : fn->params; v && !d->bad; v = v->next)
        dec_lay_var(d, fr, v, &none);
    for (const struct ptx_var *v = fn->rets; v && !d->bad; v = v->next)
        dec_lay_var(d, fr, v, &none);
    fr->depot = dec_temp(d, true);
    dec_keep_slots(d, fr, from);
    return fr;
}
