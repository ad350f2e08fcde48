/* Moves: registers, packing and unpacking of vectors, kernel parameters, address space conversions.
 * Filled into the table of vm_ops.h; compiled twice, see ops_lanes.h. */
#include "executor/softgpu/ops_lanes.h"

VM_OP1(mov_b32, uint32_t, uint32_t, uint32_t, uint32_t, x)
VM_OP1(mov_b64, uint64_t, uint64_t, uint64_t, uint64_t, x)

/* Parts in a, b, c, e; the lowest first. */
VM_OP(pack2_b32)
{
    const uint32_t *a = VM_REG(const uint32_t, in->a), *b = VM_REG(const uint32_t, in->b);
    VM_STORE(uint32_t, (a[i] & 0xffff) | b[i] << 16);
    return in + 1;
}
VM_OP(pack4_b32)
{
    const uint32_t *a = VM_REG(const uint32_t, in->a), *b = VM_REG(const uint32_t, in->b);
    const uint32_t *c = VM_REG(const uint32_t, in->c), *e = VM_REG(const uint32_t, in->e);
    VM_STORE(uint32_t, (a[i] & 0xff) | (b[i] & 0xff) << 8 | (c[i] & 0xff) << 16 | e[i] << 24);
    return in + 1;
}
VM_OP(pack2_b64)
{
    const uint32_t *a = VM_REG(const uint32_t, in->a), *b = VM_REG(const uint32_t, in->b);
    VM_STORE(uint64_t, (uint64_t)b[i] << 32 | a[i]);
    return in + 1;
}
VM_OP(pack4_b64)
{
    const uint32_t *a = VM_REG(const uint32_t, in->a), *b = VM_REG(const uint32_t, in->b);
    const uint32_t *c = VM_REG(const uint32_t, in->c), *e = VM_REG(const uint32_t, in->e);
    VM_STORE(uint64_t, (uint64_t)(a[i] & 0xffff) | (uint64_t)(b[i] & 0xffff) << 16 |
                           (uint64_t)(c[i] & 0xffff) << 32 | (uint64_t)(e[i] & 0xffff) << 48);
    return in + 1;
}

/* Source in a, parts to d, b, c, e.  The source may be one of the parts: it is read in full first.
 */
#define UNPACK(name, S, N, BITS)                                                                   \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a);                                                       \
        uint32_t *part[4] = {VM_REG(uint32_t, in->d), VM_REG(uint32_t, in->b),                     \
                             VM_REG(uint32_t, in->c), VM_REG(uint32_t, in->e)};                    \
        uint32_t m = vm_mask(w, in);                                                               \
        S v[VM_LANES];                                                                             \
        memcpy(v, a, sizeof(v));                                                                   \
        for (int k = 0; k < N; k++) {                                                              \
            uint32_t *d = part[k];                                                                 \
            VM_IVDEP for (int i = 0; i < VM_LANES; i++)                                            \
            {                                                                                      \
                uint32_t r = (uint32_t)(v[i] >> (BITS * k) & ((1ull << BITS) - 1));                \
                d[i] = m >> i & 1 ? r : d[i];                                                      \
            }                                                                                      \
        }                                                                                          \
        return in + 1;                                                                             \
    }
UNPACK(unpack2_b32, uint32_t, 2, 16)
UNPACK(unpack4_b32, uint32_t, 4, 8)
UNPACK(unpack2_b64, uint64_t, 2, 32)
UNPACK(unpack4_b64, uint64_t, 4, 16)

/* A parameter at a place known when decoding: the same for all lanes.  aux: width, as VM_MEM_DW. */
#define PARAM(name, T, D)                                                                          \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        T v;                                                                                       \
        memcpy(&v, w->blk->params + in->imm, sizeof(v));                                           \
        VM_STORE(D, (D)v);                                                                         \
        return in + 1;                                                                             \
    }
PARAM(param_u8, uint8_t, uint32_t)
PARAM(param_u16, uint16_t, uint32_t)
PARAM(param_u32, uint32_t, uint32_t)
PARAM(param_u64, uint64_t, uint64_t)

/* cvta: aux is the window, + VM_CVTA_TO for the way back. */
VM_OP(cvta)
{
    const uint64_t *a = VM_REG(const uint64_t, in->a);
    if (in->aux & VM_CVTA_TO) {
        VM_STORE(uint64_t, a[i] & 0xffffffffull);
    } else {
        uint64_t win = (uint64_t)in->aux << VM_WIN_SHIFT;
        VM_STORE(uint64_t, win | (a[i] & 0xffffffffull));
    }
    return in + 1;
}

/* aux: the window asked for, 0 for global */
VM_OP(isspacep)
{
    const uint64_t *a = VM_REG(const uint64_t, in->a);
    uint32_t m = vm_mask(w, in), r = 0, *d = VM_REG(uint32_t, in->d);
    for (int i = 0; i < VM_LANES; i++)
        r |= (uint32_t)(a[i] >> VM_WIN_SHIFT == in->aux) << i;
    *d = (*d & ~m) | (r & m);
    return in + 1;
}

VM_FILLER(move)
{
    isa->fn[VO_MOV][PT_B32] = mov_b32;
    isa->fn[VO_MOV][PT_B64] = mov_b64;
    isa->fn[VO_PACK2][PT_B32] = pack2_b32;
    isa->fn[VO_PACK4][PT_B32] = pack4_b32;
    isa->fn[VO_PACK2][PT_B64] = pack2_b64;
    isa->fn[VO_PACK4][PT_B64] = pack4_b64;
    isa->fn[VO_UNPACK2][PT_B32] = unpack2_b32;
    isa->fn[VO_UNPACK4][PT_B32] = unpack4_b32;
    isa->fn[VO_UNPACK2][PT_B64] = unpack2_b64;
    isa->fn[VO_UNPACK4][PT_B64] = unpack4_b64;
    isa->fn[VO_LD_PARAM][PT_B8] = param_u8;
    isa->fn[VO_LD_PARAM][PT_B16] = param_u16;
    isa->fn[VO_LD_PARAM][PT_B32] = param_u32;
    isa->fn[VO_LD_PARAM][PT_B64] = param_u64;
    isa->fn[VO_CVTA][PT_U64] = cvta;
    isa->fn[VO_ISSPACEP][PT_U64] = isspacep;
}
