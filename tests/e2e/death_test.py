#!/usr/bin/env python3
"""Who dies when, and what is left: executors killed and stopped under CUDA programs at random points,
clients killed and gone at random points, forked children that outlive them; and what a session costs
that does nothing.

Run by ctest with TFR_TEST_BUILD, TFR_TEST_BIN and TFR_TEST_SANITIZE as behaviour_test.py is, from which
it has its helpers, and once more with TFR_TRANSPORT=tcp.  TFR_TEST_FULL=1 takes 100 rounds instead of 20;
TFR_TEST_SEED repeats a run.
"""
import os
import random
import re
import signal
import subprocess
import sys
import time
import unittest

import behaviour_test as kit

ROUNDS = 100 if os.environ.get("TFR_TEST_FULL") else 20
HANGS_S = 3 * kit.LIMIT_S  # of programs that take seconds where nothing else runs
SEED = int(os.environ.get("TFR_TEST_SEED", "1"))
HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = """vector_add matmul_tiled reduce symbols streams_events event_timing pageable_reuse pinned_copies
    memset_all d2d_copies legacy_stream threads many_launches scan histogram registered_copies device_reset
    random_dag full_queues driver_api printf_order""".split()
UNAVAILABLE = "cudaErrorDevicesUnavailable"
TRANSPORT = os.environ.get("TFR_TRANSPORT", "shm")
needs_mapped_memory = unittest.skipIf(TRANSPORT != "shm", f"over {TRANSPORT} kernels see no memory of the client")


def golden(name):
    with open(os.path.join(HERE, name + ".out"), "rb") as file:
        return file.read()


def run_program(address, name, **more):
    return kit.started([kit.TF_RUN, "--executor", address, os.path.join(kit.BIN, name)],
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       env=kit.env(**more))


def kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def alive(pids):
    table = kit.processes()
    return [p for p in pids if table.get(p, (0, 0, "Z"))[2] != "Z"]


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1))


