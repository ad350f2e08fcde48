#!/usr/bin/env python3
"""Client and executor on two machines, as far as two network namespaces are two machines: who is served,
which transport is taken, what a lost line, a dead client and a dead executor end in, and what is said of
addresses and settings that cannot work.

Run by ctest as behaviour_test.py is; TFR_TEST_PLUGINS is a folder with a verbs.so that fails where it is
told to (bad_plugin.c)."""
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import behaviour_test as kit
import net
from many_sessions_test import executor as near_executor

PLUGINS = os.environ.get("TFR_TEST_PLUGINS", "")
UNAVAILABLE = "cudaErrorDevicesUnavailable"
CUT_LIMIT_S = 4 + kit.SLACK_S
CROWD = 64
CROWD_LIMIT_S = 400
PATIENT = {"TFR_CONNECT_MS": "60000"}  # they all start at the same time


def settings(**more):
    return {k: v for k, v in kit.env(**more).items() if k != "LD_PRELOAD"}


class Net(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.key = os.path.join(self.folder, "key")
        self.log = os.path.join(self.folder, "log")
        self.pair = self.stack.enter_context(net.pair())

    def executor(self, *options, **more):
        return self.stack.enter_context(net.executor(
            self.pair, kit.TF_EXECUTOR, settings(**{"TFR_LANE_SIZE": "4m", **more}), self.key, *options,
            log=self.log))

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def client(self, address, *args, **more):
        return self.stack.enter_context(kit.started(
            [*self.pair.client, kit.TF_RUN, "--executor", address, *args], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=kit.env(**{"TFR_KEY_FILE": self.key, **more})))

    def run_client(self, address, *args, limit_s=kit.LIMIT_S, **more):
        child = self.client(address, *args, **more)
        out, err = child.communicate(timeout=limit_s)
        return child.returncode, out, err

    def ready(self, address, *args, **more):
        child = self.client(address, kit.PROBE, *args, **more)
        line = child.stdout.readline()
        self.assertEqual(line, "ready\n", line or child.stderr.read())
        return child


class Service(Net):
    def test_a_program_runs(self):
        address, _ = self.executor("-v")
        status, out, err = self.run_client(address, os.path.join(kit.BIN, "vector_add"), TFR_LOG="info")
        self.assertEqual(status, 0, err)
        self.assertIn("sums are right", out)
        self.assertRegex(err, r"transport tcp \(shm: memory is shared over a unix: address alone|"
                              r"transport tcp \(shm: client: memory is shared over a unix: address alone")
        self.assertRegex(self.said(), r"transport tcp \(shm: ")

    def test_a_program_without_standard_descriptors_runs(self):
        """What it prints, and what we log, must not go into the session's connections."""
        address, _ = self.executor()
        for program in ("vector_add", "pinned_copies"):
            status, _, _ = self.run_client(address, "sh", "-c", 'exec "$0" <&- >&- 2>&-',
                                           os.path.join(kit.BIN, program), TFR_LOG="info")
            self.assertEqual(status, 0, program)

    def test_nobody_without_the_key_is_served(self):
        address, _ = self.executor()
        other = os.path.join(self.folder, "other")
        with open(other, "w", encoding="ascii") as file:
            file.write("0" * 64 + "\n")
        os.chmod(other, 0o600)
        status, _, err = self.run_client(address, kit.PROBE, "exit", "0", TFR_KEY_FILE=other)
        self.assertNotEqual(status, 0)
        self.assertIn("key", err)

    def test_events_of_an_idle_client_are_not_lost(self):
        address, _ = self.executor()
        child = self.ready(address, "pending", "10000")
        out, err = child.communicate(timeout=kit.LIMIT_S + 60)
        self.assertEqual((out, child.returncode), ("seen 10000\n", 0), err)

    def test_a_forked_child_that_lives_on_keeps_no_worker(self):
        address, daemon = self.executor()
        program = self.client(address, kit.PROBE, "leave_child")
        child = int(program.stdout.readline().split()[1])
        try:
            workers = kit.descendants(daemon.pid)
            program.kill()
            program.wait()
            self.assertTrue(kit.within(kit.GONE_LIMIT_S, lambda: workers - kit.descendants(daemon.pid)))
            self.assertIn(child, kit.processes())
        finally:
            os.kill(child, signal.SIGKILL)

    def crowd(self, start):
        """CROWD programs at once on two workers: all get their turn, none is refused."""
        running = [start() for _ in range(CROWD)]
        until = time.monotonic() + CROWD_LIMIT_S
        for child in running:
            _, err = child.communicate(timeout=max(1, until - time.monotonic()))
            self.assertEqual(child.returncode, 5, err)

    def test_sixty_four_at_once_on_two_workers(self):
        address, daemon = self.executor("--max-sessions", "2", TFR_SOFT_WORKERS="1")
        self.crowd(lambda: self.client(address, kit.PROBE, "exit", "5", **PATIENT))
        self.assertTrue(kit.within(kit.GONE_LIMIT_S + 5, lambda: len(kit.descendants(daemon.pid)) <= 2))

    def test_sixty_four_at_once_on_two_workers_of_this_machine(self):
        with near_executor("--max-sessions", "2") as (address, _, _):
            self.crowd(lambda: self.stack.enter_context(kit.started(
                [kit.TF_RUN, "--executor", address, kit.PROBE, "exit", "5"], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=kit.env(**PATIENT))))


class Ends(Net):
    """Every wait ends, with an error, and no worker is left."""

    def assert_ends(self, child, limit_s):
        self.assertTrue(kit.ended(child, limit_s))
        out, err = child.communicate(timeout=kit.LIMIT_S)
        self.assertEqual((out, child.returncode), (UNAVAILABLE + "\n", 5), err)
        self.assertEqual(err.count("the GPU session is lost"), 1, err)
        self.assertIn("the network", err)

    def test_worker_killed(self):
        for word in ("hang", "poll", "spin"):
            address, daemon = self.executor()
            child = self.ready(address, word)
            for pid in kit.descendants(daemon.pid):
                os.kill(pid, signal.SIGKILL)
            self.assert_ends(child, kit.GONE_LIMIT_S)

    def test_executor_killed(self):
        address, daemon = self.executor()
        child = self.ready(address, "spin")
        workers = kit.descendants(daemon.pid)
        daemon.kill()
        self.assert_ends(child, kit.GONE_LIMIT_S)
        self.assertTrue(kit.within(kit.GONE_LIMIT_S, lambda: not workers & set(kit.processes())))

    def test_client_killed(self):
        for word in ("hang", "spin", "idle"):
            address, daemon = self.executor()
            child = self.ready(address, word)
            workers = kit.descendants(daemon.pid)
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            self.assertTrue(kit.within(kit.GONE_LIMIT_S, lambda: workers - kit.descendants(daemon.pid)), word)

    def lose(self, how, *words):
        for word in words:
            with self.subTest(word):
                address, daemon = self.executor()
                child = self.ready(address, word)
                workers = kit.descendants(daemon.pid)
                self.pair.cut(how)
                try:
                    self.assert_ends(child, CUT_LIMIT_S)
                    self.assertTrue(kit.within(CUT_LIMIT_S, lambda: workers - kit.descendants(daemon.pid)))
                    self.assertIsNone(daemon.poll())
                finally:
                    self.pair.mend(how)

    def lose_idle(self, how):
        address, daemon = self.executor()
        self.ready(address, "idle")
        workers = kit.descendants(daemon.pid)
        self.pair.cut(how)
        self.assertTrue(kit.within(CUT_LIMIT_S, lambda: workers - kit.descendants(daemon.pid)))
        self.pair.mend(how)
        self.assertEqual(self.run_client(address, kit.PROBE, "exit", "3")[0], 3)

    def test_line_cut(self):
        self.lose("down", "hang", "poll", "spin")

    def test_line_cut_under_an_idle_client(self):
        self.lose_idle("down")

    def test_the_other_machine_vanishes(self):
        self.lose("vanish", "hang", "spin")

    def test_the_other_machine_vanishes_under_an_idle_client(self):
        self.lose_idle("vanish")


class Transports(Net):
    """Which one is taken, and what is said of the others."""

    def chosen(self, client=None, worker=None):
        address, _ = self.executor("-v", TFR_PLUGINS=PLUGINS, **(worker or {}))
        status, out, err = self.run_client(address, kit.PROBE, "exit", "3", TFR_PLUGINS=PLUGINS,
                                           **{"TFR_LOG": "info", **(client or {})})
        return status, err, self.said()

    def test_what_cannot_be_opened_is_passed_over_on_both_sides(self):
        cases = {"offer": "verbs: client: the test says that there is no device",
                 "prepare": "verbs: the client could not prepare it",
                 "open": r"verbs: the \w+ could not open it"}
        for bad, want in cases.items():
            with self.subTest(bad):
                status, err, said = self.chosen({"TFR_TEST_BAD": bad})
                self.assertEqual(status, 3, err)
                self.assertRegex(err, rf"transport tcp \(.*{want}")
                self.assertRegex(said, rf"transport tcp \(.*{want}")
        cases = {"offer": "verbs: executor: the test says that there is no device",
                 "suits": "verbs: the test says that the two have no fabric in common",
                 "prepare": "verbs: the executor could not prepare it"}
        for bad, want in cases.items():
            with self.subTest(bad):
                status, err, said = self.chosen(worker={"TFR_TEST_BAD": bad})
                self.assertEqual(status, 3, err)
                self.assertRegex(err, rf"transport tcp \(.*{want}")
                self.assertRegex(said, rf"transport tcp \(.*{want}")

    def assert_one_line(self, err, want):
        lines = [line for line in err.splitlines() if line.startswith("tf: ") and ": info: " not in line]
        self.assertEqual(len(lines), 1, err)
        self.assertRegex(lines[0], want)

    def test_a_name_leaves_no_choice(self):
        for bad, want in (("offer", r"no transport: verbs: .* no device"),
                          ("open", r"refused this program: .*share no transport: verbs: the \w+ could not open")):
            with self.subTest(bad):
                status, err, _ = self.chosen({"TFR_TEST_BAD": bad, "TFR_TRANSPORT": "verbs", "TFR_LOG": "warn"})
                self.assertNotEqual(status, 3)
                self.assert_one_line(err, want)

    def test_the_executor_may_leave_no_choice(self):
        status, err, _ = self.chosen({"TFR_TEST_BAD": "offer", "TFR_LOG": "warn"}, {"TFR_TRANSPORT": "verbs"})
        self.assertNotEqual(status, 3)
        self.assert_one_line(err, "verbs: .* no device")
        status, err, _ = self.chosen({"TFR_TRANSPORT": "tcp", "TFR_LOG": "warn"}, {"TFR_TRANSPORT": "verbs"})
        self.assert_one_line(err, "tcp: executor: its TFR_TRANSPORT says otherwise")

    def test_nothing_is_said_unless_asked(self):
        address, _ = self.executor(TFR_PLUGINS="/nonexistent")
        got = self.run_client(address, kit.PROBE, "exit", "3", TFR_PLUGINS="/nonexistent")
        self.assertEqual(got, (3, "", ""))
        self.assertEqual(len(self.said().splitlines()), 1, self.said())


class BadInput(Net):
    def refused(self, address, want, **more):
        status, _, err = self.run_client(address, kit.PROBE, "count", **more)
        self.assertNotEqual(status, 0)
        lines = [line for line in err.splitlines() if line.startswith("tf: ")]
        self.assertEqual(len(lines), 1, err)
        self.assertRegex(lines[0], want)

    def test_addresses_that_cannot_work(self):
        self.executor()
        self.refused("tcp:10.77.0.2", "no address of an executor|\"tcp:10.77.0.2\"")
        self.refused("rdma:10.77.0.2:1", "\"rdma:10.77.0.2:1\"")
        self.refused("tcp:no-such-host.invalid:7070", "no-such-host.invalid")
        self.refused("tcp:10.77.0.2:1", r"10\.77\.0\.2:1")
        self.refused("tcp:10.77.0.99:7070", r"10\.77\.0\.99:7070", TFR_CONNECT_MS="1000")

    def test_a_transport_that_is_none(self):
        address, _ = self.executor()
        self.refused(address, "transport nonsense: there is none of that name, but shm, verbs, ucx and tcp",
                     TFR_TRANSPORT="nonsense")

    def test_shared_memory_of_two_machines(self):
        address, _ = self.executor()
        status, _, err = self.run_client(address, kit.PROBE, "exit", "3", TFR_TRANSPORT="shm")
        self.assertNotEqual(status, 3)
        lines = [line for line in err.splitlines() if line.startswith("tf: ")]
        self.assertEqual(len(lines), 1, err)
        self.assertRegex(lines[0], "shm: memory is shared over a unix: address alone.*TFR_TRANSPORT=auto")


if __name__ == "__main__":
    WHY = net.missing()
    if WHY:
        print("skipped:", WHY)
        sys.exit(77)
    sys.exit(unittest.main())
