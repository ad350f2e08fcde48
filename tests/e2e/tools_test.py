#!/usr/bin/env python3
"""tf-info, tf-stat and scripts/gpu-proof: what they say is true, and what goes wrong has an exit status.

Run by ctest like behaviour_test.py; TFR_TEST_PROOF=no leaves gpu-proof out (it knows no sanitizers)."""
import glob
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

from behaviour_test import (BIN, BUILD, PROBE, TF_RUN, client, env, executor, started, tf_run,
                            within)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMIT_S = 120


def tool(name, *args, **more):
    settings = {k: v for k, v in env(**more).items() if k != "LD_PRELOAD"}
    return subprocess.run([os.path.join(BUILD, "bin", name), *args], env=settings, capture_output=True,
                          text=True, timeout=LIMIT_S, check=False)


def sources():
    for folder in ("base", "transport", "intercept", "executor", "proto", "face", "bench", "tools"):
        for path in glob.glob(os.path.join(ROOT, folder, "**", "*.[ch]"), recursive=True):
            with open(path, encoding="utf-8") as file:
                yield file.read()


class Info(unittest.TestCase):
    def test_names_version_transports_settings_and_limits(self):
        got = tool("tf-info", TFR_SPIN_US="7")
        self.assertEqual((got.returncode, got.stderr), (0, ""))
        self.assertRegex(got.stdout, r"\ATFR \d+\.\d+\.\d+")
        self.assertIn("transports built in: shm", got.stdout)
        self.assertRegex(got.stdout, r"(?m)^\* TFR_SPIN_US +7 .*spins")
        self.assertRegex(got.stdout, r"(?m)^  TFR_LOG +warn ")
        for limit in ("locked memory", "open files", "address space", "cgroup", "processors",
                      "huge pages, shared", "/dev/shm", "membarrier"):
            self.assertIn(limit, got.stdout)

    def test_knows_every_off_switch_in_the_sources(self):
        got = tool("tf-info", TFR_PERF="no_membarrier")
        self.assertRegex(got.stdout, r"(?m)^\* membarrier +off")
        used = {name for text in sources() for name in re.findall(r'tfr_perf_on\("(\w+)"\)', text)}
        self.assertIn("membarrier", used)
        listed = set(re.findall(r"(?m)^[* ] (\w+) +(?:on|off) ", got.stdout))
        self.assertEqual(used - listed, set(), "switches without a row in base/env.c")
        self.assertEqual(listed - used, set(), "rows in base/env.c that switch nothing")

    def test_shows_what_an_executor_offers(self):
        with executor() as (address, _):
            got = tool("tf-info", "--executor", address)
            self.assertEqual(got.returncode, 0, got.stderr)
            self.assertRegex(got.stdout, r"device 0: TFR software GPU, 4\.0 GiB, compute capability \d+\.\d")
            self.assertRegex(got.stdout, r"GPU-\w{8}-\w{4}-\w{4}-\w{4}-\w{12}\n")
            self.assertRegex(got.stdout, r"device list: \d+\.\d+ ms")
            release = re.search(r"\ATFR (.*)", got.stdout).group(1)
            self.assertIn("release " + release + "\n", got.stdout)

    def test_exit_status(self):
        self.assertEqual(tool("tf-info", "--executor", "unix:/nonexistent").returncode, 1)
        got = tool("tf-info", "--executor", "bogus")
        self.assertEqual(got.returncode, 2)
        self.assertIn("unix:PATH", got.stderr)
        self.assertEqual(tool("tf-info", "--no-such").returncode, 2)
        self.assertEqual(tool("tf-info", "surplus").returncode, 2)
        self.assertEqual(tool("tf-info", "--help").returncode, 0)


