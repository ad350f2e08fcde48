"""Reads proto/spec/*.spec.h into Call and Record objects, and refuses what could not work on the
wire.

Used by gen.py.  A spec file is C that the compiler checks against cuda.h; here only its shape is
read: comments, preprocessor lines, TFR_CALL(...) with a prototype, TFR_RECORD(...).  Every
complaint is a SpecError with file and line."""

import glob
import os
import re
from dataclasses import dataclass, field

from gen_toolkit import split_name, split_params

CLASSES = ("LOCAL", "ASYNC", "SYNC", "POLL", "CUSTOM", "NONE")
WITHOUT_OP = ("LOCAL", "POLL", "NONE")
FLAGS = ("PTSZ", "NOCTX", "HELPER")
RECORD_FLAGS = ("SYNC", "HELPER", "NOCTX")
WORDS = ("IN", "OUT", "BULK_IN", "BULK_OUT", "STR", "NEW", "FREE")
COUNTED = ("IN", "OUT", "BULK_IN", "BULK_OUT")
KINDS = {
    "CUcontext": "CTX",
    "CUmodule": "MODULE",
    "CUfunction": "FUNCTION",
    "CUlibrary": "LIBRARY",
    "CUkernel": "KERNEL",
    "CUstream": "STREAM",
    "CUevent": "EVENT",
    "CUmemoryPool": "POOL",
}
TAKEN = (
    "r",
    "q",
    "p",
    "s",
    "ask",
    "rec",
    "reply",
    "cu",
    "tail",
    "in_len",
    "out_len",
    "slot",
    "head",
)
# C type -> type on the wire, bytes
SCALARS = {
    "char": ("int8_t", 1),
    "unsigned char": ("uint8_t", 1),
    "short": ("int16_t", 2),
    "unsigned short": ("uint16_t", 2),
    "int": ("int32_t", 4),
    "unsigned": ("uint32_t", 4),
    "unsigned int": ("uint32_t", 4),
    "cuuint32_t": ("uint32_t", 4),
    "float": ("float", 4),
    "size_t": ("uint64_t", 8),
    "cuuint64_t": ("uint64_t", 8),
    "long long": ("int64_t", 8),
    "unsigned long long": ("uint64_t", 8),
    "double": ("double", 8),
    "CUdevice": ("int32_t", 4),
    "CUdeviceptr": ("uint64_t", 8),
}


class SpecError(Exception):
    def __init__(self, file, line, reason):
        super().__init__(f"{file}:{line}: {reason}")


@dataclass
class Param:
    text: str  # as C, without our words
    type: str
    name: str
    line: int
    word: str = ""
    count: str = ""
    opt: bool = False

    @property
    def elem(self):
        """What it points to, without const; "" if it is no pointer."""
        if not self.type.endswith("*"):
            return ""
        return re.sub(r"^const ", "", self.type[:-1].strip())

    @property
    def cell(self):
        """The element as bytes travel: void counts bytes."""
        return "unsigned char" if self.elem == "void" else self.elem


@dataclass
class Decl:
    file: str
    line: int
    family: str
    doc: str
    op: int
    name: str
    flags: list


@dataclass
class Record(Decl):
    pass


@dataclass
class Call(Decl):
    cls: str = ""
    errors: list = field(default_factory=list)
    params: list = field(default_factory=list)

    @property
    def prototype(self):
        return ", ".join(p.text for p in self.params) or "void"

    @property
    def args(self):
        return ", ".join(p.name for p in self.params)


