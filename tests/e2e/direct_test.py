#!/usr/bin/env python3
"""Lanes in GPU memory: copies pass no host memory of the executor's node, and what does not work is found
out before a byte of a program depends on it.  Over tests/fake/direct.c, which reaches the software GPU's
memory as a NIC with GPUDirect RDMA would.

Run by ctest as behaviour_test.py is.
"""
import contextlib
import json
import os
import subprocess
import unittest

import behaviour_test as kit

LIMIT_S = 120
PIECE = 10000  # what the probe moves to the device and back at a time
PIECES = 5  # no more than pipes hold
FAKE = os.path.join(kit.BUILD, "tests", "fake", "direct")


@contextlib.contextmanager
def settings(**more):
    """The environment of executor and client."""
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def look(address):
    got = subprocess.run([os.path.join(kit.BUILD, "bin", "tf-stat"), "--executor", address, "--json"],
                         env={k: v for k, v in kit.env().items() if k != "LD_PRELOAD"}, text=True,
                         capture_output=True, timeout=LIMIT_S, check=True)
    return json.loads(got.stdout)["sessions"]


def numbers_of_cat(transport="verbs", **more):
    """The session's numbers after bytes have gone to the device and come back, and what came back."""
    with settings(TFR_TRANSPORT=transport, TFR_PLUGINS=FAKE, **more), kit.executor() as (address, _), \
            kit.started([kit.TF_RUN, "--executor", address, kit.PROBE, "cat"], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=kit.env()) as program:
        sent = os.urandom(PIECE) * PIECES
        with contextlib.suppress(BrokenPipeError):
            program.stdin.write(sent)
            program.stdin.flush()
        back = program.stdout.read(len(sent))
        if len(back) < len(sent):
            raise AssertionError(program.communicate()[1].decode())
        row = look(address)[0]
        return row, back == sent


class Direct(unittest.TestCase):
    def test_copies_pass_no_host_memory(self):
        row, same = numbers_of_cat()
        self.assertTrue(same)
        self.assertGreater(row["gpu_lane"], 0)
        self.assertEqual(row["bytes_bounced"], 0)
        self.assertGreaterEqual(row["bytes_direct"], 2 * PIECE * PIECES)

    def test_bytes_land_before_the_gpu_copies_them(self):
        row, same = numbers_of_cat()
        self.assertTrue(same)
        self.assertGreater(row["landings"], 0)

    def test_memory_that_the_gpu_does_not_see_is_not_used(self):
        row, same = numbers_of_cat(FAKE_DIRECT="blind")
        self.assertTrue(same)
        self.assertEqual((row["gpu_lane"], row["bytes_direct"]), (0, 0))
        self.assertGreaterEqual(row["bytes_bounced"], 2 * PIECE * PIECES)

    def test_memory_that_cannot_be_registered_is_not_used(self):
        row, same = numbers_of_cat(FAKE_DIRECT="deaf")
        self.assertTrue(same)
        self.assertEqual((row["gpu_lane"], row["bytes_direct"]), (0, 0))

    def test_a_nic_that_refuses_it_costs_the_trial_and_not_the_session(self):
        for transport in ("verbs", "fault:verbs"):
            row, same = numbers_of_cat(transport, FAKE_DIRECT="refuse")
            self.assertTrue(same)
            self.assertEqual((row["gpu_lane"], row["bytes_direct"]), (0, 0))
            self.assertGreaterEqual(row["gpu_refused"], 1)
            self.assertGreaterEqual(row["bytes_bounced"], 2 * PIECE * PIECES)

    def test_a_nic_that_refuses_it_between_machines_alone_costs_no_session_either(self):
        for transport in ("verbs", "fault:verbs"):
            row, same = numbers_of_cat(transport, FAKE_DIRECT="far")
            self.assertTrue(same)
            self.assertEqual((row["gpu_lane"], row["bytes_direct"]), (0, 0))
            self.assertEqual(row["gpu_refused"], 1)
            self.assertGreaterEqual(row["bytes_bounced"], 2 * PIECE * PIECES)

    @unittest.skipUnless(os.path.exists("/dev/udmabuf"), "no /dev/udmabuf here")
    def test_what_refuses_dma_bufs_may_take_addresses(self):
        row, same = numbers_of_cat(FAKE_DIRECT="refuse-dmabuf")
        self.assertTrue(same)
        self.assertEqual((row["gpu_refused"], row["bytes_bounced"]), (1, 0))
        self.assertGreater(row["gpu_lane"], 0)

    def test_can_be_switched_off(self):
        for setting in ("off", "dmabuf") if not os.path.exists("/dev/udmabuf") else ("off",):
            row, same = numbers_of_cat(TFR_GPUDIRECT=setting)
            self.assertTrue(same)
            self.assertEqual((row["gpu_lane"], row["bytes_direct"]), (0, 0), setting)

    def test_a_transport_without_reach_keeps_to_host_memory(self):
        row, same = numbers_of_cat(transport="tcp")
        self.assertTrue(same)
        self.assertEqual((row["gpu_lane"], row["bytes_direct"]), (0, 0))
        self.assertGreater(row["bytes_bounced"], 0)


if __name__ == "__main__":
    unittest.main()
