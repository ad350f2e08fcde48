#!/usr/bin/env python3
"""Writes C and docs/COVERAGE.md from the spec: each call is declared once, in proto/spec/*.spec.h.

    gen.py --spec DIR --cuda-include DIR --out DIR [--coverage FILE [--check]]

Python's standard library only.  Complaints are lines "file:line: reason" on stderr, exit status 1,
and nothing is written.  A file whose text has not changed is left alone.  The parts: gen_toolkit.py
(what the CUDA headers say), gen_spec.py (reads the spec), gen_wire.py (layouts, ops), gen_hash.py
(what hello compares), gen_ends.py (client stubs, dispatch), gen_face.py (exported symbols),
gen_coverage.py."""

import argparse
import glob
import os
import sys

import gen_coverage
import gen_ends
import gen_face
import gen_spec
import gen_toolkit
import gen_wire


def read(path):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except OSError:
        return None


def write(path, text):
    if read(path) == text:
        return
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def headers(spec):
    """The hand-written half of the wire: name -> text."""
    folder = os.path.dirname(os.path.abspath(spec))
    paths = glob.glob(os.path.join(folder, "wire*.h"))
    paths.append(os.path.join(folder, os.pardir, "base", "rec.h"))
    return {os.path.basename(path): read(path) or "" for path in paths}


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--spec", required=True, help="folder of *.spec.h")
    ap.add_argument("--cuda-include", required=True, help="folder of cuda.h and cudaTypedefs.h")
    ap.add_argument("--out", required=True, help="folder for what is generated")
    ap.add_argument("--coverage", metavar="FILE", help="also write the table of calls")
    ap.add_argument(
        "--check", action="store_true", help="do not write FILE, fail if it is out of date"
    )
    args = ap.parse_args()
    try:
        toolkit = gen_toolkit.Toolkit(args.cuda_include, gen_spec.SCALARS)
    except (gen_toolkit.ToolkitError, OSError) as e:
        return str(e)
    decls, errors = gen_spec.read_dir(args.spec, toolkit)
    if errors:
        return "\n".join(str(e) for e in errors)
    made = gen_wire.files(decls, toolkit, headers(args.spec))
    made |= gen_ends.files(decls, toolkit) | gen_face.files(toolkit.rows)
    for name, text in made.items():
        write(os.path.join(args.out, name), text)
    if args.coverage:
        text = gen_coverage.page(decls, toolkit)
        if args.check and read(args.coverage) != text:
            return f"{args.coverage} is out of date: run gen.py with --coverage {args.coverage}"
        if not args.check:
            write(args.coverage, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
