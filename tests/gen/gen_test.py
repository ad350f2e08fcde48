#!/usr/bin/env python3
"""Tests of proto/gen.py: a small spec becomes exactly the files in golden/expect, which compile;
broken specs fail at the right line; the map of the installed toolkit is that of its stub
library.

    gen_test.py [--update]     --update rewrites golden/expect

Environment: TFR_CUDA_INCLUDE (for compiling; skipped without), TFR_CCS (compilers, default "cc").
"""

import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
GOLDEN = os.path.join(HERE, "golden")
CUDA = os.environ.get("TFR_CUDA_INCLUDE", "")
sys.path.insert(0, os.path.join(ROOT, "proto"))

# broken spec -> line of the complaint, and a piece of its text
BROKEN = {
    "pointer_without_word": (5, "cuDeviceGetName: name: pointer without a word"),
    "no_comment": (3, "no comment says what the call does"),
    "comment_not_adjacent": (6, "no comment says what the call does"),
    "async_without_errors": (4, "ASYNC without TFR_ERRORS"),
    "duplicate_op": (8, "mark: op 0x0302 is cuFuncLoad's"),
    "duplicate_name": (8, "cuFuncLoad is declared twice"),
    "op_missing": (4, "SYNC needs an op"),
    "op_given": (4, "LOCAL takes op 0x0000"),
    "op_malformed": (4, "expected an op of four hex digits"),
    "unknown_word": (6, "unknown word TFR_OTU"),
    "unknown_class": (4, "unknown class SINC"),
    "unknown_flag": (4, "unknown flag HELPFUL"),
    "unknown_error": (4, "unknown error INVALID_VALEU"),
    "unknown_type": (5, "unknown type CUlimits"),
    "unknown_call": (4, "the toolkit has no such call"),
    "no_twin": (4, "no per-thread-stream twin"),
    "pointers_inside": (5, "config: unknown type CUlaunchConfig, or one that holds pointers"),
    "async_answers": (5, "ASYNC cannot answer"),
    "count_unknown": (6, "n is no scalar parameter"),
    "not_closed": (5, "the parenthesis is not closed"),
    "stray_text": (3, "expected a comment, TFR_CALL or TFR_RECORD"),
}

# the hand-written half of a wire
HEADERS = {
    "wire.h": """enum tfr_kind { KIND_A, KIND_LIMIT };
enum { PAGE_MAX = 1 };
struct inner { int a; };
struct tfr_mark_req { struct inner inner; uint64_t /* of it */ stream; };
""",
    "wire_memory.h": """enum { FAST = 1 };
struct tfr_alloc_req { uint64_t len; uint32_t flags; };
""",
}


