"""The two ends of a call: stubs of the client, dispatch of the executor.

Used by gen.py.  SYNC and ASYNC calls are generated whole.  CUSTOM calls with an op and records get
a size check and a table entry; their handlers are do_<name>(), written by hand.  Calls without an
op are not mentioned here at all."""

import re

from gen_spec import KINDS, Call
from gen_wire import HEAD, reply_fields, variable

EXPORT = '__attribute__((visibility("default"))) '
INVALID = "CUDA_ERROR_INVALID_VALUE"
HANDLER = "(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)"


def pointers(call):
    return [p for p in call.params if p.elem]


def handles(call):
    return [p for p in call.params if p.type in KINDS]


def new_param(call):
    return next((p for p in call.params if p.word == "NEW"), None)


def count(p, fields=None):
    """The number of elements in C, over parameters or (executor) over fields of the request."""
    text = p.count
    if fields is not None:
        text = re.sub(
            r"\b[A-Za-z_]\w*",
            lambda m: "q->" + m.group() if m.group() in fields else m.group(),
            text,
        )
    return f"(uint64_t)({text})"


class Out(list):
    def __call__(self, text, depth=1):
        self.append("    " * depth + text + "\n" if text else "\n")


# ---- client ----


def stub_checks(call, out):
    out("CUresult r = tfr_enter_noctx();" if "NOCTX" in call.flags else "CUresult r = tfr_enter();")
    out("if (r != CUDA_SUCCESS)")
    out("return r;", 2)
    needed = [p.name for p in pointers(call) if not p.opt]
    if needed:
        out(f"if ({' || '.join('!' + n for n in needed)})")
        out(f"return {INVALID};", 2)
    for p in pointers(call):
        if not variable(p, "IN") and not variable(p, "OUT"):
            continue
        n = f"strlen({p.name}) + 1" if p.word == "STR" else count(p)
        size = "1" if p.word == "STR" else f"sizeof({p.cell})"
        out(f"uint32_t {p.name}_len = 0;")
        given = f"{p.name} && " if p.opt else ""
        out(f"if ({given}!tfr_wire_len({n}, {size}, &{p.name}_len))")
        out(f"return {INVALID};", 2)
    for p in handles(call):
        out(f"uint64_t {p.name}_id = 0;")
        guard = f"if ({p.name})" if p.opt else ""
        if guard:
            out(guard)
        out(
            f"r = tfr_handle_id(TFR_KIND_{KINDS[p.type]}, {p.name}, &{p.name}_id);",
            2 if guard else 1,
        )
        out("if (r != CUDA_SUCCESS)")
        out("return r;", 2)
    if call.cls == "ASYNC":
        out(f"r = tfr_check_{call.name}({call.args});")
        out("if (r != CUDA_SUCCESS)")
        out("return r;", 2)
    new = new_param(call)
    if new:
        out(f"uint64_t {new.name}_id;")
        out(f"r = tfr_handle_new(TFR_KIND_{KINDS[new.elem]}, &{new.name}_id);")
        out("if (r != CUDA_SUCCESS)")
        out("return r;", 2)


def sum_of(call, word):
    return " + ".join(f"TFR_WIRE_UP8({p.name}_len)" for p in call.params if variable(p, word))


def stub_fill(call, out):
    out(f"q->in_len = {'in_len' if sum_of(call, 'IN') else '0'};")
    for p in call.params:
        if p.elem and p.opt:
            out(f"q->{p.name}_set = {p.name} != NULL;")
        if p.type in KINDS or p.word == "NEW":
            out(f"q->{p.name} = {p.name}_id;")
        elif variable(p, "IN"):
            out(f"q->{p.name}_len = {p.name}_len;")
        elif p.word == "IN":
            value = f"*(const {p.cell} *){p.name}" if p.elem == "void" else f"*{p.name}"
            if p.opt:
                out(f"if ({p.name})")
            out(f"q->{p.name} = {value};", 2 if p.opt else 1)
        elif not p.elem:
            out(f"q->{p.name} = {p.name};")
    ins = [p for p in call.params if variable(p, "IN")]
    for p in ins:
        to = "(uint8_t *)(q + 1)" if p is ins[0] else "tail"
        left = "" if p is ins[-1] else ("uint8_t *tail = " if p is ins[0] else "tail = ")
        out(f"{left}tfr_wire_put({to}, {p.name}, {p.name}_len);")


