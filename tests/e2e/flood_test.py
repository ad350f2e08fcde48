#!/usr/bin/env python3
"""Floods at an executor's doors: who is good comes in all the same, and what runs goes on.  Loopback alone.

Run by ctest like identity_test.py, whose executor and clients these are."""
import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest

import wire
from behaviour_test import PROBE, SANITIZE, TF_RUN, env, started
from identity_test import Case, Munged, listening, program, settled_files

AUTH_HELLO, AUTH_PROOF = 0x7e000001, 0x7e000003


def auth_hello(method=1):
    return wire.frame(AUTH_HELLO, struct.pack("<II", 1, method) + os.urandom(64))


class Flood(Case):
    """A thousand a second of each kind; meanwhile somebody good comes and goes."""
    RATE, SECONDS = 1000, 4
    HELD = 200  # open at once

    def setUp(self):
        super().setUp()
        self.unix = "unix:" + os.path.join(self.home, "sock")

    def flood(self, address, data, over, counts):
        """Connections that say `data` and are closed by the other side, or soon by us."""
        if address.startswith("tcp:"):
            to, family = ("127.0.0.1", int(address.rpartition(":")[2])), socket.AF_INET
        else:
            to, family = address[5:], socket.AF_UNIX
        begin, n, held = time.monotonic(), 0, []
        while not over.is_set():
            n += 1
            sock = socket.socket(family)
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.connect(to)
            with contextlib.suppress(OSError):
                for part in data:
                    sock.send(part() if callable(part) else part)
            held.append(sock)
            if len(held) > self.HELD:
                held.pop(0).close()
            wait = begin + n / self.RATE - time.monotonic()
            if wait > 0:
                time.sleep(wait)
        counts.append(n)
        for sock in held:
            sock.close()

    def meanwhile(self, data, *options, settings=None):
        doors = ("tcp:127.0.0.1:0", self.unix)
        settings = {"TFR_CONNECT_MS": "15000", **(settings or {})}
        with listening(self.home, *options, listen=doors, **settings) as running:
            over, counts = threading.Event(), []
            threads = [threading.Thread(target=self.flood, args=(a, data, over, counts))
                       for a in running.addresses]
            before = len(running.lines())
            begin = time.monotonic()
            for thread in threads:
                thread.start()
            good, waited = 0, 0
            try:
                while time.monotonic() - begin < self.SECONDS:
                    for address in running.addresses:
                        since = time.monotonic()
                        self.answers(address, **settings)
                        waited = max(waited, time.monotonic() - since)
                        good += 1
                    got = program(running.addresses[good % 2], self.home, PROBE, "count", **settings)
                    self.assertEqual(got.stdout, "cudaSuccess 1\n", got.stderr)
            finally:
                over.set()
                for thread in threads:
                    thread.join()
            spent = time.monotonic() - begin
            print(f"{sum(counts) / spent:.0f} a second; {good} good ones, the slowest took {waited:.2f} s",
                  file=sys.stderr)
            said = len(running.lines()) - before
            self.assertLessEqual(said, 2 * (spent + 2), running.lines()[:20])
            self.assertGreater(sum(counts), self.RATE * self.SECONDS / 10)
            self.assertIsNone(running.child.poll())
            self.answers(running.address(), **settings)

    def test_of_nonsense(self):
        self.meanwhile([b"GET / HTTP/1.1\r\n\r\n"])

    def test_of_proofs_by_another_key(self):
        self.meanwhile([auth_hello, lambda: wire.frame(AUTH_PROOF, os.urandom(32))])

    def test_of_silence(self):
        self.meanwhile([])

    def test_of_hellos_that_nothing_follows(self):
        self.HELD = 3000
        with settled_files(8192):
            self.meanwhile([auth_hello])

    def test_a_session_goes_on_and_another_joins(self):
        self.HELD = 3000
        with settled_files(8192), listening(self.home) as running:
            address, over, counts = running.address(), threading.Event(), []
            sent = os.urandom(10000)
            flood = threading.Thread(target=self.flood, args=(address, [auth_hello], over, counts))
            with started([TF_RUN, "--executor", address, PROBE, "cat"], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, env=env(HOME=self.home)) as cat:
                def echo():
                    cat.stdin.write(sent)
                    cat.stdin.flush()
                    return cat.stdout.read(len(sent)) == sent
                self.assertTrue(echo())
                flood.start()
                try:
                    for _ in range(5):
                        self.assertTrue(echo())
                        got = program(address, self.home, PROBE, "count", TFR_CONNECT_MS="15000")
                        self.assertEqual(got.stdout, "cudaSuccess 1\n", got.stderr)
                    self.assertTrue(echo())
                finally:
                    over.set()
                    flood.join()

    def test_of_half_messages(self):
        self.meanwhile([lambda: auth_hello()[:40]])

    def test_a_byte_at_a_time_is_not_waited_for(self):
        with listening(self.home) as running:
            to = ("127.0.0.1", int(running.address().rpartition(":")[2]))
            socks = [socket.create_connection(to) for _ in range(80)]
            data, begin, closed = auth_hello(), time.monotonic(), 0
            for at in range(30):
                for sock in socks:
                    with contextlib.suppress(OSError):
                        sock.send(data[at:at + 1])
                if at % 10 == 0:
                    self.answers(running.address())
                time.sleep(0.1)
            for sock in socks:
                sock.settimeout(5)
                try:
                    closed += sock.recv(1) == b""
                except ConnectionResetError:
                    closed += 1
                except socket.timeout:
                    pass
                sock.close()
            self.assertEqual(closed, len(socks), f"after {time.monotonic() - begin:.1f} s")


class MungeFlood(Munged, Flood):
    """Of hellos that make munged work, by clients that do not stay for it."""
    RATE = 300
    test_of_nonsense = test_of_proofs_by_another_key = test_of_silence = test_of_half_messages = None
    test_of_hellos_that_nothing_follows = test_a_session_goes_on_and_another_joins = None
    test_a_byte_at_a_time_is_not_waited_for = None

    def test_of_hellos(self):
        self.munged()
        self.meanwhile([lambda: auth_hello(2)], "--auth", "munge",
                       settings=self.settings)


if __name__ == "__main__":
    if SANITIZE:
        Flood.RATE, MungeFlood.RATE = 300, 50
    unittest.main()
