/* Modules: parses the text, places global variables, lists kernels with what is known before
 * decoding (parameters, shared memory), and decodes a kernel when it is asked for. */
#include "executor/softgpu/devmem.h"
#include "executor/softgpu/vm_in.h"

#include <stdio.h>
#include <stdlib.h>

enum { PTX_NEWEST = 90 }; /* CUDA 13.0 */

static uint64_t round_up(uint64_t v, uint64_t align)
{
    return (v + align - 1) & ~(align - 1);
}

/* ---- variables ---- */

static CUresult place_var(struct ptx_var *v, struct vm_text *why)
{
    CUdeviceptr addr;
    if (v->space != PS_GLOBAL && v->space != PS_CONST)
        return CUDA_SUCCESS;
    if (v->is_extern) {
        snprintf(why->s, sizeof(why->s), "variable %.300s is not defined in the module", v->name);
        return CUDA_ERROR_NOT_FOUND;
    }
    CUresult r = soft_mem_alloc(v->size ? v->size : 1, v->align > 256 ? v->align : 256, &addr);
    if (r) {
        snprintf(why->s, sizeof(why->s), "no device memory for variable %.300s", v->name);
        return r;
    }
    v->addr = addr;
    memset((void *)(uintptr_t)addr, 0, v->size);
    return CUDA_SUCCESS;
}

static void write_init(const struct ptx_var *v)
{
    for (const struct ptx_init *in = v->init; in; in = in->next) {
        uint64_t bits = in->value;
        if (in->var)
            bits += in->var->addr;
        if (in->fn)
            bits += VM_WIN_FN << VM_WIN_SHIFT | in->fn->index;
        if (in->at <= v->size && in->size <= v->size - in->at)
            memcpy((uint8_t *)(uintptr_t)v->addr + in->at, &bits, in->size);
    }
}

static CUresult place_globals(struct vm_module *m, struct vm_text *why)
{
    m->global = calloc(m->tree.var_n + 1, sizeof(*m->global));
    if (!m->global)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (struct ptx_var *v = m->tree.vars; v; v = v->next) {
        CUresult r = place_var(v, why);
        if (r)
            return r;
        if (v->addr)
            m->global[m->global_n++] =
                (struct vm_global){.name = v->name, .addr = v->addr, .len = v->size};
    }
    for (struct ptx_var *v = m->tree.vars; v; v = v->next)
        if (v->addr)
            write_init(v);
    return CUDA_SUCCESS;
}

/* Statics inside functions: nvcc writes them at module level, hand-written PTX may not. */
static CUresult place_locals(struct vm_module *m, struct vm_text *why)
{
    for (struct ptx_fn *f = m->tree.fns; f; f = f->next)
        for (struct ptx_var *v = f->vars; v; v = v->next) {
            CUresult r = place_var(v, why);
            if (r)
                return r;
            if (v->addr)
                write_init(v);
        }
    return CUDA_SUCCESS;
}

static void free_vars(struct ptx_var *v)
{
    for (; v; v = v->next)
        if ((v->space == PS_GLOBAL || v->space == PS_CONST) && v->addr)
            soft_mem_free(v->addr);
}

/* ---- kernels ---- */

struct walk {
    struct vm_kernel *k;
    uint8_t *seen; /* functions, by index */
    const struct ptx_fn **todo;
    uint32_t todo_n;
    uint64_t at, dynamic_align;
};

static void use_var(struct walk *w, const struct ptx_var *v)
{
    if (v->space != PS_SHARED || w->k->shared_at[v->shared_index])
        return;
    if (v->dynamic) { /* after all static ones: marked now, placed at the end */
        w->k->shared_at[v->shared_index] = UINT32_MAX;
        if (v->align > w->dynamic_align)
            w->dynamic_align = v->align;
        return;
    }
    w->at = round_up(w->at, v->align);
    w->k->shared_at[v->shared_index] = (uint32_t)w->at + 1;
    w->at += v->size;
    if (v->size > 1u << 30 || w->at > 1u << 30)
        w->at = 1u << 30;
}

