#!/usr/bin/env python3
"""Releases that meet: those whose specs differ in added calls work together, others refuse each other
and both say both versions.  Run by ctest like behaviour_test.py.

The peers of other releases are a client in Python, and a go-between that changes what a real executor
says of itself."""
import array
import contextlib
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import wire
from behaviour_test import BIN, BUILD, LIMIT_S, PROBE, env, tf_run
from many_sessions_test import executor

HELLO, SNAPSHOT, REFUSED = map(wire.message, ("HELLO", "SNAPSHOT", "REFUSED"))


def carry(source, target, change):
    """Messages of one direction, descriptors included, until the end of either side."""
    with contextlib.suppress(OSError):
        while True:
            head, fds, _, _ = socket.recv_fds(source, 16, 8, socket.MSG_WAITALL)
            if len(head) < 16:
                break
            magic, kind, length, fd_n = struct.unpack("<IIII", head)
            body = source.recv(length, socket.MSG_WAITALL) if length else b""
            made = change(kind, body)
            kind, body = made if isinstance(made, tuple) else (kind, made)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            target.sendmsg([struct.pack("<IIII", magic, kind, len(body), fd_n)], rights)
            if body:
                target.sendall(body)
            for fd in fds:
                os.close(fd)
    for sock in (source, target):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def between(address, change):
    """An address at which the executor answers, and `change` has its say on what that sends."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = os.path.join(folder, "between")
        listener.bind(path)
        listener.listen()
        threads, socks = [], []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    server = wire.connected(address)
                    server.settimeout(None)
                    socks.extend((client, server))
                    for args in ((client, server, lambda kind, body: body), (server, client, change)):
                        threads.append(threading.Thread(target=carry, args=args))
                        threads[-1].start()

        acceptor = threading.Thread(target=serve)
        acceptor.start()
        try:
            yield "unix:" + path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
            for sock in socks:
                sock.close()


def snapshot_with(**changed):
    """Puts another edition into the snapshot."""
    head, tail = wire.edition(**changed)
    own, own_tail = wire.edition()

    def change(kind, body):
        if kind != SNAPSHOT:
            return body
        assert body.endswith(own_tail)
        return head + body[len(own):-len(own_tail)] + tail

    return change


def numbers(**changed):
    """The numbers of this build's calls: NAME=None leaves one out, NAME=1 changes it."""
    return {op: number ^ changed.get(name, 0) for op, (name, number) in wire.calls().items()
            if changed.get(name, 0) is not None}


class Clients(unittest.TestCase):
    """Of other releases, at our executor."""

    def greeting(self, **changed):
        with executor() as (address, _, log):
            with wire.connected(address, wire.frame(HELLO, wire.hello(**changed))) as sock:
                kind, body = wire.received(sock)
            return kind, body.decode(errors="replace"), wire.text_of(log)

    def test_one_that_knows_more_or_less_is_served(self):
        more = numbers() | {0xfff0: 1, 0xfff1: 2}
        less = numbers(memset=None, stream_attr=None)
        for calls in (more, less):
            kind, text, _ = self.greeting(numbers=calls, spec_hash=1)
            self.assertEqual(kind, SNAPSHOT, text)

    def assert_refused(self, want, **changed):
        kind, text, log = self.greeting(**changed)
        self.assertEqual(kind, REFUSED)
        self.assertRegex(text, want)
        self.assertIn(text, log)
        self.assertRegex(text, r"^the executor's TFR is .* \(wire \d+\), the program's is 9\.9")
        self.assertTrue(text.endswith(": install the same release on both sides"), text)

    def test_one_whose_call_looks_otherwise_is_told_both_versions(self):
        self.assert_refused("disagree on memset", numbers=numbers(memset=1), spec_hash=1, release=b"9.9")

    def test_one_of_another_wire_is_told_both_versions(self):
        kind, text, log = self.greeting(version=7, spec_hash=1)
        self.assertEqual(kind, REFUSED)
        self.assertRegex(text, rf"\(wire {wire.constant('TFR_WIRE_VERSION')}\).*\(wire 7\).*install the same")
        self.assertIn(text, log)

    def test_one_with_other_pages_is_told_both_versions(self):
        self.assert_refused("shared memory differs", core_hash=1, spec_hash=1, release=b"9.9")