def stub_answer(call, out):
    """Outputs of a reply that p points to."""
    fixed = [p for p in call.params if p.word == "OUT" and p.count == "1"]
    outs = [p for p in call.params if variable(p, "OUT")]
    out("if (p) {")
    for p in fixed:
        to = f"*({p.cell} *){p.name}" if p.elem == "void" else f"*{p.name}"
        if p.opt:
            out(f"if ({p.name})", 2)
        out(f"{to} = p->{p.name};", 3 if p.opt else 2)
    if outs:
        out("const uint8_t *tail = (const uint8_t *)(p + 1);", 2)
    for p in outs:
        if p.opt:
            out(f"if ({p.name})", 2)
        out(f"memcpy({p.name}, tail, {p.name}_len);", 3 if p.opt else 2)
        if p is not outs[-1]:
            out(f"tail += TFR_WIRE_UP8({p.name}_len);", 2)
    out("}")


def stub_end(call, out, end):
    """Ends the record; what the result means for handles."""
    new = new_param(call)
    if not new and not any(p.word == "FREE" for p in handles(call)):
        out(f"return {end};")
        return
    out(f"r = {end};")
    if new:
        out("if (r == CUDA_SUCCESS)")
        out(f"*{new.name} = tfr_handle_ptr({new.name}_id);", 2)
        out("else")
        out(f"tfr_handle_drop(TFR_KIND_{KINDS[new.elem]}, {new.name}_id);", 2)
    for p in handles(call):
        if p.word == "FREE":
            out(f"if (r == CUDA_SUCCESS{f' && {p.name}' if p.opt else ''})")
            out(f"tfr_handle_drop(TFR_KIND_{KINDS[p.type]}, {p.name}_id);", 2)
    out("return r;")


def stub_begin(call, out, begin, failed):
    ins = sum_of(call, "IN")
    if ins:
        out(f"uint32_t in_len = (uint32_t)({ins});")
    out(f"struct tfr_{call.name}_req *q =")
    out(f"{begin}TFR_OP_{call.name}, (uint32_t)sizeof *q{' + in_len' if ins else ''});", 2)
    new = new_param(call)
    out("if (!q) {" if new else "if (!q)")
    if new:
        out(f"tfr_handle_drop(TFR_KIND_{KINDS[new.elem]}, {new.name}_id);", 2)
    out(f"return {failed};", 2)
    if new:
        out("}")
    stub_fill(call, out)


def stub(call, toolkit):
    out = Out([f"{EXPORT}CUresult {call.name}({call.prototype})\n{{\n"])
    stub_checks(call, out)
    if call.cls == "ASYNC":
        stub_begin(call, out, "tfr_post_begin(", "tfr_post_failed()")
        stub_end(call, out, "tfr_post_end()")
    else:
        out("struct tfr_ask ask;")
        stub_begin(call, out, "tfr_ask_begin(&ask, ", "ask.result")
        if reply_fields(call, toolkit):
            size = " + ".join(filter(None, ["sizeof *p", sum_of(call, "OUT")]))
            out(f"const struct tfr_{call.name}_rep *p = tfr_ask_send(&ask, {size});")
            stub_answer(call, out)
        else:
            out("tfr_ask_send(&ask, 0);")
        stub_end(call, out, "tfr_ask_end(&ask)")
    out.append("}\n\n")
    return "".join(out)


def client_c(calls, toolkit):
    out = [
        HEAD,
        '#include "intercept/entry.h"\n\n#include <string.h>\n\n#include "tfr_calls.h"\n'
        '#include "tfr_checks.h"\n'
        '#include "tfr_ops.h"\n\n',
    ]
    return "".join(out + [stub(c, toolkit) for c in calls if c.cls in ("SYNC", "ASYNC")])


def checks_h(calls):
    out = [
        HEAD,
        "/* Immediate errors of posted calls, found by hand-written code of the client. */\n"
        "#ifndef TFR_CHECKS_H\n#define TFR_CHECKS_H\n\n#include <cuda.h>\n\n",
    ]
    out += [
        f"/* {', '.join(c.errors)} */\nCUresult tfr_check_{c.name}({c.prototype});\n\n"
        for c in calls
        if c.cls == "ASYNC"
    ]
    return "".join(out + ["#endif\n"])


