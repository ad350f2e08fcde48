/* Opcodes of asynchronous barriers and copies, of clusters (of one block) and of the elected lane.
 * Copies are done at once, so what waits for them finds them done.  Called by decode.c through the
 * table at the end. */
#include "executor/softgpu/decode.h"

/* A 64-bit register with the address of o; *space becomes shared for names of variables. */
static uint32_t address64(struct dec *d, const struct ptx_opnd *o, unsigned int space)
{
    struct dec_where w = dec_address(d, o, space, 1);
    uint32_t at = w.a;
    if (w.aux & VM_MEM_A32) {
        at = dec_temp(d, true);
        struct vm_ins *in = dec_emit(d, d->isa->cvt[VCV_PLAIN][PT_U64][PT_U32]);
        in->d = at;
        in->a = w.a;
    }
    if (w.imm) {
        uint32_t sum = dec_temp(d, true), k = dec_const(d, (uint64_t)w.imm, true);
        struct vm_ins *in = dec_emit_op(d, VO_ADD, PT_U64);
        in->d = sum;
        in->a = at;
        in->b = k;
        at = sum;
    }
    return at;
}

static unsigned int space_of(struct dec *d)
{
    unsigned int space = dec_has(d, DM_SPACE) ? d->m.space : PS_GENERIC;
    if (space != PS_GENERIC && space != PS_SHARED)
        dec_invalid(d, "an mbarrier lies in shared memory");
    return space;
}

static bool b64(struct dec *d)
{
    if (d->m.type_n != 1 || d->m.type[0] != PT_B64)
        dec_invalid(d, "needs .b64");
    return !d->bad;
}

static struct vm_ins *mbarrier(struct dec *d, vm_fn fn, const struct ptx_opnd *at, unsigned int op)
{
    unsigned int space = space_of(d);
    struct dec_where w = dec_address(d, at, space, 8);
    struct vm_ins *in = dec_emit(d, fn);
    in->a = w.a;
    in->imm = w.imm;
    in->aux = w.space | w.aux | op << VM_MEM_OP_SHIFT;
    return in;
}

/* init [a], n; expect_tx [a], n; complete_tx [a], n */
static void counted(struct dec *d, unsigned int op)
{
    if (!b64(d))
        return;
    uint32_t n = dec_src(d, &d->p->opnd[1], PT_U32);
    mbarrier(d, vm_op_mbarrier, &d->p->opnd[0], op)->b = n;
}

/* arrive state, [a] {, n} */
static void arrive(struct dec *d, unsigned int op)
{
    const struct ptx_opnd *o = d->p->opnd;
    bool needs = op == VM_MB_ARRIVE_TX || op == VM_MB_DROP_TX;
    if (!b64(d))
        return;
    if (needs && d->p->opnd_n != 3) {
        dec_invalid(d, "needs the number of bytes");
        return;
    }
    uint32_t n = d->p->opnd_n > 2 ? dec_src(d, &o[2], PT_U32) : dec_const(d, 1, false);
    uint32_t to = dec_dst(d, &o[0], PT_B64);
    struct vm_ins *in = mbarrier(d, vm_op_mbarrier, &o[1], op);
    in->d = to;
    in->b = n;
}

/* test_wait p, [a], state; the hint of try_wait means nothing here */
static void wait(struct dec *d, unsigned int op)
{
    const struct ptx_opnd *o = d->p->opnd;
    if (!b64(d))
        return;
    uint32_t state = dec_src(d, &o[2], op == VM_MB_PARITY ? PT_B32 : PT_B64);
    uint32_t to = dec_dst(d, &o[0], PT_PRED);
    struct vm_ins *in = mbarrier(d, vm_op_mbarrier_wait, &o[1], op);
    in->d = to;
    in->b = state;
}

static void pending(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!b64(d))
        return;
    uint32_t a = dec_src(d, &d->p->opnd[1], PT_B64), to = dec_dst(d, &d->p->opnd[0], PT_U32);
    struct vm_ins *in = dec_emit(d, vm_op_mbarrier_pending);
    in->d = to;
    in->a = a;
}

static void nothing(struct dec *d, unsigned int arg)
{
    (void)arg;
    dec_emit(d, vm_op_nop);
}

static void fence(struct dec *d, unsigned int arg)
{
    (void)arg;
    dec_emit(d, vm_op_fence);
}

/* cp.async.mbarrier.arrive{.noinc} [a]: the copies before it are done.  Without noinc the arrival
 * is one more than expected, and so changes nothing. */
static void copies_arrive(struct dec *d, unsigned int noinc)
{
    if (!b64(d))
        return;
    if (!noinc) {
        dec_emit(d, vm_op_nop);
        return;
    }
    uint32_t one = dec_const(d, 1, false);
    mbarrier(d, vm_op_mbarrier, &d->p->opnd[0], VM_MB_ARRIVE)->b = one;
}

static bool word_is(const struct dec *d, const char *name)
{
    return d->m.word_n == 1 && d->m.word[0].n == strlen(name) &&
           !memcmp(d->m.word[0].s, name, d->m.word[0].n);
}

/* cp.async.bulk.shared.global.mbarrier::complete_tx::bytes [to], [from], n, [mbarrier]
 * cp.async.bulk.global.shared.bulk_group [to], [from], n */
