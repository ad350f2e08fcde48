/* The modifiers of opcodes, and which row of the decoder's tables an opcode is.  Called by decode.c
 * for each statement.  A modifier that its row does not allow is refused by name: never ignored. */
#include "executor/softgpu/decode.h"

struct word {
    const char *name;
    uint8_t mod, value;
};

/* clang-format off */
static const struct word words[] = {
    {"ftz", DM_FTZ, 0},          {"sat", DM_SAT, 0},          {"rn", DM_RND, VM_ROUND_RN},
    {"rz", DM_RND, VM_ROUND_RZ}, {"rm", DM_RND, VM_ROUND_RM}, {"rp", DM_RND, VM_ROUND_RP},
    {"rni", DM_RNDI, VM_ROUND_RN}, {"rzi", DM_RNDI, VM_ROUND_RZ}, {"rmi", DM_RNDI, VM_ROUND_RM},
    {"rpi", DM_RNDI, VM_ROUND_RP}, {"approx", DM_APPROX, 0}, {"full", DM_FULL, 0},
    {"hi", DM_HI, 0}, {"lo", DM_LO, 0}, {"wide", DM_WIDE, 0}, {"cc", DM_CC, 0},
    {"eq", DM_CMP, VC_EQ}, {"ne", DM_CMP, VC_NE}, {"lt", DM_CMP, VC_LT}, {"le", DM_CMP, VC_LE},
    {"gt", DM_CMP, VC_GT}, {"ge", DM_CMP, VC_GE}, {"ls", DM_CMP, VC_LE}, {"hs", DM_CMP, VC_GE},
    {"equ", DM_CMP, VC_EQU}, {"neu", DM_CMP, VC_NEU}, {"ltu", DM_CMP, VC_LTU},
    {"leu", DM_CMP, VC_LEU}, {"gtu", DM_CMP, VC_GTU}, {"geu", DM_CMP, VC_GEU},
    {"num", DM_CMP, VC_NUM}, {"nan", DM_CMP, VC_NAN}, {"and", DM_AND, 0}, {"or", DM_OR, 0},
    {"xor", DM_XOR, 0}, {"global", DM_SPACE, PS_GLOBAL}, {"shared", DM_SPACE, PS_SHARED},
    {"shared::cta", DM_SPACE, PS_SHARED}, {"shared::cluster", DM_SPACE, PS_SHARED}, {"local", DM_SPACE, PS_LOCAL},
    {"param", DM_SPACE, PS_PARAM}, {"param::entry", DM_SPACE, PS_PARAM},
    {"param::func", DM_SPACE, PS_PARAM}, {"const", DM_SPACE, PS_CONST}, {"v2", DM_VEC, 2},
    {"v4", DM_VEC, 4}, {"v8", DM_VEC, 8}, {"weak", DM_MEMQ, 0}, {"volatile", DM_MEMQ, 1},
    {"relaxed", DM_MEMQ, 1}, {"acquire", DM_MEMQ, 1}, {"release", DM_MEMQ, 1},
    {"acq_rel", DM_MEMQ, 0}, {"sc", DM_MEMQ, 0}, {"mmio", DM_MEMQ, 1}, {"cluster", DM_MEMQ, 0},
    {"gpu", DM_MEMQ, 0}, {"sys", DM_MEMQ, 0}, {"nc", DM_MEMQ, 0}, {"ca", DM_MEMQ, 0},
    {"cg", DM_MEMQ, 1}, {"cs", DM_MEMQ, 0}, {"lu", DM_MEMQ, 0}, {"cv", DM_MEMQ, 1},
    {"wb", DM_MEMQ, 0}, {"wt", DM_MEMQ, 0}, {"gl", DM_MEMQ, 0},
    {"L1::evict_normal", DM_MEMQ, 0}, {"L1::evict_unchanged", DM_MEMQ, 0},
    {"L1::evict_first", DM_MEMQ, 0}, {"L1::evict_last", DM_MEMQ, 0},
    {"L1::no_allocate", DM_MEMQ, 0}, {"L2::64B", DM_MEMQ, 0}, {"L2::128B", DM_MEMQ, 0},
    {"L2::256B", DM_MEMQ, 0}, {"L2::evict_last", DM_MEMQ, 0}, {"L2::evict_normal", DM_MEMQ, 0},
    {"L2::evict_first", DM_MEMQ, 0}, {"L1", DM_MEMQ, 0}, {"L2", DM_MEMQ, 0},
    {"sync", DM_SYNC, 0}, {"aligned", DM_ALIGNED, 0}, {"to", DM_TO, 0}, {"uni", DM_UNI, 0},
    {"wrap", DM_WRAP, 0}, {"clamp", DM_CLAMP, 0}, {"shiftamt", DM_SHIFTAMT, 0},
    {"NaN", DM_NAN, 0}, {"xorsign", DM_XORSIGN, 0}, {"relu", DM_RELU, 0}, {"l", DM_LR, 1},
    {"r", DM_LR, 0}, {"f4e", DM_PRMT, VO_PRMT_F4E}, {"b4e", DM_PRMT, VO_PRMT_B4E},
    {"rc8", DM_PRMT, VO_PRMT_RC8}, {"ecl", DM_PRMT, VO_PRMT_ECL}, {"ecr", DM_PRMT, VO_PRMT_ECR},
    {"rc16", DM_PRMT, VO_PRMT_RC16}, {"up", DM_MODE, VO_SHFL_UP}, {"down", DM_MODE, VO_SHFL_DOWN},
    {"bfly", DM_MODE, VO_SHFL_BFLY}, {"idx", DM_MODE, VO_SHFL_IDX}, {"all", DM_ALL, 0},
    {"any", DM_ANY, 0}, {"ballot", DM_BALLOT, 0}, {"popc", DM_POPC, 0}, {"arrive", DM_ARRIVE, 0},
    {"red", DM_RED, 0}, {"cta", DM_CTA, 0}, {"add", DM_ATOM, VA_ADD}, {"min", DM_ATOM, VA_MIN},
    {"max", DM_ATOM, VA_MAX}, {"inc", DM_ATOM, VA_INC}, {"dec", DM_ATOM, VA_DEC},
    {"exch", DM_ATOM, VA_EXCH}, {"cas", DM_ATOM, VA_CAS}, {"noftz", DM_NOFTZ, 0}, {"rna", DM_RNA, 0}, {"satfinite", DM_SATFINITE, 0},
    {"finite", DM_TEST, VO_TESTP_FINITE}, {"infinite", DM_TEST, VO_TESTP_INFINITE},
    {"number", DM_TEST, VO_TESTP_NUMBER}, {"notanumber", DM_TEST, VO_TESTP_NOTANUMBER},
    {"normal", DM_TEST, VO_TESTP_NORMAL}, {"subnormal", DM_TEST, VO_TESTP_SUBNORMAL},
};
/* clang-format on */

