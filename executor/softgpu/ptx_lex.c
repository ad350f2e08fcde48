/* PTX tokens, the sticky error, the name table of the parser and the tree's memory.  Reads nothing
 * beyond p->end, and takes a NUL for the end.  Names are found by (scope, text): innermost scope
 * first. */
#include "executor/softgpu/ptx_lex.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory of the tree ---- */

struct ptx_chunk {
    struct ptx_chunk *next;
    size_t used, cap;
    _Alignas(16) char mem[];
};

void *ptx_alloc(struct ptx_tree *tree, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    struct ptx_chunk *c = tree->chunks;
    if (!c || c->cap - c->used < size) {
        size_t cap = size > 65536 ? size : 65536;
        c = calloc(1, sizeof(*c) + cap);
        if (!c)
            return NULL;
        c->cap = cap;
        c->next = tree->chunks;
        tree->chunks = c;
    }
    void *out = c->mem + c->used;
    c->used += size;
    return out;
}

void ptx_free(struct ptx_tree *tree)
{
    while (tree->chunks) {
        struct ptx_chunk *c = tree->chunks;
        tree->chunks = c->next;
        free(c);
    }
    free(tree->text);
    tree->text = NULL;
}

/* ---- tokens ---- */

void ptx_error(struct ptx_parser *p, const char *fmt, ...)
{
    if (!p->bad) {
        char msg[256];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(msg, sizeof(msg), fmt, ap);
        va_end(ap);
        int n =
            p->module ? snprintf(p->why->s, sizeof(p->why->s), "module %u, ", p->module + 1) : 0;
        snprintf(p->why->s + n, sizeof(p->why->s) - (size_t)n, "ptx line %u: %s", p->tok.line, msg);
        p->bad = true;
    }
    p->tok.kind = PK_END;
    p->tok.punct = 0;
    p->at = p->end;
}

/* Makes room for one more element of an array in the arena; doubling wastes at most its size. */
void *ptx_grow(struct ptx_parser *p, void *old, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return old;
    uint32_t more = *cap ? *cap * 2 : 16;
    void *out = ptx_alloc(p->tree, more * size);
    if (!out) {
        ptx_error(p, "out of memory");
        return NULL;
    }
    if (n)
        memcpy(out, old, n * size);
    *cap = more;
    return out;
}

