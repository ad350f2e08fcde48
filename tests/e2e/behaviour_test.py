#!/usr/bin/env python3
"""How TFR behaves around a program: no executor, dead executors, dead clients, exit status, signals,
streams, children, environment, and the steady loop that makes no round trip.

Run by ctest with TFR_TEST_BUILD (build folder), TFR_TEST_BIN (CUDA programs) and TFR_TEST_SANITIZE.
Limits are CUDA's or the project's promises with slack for a loaded machine; latencies are not tested.
Every process started here is ended here, by its pid.
"""
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import ways

BUILD = os.environ.get("TFR_TEST_BUILD", "build")
BIN = os.environ.get("TFR_TEST_BIN", os.path.join(BUILD, "tests", "e2e", "bin"))
SANITIZE = os.environ.get("TFR_TEST_SANITIZE", "")
TF_RUN = os.path.join(BUILD, "bin", "tf-run")
TF_EXECUTOR = os.path.join(BUILD, "bin", "tf-executor")
PROBE = os.path.join(BIN, "probe")
LIMIT_S = 40
SLACK_S = 4 if SANITIZE else 2
NO_DEVICE_LIMIT_S = 3 + SLACK_S
GONE_LIMIT_S = 1 + SLACK_S
STEP_S = 0.1


def env(**more):
    return {**ways.environment(BUILD, SANITIZE), **more}


def tf_run(*args, executor=None, stdin=b"", prefix=(), **more):
    """Runs to the end; stdout and stderr are bytes."""
    where = ["--executor", executor] if executor else []
    return subprocess.run([*prefix, TF_RUN, *where, *args], input=stdin, capture_output=True,
                          timeout=LIMIT_S, env=env(**more), check=False)


@contextlib.contextmanager
def started(command, **kwargs):
    """A process in a group of its own, killed at the end if it still runs."""
    child = subprocess.Popen(command, start_new_session=True, **kwargs)
    try:
        yield child
    finally:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe:
                pipe.close()


@contextlib.contextmanager
def executor(*options, prefix=()):
    """A tf-executor on a socket of its own: its address and its process."""
    with tempfile.TemporaryDirectory() as folder:
        address = "unix:" + os.path.join(folder, "tfr.sock")
        settings = {k: v for k, v in env().items() if k != "LD_PRELOAD"}
        ready, write = os.pipe()
        with started([*prefix, TF_EXECUTOR, "--listen", address, "--gpu", "soft", "--ready-fd",
                      str(write), *options],
                     pass_fds=[write], env=settings, stderr=subprocess.DEVNULL) as child:
            os.close(write)
            with os.fdopen(ready) as pipe:
                line = pipe.readline()
            if not line.startswith("ready"):
                raise AssertionError("tf-executor did not get ready")
            yield address, child


def client(address, *args, out=subprocess.PIPE, **more):
    return started([TF_RUN, "--executor", address, PROBE, *args], stdin=subprocess.DEVNULL,
                   stdout=out, stderr=subprocess.PIPE, env=env(**more), text=True)