class Executors(unittest.TestCase):
    """Killed: the program ends by itself, with its own status, whatever it was doing."""

    def rounds(self, stab, rounds):
        dice = random.Random(SEED)
        took, failed = {}, 0
        for number in range(rounds):
            name = PROGRAMS[number % len(PROGRAMS)]
            with kit.executor() as (address, daemon):
                begin = time.monotonic()
                with run_program(address, name) as program:
                    if name in took:
                        time.sleep(dice.uniform(0, took[name]))
                        stab(daemon)
                    try:
                        out, err = program.communicate(timeout=HANGS_S)
                    except subprocess.TimeoutExpired:
                        self.fail(f"round {number}: {name} hangs")
                    took.setdefault(name, time.monotonic() - begin)
                    text = f"round {number}: {name}: {program.returncode}, {err.decode()}"
                    self.assertGreaterEqual(program.returncode, 0, text)
                    if program.returncode == 0:
                        self.assertEqual(out, golden(name), text)
                    else:
                        self.assertTrue(err, text)
                        failed += 1
        return failed

    def test_worker_killed_at_a_random_point(self):
        def stab(daemon):
            for pid in kit.descendants(daemon.pid):
                kill(pid, signal.SIGKILL)
        self.assertGreater(self.rounds(stab, len(PROGRAMS) + ROUNDS), 0)

    def test_parent_killed_at_a_random_point(self):
        self.rounds(lambda daemon: kill(daemon.pid, signal.SIGKILL), len(PROGRAMS) + ROUNDS // 4)


class Stopped(unittest.TestCase):
    """Neither gone nor alive: only the heartbeat tells."""

    def stop(self, word, *args, goes_on=False, **settings):
        """A probe whose executor is stopped once it is ready, perhaps until the probe has warned: stdout, stderr,
        status."""
        with kit.executor() as (address, daemon):
            with kit.started([kit.TF_RUN, "--executor", address, kit.PROBE, word, *args],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env=kit.env(**settings), text=True) as program:
                self.assertEqual(program.stdout.readline(), "ready\n")
                stopped = kit.descendants(daemon.pid)
                for pid in stopped:
                    kill(pid, signal.SIGSTOP)
                said = ""
                if goes_on:
                    said = program.stderr.readline()
                    for pid in stopped:
                        kill(pid, signal.SIGCONT)
                out, err = program.communicate(timeout=kit.LIMIT_S)
                err = said + err
                for pid in stopped:
                    kill(pid, signal.SIGKILL)
                return out, err, program.returncode, stopped

    def test_one_warning_then_an_error(self):
        for word in ("hang", "poll", "spin"):
            out, err, status, stopped = self.stop(word, TFR_WAIT_LIMIT="2500")
            self.assertEqual((out, status), (UNAVAILABLE + "\n", 5), err)
            warnings = [line for line in err.splitlines() if "no sign of life from" in line]
            self.assertEqual(len(warnings), 1, err)
            pid = int(re.search(r"process (\d+)", warnings[0]).group(1))
            self.assertIn(pid, stopped)
            self.assertRegex(warnings[0], "waiting for (a stream|an answer)")
            self.assertEqual(err.count("the GPU session is lost"), 1, err)

    @needs_mapped_memory
    def test_goes_on_when_it_goes_on(self):
        out, err, status, _ = self.stop("longer", "4", goes_on=True)
        self.assertEqual((out, status), ("done\n", 0), err)
        self.assertEqual(err.count("no sign of life from"), 1, err)
        self.assertEqual(err.count("goes on"), 1, err)

    @needs_mapped_memory
    def test_a_long_kernel_is_no_error(self):
        got = kit.tf_run(kit.PROBE, "longer", "4", TFR_WAIT_LIMIT="2000")
        self.assertEqual((got.stdout, got.returncode), (b"ready\ndone\n", 0), got.stderr)

    @needs_mapped_memory
    def test_a_client_does_not_count_its_own_stop(self):
        with kit.executor() as (address, _):
            with kit.started([kit.TF_RUN, "--executor", address, kit.PROBE, "longer", "1"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env=kit.env(TFR_WAIT_LIMIT="2000"),
                             text=True) as program:
                self.assertEqual(program.stdout.readline(), "ready\n")
                program.send_signal(signal.SIGSTOP)
                time.sleep(3)
                program.send_signal(signal.SIGCONT)
                out, err = program.communicate(timeout=kit.LIMIT_S)
                self.assertEqual((out, program.returncode), ("done\n", 0), err)
                self.assertNotIn("no sign of life", err)


class Clients(unittest.TestCase):
    def gone(self, workers):
        self.assertTrue(kit.within(kit.GONE_LIMIT_S, lambda: not alive(workers)), alive(workers))

    def test_killed_at_a_random_point_leave_nothing(self):
        dice = random.Random(SEED)
        with kit.executor() as (address, daemon):
            self.assertEqual(kit.tf_run(kit.PROBE, "exit", "0", executor=address).returncode, 0)
            time.sleep(1)
            before, memory = descriptors(daemon.pid), 0
            for number in range(ROUNDS):
                with run_program(address, PROGRAMS[number % len(PROGRAMS)]) as program:
                    time.sleep(dice.uniform(0, 0.3))
                    program.kill()
                    program.wait()
                    # Whichever it had; spares live.
                    self.assertTrue(kit.within(
                        kit.GONE_LIMIT_S, lambda: len(kit.descendants(daemon.pid)) <= 2))
                memory = memory or resident_kib(daemon.pid)
            self.assertIsNone(daemon.poll())
            self.assertTrue(kit.within(kit.LIMIT_S, lambda: descriptors(daemon.pid) <= before + 2),
                            (before, descriptors(daemon.pid)))
            self.assertLess(resident_kib(daemon.pid), memory + 4096)

    @needs_mapped_memory
    def test_that_leave_while_work_is_pending(self):
        for status in (0, 3):
            with kit.executor() as (address, daemon):
                with kit.client(address, "leave", str(status)) as program:
                    self.assertEqual(program.stdout.readline(), "ready\n")
                    workers = kit.descendants(daemon.pid)
                    self.assertEqual(program.wait(kit.LIMIT_S), status)
                    # A spare that was warm stays; 3 waits for its work, and its worker may have
                    # gone before we looked.
                    self.assertTrue(kit.within(
                        kit.GONE_LIMIT_S,
                        lambda: len(workers & kit.descendants(daemon.pid)) < max(len(workers), 2)))

    def test_forked_child_that_lives_on_keeps_no_worker(self):
        with kit.executor() as (address, daemon):
            with kit.client(address, "leave_child") as program:
                line = program.stdout.readline()
                child = int(re.fullmatch(r"child (\d+)\n", line).group(1))
                workers = kit.descendants(daemon.pid)
                program.kill()
                program.wait()
                try:
                    self.assertTrue(kit.within(
                        kit.GONE_LIMIT_S,
                        lambda: len(workers & kit.descendants(daemon.pid)) < len(workers)))
                    self.assertTrue(alive([child]))
                finally:
                    kill(child, signal.SIGKILL)


class Idle(unittest.TestCase):
    """An attached session that does nothing takes next to nothing (1 % of a core is promised)."""

    def measure(self, sessions):
        with kit.executor() as (address, daemon):
            with kit.contextlib.ExitStack() as stack:
                programs = [stack.enter_context(kit.client(address, "idle"))
                            for _ in range(sessions)]
                for program in programs:
                    self.assertEqual(program.stdout.readline(), "ready\n")
                time.sleep(2)  # spares start
                pids = lambda: [p.pid for p in programs] + list(kit.descendants(daemon.pid))
                limit = 3 * 0.03
                used = kit.cpu_at_rest(pids, 3, limit)
                self.assertLessEqual(max(used.values()), limit, f"of {sessions} sessions: {used}")

    def test_one(self):
        self.measure(1)

    def test_eight(self):
        self.measure(8)


if __name__ == "__main__":
    sys.exit(unittest.main())
