/* atom, red and cp.async.  Atomics are the host's: other workers' blocks and the program's own
 * threads see them as such.  Order among lanes is by lane.  Filled into the table of vm_ops.h;
 * compiled twice, see ops_lanes.h. */
#include "executor/softgpu/devmem.h"
#include "executor/softgpu/half.h"
#include "executor/softgpu/ops_lanes.h"

/* Read, compute, compare and swap: x is the old value, y and z the operands.  Strongest order:
 * PTX's may be anything up to it. */
#define UPDATE(name, U, V, EXPR)                                                                   \
    static U name(U *p, U b, U c)                                                                  \
    {                                                                                              \
        U old = __atomic_load_n(p, __ATOMIC_RELAXED), now;                                         \
        (void)c;                                                                                   \
        do {                                                                                       \
            V x, y, z, r;                                                                          \
            memcpy(&x, &old, sizeof(x));                                                           \
            memcpy(&y, &b, sizeof(y));                                                             \
            memcpy(&z, &c, sizeof(z));                                                             \
            (void)z;                                                                               \
            r = (EXPR);                                                                            \
            memcpy(&now, &r, sizeof(now));                                                         \
        } while (!__atomic_compare_exchange_n(p, &old, now, false, __ATOMIC_SEQ_CST,               \
                                              __ATOMIC_RELAXED));                                  \
        return old;                                                                                \
    }

#define DIRECT(name, U, CALL)                                                                      \
    static U name(U *p, U b, U c)                                                                  \
    {                                                                                              \
        (void)c;                                                                                   \
        return CALL(p, b, __ATOMIC_SEQ_CST);                                                       \
    }

