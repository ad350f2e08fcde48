/* Operands of PTX instructions: registers, special registers, literals, addresses, vectors and
 * lists. Called by ptx.c.  A name that is neither declared nor special is a label, resolved later.
 */
#include "executor/softgpu/ptx_lex.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    uint8_t id, vec;
} sregs[] = {
    {"%tid", SR_TID, 1},
    {"%ntid", SR_NTID, 1},
    {"%ctaid", SR_CTAID, 1},
    {"%nctaid", SR_NCTAID, 1},
    {"%laneid", SR_LANEID, 0},
    {"%warpid", SR_WARPID, 0},
    {"%nwarpid", SR_NWARPID, 0},
    {"%smid", SR_SMID, 0},
    {"%nsmid", SR_NSMID, 0},
    {"%gridid", SR_GRIDID, 0},
    {"%lanemask_eq", SR_LM_EQ, 0},
    {"%lanemask_le", SR_LM_LE, 0},
    {"%lanemask_lt", SR_LM_LT, 0},
    {"%lanemask_ge", SR_LM_GE, 0},
    {"%lanemask_gt", SR_LM_GT, 0},
    {"%clock", SR_CLOCK, 0},
    {"%clock_hi", SR_CLOCK_HI, 0},
    {"%clock64", SR_CLOCK64, 0},
    {"%globaltimer", SR_TIMER, 0},
    {"%globaltimer_lo", SR_TIMER_LO, 0},
    {"%globaltimer_hi", SR_TIMER_HI, 0},
    {"%dynamic_smem_size", SR_DYN_SMEM, 0},
    {"%total_smem_size", SR_TOTAL_SMEM, 0},
    {"%cluster_ctarank", SR_ZERO, 0},
    {"%cluster_nctarank", SR_ONE, 0},
    {"%cluster_ctaid", SR_ZERO, 1},
    {"%cluster_nctaid", SR_ONE, 1},
    {"%clusterid", SR_CLUSTER_ID, 1},
    {"%nclusterid", SR_NCLUSTER_ID, 1},
    {"%reserved_smem_offset_begin", SR_RESERVED, 0},
    {"%reserved_smem_offset_0", SR_RESERVED, 0},
    {"%reserved_smem_offset_1", SR_RESERVED_HALF, 0},
    {"%reserved_smem_offset_end", SR_RESERVED_END, 0},
    {"%envreg1", SR_ENVREG1, 0},
    {"%envreg2", SR_ENVREG2, 0},
};

static bool find_sreg(struct ptx_parser *p, struct ptx_slice s, struct ptx_opnd *o)
{
    for (size_t i = 0; i < sizeof(sregs) / sizeof(*sregs); i++) {
        if (!ptx_slice_eq(s, sregs[i].name))
            continue;
        o->kind = PO_SREG;
        o->reg = sregs[i].id;
        o->slice = s;
        if (sregs[i].vec) {
            static const char comps[] = "xyz";
            const char *c =
                p->tok.kind == PK_DIR && p->tok.s.n == 2 ? memchr(comps, p->tok.s.s[1], 3) : NULL;
            if (!c) {
                ptx_error(p, "%s needs .x, .y or .z", sregs[i].name);
                return true;
            }
            o->comp = (uint8_t)(c - comps);
            ptx_next(p);
        }
        return true;
    }
    return false;
}

static bool find_range(struct ptx_parser *p, struct ptx_slice s, uint32_t *reg_out)
{
    uint32_t digits = 0;
    uint64_t num = 0;
    while (digits < s.n && digits < 9 && s.s[s.n - 1 - digits] >= '0' &&
           s.s[s.n - 1 - digits] <= '9')
        digits++;
    for (uint32_t i = s.n - digits; i < s.n; i++)
        num = num * 10 + (uint64_t)(s.s[i] - '0');
    if (!digits)
        return false;
    const struct ptx_name *n = ptx_name_find(p, (struct ptx_slice){s.s, s.n - digits}, PN_RANGE);
    if (!n || num >= n->count || n->reg + num >= p->fn->reg_n)
        return false;
    *reg_out = n->reg + (uint32_t)num;
    return true;
}

