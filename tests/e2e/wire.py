"""The boot protocol in Python, for tests that stand in for a client or an executor: frames, hello,
and the numbers that both compare, read from the sources and from what gen.py made."""
import contextlib
import os
import re
import socket
import struct

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.environ.get("TFR_TEST_BUILD", "")
LIMIT_S = 60
EDITION = "<IIQQII64s"
MAGIC, VERSION, SPEC_HASH, CORE_HASH, CALL_N = range(5)  # fields of an edition


def text_of(*path):
    with open(os.path.join(*path), encoding="utf-8") as file:
        return file.read()


def constant(name, *path):
    return int(re.search(name + r" = (\w+)", text_of(ROOT, *(path or ("proto", "wire.h")))).group(1), 0)


def message(name):
    """The number of a boot message: HELLO, SNAPSHOT, ..."""
    body = re.search(r"enum tfr_boot_type \{(.*?)\n\};", text_of(ROOT, "proto", "wire.h"), re.S).group(1)
    names = re.findall(r"^\s*(TFR_BOOT_\w+)", body, re.M)
    return 1 + names.index("TFR_BOOT_" + name)


def calls():
    """op -> (name, number), as this build knows them."""
    ops = dict(re.findall(r"TFR_OP_(\w+) = (0x\w+)", text_of(BUILD, "gen", "tfr_ops.h")))
    numbers = re.findall(r"\[TFR_OP_(\w+)\] = (0x\w+)", text_of(BUILD, "gen", "tfr_ops.c"))
    return {int(ops[name], 16): (name, int(number, 16)) for name, number in numbers}


def rows(numbers):
    """op -> number, as the rows of an edition."""
    return b"".join(struct.pack("<IHH", number, op, 0) for op, number in numbers.items())


def edition(numbers=None, version=None, release=b"test", spec_hash=None, core_hash=None):
    """An edition and its rows; without arguments that of this build."""
    if numbers is None:
        numbers = {op: number for op, (_, number) in calls().items()}
    made = dict(re.findall(r"#define TFR_(CORE|SPEC)_HASH (0x\w+)ull", text_of(BUILD, "gen", "tfr_ops.h")))
    return struct.pack(EDITION, constant("TFR_WIRE_MAGIC"),
                       constant("TFR_WIRE_VERSION") if version is None else version,
                       int(made["SPEC"], 16) if spec_hash is None else spec_hash,
                       int(made["CORE"], 16) if core_hash is None else core_hash,
                       len(numbers), 0, release), rows(numbers)


def hello(settings=b"", program=b"stranger", **changed):
    head, tail = edition(**changed)
    return head + struct.pack("<II64s", os.getpid(), len(settings), program) + tail + settings


def frame(kind, body=b"", length=None):
    return struct.pack("<IIII", constant("MAGIC", "transport", "boot.c"), kind,
                       len(body) if length is None else length, 0) + body


def ways(*names):
    """The body of an attach message that offers these transports, with empty offers."""
    return b"".join(struct.pack("<32sII488s", name.encode(), 1, 0, b"") for name in names)


def connected(address, *frames):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(address[len("unix:"):])  # waits while the backlog is full
    sock.settimeout(LIMIT_S)
    with contextlib.suppress(BrokenPipeError):
        for data in frames:
            sock.sendall(data)
    return sock


def received(sock):
    """The next message: its type and body; None: closed."""
    try:
        head = sock.recv(16, socket.MSG_WAITALL)
    except ConnectionResetError:
        return None
    if len(head) < 16:
        return None
    _, kind, length, _ = struct.unpack("<IIII", head)
    return kind, sock.recv(length, socket.MSG_WAITALL) if length else b""


def answer(sock):
    """The type of the next message; None: closed."""
    got = received(sock)
    return got and got[0]
