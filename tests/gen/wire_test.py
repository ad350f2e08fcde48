#!/usr/bin/env python3
"""docs/WIRE.md says what the code says, and ci/wire.py would notice if it did not.

wire_test.py BUILD CUDA_INCLUDE
"""

import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(ROOT, "docs", "WIRE.md")
BUILD, INCLUDE = sys.argv[1:3]


def check(text):
    with tempfile.NamedTemporaryFile("w", suffix=".md", encoding="utf-8") as page:
        page.write(text)
        page.flush()
        command = [sys.executable, os.path.join(ROOT, "ci", "wire.py"), "--build", BUILD,
                   "--cuda-include", INCLUDE, "--page", page.name, "--check"]
        return subprocess.run(command, capture_output=True, text=True, check=False)


class Page(unittest.TestCase):
    def setUp(self):
        with open(PAGE, encoding="utf-8") as file:
            self.text = file.read()

    def changed(self, old, new):
        self.assertEqual(self.text.count(old), 1, old)
        return check(self.text.replace(old, new))

    def test_is_up_to_date(self):
        done = check(self.text)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_a_wrong_number_is_noticed(self):
        done = self.changed("| 8 | 8 | `seq` | from 1", "| 8 | 4 | `seq` | from 1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("| 8 | 8 | `seq` | from 1", done.stderr)

    def test_a_field_that_is_left_out_is_noticed(self):
        line = next(l for l in self.text.split("\n") if "`sticky`" in l)
        done = self.changed(line + "\n", "")
        self.assertEqual(done.returncode, 1)
        self.assertIn("struct tfr_feedback", done.stderr)

    def test_a_record_that_is_left_out_is_noticed(self):
        line = next(l for l in self.text.split("\n") if "| mark |" in l)
        self.assertEqual(self.changed(line + "\n", "").returncode, 1)

    def test_a_struct_that_there_is_not_is_noticed(self):
        self.assertEqual(self.changed("struct tfr_show in", "struct tfr_shoe in").returncode, 1)


if __name__ == "__main__":
    sys.exit(unittest.main(argv=sys.argv[:1]))