# ---- executor ----


def bad(out, condition, reason, depth=1):
    out(f"if ({condition})", depth)
    out(f'return tfr_session_bad(s, rec, "{reason}");', depth + 1)


def run_inputs(call, out, fields):
    ins = [p for p in call.params if variable(p, "IN")]
    if ins:
        out("const uint8_t *tail = (const uint8_t *)(q + 1);")
        out("uint64_t left = rec->size - sizeof *q;")
    for p in ins:
        if p.word != "STR":
            out(f"uint32_t {p.name}_len = 0;")
            given = f"q->{p.name}_set && " if p.opt else ""
            bad(
                out,
                f"{given}!tfr_wire_len({count(p, fields)}, sizeof({p.cell}), &{p.name}_len)",
                f"{p.name}: too long",
            )
            bad(out, f"q->{p.name}_len != {p.name}_len", f"{p.name}: not as long as it should be")
        kind = "char" if p.word == "STR" else p.elem
        out(f"const {kind} *{p.name} = tfr_wire_take(&tail, &left, q->{p.name}_len);")
        bad(out, f"!{p.name}", f"{p.name}: past the end of the record")
        if p.word == "STR":
            given = f"q->{p.name}_set && " if p.opt else ""
            end = f"!q->{p.name}_len || {p.name}[q->{p.name}_len - 1]"
            bad(out, f"{given}({end})" if given else end, f"{p.name}: not a string")
        if p.opt:
            out(f"if (!q->{p.name}_set)")
            out(f"{p.name} = NULL;", 2)


def run_handles(call, out):
    if handles(call):
        out("CUresult r;")
    for p in handles(call):
        out(f"void *{p.name} = NULL;")
        get = f"tfr_object_get(s, TFR_KIND_{KINDS[p.type]}, q->{p.name}, &{p.name});"
        if p.opt:
            out(f"r = !q->{p.name} ? CUDA_SUCCESS : {get}")
        else:
            out(f"r = {get}")
        out("if (r != CUDA_SUCCESS)")
        out("return r;", 2)


def run_outputs(call, out, fields, toolkit):
    outs = [p for p in call.params if variable(p, "OUT")]
    for p in outs:
        out(f"uint32_t {p.name}_len = 0;")
        given = f"q->{p.name}_set && " if p.opt else ""
        bad(
            out,
            f"{given}!tfr_wire_len({count(p, fields)}, sizeof({p.cell}), &{p.name}_len)",
            f"{p.name}: too long",
        )
    if not reply_fields(call, toolkit):
        return
    size = f"(uint32_t)(sizeof *p + {sum_of(call, 'OUT')})" if outs else "sizeof *p"
    out(f"struct tfr_{call.name}_rep *p = tfr_reply_room(reply, {size});")
    out("if (!p)")
    out(f"return {INVALID};", 2)
    at = "(uint8_t *)(p + 1)"
    for p in outs:
        out(
            f"void *{p.name} = {at};"
            if not p.opt
            else f"void *{p.name} = q->{p.name}_set ? {at} : NULL;"
        )
        at += f" + TFR_WIRE_UP8({p.name}_len)"
    for p in call.params:
        if p.word == "OUT" and p.count == "1":
            out(f"{p.cell} {p.name};")
            out(f"memset(&{p.name}, 0, sizeof {p.name});")


def argument(p, toolkit):
    """What the driver is given for a parameter."""
    if p.word == "NEW":
        return f"&{p.name}"
    if p.type in KINDS or variable(p, "IN") or variable(p, "OUT"):
        return p.name
    if not p.elem:
        return f"q->{p.name}"
    local = p.word == "OUT" or toolkit.wire(p.cell)
    ref = f"&{p.name}" if local else f"&q->{p.name}"
    return f"q->{p.name}_set ? {ref} : NULL" if p.opt else ref


