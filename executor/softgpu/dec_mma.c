/* Opcodes of matrices: mma.sync, wmma.load, wmma.mma, wmma.store, ldmatrix, stmatrix, movmatrix.
 * Shapes and types that are not in the table below are refused.  Called by decode.c through the
 * table at the end. */
#include "executor/softgpu/decode.h"

struct shape {
    const char *name;
    uint8_t m, n, k;
    bool wmma;
    uint8_t type; /* of A and B */
};

static const struct shape shapes[] = {
    {"m16n8k8", 16, 8, 8, false, PT_F16},    {"m16n8k16", 16, 8, 16, false, PT_F16},
    {"m16n8k8", 16, 8, 8, false, PT_BF16},   {"m16n8k16", 16, 8, 16, false, PT_BF16},
    {"m16n8k4", 16, 8, 4, false, PT_TF32},   {"m16n8k8", 16, 8, 8, false, PT_TF32},
    {"m8n8k16", 8, 8, 16, false, PT_S8},     {"m16n8k16", 16, 8, 16, false, PT_S8},
    {"m16n8k32", 16, 8, 32, false, PT_S8},   {"m8n8k4", 8, 8, 4, false, PT_F64},
    {"m16n16k16", 16, 16, 16, true, PT_F16}, {"m32n8k16", 32, 8, 16, true, PT_F16},
    {"m8n32k16", 8, 32, 16, true, PT_F16},   {"m16n16k16", 16, 16, 16, true, PT_BF16},
    {"m32n8k16", 32, 8, 16, true, PT_BF16},  {"m8n32k16", 8, 32, 16, true, PT_BF16},
    {"m16n16k8", 16, 16, 8, true, PT_TF32},  {"m16n16k16", 16, 16, 16, true, PT_S8},
    {"m32n8k16", 32, 8, 16, true, PT_S8},    {"m8n32k16", 8, 32, 16, true, PT_S8},
    {"m8n8k4", 8, 8, 4, true, PT_F64},
};

static bool word_has(const struct dec *d, const char *name)
{
    for (unsigned int i = 0; i < d->m.word_n; i++)
        if (d->m.word[i].n == strlen(name) && !memcmp(d->m.word[i].s, name, d->m.word[i].n))
            return true;
    return false;
}

/* type: of A and B; PT_NONE: of an accumulator, for which every shape of that name does. */
static const struct shape *find_shape(struct dec *d, bool wmma, unsigned int type)
{
    if (type == PT_U8)
        type = PT_S8;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        if (shapes[i].wmma == wmma && (type == PT_NONE || shapes[i].type == type) &&
            word_has(d, shapes[i].name))
            return &shapes[i];
    dec_invalid(d, "this shape and type are not supported");
    return NULL;
}

/* The order of a matrix in memory, or what must be said of both; more words than expected are
 * refused. */
static bool words_are(struct dec *d, unsigned int n)
{
    if (d->m.word_n != n)
        dec_invalid(d, "a modifier is not supported");
    return !d->bad;
}

/* The registers of a fragment. */
static void fragment(struct dec *d, const struct ptx_opnd *o, struct vm_mat *m, bool dst)
{
    uint32_t n = o->kind == PO_VEC ? o->n : 1, size = ptx_type_size(m->type);
    unsigned int type = m->type == PT_F64 ? PT_F64 : PT_B32;
    m->per_reg = m->type == PT_F64 ? 1 : (uint8_t)(4 / size);
    m->reg_n = (uint8_t)n;
    uint32_t all = n * m->per_reg * VM_LANES, need = (uint32_t)m->rows * m->cols;
    if (!n || n > VM_MAT_REGS || all % need || (!m->linear && all != need) || o->mem) {
        dec_invalid(d, "the fragment has another number of registers");
        return;
    }
    for (uint32_t i = 0; i < n && !d->bad; i++) {
        const struct ptx_opnd *e = o->kind == PO_VEC ? &o->vec[i] : o;
        m->reg[i] = dst ? dec_dst(d, e, type) : dec_src(d, e, type);
    }
}

