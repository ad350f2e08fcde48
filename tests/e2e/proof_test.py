#!/usr/bin/env python3
"""The proof of identity and the sealed messages behind it, by docs/WIRE.md alone: a client and an executor
in Python, which share no line with ours but libsodium's curve and cipher, and attackers that know all of it
but the key.

Run by ctest like identity_test.py, whose executor and tools these are."""
import ctypes
import ctypes.util
import hashlib
import os
import socket
import struct
import sys
import threading
import unittest

import wire
from identity_test import Case, listening

HELLO, CHALLENGE, PROOF, ACCEPT, REFUSED = range(0x7e000001, 0x7e000006)
TAG = 16
sodium = ctypes.CDLL(ctypes.util.find_library("sodium") or None)


def hashed(said, key):
    return hashlib.blake2b(said, key=key, digest_size=32).digest()


def point_of(exponent):
    out = ctypes.create_string_buffer(32)
    sodium.crypto_scalarmult_base(out, exponent)
    return out.raw


def shared(exponent, point):
    out = ctypes.create_string_buffer(32)
    sodium.crypto_scalarmult(out, exponent, point)
    return out.raw


class Side:
    """What one side knows: the key, its own half of the exchange, and all that was said."""

    def __init__(self, key, version=1, method=1):
        self.key, self.exponent, self.transcript = key, os.urandom(32), bytes(32)
        self.greeting = struct.pack("<II", version, method) + os.urandom(32) + point_of(self.exponent)

    def absorb(self, *said):
        for text in said:
            self.transcript = hashed(text, self.transcript)

    def tag(self, key, label):
        return hashed(label.encode().ljust(32, b"\0") + self.transcript, key)

    def agree(self, greeting):
        """With the other side's greeting: the root, and the keys of both directions."""
        self.absorb(shared(self.exponent, greeting[40:72]))
        root = self.tag(self.key, "root of the session")
        return root, *(hashed(f"boot messages of the {who}".encode(), root) for who in ("client", "executor"))


class Sealed:
    """One direction of a connection after the proof."""

    def __init__(self, key):
        self.key, self.n = key, 0

    def nonce(self):
        self.n += 1
        return bytes(4) + struct.pack("<Q", self.n - 1)

    def close(self, kind, body):
        """A whole message."""
        head = wire.frame(kind, b"", len(body))
        out = ctypes.create_string_buffer(len(body) + TAG)
        sodium.crypto_aead_chacha20poly1305_ietf_encrypt(
            out, None, body, ctypes.c_ulonglong(len(body)), head, ctypes.c_ulonglong(16), None, self.nonce(), self.key)
        return head + out.raw

    def open(self, head, sealed):
        out = ctypes.create_string_buffer(max(1, len(sealed) - TAG))
        if sodium.crypto_aead_chacha20poly1305_ietf_decrypt(
                out, None, None, sealed, ctypes.c_ulonglong(len(sealed)), head, ctypes.c_ulonglong(16), self.nonce(),
                self.key):
            raise AssertionError("a message that is not the next one of the executor's")
        return out.raw[:len(sealed) - TAG]


class Talk(Case):
    def setUp(self):
        super().setUp()
        self.closing = []
        self.addCleanup(lambda: [sock.close() for sock in self.closing])

    def secret(self):
        with open(self.key(), encoding="ascii") as file:
            return bytes.fromhex(file.read())

    def connected(self, running):
        sock = socket.create_connection(("127.0.0.1", int(running.address().rpartition(":")[2])), 20)
        self.closing.append(sock)
        return sock

    def challenged(self, sock, side):
        """Says hello; the executor's greeting and proof."""
        sock.sendall(wire.frame(HELLO, side.greeting))
        kind, body = wire.received(sock)
        self.assertEqual((kind, len(body)), (CHALLENGE, 72 + 32))
        return body[:72], body[72:]

    def proved(self, sock, side):
        """All four messages by the book; the two directions."""
        greeting, proof = self.challenged(sock, side)
        side.absorb(side.greeting, greeting)
        self.assertEqual(proof, side.tag(side.key, "proof of the executor"))
        side.absorb(proof)
        own = side.tag(side.key, "proof of the client")
        sock.sendall(wire.frame(PROOF, own))
        side.absorb(own)
        root, out, back = side.agree(greeting)
        self.assertEqual(wire.received(sock), (ACCEPT, side.tag(root, "accepted")))
        return Sealed(out), Sealed(back), own

    def taken(self, sock, back):
        head = sock.recv(16, socket.MSG_WAITALL)
        length = struct.unpack("<IIII", head)[2]
        return struct.unpack("<IIII", head)[1], back.open(head, sock.recv(length + TAG, socket.MSG_WAITALL))

    def ends(self, sock):
        try:
            return sock.recv(1) == b""
        except ConnectionResetError:
            return True