def gen(spec, out, *more):
    return subprocess.run(
        [
            sys.executable,
            os.path.join(ROOT, "proto", "gen.py"),
            "--spec",
            spec,
            "--cuda-include",
            os.path.join(GOLDEN, "include"),
            "--out",
            out,
            *more,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Temp(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)


class Golden(Temp):
    def test_makes_exactly_the_expected_files(self):
        done = gen(os.path.join(GOLDEN, "spec"), self.dir, "--coverage", self.path("COVERAGE.md"))
        self.assertEqual(done.stderr, "")
        expect = os.path.join(GOLDEN, "expect")
        self.assertEqual(sorted(os.listdir(self.dir)), sorted(os.listdir(expect)))
        for name in os.listdir(expect):
            self.assertTrue(
                filecmp.cmp(self.path(name), os.path.join(expect, name), shallow=False),
                f"{name} is not as expected: diff {self.path(name)} with it, then "
                f"gen_test.py --update",
            )

    def test_leaves_unchanged_files_alone(self):
        spec = os.path.join(GOLDEN, "spec")
        gen(spec, self.dir)
        os.utime(self.path("tfr_ops.h"), (1, 1))
        gen(spec, self.dir)
        self.assertEqual(os.stat(self.path("tfr_ops.h")).st_mtime, 1)

    def test_says_when_the_coverage_page_is_old(self):
        page = self.path("COVERAGE.md")
        shutil.copy(os.path.join(GOLDEN, "expect", "COVERAGE.md"), page)
        self.assertEqual(
            gen(
                os.path.join(GOLDEN, "spec"), self.path("out"), "--coverage", page, "--check"
            ).returncode,
            0,
        )
        with open(page, "a", encoding="utf-8") as f:
            f.write("\n")
        done = gen(os.path.join(GOLDEN, "spec"), self.path("out"), "--coverage", page, "--check")
        self.assertEqual(done.returncode, 1)
        self.assertIn("out of date", done.stderr)

    def hashes_of(self, change=lambda text: text, headers=None):
        """What hello compares, for a changed spec beside changed headers: name -> number."""
        root = self.path("root")
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(os.path.join(GOLDEN, "spec"), os.path.join(root, "proto", "spec"))
        with open(os.path.join(root, "proto", "spec", "sample.spec.h"), encoding="utf-8") as f:
            text = change(f.read())
        with open(f.name, "w", encoding="utf-8") as f:
            f.write(text)
        for name, text in (headers or HEADERS).items():
            with open(os.path.join(root, "proto", name), "w", encoding="utf-8") as f:
                f.write(text)
        done = gen(os.path.join(root, "proto", "spec"), self.path("out"))
        self.assertEqual(done.stderr, "")
        with open(self.path("out/tfr_ops.h"), encoding="utf-8") as f:
            found = dict(re.findall(r"#define TFR_(CORE|SPEC)_HASH (\w+)", f.read()))
        with open(self.path("out/tfr_ops.c"), encoding="utf-8") as f:
            return found | dict(re.findall(r"\[TFR_OP_(\w+)\] = (0x\w+)", f.read()))

    def changed(self, before, *args):
        after = self.hashes_of(*args)
        return {name for name in before | after if before.get(name) != after.get(name)}

    def test_numbers_follow_the_wire_and_not_the_comments(self):
        before = self.hashes_of()
        change = lambda old, new: self.changed(before, lambda text: text.replace(old, new))
        self.assertEqual(change("One handle.", "A handle."), set())
        self.assertEqual(change("0x0302", "0x0305"), {"SPEC", "cuFuncLoad"})
        self.assertEqual(change("CUlimit limit", "size_t limit"), {"SPEC", "cuCtxSetLimit"})
        self.assertEqual(
            change("/* One handle.", "/* More. */\nTFR_RECORD(0x0009, more)\n/* One handle."),
            {"SPEC", "more"},
        )

    def test_a_changed_header_changes_the_numbers_of_whom_it_concerns(self):
        before = self.hashes_of()
        change = lambda name, old, new: self.changed(
            before, lambda text: text, HEADERS | {name: HEADERS[name].replace(old, new)}
        )
        self.assertEqual(change("wire.h", "/* of it */", ""), set())
        self.assertEqual(change("wire.h", "stream; }", "stream, more; }"), {"SPEC", "mark"})
        self.assertEqual(change("wire.h", "inner { int a", "inner { long a"), {"SPEC", "mark"})
        self.assertEqual(change("wire.h", "PAGE_MAX = 1", "PAGE_MAX = 2"), {"SPEC", "CORE"})
        self.assertEqual(change("wire.h", "KIND_A,", "KIND_A, KIND_B,"), set())
        self.assertEqual(change("wire_memory.h", "FAST = 1", "FAST = 2"), {"SPEC", "alloc"})

    @unittest.skipUnless(CUDA, "no toolkit to compile against")
    def test_output_compiles_without_a_warning(self):
        expect = os.path.join(GOLDEN, "expect")
        for cc in os.environ.get("TFR_CCS", "cc").split():
            if not shutil.which(cc):
                continue
            for name in sorted(n for n in os.listdir(expect) if n.endswith(".c")):
                with self.subTest(cc=cc, file=name):
                    done = subprocess.run(
                        [
                            cc,
                            "-std=gnu17",
                            "-O2",
                            "-Wall",
                            "-Wextra",
                            "-Wshadow",
                            "-Wstrict-prototypes",
                            "-Werror",
                            "-D__CUDA_API_VERSION_INTERNAL",
                            "-I" + expect,
                            "-I" + os.path.join(HERE, "ends"),
                            "-I" + ROOT,
                            "-isystem",
                            CUDA,
                            "-c",
                            os.path.join(expect, name),
                            "-o",
                            os.devnull,
                        ],
                        capture_output=True,
                        text=True,
                        timeout=60,
                        check=False,
                    )
                    self.assertEqual(done.stderr, "")

    @unittest.skipUnless(CUDA, "no toolkit to compile against")
    def test_both_ends_understand_each_other_and_refuse_broken_records(self):
        expect = os.path.join(GOLDEN, "expect")
        program = self.path("roundtrip")
        sources = [os.path.join(HERE, "roundtrip.c")]
        sources += [
            os.path.join(expect, n) for n in ("client_gen.c", "dispatch_gen.c", "tfr_ops.c")
        ]
        cc = next(c for c in os.environ.get("TFR_CCS", "cc").split() if shutil.which(c))
        subprocess.run(
            [
                cc,
                "-std=gnu17",
                "-O1",
                "-g",
                "-fsanitize=address,undefined",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-D__CUDA_API_VERSION_INTERNAL",
                "-I" + expect,
                "-I" + os.path.join(HERE, "ends"),
                "-I" + ROOT,
                "-isystem",
                CUDA,
                *sources,
                "-o",
                program,
            ],
            check=True,
            timeout=120,
        )
        done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))


