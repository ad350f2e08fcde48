/* Opcodes that move and convert: mov with its packing forms, cvt, cvta, isspacep.  Called by
 * decode.c through the table at the end. */
#include "executor/softgpu/decode.h"

static bool is_float(unsigned int t)
{
    return t == PT_F32 || t == PT_F64;
}

static bool is_narrow(unsigned int t)
{
    return t == PT_F16 || t == PT_BF16;
}

static bool is_int(unsigned int t)
{
    return t >= PT_U8 && t <= PT_S64;
}

static struct vm_ins *two(struct dec *d, vm_fn fn, uint32_t to, uint32_t from)
{
    struct vm_ins *in = dec_emit(d, fn);
    in->d = to;
    in->a = from;
    return in;
}

/* mov.b32 d, {a, b} and mov.b32 {a, b}, d */
static void mov_vector(struct dec *d, unsigned int bits)
{
    const struct ptx_opnd *o = d->p->opnd;
    bool pack = o[1].kind == PO_VEC;
    const struct ptx_opnd *vec = pack ? &o[1] : &o[0], *one = pack ? &o[0] : &o[1];
    uint32_t size = ptx_type_size(bits), part[4] = {VM_TRASH, VM_TRASH, VM_TRASH, VM_TRASH};
    static const uint8_t types[9] = {[1] = PT_B8, [2] = PT_B16, [4] = PT_B32};
    if ((vec->n != 2 && vec->n != 4) || one->kind == PO_VEC || vec->mem || !types[size / vec->n]) {
        dec_invalid(d, "this vector form is not supported");
        return;
    }
    unsigned int pt = types[size / vec->n];
    for (uint32_t i = 0; i < vec->n; i++) {
        uint32_t width;
        if (pt == PT_B8) /* no 8-bit registers exist: parts may sit in wider ones */
            part[i] = dec_any(d, &vec->vec[i], PT_B16, !pack, &width);
        else
            part[i] = pack ? dec_src(d, &vec->vec[i], pt) : dec_dst(d, &vec->vec[i], pt);
    }
    uint32_t whole = pack ? dec_dst(d, one, bits) : dec_src(d, one, bits);
    unsigned int op =
        pack ? (vec->n == 2 ? VO_PACK2 : VO_PACK4) : (vec->n == 2 ? VO_UNPACK2 : VO_UNPACK4);
    struct vm_ins *in = dec_emit_op(d, op, bits);
    in->d = pack ? whole : part[0];
    in->a = pack ? part[0] : whole;
    in->b = part[1];
    in->c = part[2];
    in->e = part[3];
}

/* The address of something: in its own space, as cvta expects it. */
static void mov_address(struct dec *d, unsigned int bits)
{
    const struct ptx_opnd *o = &d->p->opnd[1];
    uint64_t v = (uint64_t)o->off;
    uint32_t base = 0, to = dec_dst(d, &d->p->opnd[0], bits);
    if (o->kind == PO_FN) {
        o->fn->addressed = true;
        v += VM_WIN_FN << VM_WIN_SHIFT | o->fn->index;
    } else {
        switch (o->var->space) {
        case PS_GLOBAL:
        case PS_CONST:
        case PS_PARAM:
            v += o->var->addr;
            break;
        case PS_SHARED:
            v += d->kernel->shared_at[o->var->shared_index] - 1;
            break;
        case PS_LOCAL:
            v += d->local_at[o->var->index];
            base = d->fn->entry ? 0 : d->fr->depot;
            break;
        default:
            dec_invalid(d, "the address of a function's parameter is not supported");
            return;
        }
    }
    if (bits != PT_B64 && (o->kind == PO_FN || o->var->space == PS_GLOBAL || base))
        dec_invalid(d, "an address of 64 bits needs a register of 64 bits");
    if (!base) {
        two(d, d->isa->fn[VO_MOV][bits], to, dec_const(d, v, bits == PT_B64));
        return;
    }
    uint32_t k = dec_const(d, v, true);
    struct vm_ins *in = two(d, d->isa->fn[VO_ADD][PT_U64], to, base);
    in->b = k;
}