void ptx_take_name(struct ptx_parser *p, struct ptx_opnd *o)
{
    struct ptx_slice s = p->tok.s;
    ptx_next(p);
    if (ptx_slice_eq(s, "_")) {
        o->kind = PO_SINK;
        return;
    }
    if (ptx_slice_eq(s, "WARP_SZ")) {
        o->kind = PO_INT;
        o->bits = 32;
        return;
    }
    const struct ptx_name *n = ptx_name_find(p, s, PN_REG);
    if (!n && find_range(p, s, &o->reg)) {
        o->kind = PO_REG;
        return;
    }
    if (!n && find_sreg(p, s, o))
        return;
    if (!n ||
        n->kind ==
            PN_LABEL) { /* a label, used before it stands; a register would have been declared */
        if (s.s[0] == '%')
            ptx_error(p, "unknown register '%.*s'", (int)s.n, s.s);
        o->kind = PO_LABEL;
        o->reg = p->scope[p->depth];
        o->slice = s;
        return;
    }
    o->kind = n->kind == PN_REG ? PO_REG : n->kind == PN_VAR ? PO_VAR : PO_FN;
    if (n->kind == PN_REG)
        o->reg = n->reg;
    else if (n->kind == PN_VAR)
        o->var = n->to;
    else
        o->fn = n->to;
}

/* The elements of { }, ( ) or [ ]; the opening token is current. */
static void take_elements(struct ptx_parser *p, struct ptx_opnd *o, char close, unsigned int depth)
{
    uint32_t cap = 0;
    struct ptx_opnd *vec = NULL;
    ptx_next(p);
    while (!ptx_punct(p, close) && !p->bad) {
        vec = ptx_grow(p, vec, o->n, &cap, sizeof(*vec));
        if (!vec)
            return;
        ptx_take_operand(p, &vec[o->n++], depth + 1);
        if (!ptx_punct(p, ','))
            break;
        ptx_next(p);
    }
    ptx_expect(p, close);
    o->vec = vec;
}

static void take_offset(struct ptx_parser *p, struct ptx_opnd *o)
{
    if (!ptx_punct(p, '+') && !ptx_punct(p, '-'))
        return;
    if (ptx_punct(p, '+'))
        ptx_next(p);
    uint64_t v = 0;
    ptx_const_expr(p, &v);
    o->off = (int64_t)v;
}

static void take_bracket(struct ptx_parser *p, struct ptx_opnd *o, unsigned int depth)
{
    take_elements(p, o, ']', depth);
    if (p->bad)
        return;
    if (o->n == 1) {
        struct ptx_opnd inner = o->vec[0];
        *o = inner;
    } else {
        o->kind = PO_VEC; /* tex-like; no instruction that we run has it */
    }
    o->mem = true;
}

static void take_literal(struct ptx_parser *p, struct ptx_opnd *o)
{
    bool real = false;
    const struct ptx_parser before = *p;
    while (ptx_punct(p, '-') || ptx_punct(p, '+') || ptx_punct(p, '~'))
        ptx_next(p);
    unsigned int kind = p->tok.kind;
    real = kind == PK_F32 || kind == PK_F64;
    if (p->bad)
        return;
    p->at = before.at;
    p->line = before.line;
    p->tok = before.tok;
    o->kind = real ? (kind == PK_F32 ? PO_F32 : PO_F64) : PO_INT;
    uint64_t v = 0;
    if (ptx_const_expr(p, &v))
        o->bits = v;
}

void ptx_take_operand(struct ptx_parser *p, struct ptx_opnd *o, unsigned int depth)
{
    *o = (struct ptx_opnd){.line = p->tok.line};
    if (depth > 8) {
        ptx_error(p, "operand nested too deeply");
        return;
    }
    if (ptx_punct(p, '!')) {
        o->neg = true;
        ptx_next(p);
    }
    if (ptx_punct(p, '[')) {
        take_bracket(p, o, depth);
    } else if (ptx_punct(p, '{')) {
        o->kind = PO_VEC;
        take_elements(p, o, '}', depth);
    } else if (ptx_punct(p, '(')) {
        o->kind = PO_LIST;
        take_elements(p, o, ')', depth);
    } else if (p->tok.kind == PK_ID) {
        ptx_take_name(p, o);
        take_offset(p, o);
    } else {
        take_literal(p, o);
    }
    if (ptx_punct(p, '|') && !o->pair) {
        ptx_next(p);
        o->pair = ptx_alloc(p->tree, sizeof(*o->pair));
        if (o->pair)
            ptx_take_operand(p, o->pair, depth + 1);
        else
            ptx_error(p, "out of memory");
    }
}
