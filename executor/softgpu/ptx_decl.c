/* Declarations of PTX: registers, variables with initialisers, parameters, and constant
 * expressions. Called by ptx.c with the current token on the state space directive. */
#include "executor/softgpu/ptx_lex.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DIMS = 8, MAX_REGS = 1 << 20 };

static const struct {
    const char *name;
    uint32_t size;
} types[PT_N] = {
    [PT_U8] = {"u8", 1},         [PT_U16] = {"u16", 2},     [PT_U32] = {"u32", 4},
    [PT_U64] = {"u64", 8},       [PT_S8] = {"s8", 1},       [PT_S16] = {"s16", 2},
    [PT_S32] = {"s32", 4},       [PT_S64] = {"s64", 8},     [PT_B8] = {"b8", 1},
    [PT_B16] = {"b16", 2},       [PT_B32] = {"b32", 4},     [PT_B64] = {"b64", 8},
    [PT_F16] = {"f16", 2},       [PT_F16X2] = {"f16x2", 4}, [PT_BF16] = {"bf16", 2},
    [PT_F32] = {"f32", 4},       [PT_F64] = {"f64", 8},     [PT_BF16X2] = {"bf16x2", 4},
    [PT_PRED] = {"pred", 0},     [PT_TF32] = {"tf32", 4},   [PT_E4M3X2] = {"e4m3x2", 2},
    [PT_E5M2X2] = {"e5m2x2", 2}, [PT_U16X2] = {"u16x2", 4}, [PT_S16X2] = {"s16x2", 4},
};

uint32_t ptx_type_size(unsigned int type)
{
    return type < PT_N ? types[type].size : 0;
}

const char *ptx_type_name(unsigned int type)
{
    return type < PT_N && types[type].name ? types[type].name : "?";
}

unsigned int ptx_type_find(const char *s, size_t n)
{
    for (unsigned int t = 1; t < PT_N; t++)
        if (types[t].name && strlen(types[t].name) == n && !memcmp(types[t].name, s, n))
            return t;
    return PT_NONE;
}

bool ptx_space_find(const struct ptx_parser *p, unsigned int *space_out)
{
    static const struct {
        const char *name;
        unsigned int space;
    } spaces[] = {
        {".global", PS_GLOBAL}, {".shared", PS_SHARED}, {".local", PS_LOCAL},
        {".const", PS_CONST},   {".param", PS_BLOB},
    };
    for (size_t i = 0; i < sizeof(spaces) / sizeof(*spaces); i++)
        if (p->tok.kind == PK_DIR && ptx_slice_eq(p->tok.s, spaces[i].name)) {
            *space_out = spaces[i].space;
            return true;
        }
    return false;
}

/* number | -number | ~number, with + and - between: all that compilers write. */
static bool const_term(struct ptx_parser *p, uint64_t *value_out)
{
    bool minus = false, flip = false;
    while (ptx_punct(p, '-') || ptx_punct(p, '+') || ptx_punct(p, '~')) {
        minus ^= ptx_punct(p, '-');
        flip ^= ptx_punct(p, '~');
        ptx_next(p);
    }
    if (p->tok.kind != PK_INT && p->tok.kind != PK_F32 && p->tok.kind != PK_F64) {
        ptx_error(p, "expected a constant");
        return false;
    }
    uint64_t v = p->tok.bits;
    if (minus && p->tok.kind == PK_INT)
        v = 0 - v;
    else if (minus)
        v ^= p->tok.kind == PK_F32 ? 1ull << 31 : 1ull << 63;
    *value_out = flip ? ~v : v;
    ptx_next(p);
    return true;
}

bool ptx_const_expr(struct ptx_parser *p, uint64_t *value_out)
{
    uint64_t sum;
    if (!const_term(p, &sum))
        return false;
    while (ptx_punct(p, '+') || ptx_punct(p, '-')) {
        bool minus = ptx_punct(p, '-');
        uint64_t v;
        ptx_next(p);
        if (!const_term(p, &v))
            return false;
        sum += minus ? 0 - v : v;
    }
    *value_out = sum;
    return true;
}

static unsigned int take_type(struct ptx_parser *p)
{
    unsigned int t =
        p->tok.kind == PK_DIR ? ptx_type_find(p->tok.s.s + 1, p->tok.s.n - 1) : PT_NONE;
    if (t == PT_NONE)
        ptx_error(p, "unknown type '%.*s'", p->tok.kind == PK_END ? 0 : (int)p->tok.s.n,
                  p->tok.s.s ? p->tok.s.s : "");
    ptx_next(p);
    return t;
}