static void mov(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!dec_want_types(d, 1))
        return;
    const struct ptx_opnd *o = d->p->opnd;
    unsigned int t = d->m.type[0], bits = dec_bits(t);
    if (t == PT_PRED) {
        bool neg;
        uint32_t from = dec_pred_src(d, &o[1], &neg), to = dec_dst(d, &o[0], t);
        two(d, d->isa->fn[neg ? VO_PNOT : VO_PMOV][t], to, from)->b = VM_TRUE;
    } else if (o[0].kind == PO_VEC || o[1].kind == PO_VEC) {
        mov_vector(d, bits);
    } else if (o[1].kind == PO_VAR || o[1].kind == PO_FN) {
        mov_address(d, bits);
    } else if (o[1].kind == PO_SREG && o[1].reg >= SR_CLOCK && o[1].reg <= SR_TIMER_HI) {
        bool wide = o[1].reg == SR_CLOCK64 || o[1].reg == SR_TIMER;
        uint32_t to = dec_dst(d, &o[0], t);
        if (wide != (bits == PT_B64))
            dec_invalid(d, "the special register has another width");
        two(d, vm_op_sreg, to, VM_TRASH)->aux = o[1].reg;
    } else if (o[1].kind == PO_SREG && bits == PT_B64 && o[1].reg != SR_GRIDID) {
        uint32_t to = dec_dst(d, &o[0], t), from = dec_special(d, o[1].reg, o[1].comp);
        two(d, d->isa->cvt[VCV_PLAIN][PT_U64][PT_U32], to, from);
    } else if (o[1].kind == PO_SREG && bits == PT_B32 && o[1].reg == SR_GRIDID) {
        uint32_t to = dec_dst(d, &o[0], t), from = dec_special(d, o[1].reg, o[1].comp);
        two(d, d->isa->cvt[VCV_PLAIN][PT_U32][PT_U64], to, from);
    } else {
        uint32_t from = dec_src(d, &o[1], t), to = dec_dst(d, &o[0], t);
        two(d, d->isa->fn[VO_MOV][bits == PT_B16 || bits == PT_B8 ? PT_B32 : bits], to, from);
    }
}

/* ---- cvt ---- */

/* cvt.rn.f16x2.f32 d, a, b */
static void cvt_pair(struct dec *d)
{
    const struct ptx_opnd *o = d->p->opnd;
    if (d->m.type[1] != PT_F32 || !dec_has(d, DM_RND) || dec_has(d, DM_SAT) ||
        (d->m.seen & (DM(RNA) | DM(SATFINITE))) || dec_has(d, DM_RNDI) || dec_has(d, DM_FTZ)) {
        dec_invalid(d, "this form is not supported");
        return;
    }
    uint32_t a = dec_src(d, &o[1], PT_F32), b = dec_src(d, &o[2], PT_F32);
    uint32_t to = dec_dst(d, &o[0], PT_B32);
    struct vm_ins *in = dec_emit_op(d, VO_CVT_PACK, d->m.type[0]);
    in->d = to;
    in->a = a;
    in->b = b;
    in->aux = d->m.round | (dec_has(d, DM_RELU) ? 1u << VM_AUX_SHIFT : 0);
}

/* cvt.rn.satfinite{.relu}.e4m3x2.f32 d, a, b; .e4m3x2.f16x2 d, a; cvt.rn{.relu}.f16x2.e4m3x2 d, a;
 * cvt.rna.tf32.f32 d, a.  The same for e5m2x2. */
static void cvt_narrow(struct dec *d)
{
    const struct ptx_opnd *o = d->p->opnd;
    unsigned int to = d->m.type[0], from = d->m.type[1], op = VO_NONE, type = to;
    bool two = from == PT_F32 && to != PT_TF32, rn = dec_has(d, DM_RND) && !d->m.round;
    bool finite = dec_has(d, DM_SATFINITE);
    bool tf32 = from == PT_F32 && !finite &&
                dec_has(d, DM_RNA) != (dec_has(d, DM_RND) && d->m.round <= VM_ROUND_RZ);
    if (to == PT_TF32) {
        op = tf32 ? VO_CVT_NARROW : VO_NONE;
    } else if (to == PT_F16X2 && rn && !finite) {
        op = VO_CVT_WIDEN;
        type = from;
    } else if (rn && finite && (from == PT_F32 || from == PT_F16X2)) {
        op = two ? VO_CVT_PACK : VO_CVT_NARROW;
    }
    if (op == VO_NONE || d->p->opnd_n != 2u + two || (d->m.seen & (DM(SAT) | DM(RNDI) | DM(FTZ)))) {
        dec_invalid(d, "this form is not supported");
        return;
    }
    uint32_t a = dec_src(d, &o[1], dec_bits(from)), at = dec_dst(d, &o[0], dec_bits(to));
    uint32_t b = two ? dec_src(d, &o[2], PT_B32) : VM_TRASH;
    struct vm_ins *in = dec_emit_op(d, op, type);
    in->d = at;
    in->a = a;
    in->b = b;
    in->aux = d->m.round | (dec_has(d, DM_RNA) ? VM_CVT_RNA : 0) |
              (dec_has(d, DM_RELU) ? 1u << VM_AUX_SHIFT : 0);
}

