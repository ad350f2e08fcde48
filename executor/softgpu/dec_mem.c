/* Opcodes that touch memory: ld, st, atom, red, cp.async, prefetch.  Orders, scopes and cache hints
 * need nothing: plain accesses of the host are in order enough, and fences are fences.  But a
 * vector that blocks pass one another (a flag beside its value, as CUB's scan does) must not be
 * torn. Called by decode.c through the table at the end. */
#include "executor/softgpu/decode.h"

static bool in_bounds(struct dec *d, int64_t at, uint32_t len, uint64_t size)
{
    if (at >= 0 && (uint64_t)at <= size && len <= size - (uint64_t)at && !(at & (len - 1)))
        return true;
    dec_invalid(d, "the access leaves the parameter");
    return false;
}

static void of_variable(struct dec *d, const struct ptx_var *v, uint32_t len, struct dec_where *w)
{
    bool same = w->space == v->space || (w->space == PS_PARAM && v->space == PS_BLOB);
    if (w->space == PS_GENERIC && (v->space == PS_GLOBAL || v->space == PS_CONST))
        same = true;
    if (!same) {
        dec_invalid(d, "the variable is in another space");
        return;
    }
    switch (v->space) {
    case PS_SHARED:
        w->a = dec_const(d, 0, false);
        w->aux = VM_MEM_A32;
        w->imm += d->kernel->shared_at[v->shared_index] - 1;
        break;
    case PS_LOCAL:
        w->a = d->fn->entry ? dec_const(d, 0, true) : d->fr->depot;
        w->imm += d->local_at[v->index];
        break;
    case PS_PARAM:
        w->fixed = in_bounds(d, w->imm, len, v->size);
        w->a = dec_const(d, 0, true);
        w->imm += (int64_t)v->addr;
        break;
    case PS_BLOB:
        w->space = PS_BLOB;
        in_bounds(d, w->imm, len, v->size);
        w->a = d->fr->blob_at[v->index];
        w->stride = d->fr->blob_stride[v->index];
        break;
    default:
        w->a = dec_const(d, v->addr, true);
        break;
    }
}

struct dec_where dec_address(struct dec *d, const struct ptx_opnd *o, unsigned int space,
                             uint32_t len)
{
    struct dec_where w = {.space = space, .imm = o->off, .a = VM_TRASH};
    if (!o->mem || o->neg || o->pair) {
        dec_invalid(d, "expected an address");
        return w;
    }
    struct ptx_opnd plain = *o;
    plain.mem = false;
    plain.off = 0;
    switch (o->kind) {
    case PO_REG:
        if (dec_reg_size(d, o) == 4 && space != PS_GLOBAL && space != PS_GENERIC &&
            space != PS_CONST) {
            w.a = dec_src(d, &plain, PT_U32);
            w.aux = VM_MEM_A32;
        } else {
            w.a = dec_src(d, &plain, PT_U64);
        }
        break;
    case PO_INT:
        w.a = dec_const(d, o->bits, true);
        break;
    case PO_VAR:
        of_variable(d, o->var, len, &w);
        break;
    default:
        dec_invalid(d, "unexpected form of address");
        break;
    }
    return w;
}

/* Unsigned or signed integer of the same size, as the tables have them. */
static unsigned int mem_type(unsigned int t)
{
    if (t >= PT_S8 && t <= PT_S64)
        return t == PT_S64 ? PT_U64 : t;
    switch (ptx_type_size(t)) {
    case 1:
        return PT_U8;
    case 2:
        return PT_U16;
    case 4:
        return PT_U32;
    case 8:
        return PT_U64;
    default:
        return PT_NONE;
    }
}

/* The registers of a load or store: all of one width. */
static unsigned int parts(struct dec *d, const struct ptx_opnd *o, unsigned int type, bool dst,
                          uint32_t part[4], uint32_t *n_out)
{
    uint32_t n = dec_has(d, DM_VEC) ? d->m.vec : 1, size = 0;
    const struct ptx_opnd *e = o;
    if (n > 4 || (n > 1) != (o->kind == PO_VEC) || (o->kind == PO_VEC && o->n != n) ||
        n * ptx_type_size(type) > 16) {
        dec_invalid(d, "this vector form is not supported");
        n = 1;
    }
    for (uint32_t i = 0; i < n && !d->bad; i++) {
        uint32_t s;
        if (n > 1)
            e = &o->vec[i];
        part[i] = dec_any(d, e, type, dst, &s);
        if (e->kind == PO_REG && size && size != s)
            dec_invalid(d, "the vector's registers differ in width");
        if (e->kind == PO_REG || !size)
            size = s;
    }
    /* a sink or constant comes in the width of the type; registers decide */
    for (uint32_t i = 0; i < n && !d->bad && n > 1; i++)
        if (o->vec[i].kind != PO_REG && o->vec[i].kind != PO_SINK &&
            (size == 8) != (ptx_type_size(type) == 8))
            dec_invalid(d, "a constant in a vector of wider registers");
    *n_out = n;
    return size == 8 ? 2 : size == 4 ? 1 : 0;
}

