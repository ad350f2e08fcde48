/* Opcodes of control and of lanes together: branches, calls, barriers, fences, shuffles, votes.
 * Called by decode.c through the table at the end. */
#include "executor/softgpu/decode.h"

static void bra(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (d->m.type_n)
        dec_invalid(d, "unexpected type");
    dec_target(d, dec_emit(d, vm_op_bra), &d->p->opnd[0]);
}

/* brx.idx index, targets */
static void brx(struct dec *d, unsigned int arg)
{
    (void)arg;
    const struct ptx_opnd *o = &d->p->opnd[1];
    uint32_t index = dec_src(d, &d->p->opnd[0], PT_U32);
    const struct ptx_label *list = o->kind == PO_LABEL ? &d->fn->label[o->reg] : NULL;
    if (!list || !list->list) {
        dec_invalid(d, "expected a list of branch targets");
        return;
    }
    struct vm_switch *t = dec_alloc(d, sizeof(*t) + list->list_n * sizeof(*t->target));
    if (!t)
        return;
    t->n = list->list_n;
    for (uint32_t i = 0; i < t->n; i++) {
        if (list->list[i].kind != PO_LABEL || d->fn->label[list->list[i].reg].list)
            dec_invalid(d, "a branch target is not a label");
        else
            dec_table_target(d, t, i, list->list[i].reg);
    }
    struct vm_ins *in = dec_emit(d, vm_op_brx);
    in->a = index;
    in->table = t;
}

static void plain(struct dec *d, unsigned int what)
{
    static const vm_fn fns[] = {vm_op_exit, vm_op_trap, vm_op_nop, vm_op_fence, vm_op_yield};
    if (d->m.type_n && what != 4)
        dec_invalid(d, "unexpected type");
    dec_emit(d, fns[what]);
}
enum { P_EXIT, P_TRAP, P_NOP, P_FENCE, P_YIELD };

static void ret(struct dec *d, unsigned int arg)
{
    (void)arg;
    dec_emit(d, d->fn->entry ? vm_op_exit : vm_op_ret)->imm = (int64_t)d->fr->id;
}

/* ---- barriers ---- */

/* barrier{.cta}.sync{.aligned} a{, b}; .arrive a, b; .red.op{.type} d, a{, b}, {!}c */
static void bar(struct dec *d, unsigned int arg)
{
    (void)arg;
    const struct ptx_opnd *o = d->p->opnd;
    bool red = dec_has(d, DM_RED), arrive = dec_has(d, DM_ARRIVE), neg = false;
    unsigned int n = d->p->opnd_n, at = red, kind = 0, left = n - 2 * red;
    if (red + arrive + dec_has(d, DM_SYNC) != 1 || n < 1 + 2u * red || left < 1u + arrive ||
        left > 2 || d->m.type_n != red) {
        dec_invalid(d, "this form is not supported");
        return;
    }
    uint32_t to = VM_TRASH, c = VM_TRUE, b = VM_TRASH;
    if (red) {
        unsigned int ops = dec_has(d, DM_POPC) + dec_has(d, DM_AND) + dec_has(d, DM_OR);
        kind = dec_has(d, DM_POPC) ? VM_BAR_POPC : dec_has(d, DM_AND) ? VM_BAR_AND : VM_BAR_OR;
        if (ops != 1 || d->m.type[0] != (kind == VM_BAR_POPC ? PT_U32 : PT_PRED))
            dec_invalid(d, "this reduction is not supported");
        to = dec_dst(d, &o[0], d->m.type[0]);
        c = dec_pred_src(d, &o[n - 1], &neg);
    } else if (d->m.seen & (DM(POPC) | DM(AND) | DM(OR))) {
        dec_invalid(d, "this form is not supported");
    }
    uint32_t a = dec_src(d, &o[at], PT_U32);
    if (left == 2)
        b = dec_src(d, &o[at + 1], PT_U32);
    struct vm_ins *in = dec_emit(d, vm_op_bar);
    in->d = to;
    in->a = a;
    in->b = b;
    in->c = c;
    in->aux =
        (arrive ? VM_BAR_ARRIVE : kind) | (left == 2 ? VM_BAR_COUNT : 0) | (neg ? VM_BAR_NEG : 0);
}

static void warpsync(struct dec *d, unsigned int arg)
{
    (void)arg;
    uint32_t a = dec_src(d, &d->p->opnd[0], PT_U32);
    dec_emit(d, vm_op_warpsync)->a = a;
}

/* ---- lanes ---- */