static bool is_tensor(unsigned int t)
{
    return t == PT_E4M3X2 || t == PT_E5M2X2 || t == PT_TF32;
}

/* The integer type of a register's width, with the sign of t. */
static unsigned int at_width(unsigned int t, uint32_t size)
{
    unsigned int base = t >= PT_S8 && t <= PT_S64 ? PT_S8 : PT_U8;
    return base + (size == 2 ? 1 : size == 4 ? 2 : size == 8 ? 3 : 0);
}

/* Which body, and with what around it. */
static vm_fn cvt_body(struct dec *d, unsigned int to, unsigned int from, uint32_t *flags_out)
{
    bool rounds = dec_has(d, DM_RNDI), mode = dec_has(d, DM_RND), sat = dec_has(d, DM_SAT);
    bool to_float = is_float(to) || is_narrow(to), from_float = is_float(from) || is_narrow(from);
    uint32_t ftz = dec_has(d, DM_FTZ) ? VM_FTZ : 0, sat_flag = sat ? VM_SAT : 0;
    *flags_out = 0;
    if (ftz && from != PT_F32 && to != PT_F32)
        dec_invalid(d, "ftz without f32");
    if (is_int(to) && is_int(from)) {
        if (rounds || mode)
            dec_invalid(d, "rounding between integers");
        return d->isa->cvt[sat ? VCV_SAT : VCV_PLAIN][to][from];
    }
    if (!to_float && from_float) { /* clamps whether .sat is there or not */
        if (!rounds || mode)
            dec_invalid(d, "needs an integer rounding mode");
        *flags_out = ftz | (d->m.round == VM_ROUND_RZ ? 0 : d->m.round);
        return d->isa->cvt[d->m.round == VM_ROUND_RZ ? VCV_PLAIN : VCV_ROUND][to][from];
    }
    if (to_float && !from_float) {
        if (!mode || rounds)
            dec_invalid(d, "needs a rounding mode");
        *flags_out = d->m.round | sat_flag;
        return d->isa->cvt[VCV_PLAIN][to][from];
    }
    if (rounds) { /* to an integral value */
        if (to != from || mode)
            dec_invalid(d, "integer rounding between different types");
        *flags_out = d->m.round | ftz | sat_flag | (ftz ? VM_FLUSH_OUT : 0);
        return d->isa->fn[VO_RINT][to];
    }
    if (mode != (ptx_type_size(to) < ptx_type_size(from) || (is_narrow(to) && is_narrow(from))))
        dec_invalid(d, "a rounding mode is needed where the type gets smaller, and only there");
    *flags_out = d->m.round | ftz | sat_flag | (ftz && to == PT_F32 ? VM_FLUSH_OUT : 0);
    return d->isa->cvt[dec_has(d, DM_RELU) ? VCV_RELU : VCV_PLAIN][to][from];
}

