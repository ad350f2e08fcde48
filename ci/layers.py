#!/usr/bin/env python3
"""Fails when an #include crosses the layers of the project.

    layers.py [ROOT]

    base      nothing                         transport   base
    proto     base, cuda.h                    intercept   base proto transport face
    face      base, cuda.h                    executor, bench, tools   base proto transport
                                              executor/softgpu         base face

A backend's header (transport/<name>/) stays in its folder.  Includes of ours are rooted at the
project.  tests/ may include anything, nobody includes tests/.  Complaints are lines "file:line:
reason"."""

import os
import re
import sys

MAY = {
    "base": (),
    "proto": ("base",),
    "face": ("base",),
    "transport": ("base",),
    "intercept": ("base", "proto", "transport", "face"),
    "executor": ("base", "proto", "transport"),
    "executor/softgpu": ("base", "face"),
    "bench": ("base", "proto", "transport"),
    "tools": ("base", "proto", "transport"),
}
GENERATED = {
    "tfr_ops.h": "proto",
    "tfr_calls.h": "proto",
    "tfr_cu_gen.h": "proto",
    "tfr_checks.h": "intercept",
    "tfr_dispatch_decl.h": "executor",
    "face_map.h": "face",
}
WITHOUT_CUDA = ("base", "transport")
NVIDIA = re.compile(r"(cuda\w*|cu(blas|fft|dnn|rand|solver|sparse)\w*|nv\w+|nccl)\.h")


def layer_of(path):
    """The folder that the rules speak of."""
    parts = path.split("/")
    return "executor/softgpu" if parts[:2] == ["executor", "softgpu"] else parts[0]


def reason_against(root, file, target, quoted):
    """Why `file` may not include `target`, or None."""
    here = layer_of(file)
    if NVIDIA.fullmatch(target):
        if here in WITHOUT_CUDA:
            return f"{here} must not know CUDA: {target}"
        return (
            None
            if target in ("cuda.h", "cudaProfiler.h")
            else f"{target}: types come from cuda.h alone"
        )
    if target in GENERATED:
        there = GENERATED[target]
    elif not quoted:
        return None
    elif not os.path.exists(os.path.join(root, target)):
        return f'"{target}" is not rooted at the project'
    else:
        there = layer_of(target)
    if there == here:
        backend = re.match(r"transport/\w+/", target)
        if backend and not file.startswith(backend.group()):
            return f"a backend's header stays in its folder: {target}"
        return None
    return None if there in MAY[here] else f"{here} must not include {there}: {target}"


def check_file(root, file):
    with open(os.path.join(root, file), encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            reason = m and reason_against(root, file, m.group(2), m.group(1) == '"')
            if reason:
                yield f"{file}:{number}: {reason}"


def sources(root):
    for top in sorted({layer.split("/")[0] for layer in MAY}):
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in sorted(names):
                if name.endswith((".c", ".h")):
                    yield os.path.relpath(os.path.join(folder, name), root)


def main(root):
    found = [text for file in sources(root) for text in check_file(root, file)]
    return "\n".join(found) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "."))