/* shfl.sync.mode.b32 d[|p], a, b, c, mask */
static void shfl(struct dec *d, unsigned int arg)
{
    (void)arg;
    const struct ptx_opnd *o = d->p->opnd;
    if (!dec_want_types(d, 1) || !dec_has(d, DM_SYNC) || !dec_has(d, DM_MODE) ||
        d->m.type[0] != PT_B32) {
        dec_invalid(d, "this form is not supported");
        return;
    }
    struct ptx_opnd to = o[0];
    to.pair = NULL;
    uint32_t at = dec_dst(d, &to, PT_B32);
    uint32_t p = o[0].pair ? dec_dst(d, o[0].pair, PT_PRED) : VM_TRASH;
    uint32_t a = dec_src(d, &o[1], PT_B32), b = dec_src(d, &o[2], PT_U32);
    uint32_t c = dec_src(d, &o[3], PT_U32), mask = dec_src(d, &o[4], PT_U32);
    /* five operands and a second result: the mask travels in imm */
    struct vm_ins *in = dec_emit_op(d, d->m.mode, PT_B32);
    in->d = at;
    in->a = a;
    in->b = b;
    in->c = c;
    in->e = p;
    in->imm = mask;
}

/* vote.sync.all.pred p, {!}a, mask; vote.sync.ballot.b32 d, {!}a, mask */
static void vote(struct dec *d, unsigned int arg)
{
    (void)arg;
    const struct ptx_opnd *o = d->p->opnd;
    bool ballot = dec_has(d, DM_BALLOT), neg;
    unsigned int n = ballot + dec_has(d, DM_ALL) + dec_has(d, DM_ANY) + dec_has(d, DM_UNI);
    if (!dec_want_types(d, 1) || !dec_has(d, DM_SYNC) || n != 1 ||
        d->m.type[0] != (ballot ? PT_B32 : PT_PRED)) {
        dec_invalid(d, "this form is not supported");
        return;
    }
    uint32_t to = dec_dst(d, &o[0], d->m.type[0]), a = dec_pred_src(d, &o[1], &neg);
    uint32_t mask = dec_src(d, &o[2], PT_U32);
    struct vm_ins *in = dec_emit_op(d,
                                    ballot               ? VO_VOTE_BALLOT
                                    : dec_has(d, DM_ALL) ? VO_VOTE_ALL
                                    : dec_has(d, DM_ANY) ? VO_VOTE_ANY
                                                         : VO_VOTE_UNI,
                                    PT_NONE);
    in->d = to;
    in->a = a;
    in->b = mask;
    in->aux = neg ? VM_VOTE_NEG : 0;
}

/* match.any.sync.type d, a, mask; match.all.sync.type d[|p], a, mask */
static void match(struct dec *d, unsigned int arg)
{
    (void)arg;
    const struct ptx_opnd *o = d->p->opnd;
    bool all = dec_has(d, DM_ALL);
    if (!dec_want_types(d, 1) || !dec_has(d, DM_SYNC) || all == dec_has(d, DM_ANY) ||
        (o[0].pair && !all)) {
        dec_invalid(d, "this form is not supported");
        return;
    }
    struct ptx_opnd to = o[0];
    to.pair = NULL;
    uint32_t at = dec_dst(d, &to, PT_B32), a = dec_src(d, &o[1], d->m.type[0]);
    uint32_t p = o[0].pair ? dec_dst(d, o[0].pair, PT_PRED) : VM_TRASH;
    uint32_t mask = dec_src(d, &o[2], PT_U32);
    struct vm_ins *in = dec_emit_op(d, all ? VO_MATCH_ALL : VO_MATCH_ANY, d->m.type[0]);
    in->d = at;
    in->a = a;
    in->b = mask;
    in->e = p;
}

/* redux.sync.op.type d, a, mask */
static void redux(struct dec *d, unsigned int arg)
{
    (void)arg;
    const struct ptx_opnd *o = d->p->opnd;
    unsigned int op = dec_has(d, DM_AND)                           ? VO_REDUX_AND
                      : dec_has(d, DM_OR)                          ? VO_REDUX_OR
                      : dec_has(d, DM_XOR)                         ? VO_REDUX_XOR
                      : dec_has(d, DM_ATOM) && d->m.atom == VA_ADD ? VO_REDUX_ADD
                      : dec_has(d, DM_ATOM) && d->m.atom == VA_MIN ? VO_REDUX_MIN
                      : dec_has(d, DM_ATOM) && d->m.atom == VA_MAX ? VO_REDUX_MAX
                                                                   : VO_NONE;
    unsigned int n =
        dec_has(d, DM_AND) + dec_has(d, DM_OR) + dec_has(d, DM_XOR) + dec_has(d, DM_ATOM);
    if (!dec_want_types(d, 1) || !dec_has(d, DM_SYNC) || n != 1) {
        dec_invalid(d, "this form is not supported");
        return;
    }
    uint32_t to = dec_dst(d, &o[0], d->m.type[0]), a = dec_src(d, &o[1], d->m.type[0]);
    uint32_t mask = dec_src(d, &o[2], PT_U32);
    struct vm_ins *in = dec_emit_op(d, op, d->m.type[0]);
    in->d = to;
    in->a = a;
    in->b = mask;
}