class Options(unittest.TestCase):
    def test_that_do_not_fit_are_one_line_that_names_them(self):
        listen = ("--listen", "unix:/nonexistent/sock")
        for args, want in (((), "no address: --listen"), ((*listen, "surplus"), "\"surplus\" is no option"),
                           ((*listen, "--gpu", "fast"), "--gpu fast: .*auto, cuda or soft"),
                           ((*listen, "--max-sessions", "64x"), "--max-sessions 64x: .*1 to 4096"),
                           ((*listen, "--key-file", ""), "--key-file : expected is a file"),
                           ((*listen, "--max-sessions", "0"), "--max-sessions 0: .*1 to 4096"),
                           ((*listen, "--auth", "none"), "--auth none: .*key or munge"),
                           (("--listen", "tcp:7070"), "--listen tcp:7070: .*tcp:HOST:PORT"),
                           (9 * listen, "--listen .*: more than eight"),
                           ((*listen, "--no-such"), "no-such")):
            got = tool("tf-executor", *args)
            self.assertEqual(got.returncode, 2, args)
            self.assertEqual(len(got.stderr.splitlines()), 1, got.stderr)
            self.assertRegex(got.stderr, want)

    def test_an_address_that_cannot_be_had_leaves_no_socket_of_the_others(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "sock")
            got = tool("tf-executor", "--listen", "unix:" + path, "--listen", "unix:/nonexistent/sock")
            self.assertEqual(got.returncode, 1, got.stderr)
            self.assertRegex(got.stderr, "listen on unix:/nonexistent/sock: .*make the folder first")
            self.assertEqual(os.listdir(folder), [])


class Settings(unittest.TestCase):
    def refused(self, said, *args, **more):
        got = tool("tf-executor", "--listen", "tcp:127.0.0.1:0", "--gpu", "soft", *args, **more)
        self.assertEqual(got.returncode, 1, got.stderr)
        self.assertRegex(got.stderr, said)
        self.assertEqual(len(got.stderr.splitlines()), 1, got.stderr)

    def test_that_nobody_understands_end_the_executor_at_once(self):
        for ports in ("abc", "5000", "0-10", "6000-5000", "5000-70000", "5000-5100x"):
            self.refused("TFR_TCP_PORTS", TFR_TCP_PORTS=ports)

    @unittest.skipIf(os.path.isdir("/sys/class/infiniband") and os.listdir("/sys/class/infiniband"),
                     "there is an RDMA device")
    def test_that_ask_for_what_the_machine_lacks_end_the_executor_at_once(self):
        for name in ("verbs", "ucx", "fault:verbs"):
            self.refused(rf"TFR_TRANSPORT={name}\): .", "--transport", name)
        got = tf_run("--transport", "verbs", PROBE, "steady", "1")
        said = got.stderr.decode()
        self.assertNotEqual(got.returncode, 0)
        self.assertEqual(len(re.findall("(?m)^tf: (?!private).*verbs", said)), 1, said)
        self.assertNotIn("private executor ended", said)


class Driver(unittest.TestCase):
    BROKEN = os.path.join(BUILD, "tests", "fake", "broken")
    MISMATCH = r"libcuda.so.1 does not start: an unknown error \(803\): what does nvidia-smi say"

    def test_that_does_not_start_is_named_with_its_error(self):
        got = tool("tf-executor", "--listen", f"unix:@tfr-broken-{os.getpid()}", "--gpu", "cuda",
                   LD_LIBRARY_PATH=self.BROKEN)
        self.assertEqual(got.returncode, 1)
        self.assertRegex(got.stderr, self.MISMATCH)
        self.assertEqual(len(got.stderr.splitlines()), 1, got.stderr)

    def said(self, **more):
        """What a private executor says, that takes what there is."""
        got = tf_run(PROBE, "exit", "3", LD_LIBRARY_PATH=self.BROKEN, **more)
        self.assertEqual(got.returncode, 3, got.stderr)
        return got.stderr.decode()

    def test_that_does_not_start_is_not_replaced_in_silence(self):
        self.assertRegex(self.said(), "the software GPU is used, since " + self.MISMATCH)
        self.assertNotIn("since", self.said(FAKE_CUINIT="100"), "a driver without a GPU is no fault")


