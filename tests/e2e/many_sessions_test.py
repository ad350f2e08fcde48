#!/usr/bin/env python3
"""Many programs on one executor: at once, in a row, more than it takes, and beside connections that
are no programs of ours.  Whatever they did, afterwards it holds what it held before.

Run by ctest like behaviour_test.py; TFR_TEST_SESSIONS says how many in a row.
"""
import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from behaviour_test import (GONE_LIMIT_S, LIMIT_S, PROBE, SANITIZE, TF_EXECUTOR, TF_RUN, descendants, ended,
                            env, started, tf_run, within)
from wire import answer, connected, frame, hello, message, ways

IN_A_ROW = int(os.environ.get("TFR_TEST_SESSIONS", "200" if SANITIZE else "1000"))
SPARES = 2  # the most workers that an executor keeps warm
NOBODY = 65534
START_LIMIT_S = 240  # fifty workers on two cores that others use too
HELLO, SNAPSHOT, REFUSED, ATTACH, QUEUED, STAT = map(
    message, ("HELLO", "SNAPSHOT", "REFUSED", "ATTACH", "QUEUED", "STAT"))


@contextlib.contextmanager
def executor(*options, **more):
    """A tf-executor with small lanes: its address, its process, and the file with its stderr."""
    with tempfile.TemporaryDirectory() as folder:
        address = "unix:" + os.path.join(folder, "tfr.sock")
        settings = {k: v for k, v in env(TFR_LANE_SIZE="4m", TFR_SOFT_WORKERS="1", **more).items()
                    if k != "LD_PRELOAD"}
        ready, write = os.pipe()
        with open(os.path.join(folder, "log"), "wb") as log, \
                started([TF_EXECUTOR, "--listen", address, "--gpu", "soft", "--ready-fd", str(write),
                         *options], pass_fds=[write], env=settings, stderr=log) as child:
            os.close(write)
            with os.fdopen(ready) as pipe:
                line = pipe.readline()
            if not line.startswith("ready"):
                raise AssertionError("tf-executor did not get ready")
            yield address, child, log.name


def idle(stack, address, **more):
    return stack.enter_context(started([TF_RUN, "--executor", address, PROBE, "idle"], text=True,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, env=env(**more)))