static void ld_param(struct dec *d, uint32_t to, const struct dec_where *w, unsigned int type)
{
    struct vm_ins *in = dec_emit_op(d, VO_LD_PARAM, dec_bits(type));
    in->d = to;
    in->imm = w->imm;
}

static void access(struct dec *d, bool load)
{
    if (!dec_want_types(d, 1))
        return;
    const struct ptx_opnd *addr = &d->p->opnd[load ? 1 : 0], *val = &d->p->opnd[load ? 0 : 1];
    unsigned int t = mem_type(d->m.type[0]);
    unsigned int space = dec_has(d, DM_SPACE) ? d->m.space : PS_GENERIC;
    if (t == PT_NONE || d->m.type[0] == PT_PRED) {
        dec_invalid(d, "this type is not supported");
        return;
    }
    uint32_t part[4] = {VM_TRASH, VM_TRASH, VM_TRASH, VM_TRASH}, n;
    unsigned int dw = parts(d, val, d->m.type[0], load, part, &n);
    struct dec_where w = dec_address(d, addr, space, ptx_type_size(t) * n);
    if (!load && (w.space == PS_PARAM || w.space == PS_CONST))
        dec_invalid(d, "the space cannot be written");
    if (d->bad)
        return;
    bool sign = t >= PT_S8 && t <= PT_S64;
    bool same = (dw == 2) == (t == PT_U64) && !(sign && ptx_type_size(t) < 4);
    if (w.fixed && n == 1 && same) {
        ld_param(d, part[0], &w, t);
        return;
    }
    bool shared = w.space == PS_SHARED;
    bool whole = n > 1 && d->m.strong && !shared; /* in one piece: a way of vm_ld_lanes alone */
    bool fast = !whole && (shared || w.space == PS_GLOBAL || w.space == PS_CONST);
    unsigned int tt = !load ? mem_type(dec_bits(t)) : t == PT_S32 && dw == 1 ? PT_U32 : t;
    unsigned int lg = n == 4 ? 2 : n - 1;
    vm_fn fn = load ? vm_ld_lanes : vm_st_lanes;
    if (fast)
        fn = load ? d->isa->ld[shared][tt][dw][lg] : d->isa->st[shared][tt][dw][lg];
    struct vm_ins *in = dec_emit(d, fn);
    in->d = part[0];
    in->b = part[1];
    in->c = part[2];
    in->e = part[3];
    in->a = w.a;
    in->imm = w.imm;
    in->stride = w.stride;
    in->aux = w.space | tt << VM_MEM_TYPE_SHIFT | dw << VM_MEM_DW_SHIFT |
              (n - 1) << VM_MEM_N_SHIFT | w.aux;
}

static void ld(struct dec *d, unsigned int arg)
{
    (void)arg;
    access(d, true);
}

static void st(struct dec *d, unsigned int arg)
{
    (void)arg;
    access(d, false);
}

static unsigned int atom_kind(struct dec *d)
{
    unsigned int n =
        dec_has(d, DM_ATOM) + dec_has(d, DM_AND) + dec_has(d, DM_OR) + dec_has(d, DM_XOR);
    if (n != 1)
        dec_invalid(d, "needs one operation");
    return dec_has(d, DM_AND)   ? VA_AND
           : dec_has(d, DM_OR)  ? VA_OR
           : dec_has(d, DM_XOR) ? VA_XOR
                                : d->m.atom;
}

static bool atom_exists(unsigned int op, unsigned int t)
{
    bool bits = t == PT_B32 || t == PT_B64;
    bool ints = t == PT_U32 || t == PT_S32 || t == PT_U64 || t == PT_S64;
    switch (op) {
    case VA_ADD:
        return ints || t == PT_F32 || t == PT_F64 || t == PT_F16 || t == PT_F16X2 || t == PT_BF16 ||
               t == PT_BF16X2;
    case VA_MIN:
    case VA_MAX:
        return ints;
    case VA_INC:
    case VA_DEC:
        return t == PT_U32;
    case VA_AND:
    case VA_OR:
    case VA_XOR:
        return bits;
    case VA_EXCH:
        return bits;
    case VA_CAS:
        return bits || t == PT_B16;
    default:
        return false;
    }
}

/* One element of a vector, or all there is. */
static void atom_one(struct dec *d, const struct ptx_opnd *to, const struct dec_where *w,
                     const struct ptx_opnd *b, const struct ptx_opnd *c, unsigned int op)
{
    unsigned int t = d->m.type[0];
    uint32_t at = to ? dec_dst(d, to, t) : VM_TRASH, vb = dec_src(d, b, t);
    uint32_t vc = c ? dec_src(d, c, t) : VM_TRASH;
    struct vm_ins *in = dec_emit_op(d, VO_ATOM, PT_NONE);
    in->d = at;
    in->a = w->a;
    in->b = vb;
    in->c = vc;
    in->imm = w->imm;
    in->aux = w->space | t << VM_MEM_TYPE_SHIFT | w->aux | op << VM_MEM_OP_SHIFT;
}

