/* The PTX parser: module directives, function bodies, instructions and operands.  It knows the
 * shape of PTX and not its instructions: an opcode is kept as text with its modifiers, for decode.c
 * to judge. Any bytes are accepted as input; what is not PTX ends in CUDA_ERROR_INVALID_PTX. */
#include "executor/softgpu/ptx.h"
#include "executor/softgpu/ptx_lex.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- statements ---- */

static struct ptx_label *add_label(struct ptx_parser *p, struct ptx_slice s)
{
    struct ptx_fn *fn = p->fn;
    struct ptx_name *n = ptx_name_add(p, s, PN_LABEL);
    if (!n || n->kind != PN_LABEL || n->to) {
        ptx_error(p, "'%.*s' is declared twice", (int)s.n, s.s);
        return NULL;
    }
    n->to = fn;
    n->reg = fn->label_n;
    fn->label = ptx_grow(p, fn->label, fn->label_n, &p->label_cap, sizeof(*fn->label));
    if (!fn->label)
        return NULL;
    struct ptx_label *l = &fn->label[fn->label_n++];
    *l = (struct ptx_label){.name = s, .scope = p->scope[p->depth], .at = fn->ins_n};
    return l;
}

/* .branchtargets A, B, C; */
static void take_targets(struct ptx_parser *p, struct ptx_slice name)
{
    struct ptx_opnd list = {0};
    uint32_t cap = 0;
    do {
        ptx_next(p);
        list.vec = ptx_grow(p, list.vec, list.n, &cap, sizeof(*list.vec));
        if (!list.vec)
            return;
        ptx_take_operand(p, &list.vec[list.n++], 1);
    } while (ptx_punct(p, ',') && !p->bad);
    ptx_expect(p, ';');
    struct ptx_label *l = p->bad ? NULL : add_label(p, name);
    if (l) {
        l->list = list.vec;
        l->list_n = list.n;
    }
}

static void open_scope(struct ptx_parser *p);
static void close_scope(struct ptx_parser *p);

/* name: .callprototype (.param .b32 _) _ (.param .b64 _, ...) [.noreturn]; */
static void take_prototype(struct ptx_parser *p, struct ptx_slice name)
{
    struct ptx_proto *proto = ptx_alloc(p->tree, sizeof(*proto));
    if (!proto) {
        ptx_error(p, "out of memory");
        return;
    }
    ptx_next(p);
    open_scope(p);
    for (int round = 0; round < 2 && !p->bad; round++) {
        if (round == 0 && !ptx_punct(p, '(')) {
            ptx_next(p); /* _ */
            continue;
        }
        if (!ptx_punct(p, '('))
            break;
        ptx_next(p);
        while (!ptx_punct(p, ')') && !p->bad) {
            const struct ptx_var *v = ptx_decl_param(p, PS_BLOB);
            if (!v)
                break;
            if (round == 0) {
                proto->ret_n++;
                proto->ret_size = v->size;
            } else if (proto->param_n < 64) {
                proto->param_size[proto->param_n++] = v->size;
            } else {
                ptx_error(p, "too many parameters");
            }
            if (ptx_punct(p, ','))
                ptx_next(p);
        }
        ptx_expect(p, ')');
        if (round == 0)
            ptx_next(p); /* _ */
    }
    close_scope(p);
    while (p->tok.kind == PK_DIR) {
        bool number = ptx_is(p, ".abi_preserve") || ptx_is(p, ".abi_preserve_control");
        ptx_next(p);
        if (number)
            ptx_next(p);
    }
    ptx_expect(p, ';');
    struct ptx_label *l = p->bad ? NULL : add_label(p, name);
    if (l)
        l->proto = proto;
}

static void open_scope(struct ptx_parser *p)
{
    if (p->depth + 1 >= PTX_MAX_DEPTH) {
        ptx_error(p, "scopes nested too deeply");
        return;
    }
    uint32_t at = p->scope_n - p->scope_base;
    if (at >= p->scope_cap) {
        uint32_t cap = p->scope_cap ? p->scope_cap * 2 : 256;
        uint32_t *parent = realloc(p->scope_parent, cap * sizeof(*parent));
        if (!parent) {
            ptx_error(p, "out of memory");
            return;
        }
        p->scope_parent = parent;
        p->scope_cap = cap;
    }
    p->scope_parent[at] = p->scope[p->depth];
    p->scope[++p->depth] = p->scope_n++;
}