def held(pid):
    """What a parent holds when nobody is there: descriptors and shared memory, in bytes."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        shared = int(re.search(r"RssShmem:\s+(\d+) kB", file.read()).group(1)) << 10
    return len(os.listdir(f"/proc/{pid}/fd")), shared


class Resources(unittest.TestCase):
    def assert_as_before(self, daemon, before):
        calm = lambda: len(descendants(daemon.pid)) <= SPARES and held(daemon.pid) <= before
        self.assertTrue(within(LIMIT_S, calm),
                        f"{descendants(daemon.pid)} {held(daemon.pid)} > {before}")
        self.assertIsNone(daemon.poll())

    def before(self, address, daemon):
        """One session, so that everything made once is made; then room for the spares."""
        self.assertEqual(tf_run(PROBE, "exit", "0", executor=address).returncode, 0)
        within(GONE_LIMIT_S, lambda: len(descendants(daemon.pid)) == 1)
        files, shared = held(daemon.pid)
        return files + SPARES, shared + (SPARES << 12)


class Many(Resources):
    def test_fifty_at_once(self):
        with executor() as (address, daemon, _), contextlib.ExitStack() as stack:
            before = self.before(address, daemon)
            running = [idle(stack, address) for _ in range(50)]
            for child in running:
                self.assertEqual(child.stdout.readline(), "ready\n", child.poll())
            self.assertGreaterEqual(len(descendants(daemon.pid)), 50)
            for child in running:
                child.kill()
            self.assert_as_before(daemon, before)

    def test_in_a_row(self):
        with executor() as (address, daemon, _):
            before = self.before(address, daemon)
            for i in range(IN_A_ROW):
                got = tf_run(PROBE, "exit", "3", executor=address)
                self.assertEqual(got.returncode, 3, (i, got.stderr))
            self.assert_as_before(daemon, before)

    def test_no_more_than_it_takes_and_nobody_is_refused(self):
        with executor("--max-sessions", "2") as (address, daemon, _), contextlib.ExitStack() as stack:
            before = self.before(address, daemon)
            running = [stack.enter_context(started(
                [TF_RUN, "--executor", address, PROBE, "exit", "5"], stdin=subprocess.DEVNULL, env=env(),
                stderr=subprocess.PIPE)) for _ in range(12)]
            most = 0
            while any(child.poll() is None for child in running):
                most = max(most, len(descendants(daemon.pid)))
                time.sleep(0.02)
            self.assertEqual([child.returncode for child in running], [5] * 12)
            self.assertLessEqual(most, 2 + SPARES)
            self.assert_as_before(daemon, before)

    def test_who_waits_hears_its_place_and_gets_its_turn(self):
        with executor("--max-sessions", "1") as (address, _, _), contextlib.ExitStack() as stack:
            first = idle(stack, address)
            self.assertEqual(first.stdout.readline(), "ready\n")
            second = idle(stack, address, TFR_LOG="info")
            lines = iter(second.stderr.readline, "")
            self.assertTrue(any(re.search(r"queued for \d+ s: place 1, 1 sessions run", l) for l in lines))
            time.sleep(5)  # longer than a silent executor is given
            first.kill()
            self.assertEqual(second.stdout.readline(), "ready\n")


def contents(path):
    with open(path, "rb") as file:
        return file.read()


class Workers(unittest.TestCase):
    def environments(self, daemon):
        found = []
        for pid in descendants(daemon.pid):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
                found.append(file.read().split(b"\0"))
        return found

    def test_settings_of_the_driver_travel(self):
        with executor() as (address, daemon, _), contextlib.ExitStack() as stack:
            settings = {"CUDA_MODULE_LOADING": "EAGER", "CUDA_DEVICE_MAX_CONNECTIONS": "4",
                        "CUDA_CACHE_PATH": "/nowhere", "CUDA_LAUNCH_BLOCKING": "$(x)"}
            child = idle(stack, address, **settings)
            self.assertEqual(child.stdout.readline(), "ready\n")
            wanted = [b"CUDA_MODULE_LOADING=EAGER", b"CUDA_DEVICE_MAX_CONNECTIONS=4"]
            match = [e for e in self.environments(daemon) if all(w in e for w in wanted)]
            self.assertTrue(match, "no worker was started with them")
            for entry in match[0]:
                self.assertFalse(entry.startswith((b"CUDA_CACHE_PATH", b"CUDA_LAUNCH_BLOCKING")), entry)
            plain = idle(stack, address)
            self.assertEqual(plain.stdout.readline(), "ready\n")
            self.assertTrue([e for e in self.environments(daemon) if wanted[0] not in e])

    def test_cannot_gain_privileges_once_there_is_a_program(self):
        with executor() as (address, daemon, _), contextlib.ExitStack() as stack:
            self.assertEqual(idle(stack, address).stdout.readline(), "ready\n")
            self.assertTrue(any(b"NoNewPrivs:\t1" in contents(f"/proc/{pid}/status")
                                for pid in descendants(daemon.pid)))

    def test_one_that_dies_while_it_waits_is_replaced(self):
        with executor() as (address, daemon, log):
            self.assertTrue(within(LIMIT_S, lambda: len(descendants(daemon.pid)) == 1))
            first = descendants(daemon.pid)
            for pid in first:
                os.kill(pid, signal.SIGKILL)
            self.assertTrue(within(LIMIT_S, lambda: len(descendants(daemon.pid) - first) == 1))
            with open(log, encoding="utf-8") as file:
                self.assertIn("ended while it waited", file.read())
            self.assertEqual(tf_run(PROBE, "exit", "3", executor=address).returncode, 3)

    @unittest.skipIf(SANITIZE or os.geteuid(), "limits its processes: needs root, and no sanitizer's threads")
    def test_that_cannot_be_started_are_tried_again(self):
        settings = {k: v for k, v in env().items() if k != "LD_PRELOAD"}
        most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        with tempfile.TemporaryDirectory() as folder, open(os.path.join(folder, "log"), "wb") as log:
            os.chmod(folder, 0o777)
            if subprocess.run([TF_EXECUTOR, "--help"], user=NOBODY, capture_output=True, check=False).returncode:
                self.skipTest("the build folder is closed to other users")
            ready, write = os.pipe()
            with os.fdopen(ready) as pipe, started(
                    [TF_EXECUTOR, "--listen", "unix:" + os.path.join(folder, "sock"), "--gpu", "soft",
                     "--ready-fd", str(write)], pass_fds=[write], env=settings, stderr=log, user=NOBODY,
                    extra_groups=[],
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (1, most))) as child:
                os.close(write)
                self.assertTrue(within(LIMIT_S, lambda: b"no worker can be started" in contents(log.name)))
                more = "unlimited" if most == resource.RLIM_INFINITY else str(most)
                subprocess.run(["prlimit", f"--pid={child.pid}", "--nproc=" + more], user=NOBODY, check=True)
                self.assertTrue(pipe.readline().startswith("ready"), contents(log.name))

    def test_sigterm_ends_running_sessions_within_a_second(self):
        with executor() as (address, daemon, log), contextlib.ExitStack() as stack:
            running = [idle(stack, address) for _ in range(3)]
            for child in running:
                self.assertEqual(child.stdout.readline(), "ready\n")
            workers = descendants(daemon.pid)
            daemon.terminate()
            self.assertTrue(ended(daemon, GONE_LIMIT_S))
            self.assertEqual(daemon.returncode, 0)
            # Those that took longer have been killed, and may still be at it.
            left = lambda: [p for p in workers if os.path.exists(f"/proc/{p}/exe")]
            self.assertTrue(within(GONE_LIMIT_S, lambda: not left()), left())
            self.assertFalse(os.path.exists(address[len("unix:"):]))
            with open(log, encoding="utf-8") as file:
                self.assertIn("running sessions with it: 3", file.read())

    def test_a_second_executor_on_the_same_socket_says_so(self):
        with executor() as (address, daemon, _):
            got = subprocess.run([TF_EXECUTOR, "--listen", address, "--gpu", "soft"], env=env(),
                                 capture_output=True, timeout=LIMIT_S, check=False)
            self.assertEqual(got.returncode, 1)
            self.assertIn(b"in use by another process", got.stderr)
            self.assertEqual(tf_run(PROBE, "exit", "0", executor=address).returncode, 0)
            self.assertIsNone(daemon.poll())


# ---- connections that are no programs ----


class Strangers(Resources):
    BAD = [b"GET / HTTP/1.0\r\n\r\n", frame(HELLO, b"x" * 88), frame(HELLO, length=1 << 19),
           frame(99), frame(ATTACH), frame(HELLO, hello(b"LD_PRELOAD=x\0")),
           frame(HELLO, hello(b"CUDA_MODULE_LOADING=a b\0")),
           frame(HELLO, hello(b"CUDA_MODULE_LOADING=EAGER")),
           frame(HELLO, hello(b"CUDA_MODULE_LOADING=A\0CUDA_LAUNCH_BLOCKING=1\0")),
           frame(STAT, b"x" * 88), b"\0" * 64]

    def test_nonsense_is_closed(self):
        with executor() as (address, daemon, _):
            before = self.before(address, daemon)
            for data in self.BAD:
                with connected(address, data) as sock:
                    self.assertIsNone(answer(sock), data)
            self.assert_as_before(daemon, before)

    def test_who_leaves_at_any_stage_leaves_nothing(self):
        stages = [[], [frame(HELLO, hello())[:7]], [frame(HELLO, hello())[:40]], [frame(HELLO, hello())],
                  [frame(HELLO, hello()), frame(ATTACH)[:9]],
                  [frame(HELLO, hello()), frame(ATTACH, ways("shm"))],
                  [frame(HELLO, hello()), frame(ATTACH, ways("no such"))],
                  [frame(STAT, hello())]]
        with executor() as (address, daemon, _):
            before = self.before(address, daemon)
            for data in stages:
                for wait in (0, 0.2):
                    with connected(address, *data):
                        time.sleep(wait)
            got = tf_run(PROBE, "exit", "0", executor=address)
            self.assertEqual(got.returncode, 0, got.stderr)
            self.assert_as_before(daemon, before)

    def test_a_flood_of_nonsense_disturbs_nobody(self):
        over = threading.Event()
        sent = [0]

        def flood(address):
            while not over.is_set():
                with contextlib.suppress(OSError), connected(address, self.BAD[sent[0] % len(self.BAD)]):
                    sent[0] += 1
                time.sleep(0.0005)

        with executor() as (address, daemon, log), contextlib.ExitStack() as stack:
            before = self.before(address, daemon)
            running = idle(stack, address)
            self.assertEqual(running.stdout.readline(), "ready\n")
            threads = [threading.Thread(target=flood, args=(address,)) for _ in range(2)]
            for thread in threads:
                thread.start()
            try:
                for _ in range(5):
                    got = tf_run(PROBE, "exit", "3", executor=address)
                    self.assertEqual(got.returncode, 3, got.stderr)
                self.assertTrue(within(LIMIT_S, lambda: sent[0] > 1000))
            finally:
                over.set()
                for thread in threads:
                    thread.join()
            self.assertIsNone(running.poll())
            running.kill()
            self.assert_as_before(daemon, before)
            with open(log, encoding="utf-8") as file:
                self.assertLess(len(file.readlines()), 100, "one line for each of them")

    def test_a_thousand_are_queued_and_the_next_is_told_why_not(self):
        with executor("--max-sessions", "1") as (address, daemon, _), contextlib.ExitStack() as stack:
            before = self.before(address, daemon)
            holder = idle(stack, address)
            self.assertEqual(holder.stdout.readline(), "ready\n")
            attach = [frame(HELLO, hello()), frame(ATTACH, ways("shm"))]
            socks = [stack.enter_context(connected(address, *attach)) for _ in range(1025)]
            self.assertEqual([answer(socks[0]), answer(socks[0])], [SNAPSHOT, QUEUED])
            self.assertEqual([answer(socks[-1]), answer(socks[-1])], [SNAPSHOT, REFUSED])
            holder.kill()
            for sock in socks:
                sock.close()
            self.assertEqual(tf_run(PROBE, "exit", "3", executor=address).returncode, 3)
            self.assert_as_before(daemon, before)

    def test_silent_connections_keep_nobody_out(self):
        with executor() as (address, daemon, _), contextlib.ExitStack() as stack:
            before = self.before(address, daemon)
            for _ in range(150):
                stack.enter_context(connected(address))
            got = tf_run(PROBE, "exit", "3", executor=address)
            self.assertEqual(got.returncode, 3, got.stderr)
            self.assert_as_before(daemon, before)


if __name__ == "__main__":
    sys.exit(unittest.main())