/* .align N, .vN, .ptr and attributes, in any order, then the type. */
struct head {
    uint32_t align, lanes;
    unsigned int type;
};

static void skip_parens(struct ptx_parser *p)
{
    unsigned int open = 0;
    do {
        open += ptx_punct(p, '(');
        open -= ptx_punct(p, ')');
        ptx_next(p);
    } while (open && p->tok.kind != PK_END);
}

static uint32_t take_align(struct ptx_parser *p)
{
    ptx_next(p);
    uint64_t a = p->tok.bits;
    if (p->tok.kind != PK_INT || !a || a > 4096 || (a & (a - 1)))
        ptx_error(p, "bad alignment");
    ptx_next(p);
    return p->bad ? 1 : (uint32_t)a;
}

static struct head take_head(struct ptx_parser *p)
{
    struct head h = {0, 1, PT_NONE};
    for (;;) {
        if (ptx_is(p, ".align")) {
            h.align = take_align(p);
        } else if (ptx_is(p, ".v2") || ptx_is(p, ".v4")) {
            h.lanes = p->tok.s.s[2] == '2' ? 2 : 4;
            ptx_next(p);
        } else if (ptx_is(p, ".attribute")) {
            ptx_next(p);
            skip_parens(p);
        } else {
            break;
        }
    }
    h.type = take_type(p);
    uint32_t natural = ptx_type_size(h.type) * h.lanes;
    if (!h.align)
        h.align = natural ? natural : 1;
    return h;
}

/* .ptr .global .align 8: promises about a pointer parameter that we do not need. */
static void skip_ptr(struct ptx_parser *p)
{
    if (!ptx_is(p, ".ptr"))
        return;
    ptx_next(p);
    while (p->tok.kind == PK_DIR) {
        bool align = ptx_is(p, ".align");
        ptx_next(p);
        if (align)
            ptx_next(p);
    }
}

struct shape {
    uint64_t dim[MAX_DIMS];
    unsigned int n;
    bool open; /* first dimension left empty */
};

static void take_dims(struct ptx_parser *p, struct shape *shape)
{
    shape->n = 0;
    shape->open = false;
    while (ptx_punct(p, '[') && !p->bad) {
        uint64_t d = 0;
        ptx_next(p);
        if (ptx_punct(p, ']'))
            shape->open = true;
        else
            ptx_const_expr(p, &d);
        ptx_expect(p, ']');
        if (shape->n == MAX_DIMS || d > 1ull << 40)
            ptx_error(p, "array too large");
        else
            shape->dim[shape->n++] = d;
    }
}

static uint64_t shape_size(const struct shape *shape, uint64_t elem)
{
    for (unsigned int i = 0; i < shape->n; i++)
        if (__builtin_mul_overflow(elem, shape->dim[i], &elem) || elem > 1ull << 44)
            return UINT64_MAX;
    return elem;
}

struct filler {
    struct ptx_init **tail;
    uint32_t elem;
    uint64_t end;
    unsigned int type;
};

/* sym, sym+4, generic(sym)+4 or a constant */
static void take_element(struct ptx_parser *p, struct filler *f, uint64_t at)
{
    struct ptx_init in = {.at = at, .size = f->elem};
    bool generic = ptx_is(p, "generic");
    unsigned int kind = p->tok.kind;
    if (generic) {
        ptx_next(p);
        ptx_expect(p, '(');
    }
    if (p->tok.kind == PK_ID) {
        struct ptx_name *n = ptx_name_any(p, p->tok.s);
        if (!n)
            ptx_error(p, "unknown symbol '%.*s' in an initialiser", (int)p->tok.s.n, p->tok.s.s);
        else if (n->kind == PN_VAR)
            in.var = n->to;
        else if (n->kind == PN_FN)
            in.fn = n->to;
        if (in.fn)
            ((struct ptx_fn *)n->to)->addressed = true;
        ptx_next(p);
        if (generic)
            ptx_expect(p, ')');
        if (ptx_punct(p, '+') || ptx_punct(p, '-'))
            ptx_const_expr(p, &in.value);
    } else {
        ptx_const_expr(p, &in.value);
        if (kind == PK_F64 && f->type == PT_F32) {
            double d;
            memcpy(&d, &in.value, sizeof(d));
            float s = (float)d;
            in.value = 0;
            memcpy(&in.value, &s, sizeof(s));
        }
    }
    if (at > f->end || f->elem > f->end - at)
        ptx_error(p, "too many initialisers");
    if (p->bad || (!in.value && !in.var && !in.fn))
        return;
    struct ptx_init *node = ptx_alloc(p->tree, sizeof(*node));
    if (!node) {
        ptx_error(p, "out of memory");
        return;
    }
    *node = in;
    *f->tail = node;
    f->tail = &node->next;
}