static void take_value(struct dec_mods *m, const struct word *w)
{
    switch (w->mod) {
    case DM_RND:
    case DM_RNDI:
        m->round = w->value;
        break;
    case DM_CMP:
        m->cmp = w->value;
        break;
    case DM_SPACE:
        m->space = w->value;
        break;
    case DM_VEC:
        m->vec = w->value;
        break;
    case DM_LR:
        m->left = w->value;
        break;
    case DM_PRMT:
        m->prmt = w->value;
        break;
    case DM_MODE:
        m->mode = w->value;
        break;
    case DM_ATOM:
        m->atom = w->value;
        break;
    case DM_TEST:
        m->test = w->value;
        break;
    case DM_MEMQ:
        m->strong |= w->value;
        break;
    default:
        break;
    }
}

void dec_take_modifier(struct dec *d, const struct dec_row *row, struct ptx_slice s)
{
    unsigned int type = ptx_type_find(s.s, s.n);
    struct dec_mods *m = &d->m;
    if (type != PT_NONE && m->type_n < 4) {
        m->type[m->type_n++] = type;
        return;
    }
    const struct word *w = NULL;
    for (size_t i = 0; i < sizeof(words) / sizeof(*words) && !w; i++)
        if (strlen(words[i].name) == s.n && !memcmp(words[i].name, s.s, s.n))
            w = &words[i];
    if (w && row->allowed >> w->mod & 1) {
        /* several memory qualifiers are usual; cp.async names two spaces */
        if ((m->seen >> w->mod & 1) && w->mod != DM_MEMQ && w->mod != DM_SPACE)
            dec_invalid(d, "a modifier is given twice");
        if (!(w->mod == DM_SPACE && (m->seen & DM(SPACE))))
            take_value(m, w);
        m->seen |= 1ull << w->mod;
    } else if ((row->allowed & DM(OTHER)) && m->word_n < 4) {
        m->word[m->word_n++] = s;
        m->seen |= DM(OTHER);
    } else {
        dec_refuse(d, "%.*s: modifier .%.*s is not supported", (int)d->p->op.n, d->p->op.s,
                   (int)s.n, s.s);
    }
}

const struct dec_row *dec_find_row(struct ptx_slice op, uint32_t *rest_out)
{
    const struct dec_row *const tables[] = {dec_alu_rows, dec_move_rows, dec_mem_rows,
                                            dec_ctl_rows, dec_sync_rows, dec_mma_rows};
    const struct dec_row *best = NULL;
    size_t best_n = 0;
    for (size_t t = 0; t < sizeof(tables) / sizeof(*tables); t++)
        for (const struct dec_row *r = tables[t]; r->name; r++) {
            size_t n = strlen(r->name);
            if (n > best_n && n <= op.n && !memcmp(op.s, r->name, n) &&
                (n == op.n || op.s[n] == '.')) {
                best = r;
                best_n = n;
            }
        }
    *rest_out = (uint32_t)best_n;
    return best;
}