static bool is_id(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '$' || c == '%';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static void skip_blank(struct ptx_parser *p)
{
    while (p->at < p->end) {
        char c = *p->at;
        if (c == '\n') {
            p->line++;
            p->at++;
        } else if (c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v') {
            p->at++;
        } else if (c == '/' && p->end - p->at > 1 && p->at[1] == '/') {
            while (p->at < p->end && *p->at != '\n')
                p->at++;
        } else if (c == '/' && p->end - p->at > 1 && p->at[1] == '*') {
            p->at += 2;
            while (p->at < p->end && !(*p->at == '*' && p->end - p->at > 1 && p->at[1] == '/'))
                p->line += *p->at++ == '\n';
            p->at = p->end - p->at > 2 ? p->at + 2 : p->end;
        } else {
            return;
        }
    }
}

void ptx_skip_line(struct ptx_parser *p)
{
    while (p->at < p->end && *p->at != '\n')
        p->at++;
    ptx_next(p);
}

static void lex_float_hex(struct ptx_parser *p, unsigned int digits)
{
    uint64_t v = 0;
    p->at += 2;
    for (unsigned int i = 0; i < digits; i++, p->at++) {
        int h = p->at < p->end ? hex_value(*p->at) : -1;
        if (h < 0) {
            ptx_error(p, "malformed floating-point constant");
            return;
        }
        v = v << 4 | (unsigned int)h;
    }
    p->tok.kind = digits == 8 ? PK_F32 : PK_F64;
    p->tok.bits = v;
}

static bool lex_decimal_float(struct ptx_parser *p)
{
    const char *q = p->at;
    while (q < p->end && is_digit(*q))
        q++;
    bool dot = p->end - q > 1 && *q == '.' && is_digit(q[1]);
    bool exp = q < p->end && (*q == 'e' || *q == 'E');
    if (!dot && !exp)
        return false;
    char buf[64];
    size_t n = 0;
    while (p->at < p->end && n < sizeof(buf) - 1 &&
           (is_digit(*p->at) || *p->at == '.' || *p->at == 'e' || *p->at == 'E' ||
            ((*p->at == '-' || *p->at == '+') && n > 0 && (buf[n - 1] | 32) == 'e')))
        buf[n++] = *p->at++;
    buf[n] = 0;
    double d = strtod(buf, NULL);
    p->tok.kind = PK_F64;
    memcpy(&p->tok.bits, &d, sizeof(d));
    return true;
}

static void lex_number(struct ptx_parser *p)
{
    char c1 = p->end - p->at > 1 ? p->at[1] : 0;
    unsigned int base = 10;
    uint64_t v = 0;
    if (*p->at == '0' && (c1 == 'f' || c1 == 'F')) {
        lex_float_hex(p, 8);
        return;
    }
    if (*p->at == '0' && (c1 == 'd' || c1 == 'D')) {
        lex_float_hex(p, 16);
        return;
    }
    if (lex_decimal_float(p))
        return;
    if (*p->at == '0' && (c1 == 'x' || c1 == 'X')) {
        base = 16;
        p->at += 2;
    } else if (*p->at == '0' && (c1 == 'b' || c1 == 'B')) {
        base = 2;
        p->at += 2;
    } else if (*p->at == '0') {
        base = 8;
    }
    for (; p->at < p->end; p->at++) {
        int h = hex_value(*p->at);
        if (h < 0 || (unsigned int)h >= base)
            break;
        v = v * base + (unsigned int)h;
    }
    if (p->at < p->end && *p->at == 'U')
        p->at++;
    p->tok.kind = PK_INT;
    p->tok.bits = v;
}

static void lex_string(struct ptx_parser *p)
{
    const char *from = ++p->at;
    while (p->at < p->end && *p->at != '"' && *p->at != '\n')
        p->at++;
    p->tok.kind = PK_STR;
    p->tok.s = (struct ptx_slice){from, (uint32_t)(p->at - from)};
    if (p->at < p->end && *p->at == '"')
        p->at++;
    else
        ptx_error(p, "unterminated string");
}

void ptx_next(struct ptx_parser *p)
{
    skip_blank(p);
    p->tok.line = p->line;
    p->tok.punct = 0;
    if (p->bad || p->at >= p->end || !*p->at) {
        p->tok.kind = PK_END;
        p->at = p->end;
        return;
    }
    const char *from = p->at;
    char c = *from;
    if (is_digit(c)) {
        lex_number(p);
    } else if (is_id(c) || (c == '.' && p->end - from > 1 && is_id(from[1]))) {
        p->tok.kind = c == '.' ? PK_DIR : PK_ID;
        for (p->at++; p->at < p->end && is_id(*p->at); p->at++)
            ;
        p->tok.s = (struct ptx_slice){from, (uint32_t)(p->at - from)};
    } else if (c == '"') {
        lex_string(p);
    } else {
        p->tok.kind = PK_PUNCT;
        p->tok.punct = c;
        p->at++;
    }
}

void ptx_take_modifiers(struct ptx_parser *p)
{
    while (p->at < p->end && (is_id(*p->at) || *p->at == '.' || *p->at == ':'))
        p->at++;
    p->tok.s.n = (uint32_t)(p->at - p->tok.s.s);
}

bool ptx_slice_eq(struct ptx_slice s, const char *word)
{
    return strlen(word) == s.n && !memcmp(s.s, word, s.n);
}

bool ptx_is(const struct ptx_parser *p, const char *word)
{
    return (p->tok.kind == PK_ID || p->tok.kind == PK_DIR) && ptx_slice_eq(p->tok.s, word);
}

bool ptx_punct(const struct ptx_parser *p, char c)
{
    return p->tok.kind == PK_PUNCT && p->tok.punct == c;
}

void ptx_expect(struct ptx_parser *p, char c)
{
    if (ptx_punct(p, c))
        ptx_next(p);
    else
        ptx_error(p, "expected '%c'", c);
}

/* ---- names ---- */

static uint32_t hash_of(struct ptx_slice s, uint32_t scope, uint8_t kind)
{
    uint32_t h = 2166136261u ^ scope * 0x9e3779b9u ^ (kind == PN_RANGE ? 0x85ebca6bu : 0);
    for (uint32_t i = 0; i < s.n; i++)
        h = (h ^ (uint8_t)s.s[i]) * 16777619u;
    return h ^ h >> 15;
}

static bool names_grow(struct ptx_parser *p)
{
    uint32_t cap = p->names_cap ? p->names_cap * 2 : 1024;
    struct ptx_name *names = calloc(cap, sizeof(*names));
    if (!names)
        return false;
    for (uint32_t i = 0; i < p->names_cap; i++) {
        if (p->names[i].kind == PN_FREE)
            continue;
        uint32_t at = p->names[i].hash & (cap - 1);
        while (names[at].kind != PN_FREE)
            at = (at + 1) & (cap - 1);
        names[at] = p->names[i];
    }
    free(p->names);
    p->names = names;
    p->names_cap = cap;
    return true;
}

static struct ptx_name *probe(struct ptx_parser *p, struct ptx_slice s, uint32_t scope,
                              uint8_t kind)
{
    uint32_t h = hash_of(s, scope, kind);
    if (!p->names_cap)
        return NULL;
    for (uint32_t at = h & (p->names_cap - 1);; at = (at + 1) & (p->names_cap - 1)) {
        struct ptx_name *n = &p->names[at];
        if (n->kind == PN_FREE)
            return NULL;
        if (n->hash == h && n->scope == scope && (n->kind == PN_RANGE) == (kind == PN_RANGE) &&
            n->s.n == s.n && !memcmp(n->s.s, s.s, s.n))
            return n;
    }
}

/* The name in the innermost scope; an existing one is handed back as it is. */
struct ptx_name *ptx_name_add(struct ptx_parser *p, struct ptx_slice s, uint8_t kind)
{
    uint32_t scope = p->scope[p->depth];
    struct ptx_name *old = probe(p, s, scope, kind);
    if (old)
        return old;
    if (p->names_n * 2 >= p->names_cap && !names_grow(p)) {
        ptx_error(p, "out of memory");
        return NULL;
    }
    uint32_t h = hash_of(s, scope, kind), at = h & (p->names_cap - 1);
    while (p->names[at].kind != PN_FREE)
        at = (at + 1) & (p->names_cap - 1);
    p->names[at] = (struct ptx_name){.s = s, .scope = scope, .hash = h, .kind = kind};
    p->names_n++;
    return &p->names[at];
}

struct ptx_name *ptx_name_declare(struct ptx_parser *p, struct ptx_slice s, uint8_t kind,
                                  struct ptx_linkage linkage)
{
    uint32_t depth = p->depth;
    bool linked = linkage.is_extern || linkage.weak || linkage.visible;
    struct ptx_name *own = probe(p, s, p->scope[1], kind), *all = probe(p, s, p->scope[0], kind);
    bool here = all && all->module == p->module;
    p->depth = own ? 1 : !linked && !here;
    struct ptx_name *n = ptx_name_add(p, s, kind);
    p->depth = depth;
    if (n)
        n->module = p->module;
    return n;
}

void ptx_twice(struct ptx_parser *p, const char *name, uint32_t module)
{
    p->conflict |= !p->bad && module != p->module;
    if (module != p->module)
        ptx_error(p, "'%s' is defined in module %u as well", name, module + 1);
    else
        ptx_error(p, "'%s' is declared twice", name);
}

struct ptx_name *ptx_name_find(struct ptx_parser *p, struct ptx_slice s, uint8_t kind)
{
    for (uint32_t d = p->depth + 1; d-- > 0;) {
        struct ptx_name *n = probe(p, s, p->scope[d], kind);
        if (n)
            return n;
    }
    return NULL;
}

struct ptx_name *ptx_name_from(struct ptx_parser *p, struct ptx_slice s, uint32_t scope)
{
    for (;;) {
        struct ptx_name *n = probe(p, s, scope, PN_LABEL);
        if (n || scope < p->scope_base)
            return n;
        scope = p->scope_parent[scope - p->scope_base];
    }
}

struct ptx_name *ptx_name_any(struct ptx_parser *p, struct ptx_slice s)
{
    return ptx_name_find(p, s, PN_VAR);
}

const char *ptx_strdup(struct ptx_parser *p, struct ptx_slice s)
{
    char *out = ptx_alloc(p->tree, (size_t)s.n + 1);
    if (!out) {
        ptx_error(p, "out of memory");
        return "";
    }
    memcpy(out, s.s, s.n);
    return out;
}