def processes():
    """pid -> (parent, session, state, command) of every process that we may see."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:
                head, _, tail = file.read().rpartition(")")
            fields = tail.split()
            found[int(name)] = (int(fields[1]), int(fields[3]), fields[0], head.partition("(")[2])
    return found


def descendants(pid):
    table = processes()
    family, grew = {pid}, True
    while grew:
        more = {p for p, row in table.items() if row[0] in family and row[2] != "Z"} - family
        family |= more
        grew = bool(more)
    return family - {pid}


def private_executors(owner):
    """Executors that watch the process `owner`."""
    found = []
    for pid, row in processes().items():
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            if row[2] != "Z" and b"--owner-pid" in words:
                if words[words.index(b"--owner-pid") + 1] == str(owner).encode():
                    found.append(pid)
    return found


def within(limit_s, condition):
    """Between two looks no more than STEP_S counts: the machine may have paused."""
    spent, before = 0, time.monotonic()
    while not condition():
        now = time.monotonic()
        spent += min(now - before, STEP_S)
        before = now
        if spent > limit_s:
            return False
        time.sleep(0.02)
    return True


def ended(child, limit_s):
    return within(limit_s, lambda: child.poll() is not None)


def cpu_s(pid):
    """Processor time of all threads so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_at_rest(pids, window_s, limit_s):
    """What each of pids() spends in so many seconds: in the first of five windows where none spends more
    than the limit, else in the last.  Something may still be starting, and what the machine's owner takes of
    its time may be counted as theirs."""
    for _ in range(5):
        before = {pid: cpu_s(pid) for pid in pids()}
        time.sleep(window_s)
        used = {pid: cpu_s(pid) - was for pid, was in before.items() if os.path.exists(f"/proc/{pid}")}
        if max(used.values()) <= limit_s:
            break
    return used


class NoExecutor(unittest.TestCase):
    def test_no_device_within_three_seconds_and_one_line(self):
        for address in ("unix:/nonexistent/tfr.sock", "unix:@tfr-nobody-listens-here"):
            begin = time.monotonic()
            got = tf_run(PROBE, "count", executor=address)
            self.assertLess(time.monotonic() - begin, NO_DEVICE_LIMIT_S)
            self.assertEqual(got.stdout, b"cudaErrorNoDevice -1\n")
            self.assertEqual(got.returncode, 4)
            self.assertEqual(len(got.stderr.splitlines()), 1, got.stderr)
            self.assertIn(b"tf-executor", got.stderr)  # what to do

    def test_what_is_no_address_is_called_so(self):
        got = tf_run(PROBE, "count", executor="bogus")
        self.assertEqual(got.returncode, 2)
        self.assertEqual(got.stderr, b'tf: "bogus" is no address of an executor: expected tcp:HOST:PORT,'
                                     b' unix:PATH or unix:@NAME\n')
        got = subprocess.run([PROBE, "count"], capture_output=True, timeout=LIMIT_S, check=False,
                             env=env(LD_LIBRARY_PATH=os.path.join(BUILD, "lib"), TFR_EXECUTORS="bogus"))
        self.assertEqual(got.stdout, b"cudaErrorNoDevice -1\n")
        self.assertEqual(got.stderr, b'tf: error: address "bogus": expected tcp:HOST:PORT, unix:PATH or'
                                     b' unix:@NAME\n')

    def test_without_tf_run_the_library_says_the_same(self):
        got = subprocess.run([PROBE, "count"], capture_output=True, timeout=LIMIT_S, check=False,
                             env=env(LD_LIBRARY_PATH=os.path.join(BUILD, "lib")))
        self.assertEqual(got.stdout, b"cudaErrorNoDevice -1\n")
        self.assertEqual(len(got.stderr.splitlines()), 1, got.stderr)


class VisibleDevices(unittest.TestCase):
    def test_list_of_a_batch_system_that_leaves_none_is_explained(self):
        got = tf_run(PROBE, "count", CUDA_VISIBLE_DEVICES="5", SLURM_JOB_ID="7")
        self.assertEqual(got.stdout, b"cudaErrorNoDevice -1\n")
        self.assertIn(b"CUDA_VISIBLE_DEVICES=5 names none of the executor's 1 devices", got.stderr)
        self.assertIn(b"set TFR_VISIBLE_DEVICES=all", got.stderr)

    def test_our_own_list_stands_in_for_it(self):
        for ours in ("all", "0"):
            got = tf_run(PROBE, "count", CUDA_VISIBLE_DEVICES="5", TFR_VISIBLE_DEVICES=ours)
            self.assertEqual(got.stdout, b"cudaSuccess 1\n")
        got = tf_run(PROBE, "count", TFR_VISIBLE_DEVICES="-1")
        self.assertEqual(got.stdout, b"cudaErrorNoDevice -1\n")

    def test_hidden_on_purpose_is_not_worth_a_line(self):
        for none in ("", "-1", "none"):
            got = tf_run(PROBE, "count", CUDA_VISIBLE_DEVICES=none)
            self.assertEqual(got.stdout, b"cudaErrorNoDevice -1\n")
            self.assertNotIn(b"VISIBLE_DEVICES", got.stderr)