static void activemask(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!dec_want_types(d, 1))
        return;
    uint32_t to = dec_dst(d, &d->p->opnd[0], PT_B32);
    dec_emit_op(d, VO_ACTIVEMASK, d->m.type[0])->d = to;
}

/* ---- calls ---- */

unsigned int vm_native(const char *name)
{
    static const char *const names[] = {[VN_VPRINTF] = "vprintf",
                                        [VN_ASSERT] = "__assertfail",
                                        [VN_MALLOC] = "malloc",
                                        [VN_FREE] = "free"};
    for (unsigned int i = VN_VPRINTF; i <= VN_FREE; i++)
        if (!strcmp(name, names[i]))
            return i;
    return VN_NONE;
}

/* An argument of a call: a .param of the caller. */
static bool blob(struct dec *d, const struct ptx_opnd *o, uint32_t *at, uint32_t *stride,
                 uint32_t *size)
{
    if (o->kind != PO_VAR || o->var->space != PS_BLOB || o->mem || o->off || o->neg) {
        dec_invalid(d, "arguments have to be .param variables");
        return false;
    }
    *at = d->fr->blob_at[o->var->index];
    *stride = d->fr->blob_stride[o->var->index];
    *size = d->fr->blob_size[o->var->index];
    return true;
}

static void bind_args(struct dec *d, struct vm_call *c, const struct ptx_opnd *args,
                      const struct vm_frame *to)
{
    const struct ptx_var *v = to ? to->fn->params : NULL;
    c->arg_n = args ? args->n : 0;
    if (to && c->arg_n != to->fn->param_n) {
        dec_invalid(d, "the number of arguments differs from the function's");
        return;
    }
    c->arg = dec_alloc(d, (c->arg_n + 1) * sizeof(*c->arg));
    for (uint32_t i = 0; i < c->arg_n && !d->bad; i++) {
        struct vm_arg *a = &c->arg[i];
        if (!blob(d, &args->vec[i], &a->from, &a->from_stride, &a->size))
            return;
        if (to) {
            if (a->size != v->size)
                dec_invalid(d, "an argument differs in size from the function's");
            a->to = to->blob_at[v->index];
            a->to_stride = to->blob_stride[v->index];
            v = v->next;
        }
    }
}

static void bind_ret(struct dec *d, struct vm_call *c, const struct ptx_opnd *rets,
                     const struct vm_frame *from)
{
    c->ret_n = rets ? rets->n : 0;
    if (c->ret_n > 1 || (from && from->fn->ret_n != c->ret_n)) {
        dec_invalid(d, "the number of results differs from the function's");
        return;
    }
    if (!c->ret_n || !blob(d, &rets->vec[0], &c->ret.to, &c->ret.to_stride, &c->ret.size))
        return;
    if (from) {
        const struct ptx_var *v = from->fn->rets;
        if (v->size != c->ret.size)
            dec_invalid(d, "the result differs in size from the function's");
        c->ret.from = from->blob_at[v->index];
        c->ret.from_stride = from->blob_stride[v->index];
    }
}

static void native_check(struct dec *d, const struct vm_call *c)
{
    static const uint8_t args[] = {
        [VN_VPRINTF] = 2, [VN_ASSERT] = 5, [VN_MALLOC] = 1, [VN_FREE] = 1};
    static const uint8_t sizes[][5] = {
        [VN_VPRINTF] = {8, 8}, [VN_ASSERT] = {8, 8, 4, 8, 8}, [VN_MALLOC] = {8}, [VN_FREE] = {8}};
    if (c->arg_n != args[c->native]) {
        dec_invalid(d, "unexpected number of arguments");
        return;
    }
    for (uint32_t i = 0; i < c->arg_n; i++)
        if (c->arg[i].size != sizes[c->native][i])
            dec_invalid(d, "an argument has an unexpected size");
    if (c->ret_n && c->ret.size != (c->native == VN_VPRINTF ? 4 : 8))
        dec_invalid(d, "the result has an unexpected size");
}

