#!/usr/bin/env python3
"""The numbers of docs/WIRE.md are those of the code: fills them in, or with --check fails where they
differ.

    wire.py --build DIR --cuda-include DIR [--page FILE] [--check]

A line "<!-- wire: struct NAME in FILE -->" stands before a table whose rows are offset, bytes, field,
meaning; "<!-- wire: enum in FILE -->" before one of value, name, meaning; "<!-- wire: records -->" before
the table of all records, which is made here.  Behind FILE may stand "if HEADER": where the compiler does not
find that, the table is left as it is.  Offsets and values come from a C program that includes FILE,
or, where it is a .c file, its project headers, enums and that struct.  Fields and meanings are the page's;
a field that it leaves out is an error, and so is one that there is not."""

import argparse
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "proto"))

from gen_hash import bare, split  # noqa: E402

MARK = re.compile(r"<!-- wire: (?:(struct) (\w+) in (\S+?)|(enum) in (\S+?)|(records))(?: if (\S+))? -->")
SHORT = {f"{sign}int{bits}_t": f"{sign or 'i'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


class Wrong(Exception):
    pass


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def fields_of(text):
    """[(name, type and array)] of the text of a struct."""
    found = []
    body = re.sub(r"_Alignas\([^)]*\)|_Atomic", " ", text[text.index("{") + 1 : text.rindex("}")])
    for line in filter(None, map(str.strip, body.split(";"))):
        kind = None
        for part in line.split(","):
            m = re.fullmatch(r"(?:(.*?)\s)?\s*(\w+)\s*((?:\[[^]]*\])*)", part.strip(), re.S)
            kind = " ".join(m.group(1).split()) if m.group(1) else kind
            found.append((m.group(2), SHORT.get(kind, kind) + m.group(3)))
    return found


class Source:
    """Structs of one file, and the numbers in them."""

    def __init__(self, path, options):
        self.path, self.options = path, options
        full = os.path.join(options.build, "gen", path) if path == "tfr_calls.h" else os.path.join(ROOT, path)
        text = read(full)
        self.structs = {}
        enums = []
        for piece in split(bare(text)):
            tag = re.match(r"struct (\w+) {", piece)
            if tag:
                self.structs[tag.group(1)] = piece
            elif re.match(r"enum\b", piece):
                enums.append(piece)
        self.head = [f'#include "{path}"']
        if path.endswith(".c"):
            self.head = re.findall(r'^#include "(?:base|proto|transport).*"', text, re.M) + enums
        self.asks, self.answers = [], None

    def ask(self, text):
        """A number of C, as text; the answer is there after run()."""
        self.asks.append(text)
        return len(self.asks) - 1

    def declare(self, name):
        """The struct, if it is only in the .c file."""
        if name not in self.structs:
            raise Wrong(f"{self.path}: there is no struct {name}")
        if self.path.endswith(".c") and self.structs[name] not in self.head:
            self.head.append(self.structs[name])

    def run(self):
        lines = ["#include <stddef.h>", "#include <stdint.h>", "#include <stdio.h>", *self.head, "int main(void) {"]
        lines += [f'printf("%llu\\n", (unsigned long long)({text}));' for text in self.asks] + ["}"]
        with tempfile.TemporaryDirectory() as folder:
            source, program = os.path.join(folder, "ask.c"), os.path.join(folder, "ask")
            with open(source, "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
            command = [os.environ.get("CC", "cc"), "-std=gnu17", "-w", "-D_GNU_SOURCE",
                       "-D__CUDA_API_VERSION_INTERNAL", "-I" + ROOT, "-I" + os.path.join(self.options.build, "gen"),
                       "-isystem", self.options.cuda_include, "-o", program, source]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Wrong(f"{self.path}: {done.stderr}")
            self.answers = list(map(int, subprocess.run([program], capture_output=True, text=True,
                                                        check=True).stdout.split()))


def has_header(name):
    command = [os.environ.get("CC", "cc"), "-fsyntax-only", "-x", "c", "-"]
    return subprocess.run(command, input=f"#include <{name}>\n", capture_output=True, text=True,
                          check=False).returncode == 0


def cells(row):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


class Table:
    def __init__(self, match, rows, source):
        self.rows = [cells(row) for row in rows]
        self.source, self.struct = source, match.group(2)
        if self.struct:
            source.declare(self.struct)
            self.rows = [row for row in self.rows if row[2]]
            names = [row[2].strip("`") for row in self.rows]
            own = [name for name, _ in fields_of(source.structs[self.struct])]
            if names != own:
                raise Wrong(f"struct {self.struct}: the page has {names}, the code {own}")
            place = f"(struct {self.struct} *)0"
            self.asked = [(source.ask(f"offsetof(struct {self.struct}, {n})"), source.ask(f"sizeof(({place})->{n})"))
                          for n in names]
            self.size = source.ask(f"sizeof(struct {self.struct})")
        else:
            self.asked = [source.ask(row[1].strip("`")) for row in self.rows]

    def lines(self):
        answers = self.source.answers
        if not self.struct:
            numbers = [answers[ask] for ask in self.asked]
            return [f"| {n if n < 1 << 16 else hex(n)} | {' | '.join(row[1:])} |" for n, row in zip(numbers, self.rows)]
        out, end = [], 0
        for (at, size), row in zip(self.asked, self.rows):
            at, size = answers[at], answers[size]
            if at > end:
                out.append(f"| {end} | {at - end} | | not used |")
            out.append(f"| {at} | {size} | {' | '.join(row[2:])} |")
            end = at + size
        if answers[self.size] > end:
            out.append(f"| {end} | {answers[self.size] - end} | | not used |")
        return out


class Records:
    """The table of all records: op, name, bytes, fields."""

    def __init__(self, options, source_of):
        self.items = []
        ops = dict(re.findall(r"TFR_OP_(\w+) = (0x\w+)", read(os.path.join(options.build, "gen", "tfr_ops.h"))))
        headers = [f"proto/{n}" for n in sorted(os.listdir(os.path.join(ROOT, "proto"))) if re.match(r"wire.*\.h", n)]
        for name, op in sorted(ops.items(), key=lambda item: int(item[1], 16)):
            found = [s for s in map(source_of, ["tfr_calls.h", *headers]) if f"tfr_{name}_req" in s.structs]
            if not found and name not in ("NONE", "LIMIT"):
                raise Wrong(f"there is no struct tfr_{name}_req in proto/wire*.h")
            for source in found:
                self.items.append((op, name, source, [self.ask(source, f"tfr_{name}_{part}")
                                                      for part in ("req", "rep")]))

    @staticmethod
    def ask(source, struct):
        if struct not in source.structs:
            return None
        fields = [(n, t) for n, t in fields_of(source.structs[struct]) if n not in ("head", "slot", "in_len")]
        own = [n for n, _ in fields_of(source.structs[struct])]
        return (source.ask(f"sizeof(struct {struct})"), "slot" in own,
                [(source.ask(f"offsetof(struct {struct}, {n})"), n, t) for n, t in fields])

    def lines(self):
        out = []
        for op, name, source, parts in self.items:
            texts = []
            for part in parts:
                if not part:
                    texts += ["", ""]
                    continue
                size, _, fields = part
                texts += [str(source.answers[size]),
                          ", ".join(f"{source.answers[at]} {n} {t}" for at, n, t in fields)]
            asked = "yes" if parts[0][1] else ""
            out.append(f"| {op} | {name} | {asked} | {' | '.join(texts)} |")
        return out


def page_made(options):
    sources = {}

    def source_of(path):
        if path not in sources:
            sources[path] = Source(path, options)
        return sources[path]

    lines = read(options.page).split("\n")
    pieces, at = [], 0
    while at < len(lines):
        match = MARK.fullmatch(lines[at])
        pieces.append(lines[at])
        at += 1
        if not match:
            continue
        pieces += lines[at : at + 2]  # the table's head
        rows = []
        at += 2
        while at < len(lines) and lines[at].startswith("|"):
            rows.append(lines[at])
            at += 1
        if match.group(7) and not has_header(match.group(7)):
            pieces += rows
            continue
        path = match.group(3) or match.group(5)
        pieces.append(Table(match, rows, source_of(path)) if path else Records(options, source_of))
    for source in sources.values():
        source.run()
    made = []
    for piece in pieces:
        made += [piece] if isinstance(piece, str) else piece.lines()
    return "\n".join(made)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, help="build folder: gen/ in it")
    parser.add_argument("--cuda-include", required=True, help="folder of cuda.h")
    parser.add_argument("--page", default=os.path.join(ROOT, "docs", "WIRE.md"))
    parser.add_argument("--check", action="store_true", help="change nothing, fail if the page is out of date")
    options = parser.parse_args()
    try:
        made = page_made(options)
    except Wrong as e:
        return f"docs/WIRE.md: {e}"
    if made == read(options.page):
        return 0
    if options.check:
        here, there = read(options.page).split("\n"), made.split("\n")
        line = next((i for i, (a, b) in enumerate(zip(here, there)) if a != b), min(len(here), len(there)))
        return (f"docs/WIRE.md:{line + 1}: the code says\n    {there[line] if line < len(there) else '(nothing)'}\n"
                f"cmake --build {options.build} --target tfr_wire fills it in")
    with open(options.page, "w", encoding="utf-8") as file:
        file.write(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
