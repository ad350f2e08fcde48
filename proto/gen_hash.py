"""What a call looks like on the wire, as a number: a release compares its own with its peer's in
hello, call by call.

Used by gen.py.  A generated call's number is made of its signature, its structs and the structures
of cuda.h in them.  A record of our own is struct tfr_NAME_req and struct tfr_NAME_rep of
proto/wire*.h, with whatever these name, and what else its file declares.  What belongs to no record
(the pages, boot messages, all else in wire.h) makes the core number, which must be equal.  Comments
do not count, nor do kinds of handles: these are only ever appended to."""

import hashlib
import re

from gen_spec import Call


def digest(text, digits):
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def bare(text):
    """Without comments and preprocessor lines, in one spelling."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)
    return re.sub(r"^\s*#(?:[^\n]*\\\n)*[^\n]*$", "", text, flags=re.M)


def split(text):
    """Declarations and inline functions at the top level of a header."""
    depth, start = 0, 0
    for at, c in enumerate(text):
        depth += (c == "{") - (c == "}")
        whole = c == ";" or c == "}" and "static inline" in text[start:at]
        if depth == 0 and whole:
            yield " ".join(text[start : at + 1].split())
            start = at + 1


class Headers:
    """The declarations of proto/wire*.h, each known by what it is called."""

    def __init__(self, files):
        """files: name -> text; wire.h is the one whose leftovers are everybody's."""
        self.texts = {name: list(split(bare(text))) for name, text in sorted(files.items())}
        self.by_name, self.file_of = {}, {}
        for name, texts in self.texts.items():
            for text in texts:
                self.file_of[text] = name
                tag = re.match(r"(?:struct|enum) (\w+) {", text)
                names = [tag.group(1)] if tag else []
                if re.match(r"enum\b", text):
                    names += re.findall(r"[{,]\s*(\w+)", text)
                for word in names:
                    self.by_name[word] = text
        self.records = {}

    def reach(self, text, seen):
        if text not in seen:
            seen.add(text)
            for word in re.findall(r"\w+", text):
                if word in self.by_name:
                    self.reach(self.by_name[word], seen)
        return seen

    def record(self, name):
        """What struct tfr_NAME_req and _rep are made of, and the file of the former."""
        own = [self.by_name[t] for t in (f"tfr_{name}_req", f"tfr_{name}_rep") if t in self.by_name]
        seen = set()
        for text in own:
            self.reach(text, seen)
        return seen, self.file_of[own[0]] if own else ""

    def numbers(self, names):
        """name -> what counts for it as text; and the text of the core."""
        parts = {name: self.record(name) for name in names}
        taken = set().union(*(seen for seen, _ in parts.values())) if parts else set()
        rest = {
            name: [text for text in texts if text not in taken]
            for name, texts in self.texts.items()
        }
        core = [
            text
            for name, texts in rest.items()
            for text in texts
            if name in ("wire.h", "rec.h") and not text.startswith("enum tfr_kind ")
        ]
        return {
            name: "\n".join(sorted(seen) + (rest[file] if file not in ("", "wire.h") else []))
            for name, (seen, file) in parts.items()
        }, "\n".join(core)


def cuda_structs(text, toolkit, seen):
    """Structures of cuda.h that a layout embeds, and theirs."""
    for word in re.findall(r"\w+", text):
        word = toolkit.names.get(word, word)
        if word in toolkit.structs and word not in seen:
            seen[word] = " ".join(toolkit.structs[word].split())
            cuda_structs(seen[word], toolkit, seen)
    return seen


def call_text(call, layouts, toolkit):
    structs = re.findall(rf"struct tfr_{call.name}_re[qp] {{.*?\n}};", layouts, flags=re.S)
    words = [f"{p.word} {p.type} {p.count} {p.opt}" for p in call.params]
    cuda = cuda_structs("\n".join(structs), toolkit, {})
    return "\n".join([call.cls, *words, *structs, *(f"{n} {t}" for n, t in sorted(cuda.items()))])


def numbers(decls, layouts, toolkit, files):
    """([(op, name, number)], core number), numbers as text of C."""
    records = [d for d in decls if d.op and not isinstance(d, Call)]
    texts, core = Headers(files).numbers([d.name for d in records])
    out = []
    for d in sorted((d for d in decls if d.op), key=lambda d: d.op):
        text = call_text(d, layouts, toolkit) if isinstance(d, Call) else texts[d.name]
        flags = sorted(f for f in d.flags if f != "HELPER")
        out.append((d.op, d.name, "0x" + digest(f"{d.op} {d.name} {flags} {text}", 8)))
    return out, "0x" + digest(core, 16) + "ull"
