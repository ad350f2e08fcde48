/* Calls of device functions.  A function has one frame in the register file, which lanes share
 * because each has its own column of it; a lane that comes back to a function it is in already
 * saves that column on a stack of its own.  Return addresses are kept per lane and depth.  Called
 * through vm_ins. */
#include "executor/softgpu/vm_in.h"

#include <stdlib.h>

enum { MAX_DEPTH = 1 << 14, MAX_SAVED = 4 << 20 };

struct column {
    uint8_t *mem;
    size_t n, cap;
};

struct vm_stack {
    uint32_t depth_cap;
    uint32_t (*from)[VM_LANES]; /* call instruction by depth */
    uint32_t (*frame)[VM_LANES];
    struct column saved[VM_LANES];
};

void vm_stack_free(struct vm_warp *w)
{
    if (!w->stack)
        return;
    for (int i = 0; i < VM_LANES; i++)
        free(w->stack->saved[i].mem);
    free(w->stack->from);
    free(w->stack->frame);
    free(w->stack);
    w->stack = NULL;
}

/* A launch that was cut off leaves saved columns behind. */
void vm_stack_reset(struct vm_warp *w)
{
    for (int i = 0; w->stack && i < VM_LANES; i++)
        w->stack->saved[i].n = 0;
}

/* Room for one level more. */
static bool reserve(struct vm_warp *w)
{
    if (!w->stack)
        w->stack = calloc(1, sizeof(*w->stack));
    struct vm_stack *s = w->stack;
    if (!s)
        return false;
    if (w->depth < s->depth_cap)
        return true;
    uint32_t cap = s->depth_cap ? s->depth_cap * 2 : 16;
    if (cap > MAX_DEPTH)
        return false;
    void *from = realloc(s->from, cap * sizeof(*s->from));
    if (from)
        s->from = from;
    void *frame = realloc(s->frame, cap * sizeof(*s->frame));
    if (frame)
        s->frame = frame;
    if (!from || !frame)
        return false;
    s->depth_cap = cap;
    return true;
}

static uint8_t *slot_at(const struct vm_warp *w, const struct vm_slot *s, unsigned int lane,
                        uint32_t *len_out)
{
    uint32_t step = s->kind == VS_64 ? 8 : s->kind == VS_BLOB ? s->stride : 4;
    *len_out = step;
    return w->reg + s->at + (s->kind == VS_PRED ? 0 : lane * step);
}

static bool save(struct vm_warp *w, const struct vm_frame *fr, unsigned int lane)
{
    struct column *c = &w->stack->saved[lane];
    if (c->n + fr->slot_len > c->cap) {
        size_t cap = 2 * (c->n + fr->slot_len);
        uint8_t *mem = cap > MAX_SAVED ? NULL : realloc(c->mem, cap);
        if (!mem)
            return false;
        c->mem = mem;
        c->cap = cap;
    }
    uint8_t *to = c->mem + c->n;
    for (uint32_t i = 0; i < fr->slot_n; i++) {
        uint32_t len;
        const uint8_t *at = slot_at(w, &fr->slot[i], lane, &len);
        memcpy(to, at, len);
        to += len;
    }
    c->n += fr->slot_len;
    return true;
}

static void restore(struct vm_warp *w, const struct vm_frame *fr, unsigned int lane)
{
    struct column *c = &w->stack->saved[lane];
    c->n -= fr->slot_len;
    const uint8_t *from = c->mem + c->n;
    for (uint32_t i = 0; i < fr->slot_n; i++) {
        uint32_t len;
        uint8_t *at = slot_at(w, &fr->slot[i], lane, &len);
        if (fr->slot[i].kind == VS_PRED) {
            uint32_t all, bit = 1u << lane, old;
            memcpy(&all, at, 4);
            memcpy(&old, from, 4);
            all = (all & ~bit) | (old & bit);
            memcpy(at, &all, 4);
        } else {
            memcpy(at, from, len);
        }
        from += len;
    }
}

/* Arguments of one lane pass through a buffer: saving must not read what they overwrite. */
static bool enter_lane(struct vm_warp *w, const struct vm_call *call, const struct vm_frame *fr,
                       unsigned int lane)
{
    if (call->save && !save(w, fr, lane))
        return false;
    const struct ptx_var *v = fr->fn->params;
    for (uint32_t i = 0; i < call->arg_n; i++, v = v->next) {
        const struct vm_arg *a = &call->arg[i];
        uint8_t *to = w->reg + fr->blob_at[v->index] + lane * fr->blob_stride[v->index];
        memcpy(to, w->reg + a->from + lane * a->from_stride, a->size);
    }
    ((uint64_t *)(void *)(w->reg + fr->depot))[lane] = w->lsp[lane];
    uint32_t need = fr->local_len + VM_CALL_BYTES;
    if (need > w->blk->stack_len - w->lsp[lane])
        return false;
    w->lsp[lane] += need;
    return true;
}