class Client(Talk):
    def test_by_the_book_is_served(self):
        hello = wire.message("HELLO"), wire.hello()  # before it has a limit
        with listening(self.home) as running:
            sock = self.connected(running)
            out, back, _ = self.proved(sock, Side(self.secret()))
            sock.sendall(out.close(*hello))
            kind, body = self.taken(sock, back)
            self.assertEqual(kind, wire.message("SNAPSHOT"))
            self.assertEqual(body[:4], struct.pack("<I", wire.constant("TFR_WIRE_MAGIC")))
            self.assertIn(b"TFR software GPU", body)

    def refused(self, running, sock, want):
        kind, text = wire.received(sock)
        self.assertEqual(kind, REFUSED)
        self.assertRegex(text.decode(), want)
        self.assertTrue(self.ends(sock))
        self.heard(running, want)

    def test_that_says_again_what_another_said_is_refused(self):
        with listening(self.home) as running:
            side = Side(self.secret())
            own = self.proved(self.connected(running), side)[2]
            sock = self.connected(running)
            self.challenged(sock, side)
            sock.sendall(wire.frame(PROOF, own))
            self.refused(running, sock, "holds another key")

    def test_that_echoes_is_refused(self):
        with listening(self.home) as running:
            sock = self.connected(running)
            proof = self.challenged(sock, Side(os.urandom(32)))[1]
            sock.sendall(wire.frame(PROOF, proof))
            self.refused(running, sock, "holds another key")

    def test_of_another_version_hears_both(self):
        with listening(self.home) as running:
            sock = self.connected(running)
            sock.sendall(wire.frame(HELLO, Side(self.secret(), version=7).greeting))
            self.refused(running, sock, "version 7 of the proof of identity meets version 1: install the same release")

    def test_that_offers_something_weaker_is_refused(self):
        for method, want in ((0, "no usable key"), (2, "offers munge, the executor wants key"),
                             (9, "offers something unknown")):
            with listening(self.home) as running:
                sock = self.connected(running)
                sock.sendall(wire.frame(HELLO, Side(self.secret(), method=method).greeting))
                self.refused(running, sock, want)

    def test_with_a_point_that_makes_every_secret_zero_gets_nowhere(self):
        with listening(self.home) as running:
            sock, side = self.connected(running), Side(self.secret())
            side.greeting = side.greeting[:40] + bytes(32)
            greeting, proof = self.challenged(sock, side)
            side.absorb(side.greeting, greeting, proof)
            sock.sendall(wire.frame(PROOF, side.tag(side.key, "proof of the client")))
            self.assertTrue(self.ends(sock))
            self.answers(running.address())

    def test_whose_messages_are_not_the_next_ones_is_closed(self):
        hello = wire.message("HELLO"), wire.hello()
        other = wire.frame(wire.message("STAT"), b"", len(hello[1]))
        cases = {"plain": lambda out, back: wire.frame(*hello),
                 "changed": lambda out, back: out.close(*hello)[:-1] + b"x",
                 "another head": lambda out, back: other + out.close(*hello)[16:],
                 "left out": lambda out, back: (out.nonce(), out.close(*hello))[1],
                 "the other direction": lambda out, back: Sealed(back.key).close(*hello)}
        with listening(self.home) as running:
            for name, made in cases.items():
                sock = self.connected(running)
                out, back, _ = self.proved(sock, Side(self.secret()))
                sock.sendall(made(out, back))
                self.assertTrue(self.ends(sock), name)
            sock = self.connected(running)
            out, back, _ = self.proved(sock, Side(self.secret()))
            twice = out.close(wire.message("STAT"), wire.hello())
            sock.sendall(twice + twice)
            self.assertEqual(self.taken(sock, back)[0], wire.message("STATS"))
            self.assertTrue(self.ends(sock), "twice")
            self.answers(running.address())


class Executor(Talk):
    """One of Python's, for our tools."""

    def said(self, answer, *words):
        """A tool meets an executor that answers its greeting with `answer(side, greeting)`."""
        with listening(self.home):
            pass  # makes the key
        side = Side(self.secret())
        with socket.create_server(("127.0.0.1", 0)) as door:
            def serve():
                sock = door.accept()[0]
                door.close()
                self.closing.append(sock)
                greeting = wire.received(sock)[1]
                sock.sendall(answer(side, greeting))
                self.last = wire.received(sock)
                sock.close()
            address = "tcp:127.0.0.1:%d" % door.getsockname()[1]
            thread = threading.Thread(target=serve)
            thread.start()
            self.refused(address, *words)
            thread.join()

    @staticmethod
    def challenge(side, greeting, key=None):
        side.absorb(greeting, side.greeting)
        return wire.frame(CHALLENGE, side.greeting + side.tag(key or side.key, "proof of the executor"))

    def test_that_holds_another_key_is_not_told_a_proof(self):
        self.said(lambda side, greeting: self.challenge(side, greeting, os.urandom(32)), "holds another key")
        self.assertEqual(self.last, (REFUSED, b""))

    def test_that_echoes_is_not_told_a_proof(self):
        self.said(lambda side, greeting: wire.frame(CHALLENGE, greeting + os.urandom(32)), "holds another key")
        self.assertEqual(self.last, (REFUSED, b""))

    def test_of_another_version_is_one_line_with_both(self):
        def answer(side, greeting):
            side.greeting = struct.pack("<I", 2) + side.greeting[4:]
            return self.challenge(side, greeting)
        self.said(answer, "version 2 of the proof of identity meets version 1", "install the same release")

    def test_that_goes_after_the_proof_has_shown_nothing(self):
        self.said(self.challenge, "no executor reachable")
        self.assertEqual(self.last[0], PROOF)
        self.assertEqual(len(self.last[1]), 32)


if __name__ == "__main__":
    sys.exit(unittest.main())