static void close_scope(struct ptx_parser *p)
{
    if (p->depth)
        p->depth--;
}

static void take_instruction(struct ptx_parser *p, uint32_t guard, bool guard_neg)
{
    struct ptx_fn *fn = p->fn;
    fn->ins = ptx_grow(p, fn->ins, fn->ins_n, &p->ins_cap, sizeof(*fn->ins));
    if (!fn->ins)
        return;
    ptx_take_modifiers(p);
    struct ptx_ins in = {
        .op = p->tok.s, .line = p->tok.line, .guard = guard, .guard_neg = guard_neg};
    struct ptx_opnd tmp[16];
    ptx_next(p);
    while (!ptx_punct(p, ';') && !p->bad) {
        if (in.opnd_n == 16) {
            ptx_error(p, "too many operands");
            return;
        }
        ptx_take_operand(p, &tmp[in.opnd_n++], 0);
        if (!ptx_punct(p, ','))
            break;
        ptx_next(p);
    }
    ptx_expect(p, ';');
    if (p->bad)
        return;
    in.opnd = ptx_alloc(p->tree, in.opnd_n * sizeof(*in.opnd));
    if (!in.opnd) {
        ptx_error(p, "out of memory");
        return;
    }
    memcpy(in.opnd, tmp, in.opnd_n * sizeof(*tmp));
    fn->ins[fn->ins_n++] = in;
}

static void take_guarded(struct ptx_parser *p)
{
    bool neg = false;
    struct ptx_opnd o = {0};
    ptx_next(p);
    if (ptx_punct(p, '!')) {
        neg = true;
        ptx_next(p);
    }
    if (p->tok.kind != PK_ID) {
        ptx_error(p, "expected a predicate");
        return;
    }
    ptx_take_name(p, &o);
    if (p->bad)
        return;
    if (o.kind != PO_REG || p->fn->reg_type[o.reg] != PT_PRED) {
        ptx_error(p, "the guard is not a predicate");
        return;
    }
    if (p->tok.kind != PK_ID) {
        ptx_error(p, "expected an instruction");
        return;
    }
    take_instruction(p, o.reg + 1, neg);
}

static void take_directive(struct ptx_parser *p)
{
    unsigned int space;
    if (ptx_is(p, ".reg"))
        ptx_decl_reg(p);
    else if (ptx_is(p, ".extern") && (ptx_next(p), ptx_space_find(p, &space)))
        ptx_decl_var(p, space, (struct ptx_linkage){.is_extern = true});
    else if (ptx_space_find(p, &space))
        ptx_decl_var(p, space, (struct ptx_linkage){0});
    else if (ptx_is(p, ".loc") || ptx_is(p, ".file"))
        ptx_skip_line(p);
    else if (ptx_is(p, ".pragma"))
        while (p->tok.kind != PK_END && (ptx_next(p), !ptx_punct(p, ';')))
            ;
    else
        ptx_error(p, "unknown directive '%.*s'", (int)p->tok.s.n, p->tok.s.s);
    if (ptx_punct(p, ';'))
        ptx_next(p);
}

static void take_statement(struct ptx_parser *p)
{
    if (ptx_punct(p, '{')) {
        open_scope(p);
        ptx_next(p);
    } else if (ptx_punct(p, '}')) {
        close_scope(p);
        ptx_next(p);
    } else if (ptx_punct(p, '@')) {
        take_guarded(p);
    } else if (ptx_punct(p, ';')) {
        ptx_next(p);
    } else if (p->tok.kind == PK_DIR) {
        take_directive(p);
    } else if (p->tok.kind == PK_ID) {
        struct ptx_slice s = p->tok.s;
        const char *q = p->at;
        while (q < p->end && (*q == ' ' || *q == '\t'))
            q++;
        if (q >= p->end || *q != ':') {
            take_instruction(p, 0, false);
            return;
        }
        ptx_next(p);
        ptx_next(p);
        if (ptx_is(p, ".branchtargets"))
            take_targets(p, s);
        else if (ptx_is(p, ".callprototype"))
            take_prototype(p, s);
        else
            add_label(p, s);
    } else {
        ptx_error(p, "unexpected text");
    }
}