static void bulk(struct dec *d, unsigned int arg)
{
    (void)arg;
    const struct ptx_opnd *o = d->p->opnd;
    bool in_shared = d->m.space == PS_SHARED;
    if (d->m.type_n || !dec_has(d, DM_SPACE) || (!in_shared && d->m.space != PS_GLOBAL) ||
        d->p->opnd_n != 3u + in_shared ||
        !word_is(d, in_shared ? "mbarrier::complete_tx::bytes" : "bulk_group")) {
        dec_invalid(d, "this form is not supported");
        return;
    }
    uint32_t to = address64(d, &o[0], in_shared ? PS_SHARED : PS_GLOBAL);
    uint32_t from = address64(d, &o[1], in_shared ? PS_GLOBAL : PS_SHARED);
    uint32_t n = dec_src(d, &o[2], PT_U32);
    uint32_t bar = in_shared ? address64(d, &o[3], PS_SHARED) : VM_TRASH;
    struct vm_ins *in = dec_emit(d, vm_op_bulk);
    in->d = to;
    in->a = from;
    in->b = n;
    in->c = bar;
    in->aux = PS_SHARED;
}

/* elect.sync d|p, mask */
static void elect(struct dec *d, unsigned int arg)
{
    (void)arg;
    const struct ptx_opnd *o = d->p->opnd;
    if (d->m.type_n || !o[0].pair) {
        dec_invalid(d, "needs d|p");
        return;
    }
    struct ptx_opnd to = o[0];
    to.pair = NULL;
    uint32_t at = dec_dst(d, &to, PT_B32), p = dec_dst(d, o[0].pair, PT_PRED);
    uint32_t mask = dec_src(d, &o[1], PT_U32);
    struct vm_ins *in = dec_emit(d, vm_op_elect);
    in->d = at;
    in->e = p;
    in->a = mask;
}

/* A cluster is one block: its barrier is one more of the block's. */
static void cluster_wait(struct dec *d, unsigned int arg)
{
    (void)arg;
    uint32_t id = dec_const(d, VM_CLUSTER_BARRIER, false);
    struct vm_ins *in = dec_emit(d, vm_op_bar);
    in->a = id;
    in->c = VM_TRUE;
    in->aux = VM_BAR_CLUSTER;
}

/* mapa d, a, rank; getctarank d, a: there is rank 0 alone */
static void rank(struct dec *d, unsigned int map)
{
    const struct ptx_opnd *o = d->p->opnd;
    if (!dec_want_types(d, 1) || d->p->opnd_n != 2 + map || o[1].kind == PO_VAR) {
        dec_invalid(d, "this form is not supported");
        return;
    }
    unsigned int bits = dec_bits(d->m.type[0]);
    uint32_t a = map ? dec_src(d, &o[1], d->m.type[0]) : dec_const(d, 0, false);
    uint32_t to = dec_dst(d, &o[0], d->m.type[0]);
    struct vm_ins *in = dec_emit_op(d, VO_MOV, bits);
    in->d = to;
    in->a = a;
}

/* clang-format off */
#define WHERE (DM(SPACE) | DM(MEMQ) | DM(CTA))
const struct dec_row dec_sync_rows[] = {
    {"mbarrier.init", counted, VM_MB_INIT, DM(SPACE), 2, 2},
    {"mbarrier.inval", nothing, 0, DM(SPACE), 1, 1},
    {"mbarrier.expect_tx", counted, VM_MB_EXPECT_TX, WHERE, 2, 2},
    {"mbarrier.complete_tx", counted, VM_MB_COMPLETE_TX, WHERE, 2, 2},
    {"mbarrier.arrive", arrive, VM_MB_ARRIVE, WHERE, 2, 3},
    {"mbarrier.arrive.noComplete", arrive, VM_MB_ARRIVE, WHERE, 3, 3},
    {"mbarrier.arrive.expect_tx", arrive, VM_MB_ARRIVE_TX, WHERE, 3, 3},
    {"mbarrier.arrive_drop", arrive, VM_MB_DROP, WHERE, 2, 3},
    {"mbarrier.arrive_drop.noComplete", arrive, VM_MB_DROP, WHERE, 3, 3},
    {"mbarrier.arrive_drop.expect_tx", arrive, VM_MB_DROP_TX, WHERE, 3, 3},
    {"mbarrier.test_wait", wait, VM_MB_STATE, WHERE, 3, 3},
    {"mbarrier.test_wait.parity", wait, VM_MB_PARITY, WHERE, 3, 3},
    {"mbarrier.try_wait", wait, VM_MB_STATE, WHERE, 3, 4},
    {"mbarrier.try_wait.parity", wait, VM_MB_PARITY, WHERE, 3, 4},
    {"mbarrier.pending_count", pending, 0, 0, 2, 2},
    {"cp.async.mbarrier.arrive", copies_arrive, 0, DM(SPACE), 1, 1},
    {"cp.async.mbarrier.arrive.noinc", copies_arrive, 1, DM(SPACE), 1, 1},
    {"cp.async.bulk", bulk, 0, DM(SPACE) | DM(OTHER), 3, 4},
    {"cp.async.bulk.commit_group", nothing, 0, 0, 0, 0},
    {"cp.async.bulk.wait_group", nothing, 0, 0, 1, 1},
    {"cp.async.bulk.wait_group.read", nothing, 0, 0, 1, 1},
    {"fence.proxy.async", fence, 0, DM(SPACE), 0, 0},
    {"fence.proxy.alias", fence, 0, 0, 0, 0},
    {"fence.mbarrier_init", fence, 0, DM(MEMQ), 0, 0},
    {"elect.sync", elect, 0, 0, 2, 2},
    {"barrier.cluster.arrive", nothing, 0, DM(MEMQ) | DM(ALIGNED), 0, 0},
    {"barrier.cluster.wait", cluster_wait, 0, DM(MEMQ) | DM(ALIGNED), 0, 0},
    {"mapa", rank, 1, DM(SPACE), 3, 3},
    {"getctarank", rank, 0, DM(SPACE), 2, 2},
    {0},
};
/* clang-format on */
