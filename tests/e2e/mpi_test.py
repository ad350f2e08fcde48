#!/usr/bin/env python3
"""CUDA programs that are MPI programs, too: TFR and MPI in one process, each with a UCX of its own settings.

Run by ctest as behaviour_test.py is.  TFR_TEST_UCX says whether our ucx transport was built."""
import os
import shutil
import subprocess
import sys
import unittest

import behaviour_test as kit

RANKS = 2
LIMIT_S = 120
HAS_UCX = os.environ.get("TFR_TEST_UCX", "") == "1"
# Debian's MPI is Open MPI, whose UCX sends through a fabric alone unless it is told otherwise.
OPEN_MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none",
            "OMPI_MCA_plm_rsh_agent": "false", "OMPI_MCA_btl_vader_single_copy_mechanism": "none"}
OVER_UCX = {"OMPI_MCA_pml": "ucx", "OMPI_MCA_pml_ucx_tls": "any", "OMPI_MCA_pml_ucx_devices": "any"}


def mpi_has_ucx():
    if not shutil.which("ompi_info"):
        return False
    said = subprocess.run(["ompi_info", "--parsable"], capture_output=True, text=True, check=False).stdout
    return "mca:pml:ucx:" in said


class Mpi(unittest.TestCase):
    def run_ranks(self, *args, **more):
        command = ["mpirun", "-np", str(RANKS), kit.TF_RUN, os.path.join(kit.BIN, "mpi_ring"), *args]
        with kit.started(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         text=True, env=kit.env(**OPEN_MPI, **more)) as ranks:
            out, err = ranks.communicate(timeout=LIMIT_S)
        self.assertEqual((out, ranks.returncode), (f"{RANKS} ranks, 0 wrong\n", 0), err)

    def both_orders(self, **more):
        self.run_ranks(**more)
        self.run_ranks("cuda first", **more)

    def test_over_shm(self):
        self.both_orders()

    @unittest.skipUnless(mpi_has_ucx(), "this MPI has no UCX")
    def test_over_tcp_beside_ucx(self):
        self.both_orders(TFR_TRANSPORT="tcp", **OVER_UCX)

    @unittest.skipUnless(mpi_has_ucx() and HAS_UCX, "this MPI has no UCX, or we have none")
    def test_over_ucx_beside_ucx(self):
        self.both_orders(TFR_TRANSPORT="ucx", TFR_UCX_TLS="posix,cma,self", **OVER_UCX)


if __name__ == "__main__":
    if not shutil.which("mpirun"):
        print("skipped: there is no mpirun (scripts/setup mpi)")
        sys.exit(77)
    if kit.SANITIZE:
        print("skipped: the sanitizers would watch MPI")
        sys.exit(77)
    sys.exit(unittest.main())
