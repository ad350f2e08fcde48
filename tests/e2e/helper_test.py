#!/usr/bin/env python3
"""The client's helper threads and the text of a real driver, seen from outside: an idle session that
has used a host function costs next to nothing, a program may leave while a function runs, and what a
driver says on stderr is the program's.

Run by ctest as behaviour_test.py is.
"""
import os
import subprocess
import sys
import time
import unittest

import behaviour_test as kit

PROBE = os.path.join(kit.BIN, "helper_probe")
WINDOW_S = 5
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def calm(pids):
    before = sum(map(kit.cpu_s, pids))
    time.sleep(0.3)
    return sum(map(kit.cpu_s, pids)) <= before + TICK_S


class Idle(unittest.TestCase):
    def test_costs_a_hundredth_of_a_core_on_each_side(self):
        with kit.executor() as (address, daemon), kit.started(
                [kit.TF_RUN, "--executor", address, PROBE, "idle"], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=kit.env(), text=True) as child:
            self.assertEqual(child.stdout.readline(), "ready\n")
            sides = [child.pid, *kit.descendants(daemon.pid)]
            kit.within(20, lambda: calm(sides))  # the next spare worker is still starting
            limit = WINDOW_S / 100 + TICK_S
            used = kit.cpu_at_rest(lambda: sides, WINDOW_S, limit)
            self.assertLessEqual(max(used.values()), limit, used)

    def test_functions_that_find_all_threads_busy_are_waited_for_asleep(self):
        with kit.executor() as (address, _), kit.started(
                [kit.TF_RUN, "--executor", address, PROBE, "crowd"], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=kit.env(), text=True) as child:
            self.assertEqual(child.stdout.readline(), "ready\n")
            limit = WINDOW_S / 20 + TICK_S
            used = kit.cpu_at_rest(lambda: [child.pid], WINDOW_S, limit)
            self.assertLessEqual(used[child.pid], limit)


class Ends(unittest.TestCase):
    def test_a_program_may_leave_while_a_function_runs(self):
        got = kit.tf_run(PROBE, "leave")
        self.assertEqual((got.stdout, got.returncode), (b"ready\nat exit\n", 0), got.stderr)

    def test_a_forked_child_does_not_disturb_its_parent(self):
        got = kit.tf_run(PROBE, "fork")
        self.assertEqual((got.stdout, got.returncode), (b"ready\n", 0), got.stderr)

    def test_functions_run_before_a_reset_and_in_the_next_session(self):
        got = kit.tf_run(PROBE, "reset")
        self.assertEqual((got.stdout, got.returncode), (b"ready\n", 0), got.stderr)


class Text(unittest.TestCase):
    def test_the_drivers_last_words_are_the_programs(self):
        with kit.executor() as (address, _):
            got = kit.tf_run(os.path.join(kit.BIN, "device_assert"), executor=address)
        self.assertIn(b"Assertion `at[threadIdx.x] == 7` failed", got.stderr)
        self.assertIn(b"printed before the assertion\n", got.stdout)

    def test_late_text_comes_before_an_error_is_told(self):
        got = kit.tf_run(PROBE, "trap", TFR_SOFT_LATE_TEXT="1")
        self.assertEqual(got.stdout, b"the number is 8\ncudaErrorLaunchFailure\n", got.stderr)


if __name__ == "__main__":
    sys.exit(unittest.main())