class Executors(unittest.TestCase):
    """Of other releases, for our client."""

    def run_against(self, change, *args, **more):
        with executor() as (address, _, _), between(address, change) as way:
            return tf_run(*(args or (PROBE, "exit", "3")), executor=way, **more)

    def test_one_that_knows_more_serves(self):
        got = self.run_against(snapshot_with(numbers=numbers() | {0xfff0: 1}, spec_hash=1))
        self.assertEqual((got.returncode, got.stderr), (3, b""))

    def test_a_call_that_it_does_not_know_is_not_supported_and_said_once(self):
        change = snapshot_with(numbers=numbers(stream_attr=None), spec_hash=1)
        got = self.run_against(change, os.path.join(BIN, "stream_attributes"))
        self.assertEqual(got.stderr.count(b"does not know stream_attr"), 1, got.stderr)
        got = self.run_against(change)
        self.assertEqual((got.returncode, got.stderr), (3, b""), "what needs no such call is served")

    def assert_refused(self, change, *wants):
        got = self.run_against(change)
        self.assertEqual(got.returncode, 1, got.stderr)
        text = got.stderr.decode()
        for want in (*wants, r"the executor's TFR is .*\(wire \d+\), the program's is .*\(wire \d+\).*"
                             r"install the same release on both sides"):
            self.assertRegex(text, want)
        self.assertEqual(len(re.findall("install the same release", text)), 1, text)

    def test_another_one_is_refused_by_the_client_too(self):
        self.assert_refused(snapshot_with(version=9, spec_hash=1, release=b"8.8"), r"8\.8 \(wire 9\)")
        self.assert_refused(snapshot_with(numbers=numbers(memset=1), spec_hash=1), "disagree on memset")
        self.assert_refused(lambda kind, body: b"x" * 64 if kind == SNAPSHOT else body, r"wire 0\)")


class Strangers(unittest.TestCase):
    """What answers may be anything: tools say so in a line, and nothing of it reaches the terminal."""

    def asked(self, name, change):
        with executor() as (address, _, _), between(address, change) as way:
            got = subprocess.run([os.path.join(BUILD, "bin", name), "--executor", way], capture_output=True,
                                 timeout=LIMIT_S, check=False,
                                 env={k: v for k, v in env().items() if k != "LD_PRELOAD"})
        self.assertNotIn(b"\033", got.stdout + got.stderr)
        return got

    def test_a_refusal_is_one_line(self):
        got = self.asked("tf-info", lambda kind, body: (REFUSED, b"no\033[2J\nmore"))
        self.assertEqual((got.returncode, got.stderr), (1, b"tf: the executor refused: no?[2J?more\n"))

    def test_one_that_is_slow_to_start_is_waited_for_aloud(self):
        queued = wire.frame(wire.message("QUEUED"), bytes(8))
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as door:
            door.bind(os.path.join(folder, "slow"))
            door.listen()
            with subprocess.Popen([os.path.join(BUILD, "bin", "tf-info"), "--executor", "unix:" + door.getsockname()],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                  env={k: v for k, v in env().items() if k != "LD_PRELOAD"}) as asking:
                with door.accept()[0] as sock:
                    wire.received(sock)
                    for _ in range(5):
                        sock.sendall(queued)
                        time.sleep(0.6)
                    sock.sendall(wire.frame(REFUSED, b"no"))
                said = asking.communicate(timeout=LIMIT_S)[1]
        self.assertEqual(said, b"tf: the executor is still starting: waiting for it\n"
                               b"tf: the executor refused: no\n")

    def test_names_are_printable(self):
        got = self.asked("tf-info", lambda kind, body: body.replace(b"TFR software", b"TFR\033[2Jware"))
        self.assertIn(b"device 0: TFR?[2Jware GPU", got.stdout)

    def test_rows_that_are_none_are_no_rows(self):
        for change in (lambda kind, body: b"", lambda kind, body: body[:11], lambda kind, body: b"\xff" * 400):
            got = self.asked("tf-stat", change)
            self.assertEqual((got.returncode, got.stderr), (1, b"tf: the executor's answer makes no sense\n"))

    def test_a_row_without_an_end_stays_a_row(self):
        head = struct.calcsize("<IIIIQQQ")
        values = len(re.findall(r"^    X\(", wire.text_of(wire.ROOT, "proto", "stat.h"), re.M))
        row = struct.pack("<iiIIQ", 1, 2, 3, 0, 4) + b"\033" * 64 + b"\xff" * 8 * values

        def change(kind, body):
            return struct.pack("<I", 1) + body[4:head] + row

        got = self.asked("tf-stat", change)
        self.assertEqual((got.returncode, got.stderr), (0, b""))
        self.assertIn(b"?" * 16, got.stdout)


if __name__ == "__main__":
    sys.exit(unittest.main())
