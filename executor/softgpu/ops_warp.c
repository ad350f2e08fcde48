/* Operations of the lanes of a warp together: shuffles, votes, matches, reductions.  Each first
 * gathers the lanes it names (vm_gather).  A lane's member mask counts for its own result; what a
 * lane reads from one that does not take part is 0.  Filled into the table of vm_ops.h; compiled
 * twice, see ops_lanes.h. */
#include "executor/softgpu/ops_lanes.h"

/* The lanes that execute, once all are here; 0: put aside (*wait_out) or nothing to do. */
static inline uint32_t gather(struct vm_warp *w, const struct vm_ins *in, const uint32_t *mask,
                              bool *wait_out)
{
    uint32_t m = vm_mask(w, in), members = 0;
    *wait_out = false;
    for (int i = 0; i < VM_LANES; i++)
        members |= m >> i & 1 ? mask[i] : 0;
    if (m && !vm_gather(w, in, members)) {
        *wait_out = true;
        return 0;
    }
    return m ? vm_mask(w, in) : 0;
}

enum { UP, DOWN, BFLY, IDX };

static inline const struct vm_ins *shuffle(struct vm_warp *w, const struct vm_ins *in, int mode)
{
    const uint32_t *a = VM_REG(const uint32_t, in->a), *b = VM_REG(const uint32_t, in->b);
    const uint32_t *c = VM_REG(const uint32_t, in->c), *mask = VM_REG(const uint32_t, in->imm);
    uint32_t *d = VM_REG(uint32_t, in->d), *p = VM_REG(uint32_t, in->e), out[VM_LANES], ok = 0;
    bool wait;
    uint32_t m = gather(w, in, mask, &wait);
    if (wait)
        return VM_LEAVE;
    for (int i = 0; i < VM_LANES; i++) {
        int by = (int)(b[i] & 31), seg = (int)(c[i] >> 8 & 31), clamp = (int)(c[i] & 31);
        int max = (i & seg) | (clamp & ~seg), j;
        bool in_range;
        if (mode == UP) {
            j = i - by;
            in_range = j >= max;
        } else {
            j = mode == DOWN ? i + by : mode == BFLY ? (i ^ by) : (i & seg) | (by & ~seg);
            in_range = j <= max;
        }
        j = in_range ? j & 31 : i;
        ok |= (uint32_t)in_range << i;
        out[i] = m >> j & 1 ? a[j] : 0;
    }
    for (int i = 0; i < VM_LANES; i++)
        d[i] = m >> i & 1 ? out[i] : d[i];
    *p = (*p & ~m) | (ok & m);
    return in + 1;
}

#define SHFL(name, mode)                                                                           \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        return shuffle(w, in, mode);                                                               \
    }
SHFL(shfl_up, UP)
SHFL(shfl_down, DOWN)
SHFL(shfl_bfly, BFLY)
SHFL(shfl_idx, IDX)

/* k: the lanes of lane i's mask that execute; y: those of them with the predicate set */
#define VOTE(name, EXPR)                                                                           \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        const uint32_t *mask = VM_REG(const uint32_t, in->b);                                      \
        uint32_t *d = VM_REG(uint32_t, in->d), r = 0;                                              \
        bool wait;                                                                                 \
        uint32_t m = gather(w, in, mask, &wait);                                                   \
        if (wait)                                                                                  \
            return VM_LEAVE;                                                                       \
        uint32_t p = *VM_REG(const uint32_t, in->a) ^ (in->aux & VM_VOTE_NEG ? UINT32_MAX : 0);    \
        VM_EACH(i, m)                                                                              \
        {                                                                                          \
            uint32_t k = mask[i] & m, y = k & p;                                                   \
            r |= (uint32_t)(EXPR) << i;                                                            \
        }                                                                                          \
        *d = (*d & ~m) | r;                                                                        \
        return in + 1;                                                                             \
    }
VOTE(vote_all, y == k)
VOTE(vote_any, y != 0)
VOTE(vote_uni, y == k || y == 0)

VM_OP(vote_ballot)
{
    const uint32_t *mask = VM_REG(const uint32_t, in->b);
    uint32_t *d = VM_REG(uint32_t, in->d);
    bool wait;
    uint32_t m = gather(w, in, mask, &wait);
    if (wait)
        return VM_LEAVE;
    uint32_t p = *VM_REG(const uint32_t, in->a) ^ (in->aux & VM_VOTE_NEG ? UINT32_MAX : 0);
    for (int i = 0; i < VM_LANES; i++)
        d[i] = m >> i & 1 ? mask[i] & m & p : d[i];
    return in + 1;
}

VM_OP(activemask)
{
    uint32_t m = vm_mask(w, in), *d = VM_REG(uint32_t, in->d);
    for (int i = 0; i < VM_LANES; i++)
        d[i] = m >> i & 1 ? m : d[i];
    return in + 1;
}

