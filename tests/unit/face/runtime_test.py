#!/usr/bin/env python3
"""NVIDIA's static runtime on a libcuda of face/ alone: it starts, and it stops with the known error
when one thing is spoilt (the switches of mini.c).

    runtime_test.py PROGRAM LIBRARY_DIR [--without-keyed]
"""

import os
import subprocess
import sys
import unittest

PROGRAM, LIBRARY = sys.argv[1:3]
KEYED = "--without-keyed" not in sys.argv
GOOD = ["count 0 1", "copy 0", "reset 0", "copy again 0"]
REQUIRED = {
    "cudart interface": "6bd5fb6c",
    "tools hooks": "a094798c",
    "tools tls": "42d85a81",
    "context storage": "c693336e",
    "context checks": "263e8860",
    "keyed": "d4082055",
}


def run(**spoilt):
    env = {k: v for k, v in os.environ.items() if not k.startswith("TFR_")}
    env["LD_LIBRARY_PATH"] = LIBRARY
    env.update({"TFR_TEST_" + k: str(v) for k, v in spoilt.items()})
    done = subprocess.run(
        [PROGRAM], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout.splitlines()


def failing(error):
    return (0, [f"count {error} -1", f"copy {error}", f"reset {error}", f"copy again {error}"])


class Runtime(unittest.TestCase):
    def test_starts_on_face_alone(self):
        self.assertEqual(run(), (0, GOOD) if KEYED else failing(1))

    @unittest.skipUnless(KEYED, "built without the keyed table")
    def test_tolerates_a_newer_driver_and_more_devices(self):
        self.assertEqual(run(VERSION=13010), (0, GOOD))
        self.assertEqual(run(DEVICES=4), (0, ["count 0 4"] + GOOD[1:]))

    @unittest.skipUnless(KEYED, "built without the keyed table")
    def test_does_without_the_tables_of_other_libraries(self):
        self.assertEqual(run(REFUSE="21318c60"), (0, GOOD))

    def test_needs_each_of_its_six_tables(self):
        for name, start in REQUIRED.items():
            with self.subTest(name):
                self.assertEqual(run(REFUSE=start), failing(1))

    @unittest.skipUnless(KEYED, "built without the keyed table")
    def test_verifies_the_keyed_value(self):
        self.assertEqual(run(KEYED="corrupt"), failing(103))

    def test_refuses_an_older_driver(self):
        self.assertEqual(run(VERSION=12080), failing(35))

    def test_says_that_there_is_no_device(self):
        self.assertEqual(run(DEVICES=0), failing(100))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