static void use_operand(struct walk *w, const struct ptx_opnd *o, unsigned int depth)
{
    if (depth > 8)
        return;
    if (o->kind == PO_VAR)
        use_var(w, o->var);
    else if (o->kind == PO_FN && !w->seen[o->fn->index]) {
        w->seen[o->fn->index] = 1;
        w->todo[w->todo_n++] = o->fn;
    } else if (o->kind == PO_VEC || o->kind == PO_LIST) {
        for (uint32_t i = 0; i < o->n; i++)
            use_operand(w, &o->vec[i], depth + 1);
    }
}

/* Only those that the kernel and what it calls name: another kernel's do not count. */
static CUresult find_shared(struct vm_module *m, struct vm_kernel *k)
{
    struct walk w = {.k = k, .dynamic_align = 16};
    uint32_t vars = m->tree.shared_n;
    w.seen = calloc(m->tree.fn_n + 1, 1);
    w.todo = calloc(m->tree.fn_n + 1, sizeof(struct ptx_fn *));
    k->shared_at = calloc(vars + 1, sizeof(uint32_t));
    if (!w.seen || !w.todo || !k->shared_at) {
        free(w.seen);
        free(w.todo);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    w.seen[k->fn->index] = 1;
    w.todo[w.todo_n++] = k->fn;
    for (uint32_t i = 0; i < w.todo_n; i++)
        for (uint32_t n = 0; n < w.todo[i]->ins_n; n++)
            for (uint32_t o = 0; o < w.todo[i]->ins[n].opnd_n; o++)
                use_operand(&w, &w.todo[i]->ins[n].opnd[o], 0);
    for (uint32_t i = 0; i < vars; i++)
        if (k->shared_at[i] == UINT32_MAX) {
            w.at = round_up(w.at, w.dynamic_align);
            k->shared_at[i] = (uint32_t)w.at + 1;
        }
    k->info.shared_len = (uint32_t)w.at;
    free(w.seen);
    free(w.todo);
    return CUDA_SUCCESS;
}

static CUresult list_params(struct vm_kernel *k)
{
    uint64_t at = 0;
    uint32_t i = 0;
    k->params = calloc(k->fn->param_n + 1, sizeof(*k->params));
    if (!k->params)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (struct ptx_var *v = k->fn->params; v; v = v->next) {
        at = round_up(at, v->align);
        v->addr = at;
        k->params[i++] = (struct vm_param){(uint32_t)at, (uint32_t)v->size};
        at += v->size;
    }
    k->info.params = k->params;
    k->info.param_n = i;
    k->info.param_len = (uint32_t)at;
    return CUDA_SUCCESS;
}

static CUresult make_kernel(struct vm_module *m, struct vm_kernel *k, const struct ptx_fn *fn)
{
    uint64_t constants = 0;
    k->module = m;
    k->fn = fn;
    for (const struct ptx_var *v = m->tree.vars; v; v = v->next)
        constants += v->space == PS_CONST ? v->size : 0;
    k->info = (struct vm_kernel_info){.name = fn->name,
                                      .const_len = (uint32_t)constants,
                                      .max_threads = fn->max_threads ? fn->max_threads : 1024,
                                      .regs = 32,
                                      .ptx_version = m->tree.version,
                                      .target = m->tree.target};
    if (k->info.max_threads > 1024)
        k->info.max_threads = 1024;
    CUresult r = list_params(k);
    return r ? r : find_shared(m, k);
}

static CUresult make_kernels(struct vm_module *m, struct vm_text *why)
{
    size_t n = 0;
    for (const struct ptx_fn *f = m->tree.fns; f; f = f->next)
        n += f->entry && f->has_body;
    m->kernel = calloc(n + 1, sizeof(*m->kernel));
    if (!m->kernel)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (const struct ptx_fn *f = m->tree.fns; f; f = f->next) {
        if (!f->entry || !f->has_body)
            continue;
        CUresult r = make_kernel(m, &m->kernel[m->kernel_n++], f);
        if (r) {
            snprintf(why->s, sizeof(why->s), "out of memory");
            return r;
        }
    }
    return CUDA_SUCCESS;
}

/* Functions whose address is taken can be called through it, by any kernel. */
static void mark_addressed(struct vm_module *m)
{
    for (struct ptx_fn *f = m->tree.fns; f; f = f->next)
        for (uint32_t i = 0; i < f->ins_n; i++) {
            const struct ptx_ins *in = &f->ins[i];
            if (in->op.n >= 4 && !memcmp(in->op.s, "call", 4))
                continue;
            for (uint32_t o = 0; o < in->opnd_n; o++)
                if (in->opnd[o].kind == PO_FN)
                    in->opnd[o].fn->addressed = true;
        }
}

/* A minor version more is tried: most of what it brings, programs do not use. */
static CUresult newer(const struct ptx_tree *tree, struct vm_text *why)
{
    struct vm_text before = *why;
    snprintf(why->s, sizeof(why->s), "PTX version %d.%d is newer than %d.%d%s%.400s",
             tree->version / 10, tree->version % 10, PTX_NEWEST / 10, PTX_NEWEST % 10,
             before.s[0] ? ": " : "", before.s);
    return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
}

static CUresult parse(const char *ptx, size_t len, struct ptx_tree *tree, struct vm_text *why)
{
    why->s[0] = 0;
    CUresult r = ptx_parse(ptx, len, tree, why);
    if ((r == CUDA_ERROR_INVALID_PTX && tree->version > PTX_NEWEST) ||
        tree->version / 10 > PTX_NEWEST / 10)
        r = newer(tree, why);
    return r;
}

static CUresult fits(const struct ptx_tree *tree, int arch, struct vm_text *why)
{
    if (tree->target == arch || (tree->target < arch && !tree->exact))
        return CUDA_SUCCESS;
    snprintf(why->s, sizeof(why->s), "the PTX is for sm_%d%s, the device is sm_%d", tree->target,
             tree->exact ? " alone" : " and newer", arch);
    return CUDA_ERROR_INVALID_PTX;
}

CUresult vm_module_fits(const struct vm_module *module, int arch, struct vm_text *why)
{
    return fits(&module->tree, arch, why);
}

static bool defined(const struct ptx_opnd *o, struct vm_text *why)
{
    bool fn = o->kind == PO_FN && !o->fn->has_body && !vm_native(o->fn->name);
    bool var = o->kind == PO_VAR && o->var->is_extern && o->var->space != PS_SHARED;
    if (!fn && !var)
        return true;
    snprintf(why->s, sizeof(why->s), "undefined reference to '%.400s'",
             fn ? o->fn->name : o->var->name);
    return false;
}

/* Every name that an instruction uses. */
static CUresult all_defined(const struct ptx_tree *tree, struct vm_text *why)
{
    for (const struct ptx_fn *f = tree->fns; f; f = f->next)
        for (uint32_t i = 0; i < f->ins_n; i++)
            for (uint32_t o = 0; o < f->ins[i].opnd_n; o++)
                if (!defined(&f->ins[i].opnd[o], why))
                    return CUDA_ERROR_NOT_FOUND;
    return CUDA_SUCCESS;
}

CUresult vm_ptx_check(const char *ptx, size_t len, bool whole, int arch, struct vm_text *why)
{
    struct ptx_tree tree;
    CUresult r = parse(ptx, len, &tree, why);
    if (!r)
        r = fits(&tree, arch, why);
    if (!r && whole)
        r = all_defined(&tree, why);
    ptx_free(&tree);
    return r;
}

CUresult vm_module_load(const char *ptx, size_t len, struct vm_module **module_out,
                        struct vm_text *why)
{
    struct vm_module *m = calloc(1, sizeof(*m));
    if (!m)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_init(&m->lock, NULL);
    CUresult r = parse(ptx, len, &m->tree, why);
    if (!r)
        mark_addressed(m);
    if (!r)
        r = place_globals(m, why);
    if (!r)
        r = place_locals(m, why);
    if (!r)
        r = make_kernels(m, why);
    if (r) {
        vm_module_unload(m);
        return r;
    }
    *module_out = m;
    return CUDA_SUCCESS;
}

void vm_module_unload(struct vm_module *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->kernel_n; i++) {
        struct vm_kernel *k = &m->kernel[i];
        /* relaxed: nobody else uses the module any more */
        vm_code_free(atomic_load_explicit(&k->code, memory_order_relaxed));
        free(k->params);
        free(k->shared_at);
    }
    free_vars(m->tree.vars);
    for (const struct ptx_fn *f = m->tree.fns; f; f = f->next)
        free_vars(f->vars);
    free(m->kernel);
    free(m->global);
    ptx_free(&m->tree);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

size_t vm_module_kernel_n(const struct vm_module *module)
{
    return module->kernel_n;
}

struct vm_kernel *vm_module_kernel(struct vm_module *module, size_t at)
{
    return at < module->kernel_n ? &module->kernel[at] : NULL;
}

struct vm_kernel *vm_module_find(struct vm_module *module, const char *name)
{
    for (size_t i = 0; i < module->kernel_n; i++)
        if (!strcmp(module->kernel[i].info.name, name))
            return &module->kernel[i];
    return NULL;
}

size_t vm_module_global_n(const struct vm_module *module)
{
    return module->global_n;
}

const struct vm_global *vm_module_global(const struct vm_module *module, size_t at)
{
    return at < module->global_n ? &module->global[at] : NULL;
}

const struct vm_global *vm_module_find_global(const struct vm_module *module, const char *name)
{
    for (size_t i = 0; i < module->global_n; i++)
        if (!strcmp(module->global[i].name, name))
            return &module->global[i];
    return NULL;
}

/* How many instructions a thread can run at most; 0: it may go back, or call. */
static uint32_t bound_of(const struct vm_code *code)
{
    for (uint32_t i = 0; i < code->ins_n; i++) {
        const struct vm_ins *in = &code->ins[i];
        if ((in->fn == vm_op_bra && in->target <= in) || in->fn == vm_op_brx ||
            in->fn == vm_op_call || in->fn == vm_op_call_reg)
            return 0;
    }
    return code->ins_n;
}

CUresult vm_kernel_prepare(struct vm_kernel *k, struct vm_text *why)
{
    struct vm_code *code = NULL;
    /* acquire: with the store below */
    if (atomic_load_explicit(&k->code, memory_order_acquire))
        return CUDA_SUCCESS;
    pthread_mutex_lock(&k->module->lock);
    CUresult r = k->refused;
    if (!r && !atomic_load_explicit(&k->code, memory_order_relaxed)) { /* under the lock */
        r = vm_decode(k, &code, &k->why);
        if (r) {
            k->refused = r;
        } else {
            /* No compiler takes more than lets a block of the largest size run. */
            uint32_t regs = k->fn->reg_n / 4, most = 65536 / k->info.max_threads & ~7u;
            if (most > 255)
                most = 255;
            k->info.local_len = code->local_len;
            k->info.bound = bound_of(code);
            k->info.regs = regs < 8 ? 8 : regs > most ? most : regs;
            atomic_store_explicit(&k->code, code, memory_order_release); /* with vm_run */
        }
    }
    if (r)
        *why = k->why;
    pthread_mutex_unlock(&k->module->lock);
    return r;
}

const struct vm_kernel_info *vm_kernel_info(const struct vm_kernel *kernel)
{
    return &kernel->info;
}