/* A braced list; inner lists start at multiples of the inner dimensions.  Returns the end reached.
 */
static uint64_t take_list(struct ptx_parser *p, struct filler *f, const struct shape *shape,
                          unsigned int level, uint64_t at)
{
    uint64_t step = f->elem;
    for (unsigned int i = level + 1; i < shape->n; i++)
        step *= shape->dim[i];
    ptx_expect(p, '{');
    while (!ptx_punct(p, '}') && !p->bad) {
        if (ptx_punct(p, '{')) {
            if (level + 1 >= MAX_DIMS) {
                ptx_error(p, "initialiser nested too deeply");
                break;
            }
            take_list(p, f, shape, level + 1, at);
            at += step;
        } else {
            take_element(p, f, at);
            at += f->elem;
        }
        if (!ptx_punct(p, ','))
            break;
        ptx_next(p);
    }
    ptx_expect(p, '}');
    return at;
}

static void take_init(struct ptx_parser *p, struct ptx_var *v, struct shape *shape, struct head *h)
{
    uint32_t elem = ptx_type_size(h->type);
    struct filler f = {&v->init, elem, shape->open ? 1ull << 40 : v->size, h->type};
    ptx_next(p);
    if (!ptx_punct(p, '{')) {
        take_element(p, &f, 0);
        return;
    }
    uint64_t end = take_list(p, &f, shape, 0, 0);
    if (shape->open && shape->n) {
        uint64_t row = elem;
        for (unsigned int i = 1; i < shape->n; i++)
            row *= shape->dim[i];
        v->size = row ? (end + row - 1) / row * row : end;
    }
}

static struct ptx_var *new_var(struct ptx_parser *p, unsigned int space, const struct head *h)
{
    struct ptx_var *v = ptx_alloc(p->tree, sizeof(*v));
    if (!v || p->tok.kind != PK_ID) {
        ptx_error(p, v ? "expected a name" : "out of memory");
        return NULL;
    }
    v->name = ptx_strdup(p, p->tok.s);
    v->space = (uint8_t)space;
    v->type = (uint8_t)h->type;
    v->align = h->align;
    return v;
}

/* A variable of that name again: the first strong definition counts, else the first weak one, and
 * what was referred to already is filled in. */
static void merge_var(struct ptx_parser *p, struct ptx_var *old, const struct ptx_var *v)
{
    if (old->space != v->space || (!old->is_extern && !v->is_extern && !old->weak && !v->weak)) {
        ptx_twice(p, v->name, old->module);
        return;
    }
    if (v->is_extern || (v->weak && !old->is_extern)) {
        old->align = v->align > old->align ? v->align : old->align;
        return;
    }
    struct ptx_var keep = *old;
    *old = *v;
    old->shared_index = keep.shared_index;
    old->next = keep.next;
    old->index = keep.index;
}

static void enter_var(struct ptx_parser *p, struct ptx_var *v, struct ptx_slice s,
                      struct ptx_linkage linkage)
{
    struct ptx_name *n =
        p->fn ? ptx_name_add(p, s, PN_VAR) : ptx_name_declare(p, s, PN_VAR, linkage);
    if (!n)
        return;
    if (n->kind != PN_VAR) {
        ptx_error(p, "'%s' is declared twice", v->name);
        return;
    }
    v->module = p->module;
    if (n->to) {
        merge_var(p, n->to, v);
        return;
    }
    n->to = v;
    if (v->space == PS_SHARED)
        v->shared_index = p->tree->shared_n++;
    if (p->fn) {
        v->index = p->fn->var_n++;
        *p->fvar_tail = v;
        p->fvar_tail = &v->next;
    } else {
        v->index = p->tree->var_n++;
        *p->var_tail = v;
        p->var_tail = &v->next;
    }
}