class Death(unittest.TestCase):
    def killed_executor(self, *what):
        with executor() as (address, daemon), client(address, *what) as program:
            self.assertEqual(program.stdout.readline(), "ready\n")
            time.sleep(0.1)
            workers = descendants(daemon.pid)
            daemon.kill()
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.assertTrue(ended(program, GONE_LIMIT_S))
            out, err = program.communicate(timeout=LIMIT_S)
            self.assertEqual(program.returncode, 5, err)
            self.assertRegex(out, "^cudaError")

    def test_killed_executor_is_an_error_between_launches(self):
        self.killed_executor("spin")

    def test_killed_executor_is_an_error_in_a_long_wait(self):
        self.killed_executor("hang")

    def test_killed_executor_is_an_error_to_who_polls(self):
        self.killed_executor("poll")
        self.killed_executor("query")

    def test_killed_executor_is_an_error_to_each_of_many_threads(self):
        self.killed_executor("crowd")

    def test_workers_end_with_their_executor(self):
        with executor() as (address, daemon), client(address, "idle") as program:
            self.assertEqual(program.stdout.readline(), "ready\n")
            workers = descendants(daemon.pid)
            self.assertTrue(workers)
            daemon.kill()
            alive = lambda: [p for p in workers if processes().get(p, (0, 0, "Z"))[2] != "Z"]
            self.assertTrue(within(GONE_LIMIT_S, lambda: not alive()), alive())

    def killed_client(self, *what):
        with executor() as (address, daemon), client(address, *what) as program:
            self.assertEqual(program.stdout.readline(), "ready\n")
            serving = descendants(daemon.pid)
            self.assertTrue(serving)
            program.kill()
            program.wait()
            # One worker stays: the warm one that waits for the next client.
            gone = lambda: len(serving & descendants(daemon.pid)) <= len(serving) - 1
            self.assertTrue(within(GONE_LIMIT_S, gone), "the worker of a dead client is still there")
            self.assertIsNone(daemon.poll())
            again = tf_run(PROBE, "exit", "0", executor=address)
            self.assertEqual(again.returncode, 0, again.stderr)

    def test_killed_client_takes_its_worker_along(self):
        self.killed_client("idle")

    def test_killed_client_takes_its_worker_along_from_an_endless_kernel(self):
        self.killed_client("hang")