def cores_of_threads(pid):
    """Thread name -> cores that the threads of that name may run on."""
    found = {}
    for task in glob.glob(f"/proc/{pid}/task/*/status"):
        try:
            with open(task, encoding="ascii", errors="replace") as file:
                text = file.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        name = re.search(r"Name:\t(.*)", text).group(1)
        found.setdefault(name, set()).add(re.search(r"Cpus_allowed_list:\t(.*)", text).group(1))
    return found


class Placement(unittest.TestCase):
    def test_is_drawn_with_its_reason(self):
        with executor() as (address, _):
            got = tool("tf-info", "--executor", address)
            self.assertRegex(got.stdout, r"(?m)^  any node: cores [\d,-]+$")
            self.assertRegex(got.stdout, r"(?m)^  \|- GPU ")
            self.assertRegex(got.stdout, r"(?m)^  `- \w+")

    def test_is_refused_where_it_makes_no_sense(self):
        beyond = str(max(os.sched_getaffinity(0)) + 1)
        for bad, want in (("", "expected"), ("x", "expected"), ("3-1", "expected"), ("0,", "expected"),
                          (beyond, "none of these may be used here")):
            got = tool("tf-executor", "--listen", "unix:/nonexistent", "--pin", bad)
            self.assertEqual(got.returncode, 2, bad)
            self.assertRegex(got.stderr, rf"\Atf: --pin {bad}: .*{want}.*\n\Z")

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "needs two cores")
    def test_gives_no_core_to_two_pollers_and_none_of_theirs_to_other_threads(self):
        first, second = sorted(os.sched_getaffinity(0))[:2]
        with executor("--pin", f"{first},{second}") as (address, _), \
                client(address, "spin") as one, client(address, "spin") as two:
            for program in (one, two):
                self.assertEqual(program.stdout.readline(), "ready\n")
            got = tool("tf-stat", "--executor", address, "--json")
            pids = [row["worker"] for row in json.loads(got.stdout)["sessions"]]
            self.assertTrue(within(LIMIT_S, lambda: all("tfr-relief" in cores_of_threads(pid) for pid in pids)))
            workers = [cores_of_threads(pid) for pid in pids]
            both = f"{first}-{second}" if second == first + 1 else f"{first},{second}"
            self.assertEqual(len(workers), 2)
            alone = [threads for threads in workers if threads["tfr-relief"] == {str(second)}]
            if not alone:
                self.skipTest("some other executor's pump has the core")
            self.assertEqual(len(alone), 1, workers)
            self.assertIn(str(first), alone[0]["tf-worker"])
            shared = [threads for threads in workers if threads not in alone]
            self.assertEqual(shared[0]["tfr-relief"], {both}, workers)