void ptx_decl_var(struct ptx_parser *p, unsigned int space, struct ptx_linkage linkage)
{
    ptx_next(p);
    struct head h = take_head(p);
    for (;;) {
        struct ptx_slice s = p->tok.s;
        struct shape shape;
        struct ptx_var *v = new_var(p, space, &h);
        if (!v)
            return;
        ptx_next(p);
        take_dims(p, &shape);
        v->is_extern = linkage.is_extern;
        v->weak = linkage.weak;
        v->dynamic = space == PS_SHARED && linkage.is_extern && shape.open;
        v->size = shape.open ? 0 : shape_size(&shape, (uint64_t)ptx_type_size(h.type) * h.lanes);
        if (v->size == UINT64_MAX || (space == PS_BLOB && v->size > 1 << 16))
            ptx_error(p, "'%s' is too large", v->name);
        if (ptx_punct(p, '='))
            take_init(p, v, &shape, &h);
        if (!p->bad)
            enter_var(p, v, s, linkage);
        if (!ptx_punct(p, ','))
            break;
        ptx_next(p);
    }
    ptx_expect(p, ';');
}

struct ptx_var *ptx_decl_param(struct ptx_parser *p, unsigned int space)
{
    if (!ptx_is(p, ".param") && !ptx_is(p, ".reg")) {
        ptx_error(p, "expected .param");
        return NULL;
    }
    if (ptx_is(p, ".reg")) {
        ptx_error(p, ".reg parameters are not supported");
        return NULL;
    }
    ptx_next(p);
    struct head h = take_head(p);
    skip_ptr(p);
    struct ptx_slice s = p->tok.s;
    struct ptx_var *v = new_var(p, space, &h);
    if (!v)
        return NULL;
    ptx_next(p);
    struct shape shape;
    take_dims(p, &shape);
    v->size = shape.open ? 0 : shape_size(&shape, (uint64_t)ptx_type_size(h.type) * h.lanes);
    if (v->size > 1 << 16 || (h.type == PT_PRED))
        ptx_error(p, "parameter '%s' is too large", v->name);
    if (p->bad)
        return NULL;
    if (ptx_slice_eq(s, "_"))
        return v;
    struct ptx_name *n = ptx_name_add(p, s, PN_VAR);
    if (!n)
        return NULL;
    if (n->to) {
        ptx_error(p, "'%s' is declared twice", v->name);
        return NULL;
    }
    n->to = v;
    return v;
}

static bool add_regs(struct ptx_parser *p, struct ptx_slice s, unsigned int type, uint64_t count,
                     bool range)
{
    struct ptx_fn *fn = p->fn;
    if (count > MAX_REGS || fn->reg_n + count > MAX_REGS) {
        ptx_error(p, "too many registers");
        return false;
    }
    if (fn->reg_n + count > p->reg_cap) {
        uint32_t cap = p->reg_cap * 2 > fn->reg_n + (uint32_t)count
                           ? p->reg_cap * 2
                           : fn->reg_n + (uint32_t)count + 64;
        uint8_t *t = ptx_alloc(p->tree, cap);
        if (!t) {
            ptx_error(p, "out of memory");
            return false;
        }
        if (fn->reg_n)
            memcpy(t, fn->reg_type, fn->reg_n);
        fn->reg_type = t;
        p->reg_cap = cap;
    }
    struct ptx_name *n = ptx_name_add(p, s, range ? PN_RANGE : PN_REG);
    if (!n)
        return false;
    if (n->count || n->to) {
        ptx_error(p, "'%.*s' is declared twice", (int)s.n, s.s);
        return false;
    }
    n->reg = fn->reg_n;
    n->count = (uint32_t)count ? (uint32_t)count : 1;
    if (count)
        memset(fn->reg_type + fn->reg_n, (int)type, count);
    fn->reg_n += (uint32_t)count;
    return true;
}

void ptx_decl_reg(struct ptx_parser *p)
{
    ptx_next(p);
    unsigned int type = take_type(p);
    while (!p->bad) {
        struct ptx_slice s = p->tok.s;
        uint64_t count = 1;
        if (p->tok.kind != PK_ID) {
            ptx_error(p, "expected a register name");
            return;
        }
        ptx_next(p);
        bool range = ptx_punct(p, '<');
        if (range) {
            ptx_next(p);
            count = p->tok.bits;
            if (p->tok.kind != PK_INT)
                ptx_error(p, "expected a number of registers");
            ptx_next(p);
            ptx_expect(p, '>');
        }
        if (p->bad || !add_regs(p, s, type, count, range) || !ptx_punct(p, ','))
            break;
        ptx_next(p);
    }
    ptx_expect(p, ';');
}
