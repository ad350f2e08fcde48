/* From a lane's address to memory of this process, checked: shared, local, parameter and generic
 * windows, and whatever devmem.h allows.  Called by the memory operations when their fast way does
 * not apply. */
#include "executor/softgpu/devmem.h"
#include "executor/softgpu/vm_in.h"

#define REG(T, at) ((T *)(void *)(w->reg + (at)))

void vm_addresses(const struct vm_warp *w, const struct vm_ins *in, uint64_t *addr)
{
    if (in->aux & VM_MEM_A32) {
        const uint32_t *a = REG(const uint32_t, in->a);
        for (int i = 0; i < VM_LANES; i++)
            addr[i] = (uint32_t)(a[i] + (uint32_t)in->imm);
    } else {
        const uint64_t *a = REG(const uint64_t, in->a);
        for (int i = 0; i < VM_LANES; i++)
            addr[i] = a[i] + (uint64_t)in->imm;
    }
}

static const char *const space_name[PS_N] = {"generic",          "global",   "shared",   "local",
                                             "kernel parameter", "constant", "parameter"};

/* A window of `size` bytes at `mem`: the offset is the low half of the address. */
static void *inside(uint8_t *mem, uint64_t size, uint64_t at, uint32_t len)
{
    return at <= size && len <= size - at ? mem + at : NULL;
}

void *vm_lane_ptr(struct vm_warp *w, const struct vm_ins *in, unsigned int lane, unsigned int space,
                  uint64_t addr, uint32_t len, unsigned int want)
{
    const struct vm_block *blk = w->blk;
    if (space == PS_GENERIC) {
        switch (addr >> VM_WIN_SHIFT) {
        case VM_WIN_SHARED:
            space = PS_SHARED;
            break;
        case VM_WIN_LOCAL:
            space = PS_LOCAL;
            break;
        case VM_WIN_PARAM:
            space = PS_PARAM;
            break;
        default:
            space = PS_GLOBAL;
            break;
        }
        if (space != PS_GLOBAL)
            addr &= (1ull << VM_WIN_SHIFT) - 1;
    }
    switch (space) {
    case PS_SHARED:
        return inside(blk->shared, blk->shared_len, addr, len);
    case PS_LOCAL:
        return inside(w->local + (uint64_t)lane * blk->stack_len, blk->stack_len, addr, len);
    case PS_PARAM:
        if (want & SOFT_PAGE_WRITE)
            return NULL;
        return inside((uint8_t *)(uintptr_t)blk->params, blk->kernel->info.param_len, addr, len);
    case PS_BLOB: /* imm was added to a zero: a is the blob's place in the register file */
        return w->reg + in->a + lane * in->stride + addr;
    default:
        return soft_mem_ok(addr, len, want) ? (void *)(uintptr_t)addr : NULL;
    }
}

bool vm_resolve(struct vm_warp *w, const struct vm_ins *in, uint32_t m, unsigned int space,
                const uint64_t *addr, uint32_t len, unsigned int want, void **ptr)
{
    for (uint32_t left = m; left; left &= left - 1) {
        unsigned int i = (unsigned int)__builtin_ctz(left);
        if (addr[i] & (len - 1)) {
            vm_fault_at(w, in, CUDA_ERROR_MISALIGNED_ADDRESS, i, addr[i], space_name[space]);
            return false;
        }
        ptr[i] = vm_lane_ptr(w, in, i, space, addr[i], len, want);
        if (!ptr[i]) {
            vm_fault_at(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, i, addr[i], space_name[space]);
            return false;
        }
    }
    return true;
}

typedef uint64_t piece __attribute__((vector_size(16)));

/* A vector in global memory is aligned to its size and goes in one access: a kernel on another core
 * sees all of it or nothing.  Other spaces, where nobody looks on, may lie differently here. */
static void copy_whole(void *to, const void *from, uint32_t len)
{
    if (((uintptr_t)to | (uintptr_t)from) & (len - 1))
        memcpy(to, from, len);
    else if (len == 16)
        *(volatile piece *)to = *(const volatile piece *)from;
    else if (len == 8)
        *(volatile uint64_t *)to = *(const volatile uint64_t *)from;
    else if (len == 4)
        *(volatile uint32_t *)to = *(const volatile uint32_t *)from;
    else if (len == 2)
        *(volatile uint16_t *)to = *(const volatile uint16_t *)from;
    else
        *(volatile uint8_t *)to = *(const volatile uint8_t *)from;
}