static const struct vm_ins *enter(struct vm_warp *w, const struct vm_ins *in, uint32_t m,
                                  const struct vm_frame *fr)
{
    const struct vm_call *call = in->call;
    uint32_t rest = w->active & ~m;
    if (!reserve(w))
        return vm_fault_at(w, in, CUDA_ERROR_LAUNCH_FAILED, (unsigned int)__builtin_ctz(m), 0,
                           "call stack overflow");
    for (uint32_t left = m; left; left &= left - 1) {
        unsigned int i = (unsigned int)__builtin_ctz(left);
        w->stack->from[w->depth][i] = (uint32_t)(in - w->blk->code->ins);
        w->stack->frame[w->depth][i] = fr->id;
        if (!enter_lane(w, call, fr, i))
            return vm_fault_at(w, in, CUDA_ERROR_LAUNCH_FAILED, i, 0, "call stack overflow");
    }
    vm_count(w, in, fr->entry);
    if (rest)
        vm_push(w, rest, in + 1);
    w->depth++;
    if (!w->group_n) {
        w->active = m;
        return fr->entry;
    }
    vm_push(w, m, fr->entry);
    return VM_LEAVE;
}

const struct vm_ins *vm_op_call(struct vm_warp *w, const struct vm_ins *in)
{
    uint32_t m = vm_mask(w, in);
    if (!m)
        return in + 1;
    if (in->call->native)
        return vm_native_call(w, in, m) ? in + 1 : VM_LEAVE;
    return enter(w, in, m, in->call->callee);
}

static bool fits(const struct vm_call *call, const struct vm_frame *fr)
{
    const struct ptx_var *v = fr->fn->params;
    if (call->arg_n != fr->fn->param_n || call->ret_n != fr->fn->ret_n)
        return false;
    for (uint32_t i = 0; i < call->arg_n; i++, v = v->next)
        if (call->arg[i].size != v->size)
            return false;
    return !call->ret_n || call->ret.size == fr->fn->rets->size;
}

const struct vm_ins *vm_op_call_reg(struct vm_warp *w, const struct vm_ins *in)
{
    const uint64_t *a = (const uint64_t *)(void *)(w->reg + in->a);
    const struct vm_code *code = w->blk->code;
    uint32_t m = vm_mask(w, in), same = 0;
    if (!m)
        return in + 1;
    unsigned int first = (unsigned int)__builtin_ctz(m);
    const struct vm_frame *fr = NULL;
    for (uint32_t i = 1; i < code->frame_n && !fr; i++)
        if (a[first] == (VM_WIN_FN << VM_WIN_SHIFT | code->frame[i]->fn->index))
            fr = code->frame[i];
    if (!fr || !fits(in->call, fr))
        return vm_fault_at(w, in, CUDA_ERROR_LAUNCH_FAILED, first, a[first],
                           "call of something that is no function of this type");
    for (uint32_t left = m; left; left &= left - 1)
        if (a[__builtin_ctz(left)] == a[first])
            same |= left & (0u - left);
    if (same == m)
        return enter(w, in, m, fr);
    /* other targets later: those lanes come to this instruction again */
    vm_count(w, in - 1, in);
    vm_push(w, m & ~same, in);
    if (w->active & ~m)
        vm_push(w, w->active & ~m, in + 1);
    w->active = same;
    return enter(w, in, same, fr);
}

static void leave_lane(struct vm_warp *w, const struct vm_call *call, const struct vm_frame *fr,
                       unsigned int lane)
{
    uint8_t small[64], *ret = small;
    if (call->ret_n) {
        const struct ptx_var *v = fr->fn->rets;
        const uint8_t *from = w->reg + fr->blob_at[v->index] + lane * fr->blob_stride[v->index];
        ret = call->ret.size > sizeof(small) ? malloc(call->ret.size) : small;
        if (ret)
            memcpy(ret, from, call->ret.size);
    }
    if (call->save)
        restore(w, fr, lane);
    if (call->ret_n && ret)
        memcpy(w->reg + call->ret.to + lane * call->ret.to_stride, ret, call->ret.size);
    if (ret != small)
        free(ret);
    w->lsp[lane] -= fr->local_len + VM_CALL_BYTES;
}

const struct vm_ins *vm_op_ret(struct vm_warp *w, const struct vm_ins *in)
{
    const struct vm_code *code = w->blk->code;
    uint32_t m = vm_mask(w, in), rest = w->active & ~m;
    if (!m)
        return in + 1;
    vm_count(w, in, in + 1);
    if (rest)
        vm_push(w, rest, in + 1);
    w->depth--;
    while (m) {
        unsigned int first = (unsigned int)__builtin_ctz(m);
        uint32_t at = w->stack->from[w->depth][first], same = 0;
        for (uint32_t left = m; left; left &= left - 1) {
            unsigned int i = (unsigned int)__builtin_ctz(left);
            if (w->stack->from[w->depth][i] != at)
                continue;
            same |= 1u << i;
            leave_lane(w, code->ins[at].call, code->frame[w->stack->frame[w->depth][i]], i);
        }
        m &= ~same;
        if (!m && !w->group_n) {
            w->active = same;
            w->run = code->ins + at + 1;
            return w->run;
        }
        vm_push(w, same, code->ins + at + 1);
    }
    return VM_LEAVE;
}