class TfRun(unittest.TestCase):
    def test_an_empty_address_starts_no_private_executor(self):
        got = tf_run("--executor", "", PROBE, "exit", "0")
        self.assertEqual(got.returncode, 2, got.stderr)
        self.assertIn(b"--executor names none", got.stderr)

    def test_exit_status_is_the_programs(self):
        for status in (0, 1, 77, 255):
            self.assertEqual(tf_run(PROBE, "exit", str(status)).returncode, status)

    def test_signals_are_the_programs(self):
        for number in (signal.SIGTERM, signal.SIGABRT, signal.SIGKILL):
            self.assertEqual(tf_run(PROBE, "signal", str(int(number))).returncode, -number)

    def test_a_signal_sent_to_tf_run_reaches_the_program(self):
        with started([TF_RUN, PROBE, "idle"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                     env=env()) as program:
            self.assertEqual(program.stdout.readline(), b"ready\n")
            program.send_signal(signal.SIGINT)
            self.assertEqual(program.wait(LIMIT_S), -signal.SIGINT)

    def test_stdin_and_stdout_are_untouched(self):
        data = bytes(range(256)) * 400 + b"\r\n\0\xff"
        got = tf_run(PROBE, "cat", stdin=data)
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertEqual(got.stdout, data)

    def test_one_line_on_stderr_names_the_device(self):
        got = tf_run(PROBE, "exit", "0")
        self.assertRegex(got.stderr.decode(), r"\Atf: private executor on .+\n\Z")

    def test_the_program_sees_no_child_of_ours(self):
        got = tf_run(PROBE, "children")
        self.assertEqual((got.stdout, got.returncode), (b"children 0\n", 0), got.stderr)

    def test_bad_settings_are_reported_once(self):
        got = tf_run(PROBE, "exit", "0", TFR_LOG="zzz", TFR_PERF="no_foo", TFR_SPELLING="1")
        lines = got.stderr.decode().splitlines()
        for word in ("zzz", "no_foo", "TFR_SPELLING"):
            self.assertEqual(len([l for l in lines if word in l]), 1, lines)

    def test_usage_and_errors(self):
        self.assertEqual(tf_run("--no-such-option", PROBE).returncode, 2)
        self.assertEqual(tf_run().returncode, 2)
        self.assertIn(b"usage", tf_run("--help").stdout)
        missing = tf_run("./no such program")
        self.assertEqual(missing.returncode, 127)
        self.assertIn(b"no such program", missing.stderr)
        self.assertEqual(tf_run("/").returncode, 126)

    def test_options_of_the_program_are_the_programs(self):
        for dashes in ((), ("--",)):
            got = tf_run("-v", *dashes, "sh", "-c", "echo $0 $1 $TFR_LOG", "-v", "--executor")
            self.assertEqual(got.stdout, b"-v --executor info\n", got.stderr)

    def test_relative_paths_spaces_and_links(self):
        with tempfile.TemporaryDirectory(prefix="a b ") as folder:
            os.symlink(os.path.abspath(TF_RUN), os.path.join(folder, "run it"))
            os.symlink(os.path.abspath(PROBE), os.path.join(folder, "my probe"))
            got = subprocess.run(["./run it", "./my probe", "exit", "7"], cwd=folder, env=env(),
                                 capture_output=True, timeout=LIMIT_S, check=False)
            self.assertEqual(got.returncode, 7, got.stderr)

    def test_works_with_closed_standard_descriptors(self):
        got = subprocess.run(["sh", "-c", 'exec "$0" "$1" exit 6 <&- >&-', TF_RUN, PROBE], env=env(),
                             capture_output=True, timeout=LIMIT_S, check=False)
        self.assertEqual(got.returncode, 6, got.stderr)


class PrivateExecutor(unittest.TestCase):
    def test_dies_with_the_program(self):
        for end in (signal.SIGKILL, signal.SIGTERM):
            with started([TF_RUN, PROBE, "idle"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                         env=env()) as program:
                self.assertEqual(program.stdout.readline(), b"ready\n")
                found = private_executors(program.pid)
                self.assertTrue(found)
                for pid in found:
                    self.assertNotEqual(os.getpgid(pid), os.getpgid(program.pid),
                                        "it shares the program's process group")
                workers = set().union(*map(descendants, found))
                program.send_signal(end)
                program.wait(LIMIT_S)
                left = lambda: [p for p in workers | set(found)
                                if processes().get(p, (0, 0, "Z"))[2] != "Z"]
                self.assertTrue(within(GONE_LIMIT_S, lambda: not left()), left())

    def test_never_loads_our_stub(self):
        lib = os.path.join(BUILD, "lib")
        stub = os.path.realpath(os.path.join(lib, "libcuda.so.1"))
        preload = ":".join(filter(None, [env().get("LD_PRELOAD"), stub]))
        for more in ({"LD_LIBRARY_PATH": lib}, {"LD_LIBRARY_PATH": lib + "/../lib/:" + lib},
                     {"LD_PRELOAD": preload}):
            with started([TF_RUN, PROBE, "idle"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                         env=env(**more)) as program:
                self.assertEqual(program.stdout.readline(), b"ready\n")
                found = private_executors(program.pid)
                self.assertTrue(found)
                for pid in found + [p for f in found for p in descendants(f)]:
                    with open(f"/proc/{pid}/maps", encoding="utf-8") as maps:
                        self.assertNotIn(stub + "\n", maps.read())

    def test_says_why_it_did_not_start(self):
        with tempfile.TemporaryDirectory() as folder:
            os.makedirs(os.path.join(folder, "bin"))
            os.symlink(os.path.abspath(os.path.join(BUILD, "lib")), os.path.join(folder, "lib"))
            subprocess.run(["cp", TF_RUN, os.path.join(folder, "bin", "tf-run")], check=True)
            fake = os.path.join(folder, "bin", "tf-executor")
            with open(fake, "w", encoding="utf-8") as file:
                file.write("#!/bin/sh\necho tf: no such luck >&2\nexit 1\n")
            os.chmod(fake, 0o755)
            got = subprocess.run([os.path.join(folder, "bin", "tf-run"), PROBE, "exit", "0"],
                                 env=env(), capture_output=True, timeout=LIMIT_S, check=False)
            self.assertEqual(got.returncode, 125)
            self.assertIn(b"no such luck", got.stderr)
            self.assertIn(b"by hand", got.stderr)


class Sharing(unittest.TestCase):
    def test_two_programs_at_once_on_one_executor(self):
        with executor() as (address, daemon):
            programs = [os.path.join(BIN, name) for name in ("many_launches", "streams_events")] * 2
            with contextlib.ExitStack() as stack:
                running = [stack.enter_context(started(
                    [TF_RUN, "--executor", address, p], stdin=subprocess.DEVNULL, env=env(),
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)) for p in programs]
                for path, child in zip(programs, running):
                    out, err = child.communicate(timeout=LIMIT_S)
                    self.assertEqual(child.returncode, 0, err)
                    golden = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                          os.path.basename(path) + ".out")
                    with open(golden, "rb") as file:
                        self.assertEqual(out, file.read())
            self.assertIsNone(daemon.poll())

    def test_programs_one_after_the_other(self):
        with executor() as (address, daemon):
            for _ in range(6):
                got = tf_run(PROBE, "exit", "3", executor=address)
                self.assertEqual(got.returncode, 3, got.stderr)
            self.assertIsNone(daemon.poll())


class ClosedStreams(unittest.TestCase):
    def test_an_executor_without_standard_streams_serves_one_program_after_the_other(self):
        shut = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
        with executor(prefix=shut) as (address, _):
            for _ in range(2):
                got = tf_run(PROBE, "cat", executor=address, stdin=b"once")
                self.assertEqual((got.returncode, got.stdout), (0, b"once"), got.stderr)


class FewDescriptors(unittest.TestCase):
    few = ("sh", "-c", 'ulimit -n 28; exec "$@"', "sh")

    def test_a_link_over_tcp_needs_few(self):
        got = tf_run(PROBE, "cat", prefix=self.few, stdin=b"few", TFR_TRANSPORT="tcp")
        self.assertEqual((got.returncode, got.stdout), (0, b"few"), got.stderr)

    def test_who_finds_none_left_is_served_later(self):
        with executor(prefix=self.few) as (address, daemon), contextlib.ExitStack() as stack:
            daemon.send_signal(signal.SIGSTOP)
            many = [stack.enter_context(client(address, "exit", "3", TFR_CONNECT_MS="60000"))
                    for _ in range(28)]
            time.sleep(1)  # they are all at the door, and would take every descriptor
            daemon.send_signal(signal.SIGCONT)
            for child in many:
                _, err = child.communicate(timeout=3 * LIMIT_S)
                self.assertEqual(child.returncode, 3, err)
            self.assertIsNone(daemon.poll())


class RoundTrips(unittest.TestCase):
    def counters(self, *program, **more):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "counters")
            got = tf_run(*program, TFR_COUNTERS=path, **more)
            self.assertEqual(got.returncode, 0, got.stderr)
            with open(path, encoding="ascii") as file:
                return {name: int(value) for name, value in map(str.split, file)}

    def make_none(self, *program):
        few, many = (self.counters(*program, rounds) for rounds in ("300", "3000"))
        self.assertGreater(many["records"], few["records"] + 2700)  # the counters do count
        self.assertEqual(few["round_trips"], many["round_trips"])
        self.assertEqual(few["stream_waits"], many["stream_waits"])
        self.assertEqual(few["bytes_image"], many["bytes_image"])  # a kernel is uploaded once
        self.assertGreater(few["bytes_image"], 0)
        return few, many

    def test_a_steady_loop_makes_none(self):
        self.make_none(PROBE, "steady")

    def test_a_loop_that_allocates_makes_none(self):
        few, many = self.make_none(os.path.join(BIN, "alloc_loop"))
        self.assertEqual(few["lease_grows"], many["lease_grows"])
        self.assertGreater(many["pool_reuses"], few["pool_reuses"] + 2000)

    def test_code_that_was_loaded_is_kept_as_far_as_it_may_be(self):
        for name in ("linker", "module_from_text", "device_reset"):
            got = self.counters(os.path.join(BIN, name), TFR_IMAGE_CACHE="0")
            self.assertGreater(got["images_dropped"], 0, name)
            self.assertEqual(self.counters(os.path.join(BIN, name))["images_dropped"], 0, name)

    def test_without_a_lease_each_allocation_is_one(self):
        asked = self.counters(os.path.join(BIN, "alloc_loop"), "100", TFR_PERF="no_lease")
        self.assertGreater(asked["round_trips"], 400)
        self.assertEqual(asked["lease_grows"], 0)

    @unittest.skipIf(SANITIZE, "too slow to make a burst")
    def test_records_of_a_burst_leave_together(self):
        burst = os.path.join(BIN, "many_launches")
        together = self.counters(burst, TFR_TRANSPORT="tcp")
        self.assertLess(8 * together["flushes"], together["records"])
        alone = self.counters(burst, TFR_TRANSPORT="tcp", TFR_PERF="no_gather")
        self.assertGreaterEqual(alone["flushes"], alone["records"])

    def test_bytes_go_straight_from_and_to_memory_that_the_transport_reaches(self):
        copies = os.path.join(BIN, "registered_copies")
        for transport, least in (("tcp", 100 << 20), ("fault", 10 << 20)):  # fault does not get
            count = self.counters(copies, TFR_TRANSPORT=transport)
            self.assertGreater(count["bytes_direct"], least, transport)
            self.assertEqual(count["reg_refusals"], 0, transport)
        staged = self.counters(copies, TFR_TRANSPORT="fault", TFR_REG_SIZE="64k")
        self.assertEqual(staged["bytes_direct"], 0)
        self.assertGreater(staged["reg_refusals"], 0)

    def test_a_copy_from_where_no_memory_is_fails_alone(self):
        got = tf_run(PROBE, "wild", TFR_TRANSPORT="tcp")
        self.assertEqual((got.stdout, got.returncode),
                         (b"cudaErrorInvalidValue\n" * 2 + b"the session goes on\n", 0), got.stderr)

    def test_memory_does_not_outlive_a_reset(self):
        got = tf_run(PROBE, "reset")
        self.assertEqual((got.stdout, got.returncode), (b"pinned 0 window 0\n", 0), got.stderr)

    @unittest.skipIf(SANITIZE, "sanitizers reserve more addresses than that")
    def test_a_limit_on_addresses_is_survived(self):
        with executor() as (address, _):
            got = tf_run("sh", "-c", 'ulimit -v 4000000; exec "$0" 20',
                         os.path.join(BIN, "alloc_loop"), executor=address)
        self.assertEqual(got.returncode, 0, got.stderr)


if __name__ == "__main__":
    sys.exit(unittest.main())
