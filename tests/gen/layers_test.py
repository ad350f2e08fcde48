#!/usr/bin/env python3
"""Tests of ci/layers.py: it finds what crosses the layers, at the right line, and nothing else."""

import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

FILES = {
    "base/log.h": "",
    "base/log.c": '#include "base/log.h"\n#include <stdio.h>\n',
    "base/bad.c": '\n#include "proto/wire.h"\n',
    "proto/wire.h": '#include "base/log.h"\n#include <cuda.h>\n',
    "transport/ring.h": '#include "base/log.h"\n',
    "transport/shm/own.h": "",
    "transport/shm/link.c": '#include "transport/shm/own.h"\n',
    "transport/bad.c": '#include <cuda.h>\n#include "transport/shm/own.h"\n#include "tfr_ops.h"\n',
    "intercept/entry.h": '#include "proto/wire.h"\n#include "tfr_checks.h"\n'
    '#include "face/face.h"\n',
    "face/face.h": "#include <cuda.h>\n",
    "executor/bad.c": '#include "intercept/entry.h"\n#include "executor/softgpu/vm.h"\n'
    "#include <cuda_runtime.h>\n",
    "executor/softgpu/vm.h": '#include "face/face.h"\n',
    "executor/softgpu/bad.c": '#include "vm.h"\n#include "transport/ring.h"\n',
}
EXPECT = [
    "base/bad.c:2: base must not include proto: proto/wire.h",
    "executor/bad.c:1: executor must not include intercept: intercept/entry.h",
    "executor/bad.c:2: executor must not include executor/softgpu: executor/softgpu/vm.h",
    "executor/bad.c:3: cuda_runtime.h: types come from cuda.h alone",
    'executor/softgpu/bad.c:1: "vm.h" is not rooted at the project',
    "executor/softgpu/bad.c:2: executor/softgpu must not include transport: transport/ring.h",
    "transport/bad.c:1: transport must not know CUDA: cuda.h",
    "transport/bad.c:2: a backend's header stays in its folder: transport/shm/own.h",
    "transport/bad.c:3: transport must not include proto: tfr_ops.h",
]


class Layers(unittest.TestCase):
    def check(self, files):
        with tempfile.TemporaryDirectory() as root:
            for name, text in files.items():
                os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
                with open(os.path.join(root, name), "w", encoding="utf-8") as f:
                    f.write(text)
            return subprocess.run(
                [sys.executable, os.path.join(ROOT, "ci", "layers.py"), root],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

    def test_finds_what_crosses_the_layers(self):
        done = self.check(FILES)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(sorted(done.stderr.splitlines()), sorted(EXPECT))

    def test_is_content_with_the_rest(self):
        done = self.check({k: v for k, v in FILES.items() if not k.endswith("bad.c")})
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
