/* Products of small matrices that a warp holds together (mma, wmma), and the ways of rows of 8x8
 * halves between shared memory and registers (ldmatrix, stmatrix, movmatrix).  Filled into the
 * table of vm_ops.h; compiled twice, see ops_lanes.h.
 *
 * A sum starts with c and adds a[i][k]*b[k][j] in order of k: products are exact, each sum is
 * rounded once to f32 (f64 for f64, modulo 2^32 for integers), and f16 results once more at the
 * end. Hardware adds in groups and cuts off instead: its last bits differ. */
#include "executor/softgpu/devmem.h"
#include "executor/softgpu/half.h"
#include "executor/softgpu/ops_lanes.h"

enum { MAX_ELEMENTS = 32 * 16 };

union value {
    float f;
    int32_t i;
    double d;
};

/* Where element `e` of lane `lane` lies: row and column. */
static inline void place(const struct vm_mat *m, unsigned int lane, unsigned int e,
                         unsigned int *row, unsigned int *col)
{
    unsigned int group = lane >> 2, in_group = lane & 3, r = e / m->per_reg, i = e % m->per_reg;
    unsigned int each = (unsigned int)m->rows * m->cols / VM_LANES;
    if (m->linear && each) {
        unsigned int at = lane * each + e % each;
        *row = at / m->cols;
        *col = at % m->cols;
    } else if (m->is_b) {
        *row = in_group * m->per_reg + i + 4u * m->per_reg * r;
        *col = group;
    } else if (m->cols == 8 && m->type != PT_F16 && m->rows >= 8 && m->per_reg == 1 &&
               m->reg_n == m->rows / 4) { /* accumulators of 32 and 64 bits */
        *row = group + 8 * (r >> 1);
        *col = in_group * 2 + (r & 1);
    } else { /* A, and accumulators of 16 bits */
        unsigned int tall = m->rows == 16;
        *row = group + 8 * (r & tall);
        *col = in_group * m->per_reg + i + 4u * m->per_reg * (r >> tall);
    }
}

static union value from_bits(unsigned int type, uint64_t bits)
{
    union value v = {.d = 0};
    switch (type) {
    case PT_F16:
        v.f = half_float((uint16_t)bits);
        break;
    case PT_BF16:
        v.f = half_bf_float((uint16_t)bits);
        break;
    case PT_TF32:
        v.f = vm_f32((uint32_t)bits & 0xffffe000);
        break;
    case PT_F32:
        v.f = vm_f32((uint32_t)bits);
        break;
    case PT_S8:
        v.i = (int32_t)((uint32_t)bits << 24) >> 24;
        break;
    case PT_U8:
        v.i = (uint8_t)bits;
        break;
    case PT_F64:
        v.d = vm_f64(bits);
        break;
    default:
        v.i = (int32_t)bits;
        break;
    }
    return v;
}

static uint64_t to_bits(unsigned int type, union value v)
{
    switch (type) {
    case PT_F16:
        return half_from((double)v.f, HALF_RN);
    case PT_F32:
        return vm_u32(vm_canon(v.f));
    case PT_F64:
        return vm_u64(v.d);
    default:
        return (uint32_t)v.i;
    }
}

static uint64_t element(const struct vm_warp *w, const struct vm_mat *m, unsigned int lane,
                        unsigned int e)
{
    uint32_t at = m->reg[e / m->per_reg], bits = 32u / m->per_reg;
    if (m->type == PT_F64)
        return VM_REG(const uint64_t, at)[lane];
    return VM_REG(const uint32_t, at)[lane] >> bits * (e % m->per_reg);
}

static void set_element(struct vm_warp *w, const struct vm_mat *m, unsigned int lane,
                        unsigned int e, uint64_t v)
{
    uint32_t at = m->reg[e / m->per_reg], bits = 32u / m->per_reg;
    if (m->type == PT_F64) {
        VM_REG(uint64_t, at)[lane] = v;
        return;
    }
    uint32_t mask = (bits == 32 ? UINT32_MAX : (1u << bits) - 1) << bits * (e % m->per_reg);
    uint32_t *d = &VM_REG(uint32_t, at)[lane];
    *d = (*d & ~mask) | ((uint32_t)v << bits * (e % m->per_reg) & mask);
}

static void collect(const struct vm_warp *w, const struct vm_mat *m, union value *out)
{
    for (unsigned int lane = 0; lane < VM_LANES; lane++)
        for (unsigned int e = 0; e < (unsigned int)m->reg_n * m->per_reg; e++) {
            unsigned int row, col;
            place(m, lane, e, &row, &col);
            out[row * m->cols + col] = from_bits(m->type, element(w, m, lane, e));
        }
}