static void cvt(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!dec_want_types(d, 2))
        return;
    const struct ptx_opnd *o = d->p->opnd;
    unsigned int to = d->m.type[0], from = d->m.type[1];
    if (is_tensor(to) || is_tensor(from)) {
        cvt_narrow(d);
        return;
    }
    if ((to == PT_F16X2 || to == PT_BF16X2) && d->p->opnd_n == 3) {
        cvt_pair(d);
        return;
    }
    bool floats = is_float(to) || is_narrow(to);
    if (d->p->opnd_n != 2 || to == PT_F16X2 || to == PT_BF16X2 ||
        (d->m.seen & (DM(RNA) | DM(SATFINITE))) ||
        (dec_has(d, DM_RELU) && !(is_narrow(to) && from == PT_F32))) {
        dec_invalid(d, "this form is not supported");
        return;
    }
    uint32_t from_size, to_size, flags;
    uint32_t a = dec_any(d, &o[1], from, false, &from_size);
    uint32_t at = dec_any(d, &o[0], to, true, &to_size);
    if (from_size == 8 && ptx_type_size(from) < 8) { /* low part of a wide register */
        uint32_t low = dec_temp(d, false);
        two(d, d->isa->cvt[VCV_PLAIN][PT_U32][PT_U64], low, a);
        a = low;
    }
    vm_fn body = cvt_body(d, to, from, &flags);
    bool extend = !floats && to_size > ptx_type_size(to);
    uint32_t where = extend ? dec_temp(d, ptx_type_size(to) == 8) : at;
    if (floats && to_size != ptx_type_size(to)) {
        dec_invalid(d, "the register is wider than the result");
        return;
    }
    struct vm_ins *in;
    if (is_narrow(to)) { /* these round by themselves; ftz acts on what comes in */
        in = dec_emit(d, body);
        in->aux = flags & ~(uint32_t)VM_FTZ;
        if (flags & VM_FTZ) {
            in->inner = body;
            in->fn = NULL;
            dec_invalid(d, "ftz is not supported");
        }
    } else {
        in = dec_emit_fp(d, body, PT_F32, flags);
        if (to == PT_F64 && (flags & (VM_SAT | VM_FLUSH_OUT)))
            dec_invalid(d, "this form is not supported");
    }
    in->d = where;
    in->a = a;
    if (extend)
        two(d, d->isa->cvt[VCV_PLAIN][at_width(to, to_size)][to], at, where);
}

/* ---- address spaces ---- */

static unsigned int window(struct dec *d)
{
    switch (d->m.space) {
    case PS_SHARED:
        return VM_WIN_SHARED;
    case PS_LOCAL:
        return VM_WIN_LOCAL;
    case PS_PARAM:
        return VM_WIN_PARAM;
    default:
        return 0;
    }
}

/* cvta.space.u64 d, a (a may be a variable); cvta.to.space.u64 */
static void cvta(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!dec_want_types(d, 1) || !dec_has(d, DM_SPACE) || dec_bits(d->m.type[0]) != PT_B64) {
        dec_invalid(d, "needs a space and 64 bits");
        return;
    }
    const struct ptx_opnd *o = d->p->opnd;
    struct ptx_opnd from = o[1];
    uint32_t to = dec_dst(d, &o[0], PT_U64), a;
    if (from.kind == PO_VAR) {
        mov_address(d, PT_B64);
        a = to;
    } else {
        a = dec_src(d, &from, PT_U64);
    }
    if (window(d))
        two(d, d->isa->fn[VO_CVTA][PT_U64], to, a)->aux =
            window(d) | (dec_has(d, DM_TO) ? VM_CVTA_TO : 0);
    else
        two(d, d->isa->fn[VO_MOV][PT_B64], to, a);
}

static void isspacep(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!dec_has(d, DM_SPACE) || d->m.type_n) {
        dec_invalid(d, "needs a space");
        return;
    }
    uint32_t a = dec_src(d, &d->p->opnd[1], PT_U64);
    uint32_t to = dec_dst(d, &d->p->opnd[0], PT_PRED);
    if (d->m.space == PS_CONST) /* constants lie in global memory here */
        two(d, d->isa->fn[VO_PMOV][PT_PRED], to, VM_FALSE)->b = VM_TRUE;
    else
        two(d, d->isa->fn[VO_ISSPACEP][PT_U64], to, a)->aux = window(d);
}

const struct dec_row dec_move_rows[] = {
    {"mov", mov, 0, 0, 2, 2},
    {"cvt", cvt, 0, DM(RND) | DM(RNDI) | DM(FTZ) | DM(SAT) | DM(RELU) | DM(RNA) | DM(SATFINITE), 2,
     3},
    {"cvta", cvta, 0, DM(TO) | DM(SPACE), 2, 2},
    {"isspacep", isspacep, 0, DM(SPACE), 2, 2},
    {0},
};