/* atom.add.v2.f32 d, [a], b: each element is atomic for itself. */
static void atom_vector(struct dec *d, const struct ptx_opnd *to, struct dec_where *w,
                        const struct ptx_opnd *b, unsigned int op)
{
    uint32_t n = d->m.vec, size = ptx_type_size(d->m.type[0]);
    bool none = !to || to->kind == PO_SINK;
    if (b->kind != PO_VEC || b->n != n || (!none && (to->kind != PO_VEC || to->n != n)) ||
        op != VA_ADD || n * size > 16 || w->space == PS_SHARED) {
        dec_invalid(d, "this vector form is not supported");
        return;
    }
    for (uint32_t i = 0; i < n && !d->bad; i++, w->imm += size)
        atom_one(d, none ? NULL : &to->vec[i], w, &b->vec[i], NULL, op);
}

/* atom d, [a], b {, c}; red [a], b */
static void atom(struct dec *d, unsigned int red)
{
    const struct ptx_opnd *o = d->p->opnd;
    unsigned int op = atom_kind(d);
    if (!dec_want_types(d, 1))
        return;
    unsigned int t = d->m.type[0], space = dec_has(d, DM_SPACE) ? d->m.space : PS_GENERIC;
    bool half = t == PT_F16 || t == PT_F16X2 || t == PT_BF16 || t == PT_BF16X2;
    bool vector = dec_has(d, DM_VEC);
    if (!atom_exists(op, t) || d->p->opnd_n != 3u - red + (op == VA_CAS) || (red && op == VA_CAS) ||
        half != dec_has(d, DM_NOFTZ) || (vector && !half && t != PT_F32) ||
        (space != PS_GENERIC && space != PS_GLOBAL && space != PS_SHARED)) {
        dec_invalid(d, "this form is not supported");
        return;
    }
    const struct ptx_opnd *b = &o[2 - red], *to = red ? NULL : &o[0];
    struct dec_where w =
        dec_address(d, &o[1 - red], space, ptx_type_size(t) * (vector ? d->m.vec : 1));
    if (vector)
        atom_vector(d, to, &w, b, op);
    else
        atom_one(d, to, &w, b, op == VA_CAS ? &o[3] : NULL, op);
}

static void nothing(struct dec *d, unsigned int arg)
{
    (void)arg;
    dec_emit(d, vm_op_nop);
}

static void prefetch(struct dec *d, unsigned int arg)
{
    if (!dec_has(d, DM_MEMQ))
        dec_invalid(d, "needs a cache level");
    nothing(d, arg);
}

/* cp.async.ca.shared.global [dst], [src], size {, src-size}: copied at once, so waiting is nothing.
 */
static void cp_async(struct dec *d, unsigned int arg)
{
    (void)arg;
    const struct ptx_opnd *o = d->p->opnd;
    uint64_t size = o[2].kind == PO_INT ? o[2].bits : 0;
    if ((size != 4 && size != 8 && size != 16) || d->m.type_n) {
        dec_invalid(d, "the size must be 4, 8 or 16");
        return;
    }
    struct dec_where to = dec_address(d, &o[0], PS_SHARED, 1),
                     from = dec_address(d, &o[1], PS_GLOBAL, 1);
    uint32_t have = d->p->opnd_n > 3 ? dec_src(d, &o[3], PT_U32) : dec_const(d, size, false);
    struct vm_ins *in = dec_emit_op(d, VO_CP_ASYNC, PT_NONE);
    in->d = to.a;
    in->a = from.a;
    in->b = have;
    in->imm = from.imm;
    in->stride = (uint64_t)to.imm;
    in->c = (uint32_t)size;
    in->aux = to.aux ? VM_MEM_A32 : 0;
}

#define QUALIFIERS (DM(SPACE) | DM(MEMQ) | DM(CTA))
const struct dec_row dec_mem_rows[] = {
    {"ld", ld, 0, QUALIFIERS | DM(VEC), 2, 2},
    {"ldu", ld, 0, DM(SPACE) | DM(VEC), 2, 2},
    {"st", st, 0, QUALIFIERS | DM(VEC), 2, 2},
    {"atom", atom, 0, QUALIFIERS | DM(VEC) | DM(ATOM) | DM(AND) | DM(OR) | DM(XOR) | DM(NOFTZ), 3,
     4},
    {"red", atom, 1, QUALIFIERS | DM(VEC) | DM(ATOM) | DM(AND) | DM(OR) | DM(XOR) | DM(NOFTZ), 2,
     2},
    {"prefetch", prefetch, 0, DM(SPACE) | DM(MEMQ), 1, 1},
    {"prefetchu", prefetch, 0, DM(MEMQ), 1, 1},
    {"cp.async", cp_async, 0, DM(MEMQ) | DM(SPACE), 3, 4},
    {"cp.async.commit_group", nothing, 0, 0, 0, 0},
    {"cp.async.wait_group", nothing, 0, 0, 1, 1},
    {"cp.async.wait_all", nothing, 0, 0, 0, 0},
    {0},
};