def run_call(call, out, toolkit):
    for p in call.params:
        if p.word == "IN" and p.count == "1" and toolkit.wire(p.cell):
            out(f"{p.cell} {p.name} = q->{p.name};")
    new = new_param(call)
    if new:
        out(f"{new.elem} {new.name} = NULL;")
    ask = f"cu->{call.name}({', '.join(argument(p, toolkit) for p in call.params)});"
    fixed = [p for p in call.params if p.word == "OUT" and p.count == "1"]
    freed = [p for p in handles(call) if p.word == "FREE"]
    if not fixed and not freed and not new:
        out(f"return {ask}")
        return
    out(f"{'' if handles(call) else 'CUresult '}r = {ask}")
    out("if (r != CUDA_SUCCESS)")
    out("return r;", 2)
    for p in fixed:
        out(f"p->{p.name} = {p.name};")
    for p in freed:
        out(f"tfr_object_drop(s, TFR_KIND_{KINDS[p.type]}, q->{p.name});")
    out(
        f"return tfr_object_new(s, TFR_KIND_{KINDS[new.elem]}, q->{new.name}, {new.name});"
        if new
        else "return r;"
    )


def run(call, toolkit):
    fields = {p.name for p in call.params if toolkit.wire(p.type)}
    out = Out([f"static CUresult run_{call.name}{HANDLER}\n{{\n"])
    used = any(p.word != "OUT" or p.opt for p in call.params)
    if used:
        out(f"const struct tfr_{call.name}_req *q = (const void *)rec;")
    out("const struct tfr_cu *cu = s->cu;")
    if not reply_fields(call, toolkit):
        out("(void)reply;")
    bad(out, f"rec->size < sizeof(struct tfr_{call.name}_req)", "too short")
    run_inputs(call, out, fields)
    out(f"if (!cu->{call.name})")
    out("return CUDA_ERROR_NOT_SUPPORTED;", 2)
    run_handles(call, out)
    run_outputs(call, out, fields, toolkit)
    run_call(call, out, toolkit)
    out.append("}\n\n")
    return "".join(out)


def by_hand(d):
    return d.op and (not isinstance(d, Call) or d.cls == "CUSTOM")


def answers(d):
    return "SYNC" in d.flags if not isinstance(d, Call) else d.cls == "SYNC"


def run_by_hand(d):
    return (
        f"static CUresult run_{d.name}{HANDLER}\n{{\n"
        f"    if (rec->size < sizeof(struct tfr_{d.name}_req))\n"
        f'        return tfr_session_bad(s, rec, "too short");\n'
        f"    return do_{d.name}(s, rec, reply);\n}}\n\n"
    )


def dispatch_c(decls, toolkit):
    out = [
        HEAD,
        '#include "executor/dispatch.h"\n\n#include <string.h>\n\n#include "executor/session.h"\n'
        '#include "proto/cu.h"\n#include "proto/wire.h"\n'
        '#include "tfr_calls.h"\n#include "tfr_dispatch_decl.h"\n#include "tfr_ops.h"\n\n',
    ]
    with_op = sorted((d for d in decls if d.op), key=lambda d: d.op)
    out += [run_by_hand(d) if by_hand(d) else run(d, toolkit) for d in with_op]
    out.append("const struct tfr_op_info tfr_op_table[TFR_OP_LIMIT] = {\n")
    for d in with_op:
        out.append(
            f'    [TFR_OP_{d.name}] = {{.name = "{d.name}",\n        .run = run_{d.name},\n'
            f"        .min_size = sizeof(struct tfr_{d.name}_req),\n"
            f"        .wants_reply = {int(bool(answers(d)))},\n"
            f"        .helper = {int('HELPER' in d.flags)}}},\n"
        )
    return "".join(out + ["};\n"])


def decl_h(decls):
    out = [
        HEAD,
        "/* Handlers written by hand.  The record is a private copy of at least "
        "sizeof(struct tfr_<name>_req). */\n"
        "#ifndef TFR_DISPATCH_DECL_H\n#define TFR_DISPATCH_DECL_H\n\n#include <cuda.h>\n\n"
        "struct tfr_rec;\nstruct tfr_reply;\nstruct tfr_session;\n\n",
    ]
    out += [
        f"CUresult do_{d.name}(struct tfr_session *s, const struct tfr_rec *rec, struct "
        f"tfr_reply *reply);\n"
        for d in decls
        if by_hand(d)
    ]
    return "".join(out + ["\n#endif\n"])


def files(decls, toolkit):
    calls = [d for d in decls if isinstance(d, Call)]
    return {
        "client_gen.c": client_c(calls, toolkit),
        "tfr_checks.h": checks_h(calls),
        "dispatch_gen.c": dispatch_c(decls, toolkit),
        "tfr_dispatch_decl.h": decl_h(decls),
    }