static void spread(struct vm_warp *w, const struct vm_mat *m, uint32_t lanes, const union value *in)
{
    VM_EACH(lane, lanes)
    for (unsigned int e = 0; e < (unsigned int)m->reg_n * m->per_reg; e++) {
        unsigned int row, col;
        place(m, lane, e, &row, &col);
        set_element(w, m, lane, e, to_bits(m->type, in[row * m->cols + col]));
    }
}

static union value dot(const struct vm_mma *p, const union value *a, const union value *b,
                       union value sum)
{
    unsigned int type = p->a.type, n = p->a.cols, step = p->b.cols;
    if (type == PT_F64) {
        for (unsigned int k = 0; k < n; k++)
            sum.d = __builtin_fma(a[k].d, b[k * step].d, sum.d);
    } else if (type == PT_S8 || type == PT_U8) {
        int64_t s = sum.i;
        for (unsigned int k = 0; k < n; k++)
            s += (int64_t)a[k].i * b[k * step].i;
        if (p->satfinite)
            s = s > INT32_MAX ? INT32_MAX : s < INT32_MIN ? INT32_MIN : s;
        sum.i = (int32_t)s;
    } else {
        for (unsigned int k = 0; k < n; k++)
            sum.f += a[k].f * b[k * step].f;
    }
    return sum;
}

VM_OP(mma)
{
    const struct vm_mma *p = in->mma;
    union value a[MAX_ELEMENTS], b[MAX_ELEMENTS], c[MAX_ELEMENTS], d[MAX_ELEMENTS];
    if (!vm_mask(w, in))
        return in + 1;
    if (!vm_gather(w, in, UINT32_MAX))
        return VM_LEAVE;
    collect(w, &p->a, a);
    collect(w, &p->b, b);
    collect(w, &p->c, c);
    for (unsigned int i = 0; i < p->d.rows; i++)
        for (unsigned int j = 0; j < p->d.cols; j++)
            d[i * p->d.cols + j] = dot(p, &a[i * p->a.cols], &b[j], c[i * p->c.cols + j]);
    spread(w, &p->d, vm_mask(w, in), d);
    return in + 1;
}

/* ---- wmma.load and wmma.store: a: address, b: stride in elements ---- */

static void *in_memory(struct vm_warp *w, const struct vm_ins *in, unsigned int lane,
                       unsigned int row, unsigned int col, unsigned int want)
{
    const struct vm_mat *m = &in->mma->a;
    uint32_t size = ptx_type_size(m->type);
    uint64_t base = in->aux & VM_MEM_A32 ? VM_REG(const uint32_t, in->a)[lane]
                                         : VM_REG(const uint64_t, in->a)[lane];
    uint64_t stride = VM_REG(const uint32_t, in->b)[lane];
    uint64_t at =
        base + in->stride + size * (m->by_column ? col * stride + row : row * stride + col);
    if (in->aux & VM_MEM_A32)
        at = (uint32_t)at;
    void *p =
        at & (size - 1) ? NULL : vm_lane_ptr(w, in, lane, in->aux & VM_MEM_SPACE, at, size, want);
    if (!p)
        vm_fault_at(w, in,
                    at & (size - 1) ? CUDA_ERROR_MISALIGNED_ADDRESS : CUDA_ERROR_ILLEGAL_ADDRESS,
                    lane, at, "matrix");
    return p;
}

VM_OP(mat_load)
{
    const struct vm_mat *m = &in->mma->a;
    if (!vm_mask(w, in))
        return in + 1;
    if (!vm_gather(w, in, UINT32_MAX))
        return VM_LEAVE;
    VM_EACH(lane, vm_mask(w, in))
    for (unsigned int e = 0; e < (unsigned int)m->reg_n * m->per_reg; e++) {
        unsigned int row, col;
        uint64_t v = 0;
        place(m, lane, e, &row, &col);
        const void *p = in_memory(w, in, lane, row, col, SOFT_PAGE_READ);
        if (!p)
            return VM_LEAVE;
        memcpy(&v, p, ptx_type_size(m->type));
        set_element(w, m, lane, e, v);
    }
    return in + 1;
}