#define MATCH(n, S)                                                                                \
    VM_OP(match_any_##n)                                                                           \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a);                                                       \
        const uint32_t *mask = VM_REG(const uint32_t, in->b);                                      \
        uint32_t *d = VM_REG(uint32_t, in->d), out[VM_LANES] = {0};                                \
        bool wait;                                                                                 \
        uint32_t m = gather(w, in, mask, &wait);                                                   \
        if (wait)                                                                                  \
            return VM_LEAVE;                                                                       \
        VM_EACH(i, m)                                                                              \
        {                                                                                          \
            for (int j = 0; j < VM_LANES; j++)                                                     \
                out[i] |= (uint32_t)(a[j] == a[i]) << j;                                           \
            out[i] &= m & mask[i];                                                                 \
        }                                                                                          \
        for (int i = 0; i < VM_LANES; i++)                                                         \
            d[i] = m >> i & 1 ? out[i] : d[i];                                                     \
        return in + 1;                                                                             \
    }                                                                                              \
    VM_OP(match_all_##n)                                                                           \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a);                                                       \
        const uint32_t *mask = VM_REG(const uint32_t, in->b);                                      \
        uint32_t *d = VM_REG(uint32_t, in->d), *p = VM_REG(uint32_t, in->e), out[VM_LANES] = {0};  \
        uint32_t all = 0;                                                                          \
        bool wait;                                                                                 \
        uint32_t m = gather(w, in, mask, &wait);                                                   \
        if (wait)                                                                                  \
            return VM_LEAVE;                                                                       \
        VM_EACH(i, m)                                                                              \
        {                                                                                          \
            uint32_t k = mask[i] & m, same = 0;                                                    \
            for (int j = 0; j < VM_LANES; j++)                                                     \
                same |= (uint32_t)(a[j] == a[i]) << j;                                             \
            out[i] = (same & k) == k ? k : 0;                                                      \
            all |= (uint32_t)((same & k) == k) << i;                                               \
        }                                                                                          \
        for (int i = 0; i < VM_LANES; i++)                                                         \
            d[i] = m >> i & 1 ? out[i] : d[i];                                                     \
        *p = (*p & ~m) | (all & m);                                                                \
        return in + 1;                                                                             \
    }
MATCH(b32, uint32_t)
MATCH(b64, uint64_t)

#define REDUX(name, V, EXPR)                                                                       \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        const uint32_t *a = VM_REG(const uint32_t, in->a), *mask = VM_REG(const uint32_t, in->b);  \
        uint32_t *d = VM_REG(uint32_t, in->d), out[VM_LANES] = {0};                                \
        bool wait;                                                                                 \
        uint32_t m = gather(w, in, mask, &wait);                                                   \
        if (wait)                                                                                  \
            return VM_LEAVE;                                                                       \
        VM_EACH(i, m)                                                                              \
        {                                                                                          \
            uint32_t k = mask[i] & m;                                                              \
            V x = 0;                                                                               \
            bool have = false;                                                                     \
            for (int j = 0; j < VM_LANES; j++) {                                                   \
                if (!(k >> j & 1))                                                                 \
                    continue;                                                                      \
                V y = (V)a[j];                                                                     \
                x = have ? (V)(EXPR) : y;                                                          \
                have = true;                                                                       \
            }                                                                                      \
            out[i] = (uint32_t)x;                                                                  \
        }                                                                                          \
        for (int i = 0; i < VM_LANES; i++)                                                         \
            d[i] = m >> i & 1 ? out[i] : d[i];                                                     \
        return in + 1;                                                                             \
    }
REDUX(redux_add, uint32_t, x + y)
REDUX(redux_min_u, uint32_t, x < y ? x : y)
REDUX(redux_max_u, uint32_t, x > y ? x : y)
REDUX(redux_min_s, int32_t, x < y ? x : y)
REDUX(redux_max_s, int32_t, x > y ? x : y)
REDUX(redux_and, uint32_t, x &y)
REDUX(redux_or, uint32_t, x | y)
REDUX(redux_xor, uint32_t, x ^ y)

VM_FILLER(warp)
{
    isa->fn[VO_SHFL_UP][PT_B32] = shfl_up;
    isa->fn[VO_SHFL_DOWN][PT_B32] = shfl_down;
    isa->fn[VO_SHFL_BFLY][PT_B32] = shfl_bfly;
    isa->fn[VO_SHFL_IDX][PT_B32] = shfl_idx;
    isa->fn[VO_VOTE_ALL][PT_NONE] = vote_all;
    isa->fn[VO_VOTE_ANY][PT_NONE] = vote_any;
    isa->fn[VO_VOTE_UNI][PT_NONE] = vote_uni;
    isa->fn[VO_VOTE_BALLOT][PT_NONE] = vote_ballot;
    isa->fn[VO_ACTIVEMASK][PT_B32] = activemask;
    isa->fn[VO_MATCH_ANY][PT_B32] = match_any_b32;
    isa->fn[VO_MATCH_ANY][PT_B64] = match_any_b64;
    isa->fn[VO_MATCH_ALL][PT_B32] = match_all_b32;
    isa->fn[VO_MATCH_ALL][PT_B64] = match_all_b64;
    isa->fn[VO_REDUX_ADD][PT_U32] = isa->fn[VO_REDUX_ADD][PT_S32] = redux_add;
    isa->fn[VO_REDUX_MIN][PT_U32] = redux_min_u;
    isa->fn[VO_REDUX_MAX][PT_U32] = redux_max_u;
    isa->fn[VO_REDUX_MIN][PT_S32] = redux_min_s;
    isa->fn[VO_REDUX_MAX][PT_S32] = redux_max_s;
    isa->fn[VO_REDUX_AND][PT_B32] = redux_and;
    isa->fn[VO_REDUX_OR][PT_B32] = redux_or;
    isa->fn[VO_REDUX_XOR][PT_B32] = redux_xor;
}