static uint64_t widen(const uint8_t *p, unsigned int type, unsigned int dw)
{
    uint64_t v = 0;
    uint32_t size = ptx_type_size(type);
    memcpy(&v, p, size);
    if (type == PT_S8 || type == PT_S16 || type == PT_S32)
        v = (uint64_t)((int64_t)(v << (64 - 8 * size)) >> (64 - 8 * size));
    return dw == 0 ? v & 0xffff : dw == 1 ? v & 0xffffffff : v;
}

static bool lanes(struct vm_warp *w, const struct vm_ins *in, uint32_t m, unsigned int want,
                  void **ptr)
{
    uint64_t addr[VM_LANES];
    unsigned int space = in->aux & VM_MEM_SPACE;
    unsigned int type = (in->aux & VM_MEM_TYPE) >> VM_MEM_TYPE_SHIFT;
    uint32_t n = ((in->aux & VM_MEM_N) >> VM_MEM_N_SHIFT) + 1;
    if (space == PS_BLOB)
        for (int i = 0; i < VM_LANES; i++)
            addr[i] = (uint64_t)in->imm;
    else
        vm_addresses(w, in, addr);
    return vm_resolve(w, in, m, space, addr, ptx_type_size(type) * n, want, ptr);
}

const struct vm_ins *vm_ld_lanes(struct vm_warp *w, const struct vm_ins *in)
{
    void *ptr[VM_LANES];
    uint32_t m = vm_mask(w, in), size;
    unsigned int type = (in->aux & VM_MEM_TYPE) >> VM_MEM_TYPE_SHIFT;
    unsigned int dw = (in->aux & VM_MEM_DW) >> VM_MEM_DW_SHIFT;
    unsigned int n = ((in->aux & VM_MEM_N) >> VM_MEM_N_SHIFT) + 1;
    const uint32_t part[4] = {in->d, in->b, in->c, in->e};
    piece all = {0};
    if (!lanes(w, in, m, SOFT_PAGE_READ, ptr))
        return VM_LEAVE;
    size = ptx_type_size(type);
    for (uint32_t left = m; left; left &= left - 1) {
        unsigned int i = (unsigned int)__builtin_ctz(left);
        copy_whole(&all, ptr[i], n * size);
        for (unsigned int k = 0; k < n; k++) {
            uint64_t v = widen((const uint8_t *)&all + k * size, type, dw);
            if (dw == 2)
                REG(uint64_t, part[k])[i] = v;
            else
                REG(uint32_t, part[k])[i] = (uint32_t)v;
        }
    }
    return in + 1;
}

const struct vm_ins *vm_st_lanes(struct vm_warp *w, const struct vm_ins *in)
{
    void *ptr[VM_LANES];
    uint32_t m = vm_mask(w, in);
    unsigned int dw = (in->aux & VM_MEM_DW) >> VM_MEM_DW_SHIFT;
    unsigned int n = ((in->aux & VM_MEM_N) >> VM_MEM_N_SHIFT) + 1;
    uint32_t size = ptx_type_size((in->aux & VM_MEM_TYPE) >> VM_MEM_TYPE_SHIFT);
    const uint32_t part[4] = {in->d, in->b, in->c, in->e};
    piece all = {0};
    if (!lanes(w, in, m, SOFT_PAGE_READ | SOFT_PAGE_WRITE, ptr))
        return VM_LEAVE;
    for (uint32_t left = m; left; left &= left - 1) {
        unsigned int i = (unsigned int)__builtin_ctz(left);
        for (unsigned int k = 0; k < n; k++) {
            uint64_t v =
                dw == 2 ? REG(const uint64_t, part[k])[i] : REG(const uint32_t, part[k])[i];
            memcpy((uint8_t *)&all + k * size, &v, size); /* little-endian hosts only */
        }
        copy_whole(ptr[i], &all, n * size);
    }
    return in + 1;
}