#define BOTH(n, U, S)                                                                              \
    DIRECT(add_##n, U, __atomic_fetch_add)                                                         \
    DIRECT(and_##n, U, __atomic_fetch_and)                                                         \
    DIRECT(or_##n, U, __atomic_fetch_or)                                                           \
    DIRECT(xor_##n, U, __atomic_fetch_xor)                                                         \
    DIRECT(exch_##n, U, __atomic_exchange_n)                                                       \
    UPDATE(umin_##n, U, U, x < y ? x : y)                                                          \
    UPDATE(umax_##n, U, U, x > y ? x : y)                                                          \
    UPDATE(smin_##n, U, S, x < y ? x : y)                                                          \
    UPDATE(smax_##n, U, S, x > y ? x : y)                                                          \
    static U cas_##n(U *p, U b, U c)                                                               \
    {                                                                                              \
        __atomic_compare_exchange_n(p, &b, c, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);          \
        return b;                                                                                  \
    }
BOTH(32, uint32_t, int32_t)
BOTH(64, uint64_t, int64_t)
UPDATE(inc_32, uint32_t, uint32_t, x >= y ? 0 : x + 1)
UPDATE(dec_32, uint32_t, uint32_t, x == 0 || x > y ? y : x - 1)
UPDATE(addf_32, uint32_t, float, vm_canon(x + y))
UPDATE(addf_64, uint64_t, double, x + y)

static uint16_t cas_16(uint16_t *p, uint16_t b, uint16_t c)
{
    __atomic_compare_exchange_n(p, &b, c, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return b;
}

static uint16_t sum_f16(uint16_t x, uint16_t y)
{
    return half_from((double)half_float(x) + (double)half_float(y), HALF_RN);
}

static uint16_t sum_bf16(uint16_t x, uint16_t y)
{
    return half_bf_from((double)half_bf_float(x) + (double)half_bf_float(y), HALF_RN);
}

#define PAIR(f, x, y)                                                                              \
    ((uint32_t)f((uint16_t)((x) >> 16), (uint16_t)((y) >> 16)) << 16 |                             \
     f((uint16_t)(x), (uint16_t)(y)))
UPDATE(addh_16, uint16_t, uint16_t, sum_f16(x, y))
UPDATE(addb_16, uint16_t, uint16_t, sum_bf16(x, y))
UPDATE(addh_32, uint32_t, uint32_t, PAIR(sum_f16, x, y))
UPDATE(addb_32, uint32_t, uint32_t, PAIR(sum_bf16, x, y))

typedef uint16_t (*atom16)(uint16_t *, uint16_t, uint16_t);
typedef uint32_t (*atom32)(uint32_t *, uint32_t, uint32_t);
typedef uint64_t (*atom64)(uint64_t *, uint64_t, uint64_t);

static atom16 find16(unsigned int op, unsigned int type)
{
    return op == VA_CAS ? cas_16 : type == PT_F16 ? addh_16 : addb_16;
}

static atom32 find32(unsigned int op, unsigned int type)
{
    bool sign = type == PT_S32;
    switch (op) {
    case VA_ADD:
        return type == PT_F32      ? addf_32
               : type == PT_F16X2  ? addh_32
               : type == PT_BF16X2 ? addb_32
                                   : add_32;
    case VA_MIN:
        return sign ? smin_32 : umin_32;
    case VA_MAX:
        return sign ? smax_32 : umax_32;
    case VA_INC:
        return inc_32;
    case VA_DEC:
        return dec_32;
    case VA_AND:
        return and_32;
    case VA_OR:
        return or_32;
    case VA_XOR:
        return xor_32;
    case VA_EXCH:
        return exch_32;
    default:
        return cas_32;
    }
}

static atom64 find64(unsigned int op, unsigned int type)
{
    bool sign = type == PT_S64;
    switch (op) {
    case VA_ADD:
        return type == PT_F64 ? addf_64 : add_64;
    case VA_MIN:
        return sign ? smin_64 : umin_64;
    case VA_MAX:
        return sign ? smax_64 : umax_64;
    case VA_AND:
        return and_64;
    case VA_OR:
        return or_64;
    case VA_XOR:
        return xor_64;
    case VA_EXCH:
        return exch_64;
    default:
        return cas_64;
    }
}

VM_OP(atom)
{
    uint64_t addr[VM_LANES];
    void *ptr[VM_LANES];
    uint32_t m = vm_mask(w, in);
    unsigned int type = (in->aux & VM_MEM_TYPE) >> VM_MEM_TYPE_SHIFT;
    unsigned int op = in->aux >> VM_MEM_OP_SHIFT;
    uint32_t size = ptx_type_size(type);
    vm_addresses(w, in, addr);
    if (!vm_resolve(w, in, m, in->aux & VM_MEM_SPACE, addr, size, SOFT_PAGE_READ | SOFT_PAGE_WRITE,
                    ptr))
        return VM_LEAVE;
    if (size == 8) {
        const uint64_t *b = VM_REG(const uint64_t, in->b), *c = VM_REG(const uint64_t, in->c);
        atom64 f = find64(op, type);
        uint64_t *d = VM_REG(uint64_t, in->d);
        VM_EACH(i, m)
        d[i] = f(ptr[i], b[i], c[i]);
    } else if (size == 4) {
        const uint32_t *b = VM_REG(const uint32_t, in->b), *c = VM_REG(const uint32_t, in->c);
        atom32 f = find32(op, type);
        uint32_t *d = VM_REG(uint32_t, in->d);
        VM_EACH(i, m)
        d[i] = f(ptr[i], b[i], c[i]);
    } else {
        const uint32_t *b = VM_REG(const uint32_t, in->b), *c = VM_REG(const uint32_t, in->c);
        atom16 f = find16(op, type);
        uint32_t *d = VM_REG(uint32_t, in->d);
        VM_EACH(i, m)
        d[i] = f(ptr[i], (uint16_t)b[i], (uint16_t)c[i]);
    }
    return in + 1;
}

/* d: shared address (+ stride), a: global address (+ imm), b: bytes to read, the rest is zeroed; c:
 * size */
VM_OP(cp_async)
{
    uint64_t from[VM_LANES], to[VM_LANES];
    void *src[VM_LANES], *dst[VM_LANES];
    const uint32_t *have = VM_REG(const uint32_t, in->b);
    uint32_t m = vm_mask(w, in), some = 0;
    for (int i = 0; i < VM_LANES; i++) {
        from[i] = VM_REG(const uint64_t, in->a)[i] + (uint64_t)in->imm;
        to[i] = in->aux & VM_MEM_A32
                    ? (uint32_t)(VM_REG(const uint32_t, in->d)[i] + (uint32_t)in->stride)
                    : VM_REG(const uint64_t, in->d)[i] + in->stride;
        some |= (uint32_t)(have[i] != 0) << i;
    }
    if (!vm_resolve(w, in, m, PS_SHARED, to, in->c, SOFT_PAGE_READ | SOFT_PAGE_WRITE, dst) ||
        !vm_resolve(w, in, m & some, PS_GLOBAL, from, in->c, SOFT_PAGE_READ, src))
        return VM_LEAVE;
    VM_EACH(i, m)
    {
        uint32_t n = have[i] > in->c ? in->c : have[i];
        memset(dst[i], 0, in->c);
        if (n)
            memcpy(dst[i], src[i], n);
    }
    return in + 1;
}

VM_FILLER(atom)
{
    isa->fn[VO_ATOM][PT_NONE] = atom;
    isa->fn[VO_CP_ASYNC][PT_NONE] = cp_async;
}
