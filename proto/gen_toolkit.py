"""What the CUDA toolkit's headers say: which symbols its libcuda exports, since which version, with
which prototype.

Also which of its types may cross the wire.

Used by gen.py.  The source of the symbols is cudaTypedefs.h (and cudaProfilerTypedefs.h): one
PFN_<name>_v<version>[_ptsz|_ptds] per exported symbol.  The symbols themselves are not named there;
they follow from the pairing rule: the n-th version of a name is the symbol name_v<n> (the first has
no suffix).  A per-thread-stream twin is the twin of the newest plain entry that is not newer than
itself.  tests/gen checks the rule against the stub library of the toolkit."""

import os
import re
from typing import NamedTuple, Optional

BASIC = ("int", "char", "short", "long", "float", "double", "unsigned", "signed", "void")
HEADERS = ("cudaTypedefs.h", "cudaProfilerTypedefs.h")
PFN = re.compile(
    r"typedef\s+CUresult\s*\(CUDAAPI\s*\*\s*PFN_(\w+?)_v(\d+)(_pt(?:sz|ds))?\)\s*\(([^;]*)\)\s*;"
)


class Row(NamedTuple):
    """One row of the cuGetProcAddress map: a plain symbol, and its per-thread-stream twin if it has
    one."""

    name: str
    version: int
    symbol: str
    types: tuple  # of the parameters, without names
    twin: Optional[str] = None
    twin_version: int = 0


class ToolkitError(Exception):
    pass


def split_params(text):
    """Splits at the commas outside parentheses."""
    parts, depth, start = [], 0, 0
    for at, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        if c == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    parts = [" ".join(p.split()) for p in parts]
    return [] if parts in ([""], ["void"]) else parts


def split_name(param):
    """A parameter's type and name ("" if it has none), the type in one spelling: "const char*"."""
    text = re.sub(r"\s*\*\s*", "*", " ".join(param.split()))
    array = re.search(r"(\w+)\s*\[[^]]*\]$", text)
    if array:
        text = text[: array.start()].rstrip() + "*" + array.group(1)
    m = re.fullmatch(r"(.*?[\s*])(\w+)", text)
    if not m or m.group(2) in BASIC or m.group(1).strip() in ("const", "struct", "enum"):
        return text, ""
    return m.group(1).strip(), m.group(2)


def type_of(param):
    """For comparing prototypes: CUdeviceptr_v2 is CUdeviceptr, unsigned int is unsigned."""
    text = re.sub(r"\bunsigned int\b", "unsigned", split_name(param)[0])
    return re.sub(r"\b(CUdevice(?=_v1)|CUdeviceptr(?=_v2))_v.", r"\1", text)


def read_typedefs(include):
    plain, twins = {}, {}
    for header in HEADERS:
        try:
            with open(os.path.join(include, header), encoding="utf-8") as f:
                text = f.read()
        except OSError as e:
            raise ToolkitError(f"{e.filename}: {e.strerror}") from e
        for name, version, kind, params in PFN.findall(text):
            types = tuple(type_of(p) for p in split_params(params))
            (twins if kind else plain).setdefault(name, {})[int(version)] = (kind, types)
    return plain, twins


def read_rows(include):
    """All rows, sorted by name and version."""
    plain, twins = read_typedefs(include)
    rows = []
    for name in sorted(plain):
        versions = sorted(plain[name])
        row = {
            v: Row(name, v, name + (f"_v{n}" if n > 1 else ""), plain[name][v][1])
            for n, v in enumerate(versions, 1)
        }
        for version, (kind, _) in sorted(twins.pop(name, {}).items()):
            at = max((v for v in versions if v <= version), default=None)
            if at is None or row[at].twin:
                raise ToolkitError(
                    f"{name}{kind}, version {version}: no plain entry to pair it with"
                )
            row[at] = row[at]._replace(twin=row[at].symbol + kind, twin_version=version)
        rows += [row[v] for v in versions]
    if twins:
        raise ToolkitError(f"{sorted(twins)[0]}: a per-thread-stream entry without a plain one")
    return rows


def symbols(rows):
    """Every exported name."""
    return sorted([r.symbol for r in rows] + [r.twin for r in rows if r.twin])


def aliases(rows):
    """(old symbol, new symbol, types): an old entry whose successor has the same prototype may call
    it."""
    return [
        (old.symbol, new.symbol, old.types)
        for old, new in zip(rows, rows[1:])
        if old.name == new.name and old.types == new.types
    ]


def stream_twins(rows):
    """Rows whose twin is the plain call with another meaning of stream 0, the last parameter of
    type CUstream."""
    return [r for r in rows if r.twin and r.twin.endswith("_ptsz") and "CUstream" in r.types]


class Toolkit:
    """rows; twins: symbol -> its per-thread-stream twin or None; errors: names of CUresult; types
    of cuda.h."""

    def __init__(self, include, scalars):
        self.rows = read_rows(include)
        self.twins = {r.symbol: r.twin for r in self.rows}
        self.scalars = scalars
        with open(os.path.join(include, "cuda.h"), encoding="utf-8") as f:
            text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", f.read(), flags=re.S)
        self.errors = set(re.findall(r"\b(CUDA_ERROR_\w+)\s*=", text))
        self.enums = set(re.findall(r"typedef\s+enum\s+\w*\s*\{[^}]*\}\s*(\w+)\s*;", text))
        self.names = dict(
            (new, " ".join(old.split()))
            for old, new in re.findall(r"typedef\s+((?:unsigned\s+|long\s+)*\w+)\s+(\w+)\s*;", text)
        )
        self.structs = dict(
            (name, body)
            for body, name in re.findall(
                r"typedef\s+struct\s+\w*\s*\{((?:[^{}]|\{[^{}]*\})*)\}\s*(\w+)\s*;", text
            )
        )

    def wire(self, name):
        """(type on the wire, bytes) of a scalar or enum, else None."""
        if name in self.scalars:
            return self.scalars[name]
        if name in self.enums:
            return ("int32_t", 4)
        return self.wire(self.names[name]) if name in self.names else None

    def flat(self, name):
        """A structure without pointers, handles or unions: its bytes mean the same on the other
        side."""
        if name in self.names:
            return self.flat(self.names[name])
        body = self.structs.get(name)
        if body is None or re.search(r"\*|\bunion\b|\{", body):
            return False
        members = [split_name(m)[0].rstrip("*") for m in body.split(";") if m.strip()]
        return all(self.wire(m) or self.flat(m) for m in members)
