#!/usr/bin/env python3
"""Reads the spec and writes C.  (First slice: the face files.)"""

import argparse
import os
import sys

import gen_face
import gen_toolkit


def write(path, text):
    """Only when changed, so that nothing is rebuilt for nothing."""
    try:
        with open(path, encoding="utf-8") as f:
            if f.read() == text:
                return
    except OSError:
        pass
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--spec", required=True)
    ap.add_argument("--cuda-include", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--coverage")
    args = ap.parse_args()
    rows = gen_toolkit.read_rows(args.cuda_include)
    os.makedirs(args.out, exist_ok=True)
    for name, text in gen_face.files([], rows).items():
        write(os.path.join(args.out, name), text)


if __name__ == "__main__":
    sys.exit(main())