VM_OP(mat_store)
{
    const struct vm_mat *m = &in->mma->a;
    if (!vm_mask(w, in))
        return in + 1;
    if (!vm_gather(w, in, UINT32_MAX))
        return VM_LEAVE;
    VM_EACH(lane, vm_mask(w, in))
    for (unsigned int e = 0; e < (unsigned int)m->reg_n * m->per_reg; e++) {
        unsigned int row, col;
        place(m, lane, e, &row, &col);
        void *p = in_memory(w, in, lane, row, col, SOFT_PAGE_READ | SOFT_PAGE_WRITE);
        if (!p)
            return VM_LEAVE;
        uint64_t v = element(w, m, lane, e);
        memcpy(p, &v, ptx_type_size(m->type));
    }
    return in + 1;
}

/* ---- rows of 8x8 halves ---- */

/* The rows of matrix `k` are those whose addresses lanes 8k to 8k+7 hold. */
static uint8_t *row_of(struct vm_warp *w, const struct vm_ins *in, unsigned int k, unsigned int row,
                       unsigned int want)
{
    unsigned int lane = 8 * k + row;
    uint64_t at = in->aux & VM_MEM_A32
                      ? (uint32_t)(VM_REG(const uint32_t, in->a)[lane] + (uint32_t)in->stride)
                      : VM_REG(const uint64_t, in->a)[lane] + in->stride;
    uint8_t *p = at & 15 ? NULL : vm_lane_ptr(w, in, lane, in->aux & VM_MEM_SPACE, at, 16, want);
    if (!p)
        vm_fault_at(w, in, at & 15 ? CUDA_ERROR_MISALIGNED_ADDRESS : CUDA_ERROR_ILLEGAL_ADDRESS,
                    lane, at, "matrix");
    return p;
}

/* Lane l holds elements (l/4, 2*(l%4)) and the next, or of the transposed matrix. */
static inline const struct vm_ins *rows_move(struct vm_warp *w, const struct vm_ins *in, bool load)
{
    const struct vm_mat *m = &in->mma->a;
    uint32_t lanes = vm_mask(w, in);
    if (!lanes)
        return in + 1;
    if (!vm_gather(w, in, UINT32_MAX))
        return VM_LEAVE;
    for (unsigned int k = 0; k < m->reg_n; k++) {
        uint8_t *row[8];
        uint32_t *reg = VM_REG(uint32_t, m->reg[k]);
        for (unsigned int r = 0; r < 8; r++) {
            row[r] = row_of(w, in, k, r, load ? SOFT_PAGE_READ : SOFT_PAGE_READ | SOFT_PAGE_WRITE);
            if (!row[r])
                return VM_LEAVE;
        }
        VM_EACH(lane, vm_mask(w, in))
        for (unsigned int i = 0; i < 2; i++) {
            unsigned int r = lane >> 2, c = 2 * (lane & 3) + i;
            uint16_t *half = (uint16_t *)(void *)(m->by_column ? row[c] + 2 * r : row[r] + 2 * c);
            if (load)
                reg[lane] = (reg[lane] & ~(0xffffu << 16 * i)) | (uint32_t)*half << 16 * i;
            else
                *half = (uint16_t)(reg[lane] >> 16 * i);
        }
    }
    return in + 1;
}

VM_OP(ldmatrix)
{
    return rows_move(w, in, true);
}

VM_OP(stmatrix)
{
    return rows_move(w, in, false);
}

VM_OP(movmatrix)
{
    uint32_t from[VM_LANES], *d = VM_REG(uint32_t, in->d);
    if (!vm_mask(w, in))
        return in + 1;
    if (!vm_gather(w, in, UINT32_MAX))
        return VM_LEAVE;
    memcpy(from, VM_REG(const uint32_t, in->a), sizeof(from));
    VM_EACH(lane, vm_mask(w, in))
    {
        unsigned int row = 2 * (lane & 3), col = lane >> 2, shift = 16 * (col & 1);
        uint32_t lo = from[row * 4 + col / 2] >> shift, hi = from[(row + 1) * 4 + col / 2] >> shift;
        d[lane] = (lo & 0xffff) | hi << 16;
    }
    return in + 1;
}

VM_FILLER(mma)
{
    isa->fn[VO_MMA][PT_NONE] = mma;
    isa->fn[VO_MAT_LOAD][PT_NONE] = mat_load;
    isa->fn[VO_MAT_STORE][PT_NONE] = mat_store;
    isa->fn[VO_LDMATRIX][PT_B16] = ldmatrix;
    isa->fn[VO_STMATRIX][PT_B16] = stmatrix;
    isa->fn[VO_MOVMATRIX][PT_B16] = movmatrix;
}