/* ---- labels ---- */

static void resolve_label(struct ptx_parser *p, struct ptx_opnd *o)
{
    if (o->kind != PO_LABEL || p->bad)
        return;
    const struct ptx_name *n = ptx_name_from(p, o->slice, o->reg);
    if (!n || n->kind != PN_LABEL) {
        p->tok.line = o->line;
        ptx_error(p, "unknown name '%.*s'", (int)o->slice.n, o->slice.s);
        return;
    }
    o->reg = n->reg;
}

static void resolve_labels(struct ptx_parser *p)
{
    struct ptx_fn *fn = p->fn;
    for (uint32_t i = 0; i < fn->ins_n; i++)
        for (uint32_t k = 0; k < fn->ins[i].opnd_n; k++)
            resolve_label(p, &fn->ins[i].opnd[k]);
    for (uint32_t i = 0; i < fn->label_n; i++)
        for (uint32_t k = 0; k < fn->label[i].list_n; k++)
            resolve_label(p, &fn->label[i].list[k]);
}

/* ---- functions ---- */

static struct ptx_var *take_params(struct ptx_parser *p, unsigned int space, uint32_t *n_out)
{
    struct ptx_var *first = NULL, **tail = &first;
    *n_out = 0;
    ptx_expect(p, '(');
    while (!ptx_punct(p, ')') && !p->bad) {
        struct ptx_var *v = ptx_decl_param(p, space);
        if (!v)
            return first;
        v->index = p->fn->var_n++;
        *tail = v;
        tail = &v->next;
        if (++*n_out > 4096)
            ptx_error(p, "too many parameters");
        if (ptx_punct(p, ','))
            ptx_next(p);
        else if (!ptx_punct(p, ')'))
            ptx_error(p, "expected ',' or ')'");
    }
    ptx_expect(p, ')');
    return first;
}

static uint32_t take_counts(struct ptx_parser *p, uint32_t *v)
{
    uint64_t product = 1;
    for (unsigned int i = 0; i < 3; i++) {
        ptx_next(p);
        if (p->tok.kind != PK_INT || !p->tok.bits || p->tok.bits > 65536) {
            ptx_error(p, "bad thread count");
            return 0;
        }
        product *= p->tok.bits;
        if (v)
            v[i] = (uint32_t)p->tok.bits;
        ptx_next(p);
        if (!ptx_punct(p, ','))
            break;
    }
    return product > 1u << 30 ? 1u << 30 : (uint32_t)product;
}

static void take_fn_directives(struct ptx_parser *p)
{
    while (p->tok.kind == PK_DIR) {
        if (ptx_is(p, ".noreturn")) {
            ptx_next(p);
        } else if (ptx_is(p, ".maxntid")) {
            p->fn->max_threads = take_counts(p, NULL);
        } else if (ptx_is(p, ".reqntid")) {
            uint32_t req[3] = {1, 1, 1};
            p->fn->max_threads = take_counts(p, req);
            memcpy(p->fn->req, req, sizeof(req));
        } else if (ptx_is(p, ".minnctapersm") || ptx_is(p, ".maxnctapersm") ||
                   ptx_is(p, ".maxnreg") || ptx_is(p, ".abi_preserve") ||
                   ptx_is(p, ".abi_preserve_control") || ptx_is(p, ".maxclusterrank")) {
            ptx_next(p);
            ptx_next(p);
        } else if (ptx_is(p, ".reqnctapercluster")) {
            p->fn->unsupported = take_counts(p, NULL) == 1 ? NULL : ".reqnctapercluster";
        } else if (ptx_is(p, ".explicitcluster")) {
            ptx_next(p);
        } else if (ptx_is(p, ".pragma")) {
            ptx_next(p);
            ptx_next(p);
            ptx_expect(p, ';');
        } else {
            ptx_error(p, "function directive '%.*s' is not supported", (int)p->tok.s.n, p->tok.s.s);
        }
    }
}