static bool accumulates(unsigned int of, unsigned int in)
{
    switch (of) {
    case PT_F16:
        return in == PT_F16 || in == PT_F32;
    case PT_S8:
    case PT_U8:
        return in == PT_S32;
    case PT_F64:
        return in == PT_F64;
    default:
        return in == PT_F32;
    }
}

/* The types of D, A, B, C; wmma gives D and C alone for f16. */
static bool take_types(struct dec *d, bool wmma, unsigned int type[4])
{
    const unsigned int *t = d->m.type;
    if (d->m.type_n == 2 && wmma) {
        type[0] = t[0];
        type[1] = type[2] = PT_F16;
        type[3] = t[1];
    } else if (d->m.type_n == 4) {
        memcpy(type, t, 4 * sizeof(*type));
    } else {
        dec_invalid(d, "needs the types of all matrices");
        return false;
    }
    bool bytes = type[1] == PT_S8 || type[1] == PT_U8;
    bool same = type[1] == type[2] || (bytes && (type[2] == PT_S8 || type[2] == PT_U8));
    if (!same || !accumulates(type[1], type[0]) || !accumulates(type[1], type[3]) ||
        (dec_has(d, DM_SATFINITE) && !bytes) ||
        (dec_has(d, DM_RND) && (type[1] != PT_F64 || d->m.round)))
        dec_invalid(d, "these types do not go together");
    return !d->bad;
}

/* mma.sync.aligned.shape.row.col.d.a.b.c d, a, b, c; wmma.mma.sync.aligned.arow.brow.shape... */
static void mma(struct dec *d, unsigned int wmma)
{
    const struct ptx_opnd *o = d->p->opnd;
    unsigned int type[4];
    if (!take_types(d, wmma, type) || !words_are(d, 3))
        return;
    if (!wmma && !(word_has(d, "row") && word_has(d, "col"))) {
        dec_invalid(d, "needs .row.col");
        return;
    }
    const struct shape *s = find_shape(d, wmma, type[1]);
    struct vm_mma *p = dec_alloc(d, sizeof(*p));
    if (!s || !p)
        return;
    p->satfinite = dec_has(d, DM_SATFINITE);
    p->d = (struct vm_mat){.type = (uint8_t)type[0], .rows = s->m, .cols = s->n};
    p->a = (struct vm_mat){.type = (uint8_t)type[1], .rows = s->m, .cols = s->k};
    p->b = (struct vm_mat){.type = (uint8_t)type[2], .rows = s->k, .cols = s->n, .is_b = true};
    p->c = (struct vm_mat){.type = (uint8_t)type[3], .rows = s->m, .cols = s->n};
    p->a.linear = p->b.linear = p->c.linear = p->d.linear = wmma;
    fragment(d, &o[0], &p->d, true);
    fragment(d, &o[1], &p->a, false);
    fragment(d, &o[2], &p->b, false);
    fragment(d, &o[3], &p->c, false);
    dec_emit_op(d, VO_MMA, PT_NONE)->mma = p;
}

enum { LOAD_A, LOAD_B, LOAD_C, STORE_D };

/* wmma.load.a.sync.aligned.layout.shape{.space}.type r, [p] {, stride}; wmma.store.d ... [p], r */
static void wmma_memory(struct dec *d, unsigned int what)
{
    const struct ptx_opnd *o = d->p->opnd;
    bool store = what == STORE_D, col = word_has(d, "col");
    if (!dec_want_types(d, 1) || !words_are(d, 2) || col == word_has(d, "row"))
        return dec_invalid(d, "needs a layout, a shape and a type");
    unsigned int type = d->m.type[0], space = dec_has(d, DM_SPACE) ? d->m.space : PS_GENERIC;
    const struct shape *s = find_shape(d, true, what <= LOAD_B ? type : PT_NONE);
    struct vm_mma *p = dec_alloc(d, sizeof(*p));
    if (!s || !p)
        return;
    p->a = (struct vm_mat){.type = (uint8_t)type,
                           .rows = what == LOAD_B ? s->k : s->m,
                           .cols = what == LOAD_A ? s->k : s->n,
                           .linear = true,
                           .by_column = col};
    struct dec_where w = dec_address(d, &o[store ? 0 : 1], space, ptx_type_size(type));
    uint32_t stride = d->p->opnd_n > 2 ? dec_src(d, &o[2], PT_U32)
                                       : dec_const(d, col ? p->a.rows : p->a.cols, false);
    fragment(d, &o[store ? 1 : 0], &p->a, !store);
    struct vm_ins *in = dec_emit_op(d, store ? VO_MAT_STORE : VO_MAT_LOAD, PT_NONE);
    in->a = w.a;
    in->b = stride;
    in->mma = p;
    in->stride = (uint64_t)w.imm;
    in->aux = w.space | w.aux;
}