class Stat(unittest.TestCase):
    def look(self, address):
        got = tool("tf-stat", "--executor", address, "--json")
        self.assertEqual(got.returncode, 0, got.stderr)
        return json.loads(got.stdout)

    def test_shows_a_live_session_and_forgets_it(self):
        with executor() as (address, _):
            self.assertEqual(self.look(address)["sessions"], [])
            with client(address, "spin") as program:
                self.assertEqual(program.stdout.readline(), "ready\n")
                first = self.look(address)["sessions"]
                self.assertEqual(len(first), 1)
                row = first[0]
                self.assertEqual((row["pid"], row["uid"], row["program"]),
                                 (program.pid, os.getuid(), "probe"))
                self.assertGreater(row["gpu_memory"], 0)
                self.assertGreater(row["asked"], 0)
                self.assertTrue(row["doing"])
                more = lambda: all(self.look(address)["sessions"][0][k] > row[k] for k in
                                   ("records", "launches", "marks", "age_ms", "heartbeat_ms"))
                self.assertTrue(within(LIMIT_S, more))
                table = tool("tf-stat", "--executor", address)
                self.assertRegex(table.stdout, rf"(?m)^ *{program.pid} probe ")
                program.kill()
            self.assertTrue(within(LIMIT_S, lambda: self.look(address)["sessions"] == []))
            self.assertEqual(self.look(address)["served"], 1)

    def test_counts_bytes_by_path(self):
        with executor() as (address, _), started(
                [TF_RUN, "--executor", address, PROBE, "cat"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env()) as program:
            program.stdin.write(b"x" * 10000 * 5)
            program.stdin.flush()
            moved = lambda: any(s["bytes_push"] >= 50000 and s["bytes_to_host"] >= 50000
                                for s in self.look(address)["sessions"])
            self.assertTrue(within(LIMIT_S, moved), self.look(address))

    def test_looks_again_at_an_interval_until_the_executor_is_gone(self):
        with executor() as (address, daemon):
            got = tool("tf-stat", "--executor", address, "--interval", "0.1", "--count", "3")
            self.assertEqual((got.returncode, len(got.stdout.splitlines())), (0, 3), got.stderr)
            command = [os.path.join(BUILD, "bin", "tf-stat"), "--executor", address, "--interval", "0.1"]
            with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watcher:
                self.assertIn(b"of 64 sessions", watcher.stdout.readline())
                daemon.terminate()
                self.assertEqual(watcher.wait(LIMIT_S), 1)

    def test_exit_status(self):
        self.assertEqual(tool("tf-stat", "--executor", "unix:/nonexistent").returncode, 1)
        self.assertEqual(tool("tf-stat").returncode, 2)
        self.assertEqual(tool("tf-stat", "--executor", "bogus").returncode, 2)
        self.assertEqual(tool("tf-stat", "--interval", "0.001", "--executor", "unix:/x").returncode, 2)
        self.assertEqual(tool("tf-stat", "--help").returncode, 0)


@unittest.skipIf(os.environ.get("TFR_TEST_PROOF") == "no", "gpu-proof knows no sanitizers")
class Proof(unittest.TestCase):
    def proof(self, out, *args, **more):
        return subprocess.run([os.path.join(ROOT, "scripts", "gpu-proof"), "--soft", "--quick",
                               "--no-build", "--build", BUILD, "--programs", BIN, "--out", out,
                               "--only", "^(vector_add|errors)$", *args], env=env(**more),
                              capture_output=True, text=True, timeout=400, check=False)

    def test_dry_run_agrees_and_ends_with_the_table(self):
        with tempfile.TemporaryDirectory() as out:
            got = self.proof(out)
            self.assertEqual(got.returncode, 0, got.stdout[-3000:] + got.stderr)
            table = got.stdout[-600:]
            for name in ("vector_add", "errors"):
                self.assertRegex(table, rf"{name} +\| ok +\| ok +\| ok ")
            self.assertIn("all 2 programs agree", table)
            self.assertEqual(sorted(os.listdir(out)),
                             ["GPU_FACTS.md", "bench.json", "details.txt", "facts.json", "facts.txt",
                              "info.txt", "results.json", "summary.txt"])

    def test_sees_a_difference_and_goes_on(self):
        with tempfile.TemporaryDirectory() as out:
            got = self.proof(out, TFR_SOFT_BUDGET="1")
            self.assertEqual(got.returncode, 1, got.stdout[-3000:] + got.stderr)
            self.assertRegex(got.stdout, r"vector_add +\| (exit \d+|differs)")
            self.assertIn("NOT all programs agree", got.stdout)
            self.assertIn("tf-bench", got.stdout)

    def test_nothing_to_run_is_said(self):
        with tempfile.TemporaryDirectory() as out:
            self.assertEqual(self.proof(out, "--only", "no such").returncode, 2)
            self.assertEqual(self.proof(out, "--no-such-option").returncode, 2)


if __name__ == "__main__":
    sys.exit(unittest.main())