/* The function that the text names; NULL after an error. */
static struct ptx_fn *enter_fn(struct ptx_parser *p, struct ptx_fn *fn, struct ptx_slice s,
                               struct ptx_linkage linkage)
{
    struct ptx_name *n = ptx_name_declare(p, s, PN_FN, linkage);
    if (!n)
        return NULL;
    if (n->kind != PN_FN || (n->to && ((struct ptx_fn *)n->to)->entry != fn->entry)) {
        ptx_error(p, "'%s' is declared twice", fn->name);
        return NULL;
    }
    if (n->to)
        return n->to;
    n->to = fn;
    fn->index = p->tree->fn_n++;
    *p->fn_tail = fn;
    p->fn_tail = &fn->next;
    return fn;
}

/* Where the body goes that has been declared in `fresh`: into the function that is known already,
 * or, if that has a better one, nowhere. */
static struct ptx_fn *merge_fn(struct ptx_parser *p, struct ptx_fn *old, struct ptx_fn *fresh)
{
    if (old == fresh)
        return old;
    if (old->has_body && fresh->weak)
        return fresh;
    if (old->has_body && !old->weak)
        ptx_twice(p, old->name, old->module);
    struct ptx_fn keep = *old;
    *old = *fresh;
    old->next = keep.next;
    old->index = keep.index;
    old->addressed = keep.addressed;
    p->fvar_tail = &old->vars;
    return old;
}

static void take_body(struct ptx_parser *p)
{
    uint32_t floor = p->depth;
    open_scope(p);
    ptx_next(p);
    while (p->depth > floor && p->tok.kind != PK_END)
        take_statement(p);
    if (p->depth > floor)
        ptx_error(p, "the text ends inside a function");
}

/* Parameters of a declaration are parsed into a scratch function; a body's replace them. */
static void take_fn(struct ptx_parser *p, bool entry, struct ptx_linkage linkage)
{
    struct ptx_fn *scratch = ptx_alloc(p->tree, sizeof(*scratch)), *fn = scratch;
    if (!fn) {
        ptx_error(p, "out of memory");
        return;
    }
    p->fn = fn;
    p->ins_cap = p->label_cap = p->reg_cap = 0;
    p->scope_base = p->scope_n;
    p->fvar_tail = &fn->vars;
    open_scope(p);
    fn->line = p->tok.line;
    ptx_next(p);
    if (!entry && ptx_punct(p, '('))
        fn->rets = take_params(p, PS_BLOB, &fn->ret_n);
    struct ptx_slice s = p->tok.s;
    if (p->tok.kind != PK_ID) {
        ptx_error(p, "expected a function name");
        return;
    }
    fn->name = ptx_strdup(p, s);
    fn->entry = entry;
    fn->is_extern = linkage.is_extern;
    fn->weak = linkage.weak;
    fn->module = p->module;
    ptx_next(p);
    if (ptx_punct(p, '('))
        fn->params = take_params(p, entry ? PS_PARAM : PS_BLOB, &fn->param_n);
    take_fn_directives(p);
    fn = enter_fn(p, scratch, s, linkage);
    if (!fn)
        return;
    bool body = ptx_punct(p, '{');
    if (body)
        fn = merge_fn(p, fn, scratch);
    p->fn = fn;
    if (body && !p->bad) {
        fn->has_body = true;
        fn->is_extern = false;
        take_body(p);
        resolve_labels(p);
    } else {
        ptx_expect(p, ';');
    }
    close_scope(p);
    p->fn = NULL;
}

/* ---- module ---- */

static void take_version(struct ptx_parser *p)
{
    double v = 0;
    ptx_next(p);
    if (p->tok.kind == PK_F64)
        memcpy(&v, &p->tok.bits, sizeof(v));
    int version = v < 1 || v > 1000 ? 0 : (int)(v * 10 + 0.5);
    if (!version)
        ptx_error(p, "bad .version");
    if (version > p->tree->version)
        p->tree->version = version;
    p->version = true;
    ptx_next(p);
}