class Reader:
    """One spec file."""

    def __init__(self, path, toolkit):
        self.path, self.toolkit, self.at = path, toolkit, 0
        self.family = os.path.basename(path)[: -len(".spec.h")]
        with open(path, encoding="utf-8") as f:
            self.text = f.read()

    def line(self, at=None):
        return self.text.count("\n", 0, self.at if at is None else at) + 1

    def fail(self, reason, at=None):
        raise SpecError(self.path, self.line(at), reason)

    def match(self, pattern):
        m = re.compile(pattern, re.S).match(self.text, self.at)
        if m:
            self.at = m.end()
        return m

    def balanced(self):
        """The text up to the parenthesis that closes the one just read."""
        start, depth = self.at, 1
        for m in re.compile(r"[()]").finditer(self.text, start):
            depth += 1 if m.group() == "(" else -1
            if depth == 0:
                self.at = m.end()
                return self.text[start : m.start()]
        return self.fail("the parenthesis is not closed", start)

    def read(self):
        decls, errors, doc = [], [], ""
        while self.at < len(self.text):
            if self.match(r"\s+"):
                continue
            m = self.match(r"/\*(.*?)\*/")
            if m:
                doc = " ".join(re.sub(r"\n\s*\*", "\n", m.group(1)).split())
                continue
            if self.match(r"#(?:[^\n\\]|\\.)*"):
                doc = ""
                continue
            start = self.at
            try:
                m = self.match(r"TFR_(CALL|RECORD)\s*\(")
                if not m:
                    self.fail("expected a comment, TFR_CALL or TFR_RECORD")
                decls.append(
                    self.call(start, doc) if m.group(1) == "CALL" else self.record(start, doc)
                )
            except SpecError as e:
                errors.append(e)
                self.at = max(self.at, start + 1)
                self.match(r".*?(?=\n\s*(?:/\*|#|TFR_CALL|TFR_RECORD)|\Z)")
            doc = ""
        return decls, errors

    def head(self, start, known):
        """op, second argument, flags and TFR_ERRORS of the words in parentheses."""
        args = split_params(self.balanced())
        if len(args) < 2 or not re.fullmatch(r"0x[0-9a-fA-F]{4}", args[0]):
            self.fail("expected an op of four hex digits and what follows it", start)
        flags, errors = [], []
        for arg in args[2:]:
            m = re.fullmatch(r"TFR_ERRORS\s*\((.*)\)", arg)
            if m:
                errors = split_params(m.group(1))
            elif arg in known:
                flags.append(arg)
            else:
                self.fail(f"unknown flag {arg}", start)
        for error in errors:
            if "CUDA_ERROR_" + error not in self.toolkit.errors:
                self.fail(f"unknown error {error}", start)
        return int(args[0], 16), args[1], flags, errors

    def record(self, start, doc):
        op, name, flags, _ = self.head(start, RECORD_FLAGS)
        self.match(r"\s*;")
        if not op:
            self.fail(f"{name}: a record needs an op", start)
        return Record(self.path, self.line(start), self.family, doc, op, name, flags)

    def call(self, start, doc):
        op, cls, flags, errors = self.head(start, FLAGS)
        m = self.match(r"\s*CUresult\s+(\w+)\s*\(")
        if not m:
            self.fail("expected a prototype that returns CUresult", start)
        name, at = m.group(1), self.at
        call = Call(self.path, self.line(start), self.family, doc, op, name, flags, cls, errors)
        body = self.balanced()
        if not self.match(r"\s*;"):
            self.fail(f"{name}: the prototype does not end in a semicolon")
        call.params = list(self.params(body, at))
        self.check(call, start)
        return call

    def params(self, body, at):
        for part in re.finditer(r"(?:[^,()]|\((?:[^()]|\([^()]*\))*\))+", body):
            text = " ".join(part.group().split())
            if text != "void" and text:
                yield self.param(
                    text,
                    self.line(at + part.start() + len(part.group()) - len(part.group().lstrip())),
                )

    def param(self, text, line):
        param = Param("", "", "", line)
        while True:
            m = re.match(r"TFR_(\w+)\s*", text)
            if not m:
                break
            word, text = m.group(1), text[m.end() :]
            if word in COUNTED:
                m = re.match(r"\(((?:[^()]|\([^()]*\))*)\)\s*", text)
                if not m:
                    raise SpecError(self.path, line, f"TFR_{word} without its count")
                param.count, text = m.group(1).strip(), text[m.end() :]
            if word == "OPT":
                param.opt = True
            elif word not in WORDS:
                raise SpecError(self.path, line, f"unknown word TFR_{word}")
            elif param.word:
                raise SpecError(self.path, line, f"TFR_{word} beside TFR_{param.word}")
            else:
                param.word = word
        param.text = text
        param.type, param.name = split_name(text)
        if not param.name:
            raise SpecError(self.path, line, f"parameter without a name: {text}")
        return param

    def check(self, call, start):
        if call.cls not in CLASSES:
            self.fail(f"{call.name}: unknown class {call.cls}", start)
        if not call.doc:
            self.fail(f"{call.name}: no comment says what the call does", start)
        if call.name not in self.toolkit.twins:
            self.fail(f"{call.name}: the toolkit has no such call", start)
        if "PTSZ" in call.flags and not self.toolkit.twins[call.name]:
            self.fail(f"{call.name}: the toolkit has no per-thread-stream twin of it", start)
        if call.cls in WITHOUT_OP and call.op:
            self.fail(f"{call.name}: {call.cls} takes op 0x0000", start)
        if call.cls in ("SYNC", "ASYNC") and not call.op:
            self.fail(f"{call.name}: {call.cls} needs an op", start)
        if call.cls == "ASYNC" and not call.errors:
            self.fail(
                f"{call.name}: ASYNC without TFR_ERRORS, the list of its immediate errors", start
            )
        if call.op:
            for param in call.params:
                self.check_param(call, param)

    def check_param(self, call, p):
        """Only calls that cross the wire are held to the words."""

        def bad(reason):
            raise SpecError(self.path, p.line, f"{call.name}: {p.name}: {reason}")

        if p.name in TAKEN:
            bad("the name is taken by generated code")
        if p.type in KINDS:
            if p.word not in ("", "FREE"):
                bad(f"TFR_{p.word} on a handle")
        elif p.word == "FREE":
            bad(f"TFR_FREE on {p.type}, which is no handle")
        elif p.elem:
            self.check_pointer(call, p, bad)
        elif p.word or p.opt:
            bad(f"a word on {p.type}, which is no pointer")
        elif not self.toolkit.wire(p.type) and not self.toolkit.flat(p.type):
            bad(f"unknown type {p.type}")

    def check_pointer(self, call, p, bad):
        if not p.word:
            bad("pointer without a word")
        if p.word == "NEW":
            if p.elem not in KINDS or p.opt:
                bad(f"TFR_NEW needs a pointer to a handle, and no TFR_OPT: {p.type}")
            return
        if p.word.startswith("BULK"):
            if call.cls != "CUSTOM":
                bad(f"TFR_{p.word} outside CUSTOM")
            return
        if p.word == "STR":
            if p.elem != "char":
                bad(f"TFR_STR on {p.type}")
            return
        if p.word == "OUT" and call.cls == "ASYNC":
            bad("ASYNC cannot answer: TFR_OUT")
        if p.word == "OUT" and p.type.startswith("const "):
            bad(f"TFR_{p.word} on {p.type}")
        if p.elem in KINDS:
            bad("a handle comes out by TFR_NEW only")
        if not self.toolkit.wire(p.cell) and not self.toolkit.flat(p.cell):
            bad(f"unknown type {p.elem}, or one that holds pointers or handles")
        scalars = {q.name for q in call.params if self.toolkit.wire(q.type)}
        for word in re.findall(r"\b[A-Za-z_]\w*", p.count):
            if word not in scalars and word != "sizeof":
                bad(f"TFR_{p.word}({p.count}): {word} is no scalar parameter")


def read_dir(folder, toolkit):
    """All declarations in the order of file names, and every complaint."""
    decls, errors = [], []
    for path in sorted(glob.glob(os.path.join(folder, "*.spec.h"))):
        some, bad = Reader(path, toolkit).read()
        decls += some
        errors += bad
    ops, names = {}, {}
    for d in decls:
        first = ops.setdefault(d.op, d)
        if d.op and first is not d:
            errors.append(SpecError(d.file, d.line, f"{d.name}: op 0x{d.op:04x} is {first.name}'s"))
        if names.setdefault(d.name, d) is not d:
            errors.append(SpecError(d.file, d.line, f"{d.name} is declared twice"))
    return decls, errors