/* call{.uni} (ret), fn, (args);  call (ret), reg, (args), proto; */
static void call(struct dec *d, unsigned int arg)
{
    (void)arg;
    const struct ptx_opnd *o = d->p->opnd, *rets = NULL, *args = NULL;
    uint32_t at = 0, n = d->p->opnd_n;
    if (o[at].kind == PO_LIST)
        rets = &o[at++];
    const struct ptx_opnd *fn = at < n ? &o[at++] : NULL;
    if (at < n && o[at].kind == PO_LIST)
        args = &o[at++];
    struct vm_call *c = dec_alloc(d, sizeof(*c));
    if (!c || !fn || d->m.type_n) {
        dec_invalid(d, "this form is not supported");
        return;
    }
    if (fn->kind == PO_REG) {
        uint32_t a = dec_src(d, fn, PT_U64);
        const struct ptx_label *l =
            at < n && o[at].kind == PO_LABEL ? &d->fn->label[o[at].reg] : NULL;
        if (!l || !(l->proto || l->list)) {
            dec_invalid(d, "an indirect call needs a prototype or targets");
            return;
        }
        bind_args(d, c, args, NULL);
        bind_ret(d, c, rets, NULL);
        d->indirect = true;
        c->save = true;
        struct vm_ins *in = dec_emit(d, vm_op_call_reg);
        in->a = a;
        in->call = c;
        return;
    }
    if (fn->kind != PO_FN || fn->fn->entry) {
        dec_invalid(d, "expected a function");
        return;
    }
    c->native = fn->fn->has_body ? VN_NONE : vm_native(fn->fn->name);
    if (!c->native && !fn->fn->has_body) {
        dec_refuse(d, "call of %s, which the module does not define, is not supported",
                   fn->fn->name);
        return;
    }
    struct vm_frame *to = c->native ? NULL : dec_frame(d, fn->fn);
    if (d->bad)
        return;
    bind_args(d, c, args, to);
    bind_ret(d, c, rets, to);
    if (c->native && !d->bad)
        native_check(d, c);
    c->callee = to;
    if (to)
        dec_edge(d, c, to);
    dec_emit(d, vm_op_call)->call = c;
}

/* clang-format off */
const struct dec_row dec_ctl_rows[] = {
    {"bra", bra, 0, DM(UNI), 1, 1},
    {"brx.idx", brx, 0, DM(UNI), 2, 2},
    {"exit", plain, P_EXIT, 0, 0, 0},
    {"ret", ret, 0, DM(UNI), 0, 0},
    {"call", call, 0, DM(UNI), 1, 4},
    {"trap", plain, P_TRAP, 0, 0, 0},
    {"brkpt", plain, P_TRAP, 0, 0, 0},
    {"pmevent", plain, P_NOP, 0, 1, 1},
    {"griddepcontrol.launch_dependents", plain, P_NOP, 0, 0, 0},
    {"griddepcontrol.wait", plain, P_NOP, 0, 0, 0},
    {"nanosleep", plain, P_YIELD, 0, 1, 1},
    {"membar", plain, P_FENCE, DM(MEMQ) | DM(CTA), 0, 0},
    {"fence", plain, P_FENCE, DM(MEMQ) | DM(CTA), 0, 0},
    {"bar.warp.sync", warpsync, 0, 0, 1, 1},
    {"bar", bar, 0, DM(SYNC) | DM(ARRIVE) | DM(RED) | DM(POPC) | DM(AND) | DM(OR) | DM(CTA) | DM(ALIGNED), 1, 4},
    {"barrier", bar, 0, DM(SYNC) | DM(ARRIVE) | DM(RED) | DM(POPC) | DM(AND) | DM(OR) | DM(CTA) | DM(ALIGNED), 1, 4},
    {"shfl", shfl, 0, DM(SYNC) | DM(MODE), 5, 5},
    {"vote", vote, 0, DM(SYNC) | DM(ALL) | DM(ANY) | DM(UNI) | DM(BALLOT), 3, 3},
    {"match", match, 0, DM(SYNC) | DM(ALL) | DM(ANY), 3, 3},
    {"redux", redux, 0, DM(SYNC) | DM(AND) | DM(OR) | DM(XOR) | DM(ATOM), 3, 3},
    {"activemask", activemask, 0, 0, 1, 1},
    {0},
};
/* clang-format on */
