#!/usr/bin/env python3
"""Who may use an executor, and what becomes of everybody else: TCP addresses, keys, MUNGE, other users
(floods: flood_test.py).  Loopback alone, ports by the kernel's choice, homes and keys in folders of the test's own.

Run by ctest like behaviour_test.py.  What the machine lacks (libsodium, munged, root) is skipped aloud."""
import contextlib
import ctypes.util
import json
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
import unittest

import wire
from behaviour_test import BIN, BUILD, PROBE, SANITIZE, TF_EXECUTOR, TF_RUN, env, started, within

LIMIT_S = 60
SODIUM = bool(ctypes.util.find_library("sodium"))
MUNGED = shutil.which("munged") or (os.access("/usr/sbin/munged", os.X_OK) and "/usr/sbin/munged")
NOBODY = 65534


class Running:
    """A tf-executor and what it said."""

    def __init__(self, child, addresses, said):
        self.child, self.addresses, self.said = child, addresses, said

    def address(self, kind="tcp:"):
        return next(a for a in self.addresses if a.startswith(kind))

    def lines(self):
        with open(self.said, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()

    def refusals(self):
        return [line for line in self.lines() if "was refused" in line]


@contextlib.contextmanager
def listening(folder, *options, listen=("tcp:127.0.0.1:0",), **more):
    """An executor with its home in the folder."""
    settings = {k: v for k, v in env(HOME=folder, **more).items() if k != "LD_PRELOAD"}
    said = os.path.join(folder, f"said-{time.monotonic_ns()}")
    ready, write = os.pipe()
    where = [word for address in listen for word in ("--listen", address)]
    with open(said, "w", encoding="utf-8") as out:
        with started([TF_EXECUTOR, *where, "--gpu", "soft", "--ready-fd", str(write), *options],
                     pass_fds=[write], env=settings, stderr=out) as child:
            os.close(write)
            with os.fdopen(ready) as pipe:
                text = pipe.read()
            if not text.startswith("ready"):
                with open(said, encoding="utf-8") as file:
                    raise AssertionError("tf-executor did not get ready: " + file.read())
            yield Running(child, re.findall(r"(?m)^listening (.*)", text), said)
            child.send_signal(signal.SIGTERM)
            child.wait(LIMIT_S)


def tool(name, address, home, *options, user=None, **more):
    settings = {k: v for k, v in env(HOME=home, **more).items() if k != "LD_PRELOAD"}
    return subprocess.run([os.path.join(BUILD, "bin", name), "--executor", address, *options], env=settings,
                          capture_output=True, text=True, timeout=LIMIT_S, check=False, user=user,
                          extra_groups=[] if user else None)


def program(address, home, *args, **more):
    return subprocess.run([TF_RUN, "--executor", address, *args], env=env(HOME=home, **more),
                          capture_output=True, text=True, timeout=LIMIT_S, check=False)


class Case(unittest.TestCase):
    def setUp(self):
        if not SODIUM:
            self.skipTest("no libsodium here")
        self.home = self.folder()

    def folder(self):
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        return made.name

    def key(self, home=None):
        return os.path.join(home or self.home, ".config", "tfr", "key")

    def answers(self, address, home=None, **more):
        got = tool("tf-info", address, home or self.home, **more)
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertIn("device 0: TFR software GPU", got.stdout)

    def refused(self, address, *words, home=None, status=1, **more):
        """One line that holds the words, and the tool's status."""
        got = tool("tf-stat", address, home or self.home, **more)
        self.assertEqual(got.returncode, status, got.stderr)
        self.assertEqual(len(got.stderr.splitlines()), 1, got.stderr)
        for word in words:
            self.assertIn(word, got.stderr)

    def heard(self, running, word):
        """The executor said exactly one line about it."""
        self.assertTrue(within(5, running.refusals), running.lines())
        self.assertEqual(len(running.refusals()), 1, running.lines())
        self.assertIn(word, running.refusals()[0])


class Addresses(Case):
    def test_several_at_once_of_each_kind(self):
        doors = ("tcp:127.0.0.1:0", "unix:" + os.path.join(self.home, "sock"), "tcp:[::1]:0", "tcp:*:0",
                 "tcp:localhost:0", f"unix:@tfr-identity-{os.getpid()}")
        with listening(self.home, listen=doors) as running:
            self.assertEqual(len(running.addresses), len(doors))
            for given, got in zip(doors, running.addresses):
                self.assertEqual(got.rpartition(":")[0], given.rpartition(":")[0])
                self.assertFalse(got.endswith(":0"))
                self.answers(got.replace("*", "localhost"))
            port = running.addresses[3].rpartition(":")[2]
            self.answers(f"tcp:127.0.0.1:{port}")
            self.answers(f"tcp:[::1]:{port}")
            self.answers("tcp:127.0.0.1:1," + running.address("tcp:"))

    def test_a_program_runs_over_tcp(self):
        with listening(self.home) as running:
            got = program(running.address(), self.home, os.path.join(BIN, "vector_add"))
            self.assertEqual((got.returncode, got.stderr), (0, ""))
            self.assertIn("sums are right", got.stdout)

    def test_what_cannot_be_reached_is_one_line(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            self.refused("bogus", "tcp:HOST:PORT", "unix:PATH", status=2)
            self.refused("tcp:host", "tcp:HOST:PORT", status=2)
            self.refused("tcp:::1:5", "IPv6", status=2)
            self.refused("tcp:no-such-host.invalid:7", "no-such-host.invalid", "check the name")
            self.refused(f"tcp:127.0.0.1:{port}", "no executor reachable", "--listen")
            self.refused("tcp:127.0.0.1:0", "port 0")

    def test_something_else_on_the_port_is_one_line(self):
        # What is answered ends the waiting; connections that are closed are tried for all the time.
        for said, limit_ms, words in (([b""], 700, ("says nothing", "port")),
                                      ([b"SSH-2.0-OpenSSH_9.2\r\n" * 3], 20000, ("no tf-executor", "port")),
                                      ([b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"], 20000,
                                       ("no tf-executor",)),
                                      ([None], 3000, ("closes connections", "port")),
                                      # the time is over within a connection
                                      ([None, b""], 3000, ("closes connections", "port"))):
            with self.subTest(said), listening(self.home), socket.socket() as other:  # the key is there
                other.bind(("127.0.0.1", 0))
                other.listen(50)
                over = threading.Event()
                thread = threading.Thread(target=self.serve, args=(other, said, over))
                thread.start()
                try:
                    self.refused("tcp:127.0.0.1:%d" % other.getsockname()[1], *words,
                                 TFR_CONNECT_MS=str(limit_ms))
                finally:
                    over.set()
                    thread.join()

    @staticmethod
    def serve(other, said, over):
        """Says one thing on each connection, the last one on the rest; None closes it."""
        other.settimeout(0.05)
        held = []
        while not over.is_set():
            with contextlib.suppress(OSError):
                sock = other.accept()[0]
                words = said[min(len(held), len(said) - 1)]
                held.append(sock)
                if words is None:
                    sock.close()
                else:
                    sock.sendall(words)
        for sock in held:
            sock.close()

    def test_a_program_is_told_that_there_is_no_device(self):
        got = program("tcp:127.0.0.1:1", self.home, PROBE, "count")
        self.assertEqual(got.stdout, "cudaErrorNoDevice -1\n")
        self.assertEqual(len(got.stderr.splitlines()), 1, got.stderr)

    def test_a_taken_port_is_one_line(self):
        with listening(self.home) as running:
            with self.assertRaisesRegex(AssertionError, "choose another port"):
                with listening(self.home, listen=(running.address(),)):
                    pass


class Keys(Case):
    def test_is_made_private_and_once(self):
        os.umask(0)
        with listening(self.home):
            self.assertEqual(stat.S_IMODE(os.stat(self.key()).st_mode), 0o600)
            self.assertEqual(stat.S_IMODE(os.stat(os.path.dirname(self.key())).st_mode), 0o700)
            with open(self.key(), encoding="ascii") as file:
                first = file.read()
            self.assertEqual(os.listdir(os.path.dirname(self.key())), ["key"])
        with listening(self.home) as running:
            with open(self.key(), encoding="ascii") as file:
                self.assertEqual(file.read(), first)
            self.answers(running.address())

    def test_can_be_named_on_both_sides(self):
        file = os.path.join(self.home, "elsewhere")
        with listening(self.home, "--key-file", file) as running:
            self.assertFalse(os.path.exists(self.key()))
            self.answers(running.address(), TFR_KEY_FILE=file)
            self.answers(running.address(), home=self.folder(), TFR_KEY_FILE=file)

    def test_another_key_is_refused_on_both_sides(self):
        with listening(self.home) as running:
            other = self.folder()
            with listening(other):
                pass
            self.refused(running.address(), "another key", ".config/tfr/key", home=other)
            self.heard(running, "another key")
            self.answers(running.address())

    def test_no_key_is_refused_on_both_sides(self):
        with listening(self.home) as running:
            other = self.folder()
            self.refused(running.address(), self.key(other), "TFR_KEY_FILE", home=other)
            self.heard(running, "no usable key")

    def test_a_key_that_others_may_read_is_refused_on_both_sides(self):
        with listening(self.home) as running:
            os.chmod(self.key(), 0o644)
            self.refused(running.address(), "chmod 600", self.key())
            self.heard(running, "no usable key")
        with self.assertRaisesRegex(AssertionError, "chmod 600"):
            with listening(self.home):
                pass

    def test_a_program_with_another_key_has_no_device_and_one_line(self):
        with listening(self.home) as running:
            other = self.folder()
            with listening(other):
                pass
            got = program(running.address(), other, PROBE, "count")
            self.assertEqual(got.stdout, "cudaErrorNoDevice -1\n")
            self.assertEqual(len(got.stderr.splitlines()), 1, got.stderr)

    def test_nothing_listens_on_tcp_without_libsodium(self):
        empty = self.folder()
        for name in ("libsodium.so.23", "libsodium.so.26", "libsodium.so"):
            with open(os.path.join(empty, name), "w", encoding="ascii"):
                pass
        with self.assertRaisesRegex(AssertionError, "libsodium"):
            with listening(self.home, LD_LIBRARY_PATH=empty):
                pass
        with listening(self.home) as running:
            self.refused(running.address(), "libsodium", LD_LIBRARY_PATH=empty)
        unix = "unix:" + os.path.join(self.home, "sock")
        with listening(self.home, listen=(unix,), LD_LIBRARY_PATH=empty) as running:
            self.answers(unix, LD_LIBRARY_PATH=empty)

    def test_the_key_never_crosses_the_wire(self):
        with listening(self.home) as running:
            with open(self.key(), encoding="ascii") as file:
                key = bytes.fromhex(file.read())
            heard = bytearray()
            with relay(running.address(), heard) as address:
                self.answers(address)
            self.assertGreater(len(heard), 20000)
            self.assertNotIn(key, heard)
            self.assertNotIn(key.hex().encode(), heard)
            self.assertNotIn(b"TFR software GPU", heard)

    def test_who_changes_a_byte_ends_the_connection_and_no_more(self):
        with listening(self.home) as running:
            for at in (20, 200, 5000):
                with relay(running.address(), bytearray(), change_at=at) as address:
                    got = tool("tf-info", address, self.home, TFR_CONNECT_MS="1000")
                    self.assertEqual(got.returncode, 1, at)
            self.answers(running.address())


@contextlib.contextmanager
def relay(address, heard, change_at=None):
    """Somebody in between: keeps what is said, and may change one byte of what the executor says."""
    to = ("127.0.0.1", int(address.rpartition(":")[2]))
    door = socket.create_server(("127.0.0.1", 0))
    socks, threads = [door], []

    def pump(source, sink, change):
        seen = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                heard.extend(data)
                if change is not None and seen <= change < seen + len(data):
                    data = bytearray(data)
                    data[change - seen] ^= 0x20
                seen += len(data)
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                near = door.accept()[0]
                far = socket.create_connection(to)
                socks.extend((near, far))
                for args in ((near, far, None), (far, near, change_at)):
                    threads.append(threading.Thread(target=pump, args=args))
                    threads[-1].start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield "tcp:127.0.0.1:%d" % door.getsockname()[1]
    finally:
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def settled_files(most):
    """So many descriptors may be open, where the machine allows it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(most, before[0]), before[1]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@unittest.skipUnless(os.geteuid() == 0, "only root can be two users")
class Users(Case):
    def setUp(self):
        super().setUp()
        os.chmod(self.home, 0o755)
        got = subprocess.run([os.path.join(BUILD, "bin", "tf-info"), "--help"], user=NOBODY,
                             capture_output=True, check=False)
        if got.returncode:
            self.skipTest("the build folder is closed to other users")
        self.address = "unix:" + os.path.join(self.home, "sock")

    def test_a_unix_socket_admits_its_owner_alone(self):
        with listening(self.home, listen=(self.address, "unix:@tfr-users-%d" % os.getpid())) as running:
            self.assertEqual(stat.S_IMODE(os.stat(self.address[5:]).st_mode), 0o600)
            self.answers(self.address)
            self.refused(self.address, "--allow-uid", user=NOBODY)
            self.refused(running.address("unix:@"), "--allow-uid", user=NOBODY)
            self.heard(running, f"user {NOBODY} is not admitted")

    def test_others_come_by_allow_uid(self):
        with listening(self.home, "--allow-uid", f"1,{NOBODY}", listen=(self.address,)) as running:
            self.answers(self.address)
            self.answers(self.address, user=NOBODY)
            self.refused(self.address, "another user", user=2)
            self.heard(running, "user 2 is not admitted")

    def test_a_name_that_somebody_else_has_taken_is_not_trusted(self):
        os.chmod(self.home, 0o777)
        settings = {k: v for k, v in env(HOME=self.home).items() if k != "LD_PRELOAD"}
        for address in (self.address, f"unix:@tfr-taken-{os.getpid()}"):
            ready, write = os.pipe()
            with started([TF_EXECUTOR, "--listen", address, "--gpu", "soft", "--ready-fd", str(write),
                          "--allow-uid", "0"], user=NOBODY, extra_groups=[], pass_fds=[write], env=settings,
                         stderr=subprocess.DEVNULL):
                os.close(write)
                with os.fdopen(ready) as pipe:
                    self.assertTrue(pipe.read().startswith("ready"))
                self.refused(address, f"user {NOBODY}", "TFR_EXECUTOR_UID")
                got = program(address, self.home, PROBE, "count")
                self.assertEqual(got.stdout, "cudaErrorNoDevice -1\n")
                self.assertEqual(len(got.stderr.splitlines()), 1, got.stderr)
                self.answers(address, TFR_EXECUTOR_UID=str(NOBODY))

    def test_a_program_has_a_worker_of_its_own_user(self):
        if subprocess.run(["test", "-x", PROBE], user=NOBODY, check=False).returncode:
            self.skipTest("the programs are closed to other users")
        with listening(self.home, "--allow-uid", str(NOBODY), listen=(self.address,), TFR_LANE_SIZE="4m"):
            for user in (NOBODY, os.geteuid()):
                with started([TF_RUN, "--executor", self.address, PROBE, "idle"], user=user, extra_groups=[],
                             env=env(HOME=self.home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             text=True) as child:
                    self.assertEqual(child.stdout.readline(), "ready\n")
                    got = tool("tf-stat", self.address, self.home, "--json")
                    row = next(r for r in json.loads(got.stdout)["sessions"] if r["pid"] == child.pid)
                    with open(f"/proc/{row['worker']}/status", encoding="ascii") as file:
                        status = file.read()
                    self.assertEqual(row["uid"], user)
                    self.assertRegex(status, rf"(?m)^Uid:\t{user}\t{user}\t{user}\t{user}$")
                    if user:
                        self.assertRegex(status, r"(?m)^CapEff:\t0+$")
                        self.assertNotRegex(status, r"(?m)^Gid:.*\b0\b")
                    child.kill()
                self.assertTrue(within(LIMIT_S, lambda pid=row["worker"]: not os.path.exists(f"/proc/{pid}/exe")))

    def test_one_user_leaves_places_for_others(self):
        most = wire.constant("TFR_GUESTS_MAX", "executor", "parent.h")
        rest = wire.constant("TFR_GUESTS_RESERVE", "executor", "parent.h")
        with settled_files(2 * most), contextlib.ExitStack() as held, \
                listening(self.home, "--allow-uid", str(NOBODY), listen=(self.address,)):
            if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < most:
                self.skipTest("too few descriptors")
            hello, got = wire.frame(wire.message("HELLO"), wire.hello()), []
            for _ in range(most - rest + 2):
                got.append(held.enter_context(wire.connected(self.address, hello)))
            self.assertTrue(all(wire.answer(sock) == wire.message("SNAPSHOT") for sock in got[:most - rest]))
            kind, text = wire.received(got[-1])
            self.assertEqual(kind, wire.message("REFUSED"))
            self.assertIn(b"of this user", text)
            self.answers(self.address, user=NOBODY)

    def test_a_list_that_is_none_is_one_line(self):
        for text in ("nobody", "1;2", "", "-1"):
            if text:
                with self.assertRaisesRegex(AssertionError, "numbers of users"):
                    with listening(self.home, "--allow-uid", text, listen=(self.address,)):
                        pass


class Munged(Case):
    def setUp(self):
        super().setUp()
        if not MUNGED or os.geteuid():
            self.skipTest("no munged here, or not root: MUNGE is not tested")
        os.chmod(self.home, 0o755)
        self.socket = os.path.join(self.home, "munge.socket")
        self.settings = {"TFR_AUTH": "munge", "TFR_MUNGE_SOCKET": self.socket}

    def munged(self):
        """A munged of our own; it goes into the background, and is ended by its pid."""
        name = os.path.join(self.home, "munge.")
        with open(name + "key", "wb") as file:
            os.fchmod(file.fileno(), 0o400)
            file.write(os.urandom(1024))
        subprocess.run([MUNGED, "--key-file=" + name + "key", "--socket=" + self.socket,
                        "--pid-file=" + name + "pid", "--log-file=" + name + "log",
                        "--seed-file=" + name + "seed", "--force"], check=True, capture_output=True,
                       timeout=LIMIT_S)
        self.assertTrue(within(10, lambda: os.path.exists(name + "pid")))
        with open(name + "pid", encoding="ascii") as file:
            pid = int(file.read())
        self.addCleanup(self.end, pid)
        return pid

    @staticmethod
    def end(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        within(10, lambda: not os.path.exists(f"/proc/{pid}"))


class Munge(Munged):
    def test_proves_users_to_each_other(self):
        self.munged()
        with listening(self.home, "--auth", "munge", TFR_MUNGE_SOCKET=self.socket) as running:
            self.assertFalse(os.path.exists(self.key()), "no key is needed")
            self.answers(running.address(), **self.settings)
            got = program(running.address(), self.home, os.path.join(BIN, "vector_add"), **self.settings)
            self.assertEqual((got.returncode, got.stderr), (0, ""))
            self.refused(running.address(), "not admitted", "--allow-uid", user=NOBODY, **self.settings)
            self.heard(running, f"user {NOBODY} is not admitted")

    def test_admits_the_users_that_are_listed(self):
        self.munged()
        with listening(self.home, "--auth", "munge", "--allow-uid", str(NOBODY),
                       TFR_MUNGE_SOCKET=self.socket) as running:
            self.answers(running.address(), user=NOBODY, **self.settings)

    def test_a_client_names_the_users_whose_executors_it_trusts(self):
        self.munged()
        folder = self.folder()
        os.chown(folder, NOBODY, NOBODY)
        settings = {k: v for k, v in env(HOME=folder, TFR_MUNGE_SOCKET=self.socket).items() if k != "LD_PRELOAD"}
        ready, write = os.pipe()
        with started([TF_EXECUTOR, "--listen", "tcp:127.0.0.1:0", "--gpu", "soft", "--ready-fd",
                      str(write), "--auth", "munge", "--allow-uid", "0"], user=NOBODY, extra_groups=[],
                     pass_fds=[write], env=settings, stderr=subprocess.DEVNULL):
            os.close(write)
            with os.fdopen(ready) as pipe:
                address = re.search("listening (.*)", pipe.read()).group(1)
            self.refused(address, f"runs as user {NOBODY}", "TFR_EXECUTOR_UID", **self.settings)
            self.answers(address, TFR_EXECUTOR_UID=str(NOBODY), **self.settings)

    def test_two_ways_to_prove_oneself_do_not_meet(self):
        self.munged()
        with listening(self.home, "--auth", "munge", TFR_MUNGE_SOCKET=self.socket) as running:
            with listening(self.home):
                pass  # makes the key
            self.refused(running.address(), "offers key", "wants munge", "TFR_AUTH")

    def test_a_munged_that_is_gone_is_one_line(self):
        with self.assertRaisesRegex(AssertionError, "munged does not answer"):
            with listening(self.home, "--auth", "munge", TFR_MUNGE_SOCKET=self.socket):
                pass
        pid = self.munged()
        with listening(self.home, "--auth", "munge", TFR_MUNGE_SOCKET=self.socket) as running:
            self.end(pid)
            self.refused(running.address(), "munged does not answer", TFR_CONNECT_MS="20000",
                         **self.settings)


if __name__ == "__main__":
    unittest.main()
