/* From syntax to code: places in the register file, operands to byte offsets, and the walk over the
 * statements.  Frames of functions are in dec_frame.c, modifiers in dec_mods.c, what an opcode
 * means in dec_alu.c, dec_move.c, dec_mem.c and dec_ctl.c.  Runs under the module's lock; the
 * result is read-only. */
#include "executor/softgpu/decode.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_FILE = 64 << 20 };

void dec_refuse(struct dec *d, const char *fmt, ...)
{
    if (d->bad)
        return;
    char msg[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    snprintf(d->why->s, sizeof(d->why->s), "kernel %.200s, ptx line %u: %s", d->kernel->fn->name,
             d->p    ? d->p->line
             : d->fn ? d->fn->line
                     : 0,
             msg);
    d->bad = CUDA_ERROR_NOT_SUPPORTED;
}

void dec_invalid(struct dec *d, const char *what)
{
    if (d->p)
        dec_refuse(d, "%.*s: %s", (int)d->p->op.n, d->p->op.s, what);
    else
        dec_refuse(d, "%s", what);
}

void *dec_more(struct dec *d, void *old, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return old;
    uint32_t next = *cap ? *cap * 2 : 64;
    void *out = realloc(old, next * size);
    if (!out) {
        dec_refuse(d, "out of memory");
        return NULL;
    }
    *cap = next;
    return out;
}

void *dec_alloc(struct dec *d, size_t size)
{
    void *out = ptx_alloc(&d->code->mem, size);
    if (!out)
        dec_refuse(d, "out of memory");
    return out;
}

/* ---- places in the register file ---- */

uint32_t dec_place(struct dec *d, uint32_t size, uint32_t align)
{
    uint32_t at = (d->file_len + align - 1) & ~(align - 1);
    if (size > MAX_FILE || at + size > MAX_FILE) {
        dec_refuse(d, "the function needs too many registers");
        return VM_TRASH;
    }
    d->file_len = at + size;
    return at;
}

uint32_t dec_slot(struct dec *d, uint32_t at, enum vm_slot_kind kind, uint32_t stride)
{
    d->slot = dec_more(d, d->slot, d->slot_n, &d->slot_cap, sizeof(*d->slot));
    if (d->slot)
        d->slot[d->slot_n++] = (struct vm_slot){at, stride, kind};
    return at;
}

uint32_t dec_temp(struct dec *d, bool wide)
{
    return dec_slot(d, dec_place(d, wide ? 256 : 128, 64), wide ? VS_64 : VS_32, 0);
}

uint32_t dec_temp_pred(struct dec *d)
{
    if (!d->pred_left) {
        d->pred_at = dec_place(d, 64, 64);
        d->pred_left = 16;
    }
    return dec_slot(d, d->pred_at + 4 * (16 - d->pred_left--), VS_PRED, 0);
}

uint32_t dec_const(struct dec *d, uint64_t bits, bool wide)
{
    if (!wide)
        bits &= 0xffffffff;
    if (d->konst_n * 2 >= d->konst_cap) {
        uint32_t cap = d->konst_cap ? d->konst_cap * 2 : 64;
        struct dec_const *k = calloc(cap, sizeof(*k));
        if (!k) {
            dec_refuse(d, "out of memory");
            return VM_TRASH;
        }
        for (uint32_t i = 0; i < d->konst_cap; i++)
            if (d->konst[i].used) {
                uint64_t h = (d->konst[i].bits + d->konst[i].wide) * 0x9e3779b97f4a7c15ull >> 32;
                while (k[h & (cap - 1)].used)
                    h++;
                k[h & (cap - 1)] = d->konst[i];
            }
        free(d->konst);
        d->konst = k;
        d->konst_cap = cap;
    }
    uint64_t h = (bits + wide) * 0x9e3779b97f4a7c15ull >> 32;
    struct dec_const *c;
    for (;; h++) {
        c = &d->konst[h & (d->konst_cap - 1)];
        if (!c->used || (c->bits == bits && c->wide == wide))
            break;
    }
    if (!c->used) {
        *c = (struct dec_const){bits, dec_temp(d, wide), wide, true};
        d->konst_n++;
        d->fill = dec_more(d, d->fill, d->fill_n, &d->fill_cap, sizeof(*d->fill));
        if (d->fill)
            d->fill[d->fill_n++] = (struct vm_fill){bits, c->at, wide};
    }
    return c->at;
}

uint32_t dec_special(struct dec *d, unsigned int sreg, unsigned int comp)
{
    if (sreg == SR_ZERO || sreg == SR_ONE)
        return dec_const(d, sreg == SR_ONE, false);
    for (uint32_t i = 0; i < d->code->special_n; i++)
        if (d->special[i].sreg == sreg && d->special[i].comp == comp)
            return d->special[i].at;
    if (d->code->special_n == 64) {
        dec_refuse(d, "too many special registers");
        return VM_TRASH;
    }
    d->code->reserved |= sreg >= SR_RESERVED && sreg <= SR_RESERVED_END;
    uint32_t at = dec_temp(d, sreg == SR_GRIDID);
    d->special[d->code->special_n++] = (struct vm_special){(uint8_t)sreg, (uint8_t)comp, at};
    return at;
}

/* ---- operands ---- */

static uint32_t reg_place(struct dec *d, uint32_t reg)
{
    if (!d->reg[reg]) {
        unsigned int t = d->fn->reg_type[reg];
        d->reg[reg] = t == PT_PRED ? dec_temp_pred(d) : dec_temp(d, ptx_type_size(t) == 8);
    }
    return d->reg[reg];
}

uint32_t dec_reg_size(const struct dec *d, const struct ptx_opnd *o)
{
    return o->kind == PO_REG ? ptx_type_size(d->fn->reg_type[o->reg]) : 0;
}

unsigned int dec_bits(unsigned int type)
{
    switch (ptx_type_size(type)) {
    case 1:
        return PT_B8;
    case 2:
        return PT_B16;
    case 4:
        return PT_B32;
    case 8:
        return PT_B64;
    default:
        return PT_NONE;
    }
}

static uint64_t literal(struct dec *d, const struct ptx_opnd *o, unsigned int type)
{
    double f;
    float s;
    uint64_t bits = o->bits;
    uint32_t low;
    bool to32 = type == PT_F32, to64 = type == PT_F64;
    switch (o->kind) {
    case PO_INT:
        if (to64) {
            f = (double)(int64_t)bits;
            memcpy(&bits, &f, sizeof(f));
        } else if (to32) {
            s = (float)(int64_t)bits;
            memcpy(&low, &s, sizeof(s));
            bits = low;
        }
        break;
    case PO_F32:
        if (to64) {
            low = (uint32_t)bits;
            memcpy(&s, &low, sizeof(s));
            f = (double)s;
            memcpy(&bits, &f, sizeof(f));
        } else if (ptx_type_size(type) != 4) {
            dec_invalid(d, "a floating-point constant does not fit");
        }
        break;
    default:
        if (to32) {
            memcpy(&f, &bits, sizeof(f));
            s = (float)f;
            memcpy(&low, &s, sizeof(s));
            bits = low;
        } else if (ptx_type_size(type) != 8) {
            dec_invalid(d, "a floating-point constant does not fit");
        }
        break;
    }
    uint32_t size = ptx_type_size(type);
    return size >= 4 || !size ? bits : bits & ((1ull << (8 * size)) - 1);
}

static uint32_t sreg_place(struct dec *d, const struct ptx_opnd *o, unsigned int type)
{
    bool wide = ptx_type_size(type) == 8;
    if (o->reg >= SR_CLOCK && o->reg <= SR_TIMER_HI) {
        dec_invalid(d, "a clock is read by mov only");
        return VM_TRASH;
    }
    if (o->reg == SR_GRIDID && !wide)
        dec_invalid(d, "%gridid is 64 bits wide");
    if (wide && o->reg != SR_GRIDID) {
        dec_invalid(d, "the special register is 32 bits wide");
        return VM_TRASH;
    }
    return dec_special(d, o->reg, o->comp);
}

uint32_t dec_src(struct dec *d, const struct ptx_opnd *o, unsigned int type)
{
    uint32_t size = ptx_type_size(type);
    if (o->mem || o->neg || o->pair || (o->kind == PO_REG && o->off)) {
        dec_invalid(d, "unexpected form of operand");
        return VM_TRASH;
    }
    switch (o->kind) {
    case PO_REG:
        if (dec_reg_size(d, o) != size ||
            (type == PT_PRED) != (d->fn->reg_type[o->reg] == PT_PRED)) {
            dec_invalid(d, "a register does not have the instruction's width");
            return VM_TRASH;
        }
        return reg_place(d, o->reg);
    case PO_INT:
    case PO_F32:
    case PO_F64:
        if (type == PT_PRED)
            return o->bits ? VM_TRUE : VM_FALSE;
        return dec_const(d, literal(d, o, type), size == 8);
    case PO_SREG:
        return sreg_place(d, o, type);
    default:
        dec_invalid(d, "unexpected kind of operand");
        return VM_TRASH;
    }
}

uint32_t dec_dst(struct dec *d, const struct ptx_opnd *o, unsigned int type)
{
    if (o->kind == PO_SINK)
        return VM_TRASH;
    if (o->kind != PO_REG) {
        dec_invalid(d, "the result needs a register");
        return VM_TRASH;
    }
    return dec_src(d, o, type);
}

uint32_t dec_any(struct dec *d, const struct ptx_opnd *o, unsigned int type, bool dst,
                 uint32_t *size_out)
{
    uint32_t size = dec_reg_size(d, o);
    *size_out = ptx_type_size(type) < 2 ? 2 : ptx_type_size(type);
    if (o->kind != PO_REG)
        return dst ? dec_dst(d, o, type) : dec_src(d, o, type);
    if (size < ptx_type_size(type) || o->mem || o->neg || o->pair || o->off) {
        dec_invalid(d, "a register is narrower than the instruction");
        return VM_TRASH;
    }
    *size_out = size;
    return reg_place(d, o->reg);
}

uint32_t dec_pred_src(struct dec *d, const struct ptx_opnd *o, bool *neg_out)
{
    struct ptx_opnd plain = *o;
    *neg_out = o->neg;
    plain.neg = false;
    return dec_src(d, &plain, PT_PRED);
}

/* ---- instructions ---- */

struct vm_ins *dec_emit(struct dec *d, vm_fn fn)
{
    if (!fn)
        dec_refuse(d, "%.*s is not supported", (int)d->p->op.n, d->p->op.s);
    d->ins = dec_more(d, d->ins, d->ins_n + 1, &d->ins_cap, sizeof(*d->ins));
    static _Thread_local struct vm_ins nowhere; /* for callers that go on after a refusal */
    struct vm_ins *in = d->ins ? &d->ins[d->ins_n++] : &nowhere;
    *in = (struct vm_ins){.fn = fn, .guard = VM_TRUE, .line = d->p ? d->p->line : 0};
    if (d->p && d->p->guard) {
        in->guard = reg_place(d, d->p->guard - 1);
        in->flip = d->p->guard_neg ? UINT32_MAX : 0;
    }
    in->d = in->a = in->b = in->c = in->e = VM_TRASH;
    return in;
}

struct vm_ins *dec_emit_op(struct dec *d, unsigned int op, unsigned int type)
{
    return dec_emit(d, d->isa->fn[op][type]);
}

uint32_t dec_fp_flags(const struct dec *d)
{
    return d->m.round | (dec_has(d, DM_FTZ) ? VM_FTZ : 0) | (dec_has(d, DM_SAT) ? VM_SAT : 0);
}

struct vm_ins *dec_emit_fp(struct dec *d, vm_fn fn, unsigned int type, uint32_t flags)
{
    struct vm_ins *in = dec_emit(d, fn);
    if (type == PT_F64 && (flags & (VM_FTZ | VM_SAT)))
        dec_invalid(d, "ftz and sat do not exist for f64");
    in->aux = flags;
    if (flags && (type == PT_F32 || type == PT_F64)) {
        in->inner = fn;
        in->fn = d->isa->fn[VO_FP_WRAP][PT_NONE];
    }
    return in;
}

static void add_fix(struct dec *d, struct dec_fix fix)
{
    d->fix = dec_more(d, d->fix, d->fix_n, &d->fix_cap, sizeof(*d->fix));
    if (d->fix)
        d->fix[d->fix_n++] = fix;
}

void dec_target(struct dec *d, struct vm_ins *in, const struct ptx_opnd *label)
{
    if (label->kind != PO_LABEL || d->fn->label[label->reg].list ||
        d->fn->label[label->reg].proto) {
        dec_invalid(d, "expected a label");
        return;
    }
    if (!d->bad)
        add_fix(d, (struct dec_fix){.ins = (uint32_t)(in - d->ins), .label = label->reg});
}

void dec_table_target(struct dec *d, struct vm_switch *table, uint32_t at, uint32_t label)
{
    add_fix(d, (struct dec_fix){.table = table, .at = at, .label = label});
}

bool dec_want_types(struct dec *d, unsigned int n)
{
    if (d->m.type_n != n)
        dec_invalid(d, "unexpected number of types");
    return d->m.type_n == n;
}

static void statement(struct dec *d, const struct ptx_ins *p)
{
    uint32_t at;
    const struct dec_row *row = dec_find_row(p->op, &at);
    d->p = p;
    memset(&d->m, 0, sizeof(d->m));
    if (!row) {
        dec_refuse(d, "%.*s is not supported", (int)p->op.n, p->op.s);
        return;
    }
    while (at < p->op.n && !d->bad) { /* at is on a '.' */
        uint32_t end = at + 1;
        while (end < p->op.n && p->op.s[end] != '.')
            end++;
        dec_take_modifier(d, row, (struct ptx_slice){p->op.s + at + 1, end - at - 1});
        at = end;
    }
    if (!d->bad && (p->opnd_n < row->min || p->opnd_n > row->max))
        dec_invalid(d, "unexpected number of operands");
    if (!d->bad)
        row->handle(d, row->arg);
}

/* ---- functions ---- */

static void patch(struct dec *d)
{
    for (uint32_t i = 0; i < d->fix_n && !d->bad; i++) {
        const struct dec_fix *f = &d->fix[i];
        uint64_t to = d->start[d->fn->label[f->label].at];
        if (f->table)
            f->table->target[f->at] = (const struct vm_ins *)(uintptr_t)to;
        else
            d->ins[f->ins].imm = (int64_t)to;
    }
    d->fix_n = 0;
}

static void function(struct dec *d, struct vm_frame *fr)
{
    const struct ptx_fn *fn = fr->fn;
    uint64_t local = 0;
    d->fr = fr;
    d->fn = fn;
    d->p = NULL;
    d->reg = calloc(fn->reg_n + 1, sizeof(uint32_t));
    d->local_at = calloc(fn->var_n + 1, sizeof(uint32_t));
    d->start = calloc(fn->ins_n + 1, sizeof(uint32_t));
    if (!d->reg || !d->local_at || !d->start)
        dec_refuse(d, "out of memory");
    if (fn->unsupported)
        dec_refuse(d, "%s is not supported", fn->unsupported);
    fr->entry_at = d->ins_n;
    uint32_t from = d->slot_n;
    d->pred_left = 0;
    for (const struct ptx_var *v = fn->vars; v && !d->bad; v = v->next)
        dec_lay_var(d, fr, v, &local);
    fr->local_len = (uint32_t)dec_round_up(local, 16);
    for (uint32_t i = 0; i < fn->ins_n && !d->bad; i++) {
        d->start[i] = d->ins_n;
        statement(d, &fn->ins[i]);
    }
    if (!d->bad) {
        d->start[fn->ins_n] = d->ins_n;
        d->p = NULL;
        dec_emit(d, fn->entry ? vm_op_exit : vm_op_ret)->imm = (int64_t)fr->id;
        patch(d);
    }
    d->pred_left = 0;
    if (!fn->entry)
        dec_keep_slots(d, fr, from);
    free(d->reg);
    free(d->local_at);
    free(d->start);
    d->reg = d->local_at = d->start = NULL;
}

static void finish(struct dec *d)
{
    static _Atomic uint64_t ids = 1;
    struct vm_code *c = d->code;
    c->special = dec_alloc(d, (c->special_n + 1) * sizeof(*c->special));
    c->fill = dec_alloc(d, (d->fill_n + 1) * sizeof(*c->fill));
    c->frame = dec_alloc(d, d->frame_n * sizeof(*c->frame));
    if (d->bad)
        return;
    memcpy(c->special, d->special, c->special_n * sizeof(*c->special));
    if (d->fill_n)
        memcpy(c->fill, d->fill, d->fill_n * sizeof(*c->fill));
    memcpy(c->frame, d->frame, d->frame_n * sizeof(*c->frame));
    c->fill_n = d->fill_n;
    c->frame_n = d->frame_n;
    c->file_len = (uint32_t)dec_round_up(d->file_len, 64);
    c->ins = d->ins;
    c->ins_n = d->ins_n;
    d->ins = NULL;
    for (uint32_t i = 0; i < c->ins_n; i++) {
        struct vm_ins *in = &c->ins[i];
        if (in->fn == vm_op_bra)
            in->target = c->ins + in->imm;
        if (in->fn == vm_op_brx)
            for (uint32_t k = 0; k < in->table->n; k++)
                ((struct vm_switch *)(uintptr_t)in->table)->target[k] =
                    c->ins + (uintptr_t)in->table->target[k];
    }
    uint64_t stack = 0;
    for (uint32_t i = 0; i < c->frame_n; i++) {
        c->frame[i]->entry = c->ins + c->frame[i]->entry_at;
        stack += c->frame[i]->local_len + (i ? VM_CALL_BYTES : 0);
    }
    c->local_len = c->frame[0]->local_len;
    c->stack_len = (uint32_t)(stack > 1u << 30 ? 1u << 30 : dec_round_up(stack, 64));
    c->id = atomic_fetch_add_explicit(&ids, 1, memory_order_relaxed); /* only has to be unique */
}

CUresult vm_decode(struct vm_kernel *kernel, struct vm_code **code_out, struct vm_text *why)
{
    struct dec d = {.kernel = kernel,
                    .module = kernel->module,
                    .isa = vm_isa(),
                    .why = why,
                    .file_len = VM_FIRST,
                    .code = calloc(1, sizeof(struct vm_code))};
    if (!d.code) {
        snprintf(why->s, sizeof(why->s), "out of memory");
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    d.fn = kernel->fn;
    dec_frame(&d, kernel->fn);
    for (uint32_t i = 0; i < d.frame_n && !d.bad; i++) {
        function(&d, d.frame[i]);
        for (const struct ptx_fn *f = kernel->module->tree.fns; d.indirect && f; f = f->next)
            if (f->addressed && f->has_body && !f->entry && !d.bad)
                dec_frame(&d, f);
    }
    if (!d.bad)
        dec_find_recursion(&d);
    if (!d.bad)
        finish(&d);
    free(d.ins);
    free(d.frame);
    free(d.fix);
    free(d.konst);
    free(d.fill);
    free(d.slot);
    free(d.edge);
    if (d.bad)
        vm_code_free(d.code);
    else
        *code_out = d.code;
    return d.bad;
}

void vm_code_free(struct vm_code *code)
{
    if (!code)
        return;
    free(code->ins);
    ptx_free(&code->mem);
    free(code);
}
