/* Tokens of PTX and the parser's state: between ptx_lex.c, ptx.c, ptx_opnd.c and ptx_decl.c alone.
 * An error is sticky: the first one is kept, and every later token is PK_END, so all loops end. */
#ifndef TFR_SOFTGPU_PTX_LEX_H
#define TFR_SOFTGPU_PTX_LEX_H

#include "executor/softgpu/ptx.h"

enum ptx_token_kind {
    PK_END,
    PK_ID,  /* name, %name, $name */
    PK_DIR, /* .name */
    PK_INT,
    PK_F32,
    PK_F64,
    PK_STR,
    PK_PUNCT
};

struct ptx_token {
    uint8_t kind;
    char punct;
    uint32_t line;
    struct ptx_slice s;
    uint64_t bits;
};

enum ptx_name_kind { PN_FREE, PN_REG, PN_RANGE, PN_VAR, PN_FN, PN_LABEL };

struct ptx_name {
    struct ptx_slice s;
    uint32_t scope;
    uint32_t hash;
    uint8_t kind;
    uint32_t reg, count;
    uint32_t module; /* the last one that declared it */
    void *to;
};

enum { PTX_MAX_DEPTH = 64 };

struct ptx_parser {
    struct ptx_tree *tree;
    struct vm_text *why;
    const char *at, *end;
    uint32_t line;
    bool bad, conflict;   /* conflict: between modules */
    uint32_t module;      /* number of the one being parsed */
    bool version, target; /* were given in it */
    struct ptx_token tok;
    struct ptx_name *names; /* open addressing */
    uint32_t names_cap, names_n;
    uint32_t scope[PTX_MAX_DEPTH]; /* ids of the open scopes: [0] what is linked, [1] the module */
    uint32_t depth, scope_n;
    uint32_t *scope_parent; /* of the function being parsed, indexed by id - scope_base */
    uint32_t scope_base, scope_cap;
    struct ptx_fn *fn;
    struct ptx_var **var_tail, **fvar_tail;
    struct ptx_fn **fn_tail;
    uint32_t ins_cap, label_cap, reg_cap;
};

void ptx_next(struct ptx_parser *p);
/* Extends the current identifier by all its .modifiers. */
void ptx_take_modifiers(struct ptx_parser *p);
void ptx_skip_line(struct ptx_parser *p);
void ptx_error(struct ptx_parser *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), cold));
bool ptx_is(const struct ptx_parser *p, const char *word); /* identifier or directive */
bool ptx_punct(const struct ptx_parser *p, char c);
void ptx_expect(struct ptx_parser *p, char c);
bool ptx_slice_eq(struct ptx_slice s, const char *word);

struct ptx_linkage {
    bool is_extern, weak, visible;
};
struct ptx_name *ptx_name_add(struct ptx_parser *p, struct ptx_slice s, uint8_t kind);
/* At module level: the linker's name or the module's own. */
struct ptx_name *ptx_name_declare(struct ptx_parser *p, struct ptx_slice s, uint8_t kind,
                                  struct ptx_linkage linkage);
/* Two declarations that cannot both be true; the first one stood in `module`. */
void ptx_twice(struct ptx_parser *p, const char *name, uint32_t module);
struct ptx_name *ptx_name_find(struct ptx_parser *p, struct ptx_slice s, uint8_t kind);
/* The same from a scope that is closed already: for labels. */
struct ptx_name *ptx_name_from(struct ptx_parser *p, struct ptx_slice s, uint32_t scope);
struct ptx_name *ptx_name_any(struct ptx_parser *p, struct ptx_slice s); /* variable or function */
const char *ptx_strdup(struct ptx_parser *p, struct ptx_slice s);

/* ptx_decl.c: from a state space directive (".global", ".reg" ...) to the semicolon. */
void ptx_decl_var(struct ptx_parser *p, unsigned int space, struct ptx_linkage linkage);

void ptx_decl_reg(struct ptx_parser *p);
/* One parameter, up to the ',' or ')'. */
struct ptx_var *ptx_decl_param(struct ptx_parser *p, unsigned int space);
bool ptx_space_find(const struct ptx_parser *p, unsigned int *space_out);
bool ptx_const_expr(struct ptx_parser *p, uint64_t *value_out);

/* ptx_opnd.c */
void ptx_take_operand(struct ptx_parser *p, struct ptx_opnd *o, unsigned int depth);
void ptx_take_name(struct ptx_parser *p, struct ptx_opnd *o);
/* ptx_lex.c: room for one more element of an array in the arena; doubling wastes at most its size.
 */
void *ptx_grow(struct ptx_parser *p, void *old, uint32_t n, uint32_t *cap, size_t size);

#endif