/* ldmatrix.sync.aligned.m8n8.xN{.trans}{.shared}.b16 r, [p]; stmatrix ... [p], r */
static void rows(struct dec *d, unsigned int op)
{
    const struct ptx_opnd *o = d->p->opnd;
    bool store = op == VO_STMATRIX, trans = word_has(d, "trans");
    unsigned int n = word_has(d, "x1") ? 1 : word_has(d, "x2") ? 2 : word_has(d, "x4") ? 4 : 0;
    const struct ptx_opnd *r = &o[store ? 1 : 0];
    unsigned int space = dec_has(d, DM_SPACE) ? d->m.space : PS_GENERIC;
    if (!n || !word_has(d, "m8n8") || !words_are(d, 2 + trans) || !dec_want_types(d, 1) ||
        (r->kind == PO_VEC ? r->n : 1) != n || (space != PS_GENERIC && space != PS_SHARED))
        return dec_invalid(d, "this form is not supported");
    struct vm_mma *p = dec_alloc(d, sizeof(*p));
    if (!p)
        return;
    struct dec_where w = dec_address(d, &o[store ? 0 : 1], space, 16);
    p->a = (struct vm_mat){.reg_n = (uint8_t)n, .by_column = trans};
    for (unsigned int i = 0; i < n && !d->bad; i++) {
        const struct ptx_opnd *e = r->kind == PO_VEC ? &r->vec[i] : r;
        p->a.reg[i] = store ? dec_src(d, e, PT_B32) : dec_dst(d, e, PT_B32);
    }
    struct vm_ins *in = dec_emit_op(d, op, d->m.type[0]);
    in->a = w.a;
    in->mma = p;
    in->stride = (uint64_t)w.imm;
    in->aux = w.space | w.aux;
}

static void movmatrix(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!dec_want_types(d, 1) || !word_has(d, "m8n8") || !word_has(d, "trans") || !words_are(d, 2))
        return;
    uint32_t a = dec_src(d, &d->p->opnd[1], PT_B32), to = dec_dst(d, &d->p->opnd[0], PT_B32);
    struct vm_ins *in = dec_emit_op(d, VO_MOVMATRIX, d->m.type[0]);
    in->d = to;
    in->a = a;
}

/* clang-format off */
#define MATRIX (DM(OTHER) | DM(SPACE))
const struct dec_row dec_mma_rows[] = {
    {"mma.sync.aligned", mma, 0, DM(OTHER) | DM(SATFINITE) | DM(RND), 4, 4},
    {"wmma.mma.sync.aligned", mma, 1, DM(OTHER) | DM(SATFINITE) | DM(RND), 4, 4},
    {"wmma.load.a.sync.aligned", wmma_memory, LOAD_A, MATRIX, 2, 3},
    {"wmma.load.b.sync.aligned", wmma_memory, LOAD_B, MATRIX, 2, 3},
    {"wmma.load.c.sync.aligned", wmma_memory, LOAD_C, MATRIX, 2, 3},
    {"wmma.store.d.sync.aligned", wmma_memory, STORE_D, MATRIX, 2, 3},
    {"ldmatrix.sync.aligned", rows, VO_LDMATRIX, MATRIX, 2, 2},
    {"stmatrix.sync.aligned", rows, VO_STMATRIX, MATRIX, 2, 2},
    {"movmatrix.sync.aligned", movmatrix, 0, DM(OTHER), 2, 2},
    {0},
};
/* clang-format on */