class Broken(Temp):
    def test_every_broken_spec_is_in_the_list(self):
        names = {
            n[: -len(".spec.h")]
            for n in os.listdir(os.path.join(HERE, "broken"))
            if n.endswith(".spec.h")
        }
        self.assertEqual(names, set(BROKEN))

    def test_fail_at_the_right_line_and_write_nothing(self):
        for name, (line, text) in BROKEN.items():
            with self.subTest(name):
                spec = self.path(name)
                os.mkdir(spec)
                shutil.copy(os.path.join(HERE, "broken", name + ".spec.h"), spec)
                done = gen(spec, self.path("out"))
                self.assertEqual(done.returncode, 1)
                self.assertIn(f"{name}.spec.h:{line}: ", done.stderr)
                self.assertIn(text, done.stderr)
                self.assertFalse(os.path.exists(self.path("out")))


@unittest.skipUnless(CUDA, "no toolkit")
class Toolkit(unittest.TestCase):
    def setUp(self):
        import gen_toolkit

        self.gen_toolkit = gen_toolkit
        self.rows = gen_toolkit.read_rows(CUDA)

    def stub_symbols(self):
        for stub in ("../lib64/stubs/libcuda.so", "../lib/stubs/libcuda.so"):
            path = os.path.join(CUDA, stub)
            if os.path.exists(path) and shutil.which("nm"):
                text = subprocess.run(
                    ["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True
                ).stdout
                return sorted(line.split()[2] for line in text.splitlines() if " T " in line)
        return self.skipTest("no stub libcuda, or no nm")

    def test_pairing_rule_yields_the_symbols_of_the_stub_library(self):
        self.assertEqual(self.gen_toolkit.symbols(self.rows), self.stub_symbols())

    def test_known_pairs(self):
        pairs = {(r.name, r.version): (r.symbol, r.twin) for r in self.rows}
        for name, version, symbol, twin in (
            ("cuCtxCreate", 2000, "cuCtxCreate", None),
            ("cuCtxCreate", 3020, "cuCtxCreate_v2", None),
            ("cuCtxCreate", 11040, "cuCtxCreate_v3", None),
            ("cuCtxCreate", 12050, "cuCtxCreate_v4", None),
            (
                "cuStreamGetCaptureInfo",
                12030,
                "cuStreamGetCaptureInfo_v3",
                "cuStreamGetCaptureInfo_v3_ptsz",
            ),
            ("cuDevicePrimaryCtxReset", 7000, "cuDevicePrimaryCtxReset", None),
            ("cuDevicePrimaryCtxReset", 11000, "cuDevicePrimaryCtxReset_v2", None),
            ("cuMemcpyHtoD", 2000, "cuMemcpyHtoD", None),
            ("cuMemcpyHtoD", 3020, "cuMemcpyHtoD_v2", "cuMemcpyHtoD_v2_ptds"),
            ("cuMemcpyBatchAsync", 13000, "cuMemcpyBatchAsync_v2", "cuMemcpyBatchAsync_v2_ptsz"),
        ):
            self.assertEqual(pairs[name, version], (symbol, twin))


if __name__ == "__main__":
    if "--update" in sys.argv:
        shutil.rmtree(os.path.join(GOLDEN, "expect"))
        expect_dir = os.path.join(GOLDEN, "expect")
        result = gen(
            os.path.join(GOLDEN, "spec"),
            expect_dir,
            "--coverage",
            os.path.join(expect_dir, "COVERAGE.md"),
        )
        sys.exit(result.stderr or 0)
    unittest.main()