static void take_target(struct ptx_parser *p)
{
    ptx_next(p);
    while (p->tok.kind == PK_ID) {
        struct ptx_slice s = p->tok.s;
        if (s.n > 3 && s.n < 10 && !memcmp(s.s, "sm_", 3)) {
            int target = 0;
            for (uint32_t i = 3; i < s.n && s.s[i] >= '0' && s.s[i] <= '9'; i++)
                target = target * 10 + (s.s[i] - '0');
            p->tree->exact |= s.s[s.n - 1] == 'a';
            p->target |= target > 0;
            if (target > p->tree->target)
                p->tree->target = target;
        }
        ptx_next(p);
        if (!ptx_punct(p, ','))
            break;
        ptx_next(p);
    }
}

static void take_section(struct ptx_parser *p)
{
    while (!ptx_punct(p, '{') && p->tok.kind != PK_END)
        ptx_next(p);
    while (!ptx_punct(p, '}') && p->tok.kind != PK_END)
        ptx_next(p);
    ptx_expect(p, '}');
}

static void end_module(struct ptx_parser *p)
{
    if (!p->bad && (!p->version || !p->target))
        ptx_error(p, "no .version or no .target");
}

/* The next module of the text: with names of its own. */
static void next_module(struct ptx_parser *p)
{
    end_module(p);
    p->version = p->target = false;
    p->module++;
    p->scope[1] = p->scope_n++;
    p->line = 1;
    ptx_next(p);
}

static void take_module_item(struct ptx_parser *p)
{
    struct ptx_linkage linkage = {false, false, false};
    unsigned int space;
    for (;; ptx_next(p)) {
        if (ptx_is(p, ".extern"))
            linkage.is_extern = true;
        else if (ptx_is(p, ".weak") || ptx_is(p, ".common"))
            linkage.weak = true;
        else if (ptx_is(p, ".visible"))
            linkage.visible = true;
        else
            break;
    }
    if (ptx_is(p, ".entry") || ptx_is(p, ".func")) {
        take_fn(p, ptx_is(p, ".entry"), linkage);
    } else if (ptx_space_find(p, &space) && space != PS_BLOB) {
        ptx_decl_var(p, space, linkage);
    } else if (ptx_is(p, ".version")) {
        take_version(p);
    } else if (ptx_is(p, ".target")) {
        take_target(p);
    } else if (ptx_is(p, ".address_size")) {
        ptx_next(p);
        if (p->tok.kind != PK_INT || p->tok.bits != 64)
            ptx_error(p, "only 64-bit PTX is supported");
        ptx_next(p);
    } else if (ptx_is(p, ".file") || ptx_is(p, ".loc")) {
        ptx_skip_line(p);
    } else if (ptx_is(p, ".section")) {
        take_section(p);
    } else if (ptx_is(p, ".pragma")) {
        ptx_skip_line(p);
    } else if (p->tok.kind == PK_DIR) {
        ptx_error(p, "unknown directive '%.*s'", (int)p->tok.s.n, p->tok.s.s);
    } else if (ptx_punct(p, PTX_NEXT_MODULE)) {
        next_module(p);
    } else {
        ptx_error(p, "unexpected text");
    }
}

CUresult ptx_parse(const char *text, size_t len, struct ptx_tree *tree, struct vm_text *why)
{
    memset(tree, 0, sizeof(*tree));
    tree->text = malloc(len + 1);
    struct ptx_parser *p = calloc(1, sizeof(*p));
    if (!p || !tree->text) {
        free(p);
        snprintf(why->s, sizeof(why->s), "out of memory");
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    memcpy(tree->text, text, len);
    tree->text[len] = 0;
    tree->len = len;
    *p = (struct ptx_parser){.tree = tree,
                             .why = why,
                             .at = tree->text,
                             .end = tree->text + len,
                             .line = 1,
                             .scope = {0, 1},
                             .depth = 1,
                             .scope_n = 2,
                             .var_tail = &tree->vars,
                             .fn_tail = &tree->fns};
    ptx_next(p);
    while (p->tok.kind != PK_END)
        take_module_item(p);
    end_module(p);
    bool bad = p->bad, conflict = p->conflict;
    free(p->names);
    free(p->scope_parent);
    free(p);
    return conflict ? CUDA_ERROR_INVALID_IMAGE : bad ? CUDA_ERROR_INVALID_PTX : CUDA_SUCCESS;
}
