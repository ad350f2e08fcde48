#!/usr/bin/env python3
"""Runs one CUDA program one way and compares stdout and exit status with its golden output.

A golden file is the program's stdout; a last line "exit N" stands for an exit status other than 0.
Ways: soft (on the software GPU's libcuda.so.1), tfr (through tf-run and a private executor), net (through
tf-run and an executor in another network namespace, over TCP), and gpu (on whatever libcuda.so.1 the machine
has).
"""
import argparse
import contextlib
import difflib
import os
import signal
import subprocess
import sys
import tempfile

import net
import ways

LIMIT_S = 200
SKIPPED = 77


def run(command, env):
    """stdout, exit status (a shell's view of signals) and stderr; the whole group dies at the limit."""
    child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, start_new_session=True)
    try:
        out, err = child.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
        err += b"run.py: stopped after %d s\n" % LIMIT_S
    status = child.returncode if child.returncode >= 0 else 128 - child.returncode
    return out.decode(errors="replace"), status, err.decode(errors="replace")


def far_away(stack, args, env):
    """The command that runs the program in one namespace, with an executor in another."""
    pair = stack.enter_context(net.pair())
    env["TFR_KEY_FILE"] = key = os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "key")
    binary = os.path.join(args.build, "bin", "tf-executor")
    settings = {k: v for k, v in env.items() if k != "LD_PRELOAD"}
    address, _ = stack.enter_context(net.executor(pair, binary, settings, key))
    return [*pair.client, os.path.join(args.build, "bin", "tf-run"), "--executor", address, args.program]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, help="build folder")
    parser.add_argument("--golden", required=True, help="file with the expected output")
    parser.add_argument("--cudart", help="folder of the toolkit's shared libraries")
    parser.add_argument("--sanitize", default="", help="sanitizers that our libraries are built with")
    parser.add_argument("--update", action="store_true", help="write the golden file")
    parser.add_argument("way", choices=["soft", "tfr", "net", "gpu"])
    parser.add_argument("program")
    args = parser.parse_args()

    command = [args.program]
    env = ways.environment(args.build, args.sanitize, args.way, args.cudart)
    with contextlib.ExitStack() as stack:
        if args.way == "tfr":
            command = [os.path.join(args.build, "bin", "tf-run"), args.program]
        elif args.way == "net":
            why = net.missing()
            if why:
                print("skipped:", why)
                return SKIPPED
            command = far_away(stack, args, env)
        out, status, err = run(command, env)
    got = out + (f"exit {status}\n" if status else "")
    if args.update:
        with open(args.golden, "w", encoding="utf-8") as file:
            file.write(got)
        return 0
    with open(args.golden, encoding="utf-8") as file:
        want = file.read()
    if got == want:
        return 0
    sys.stdout.writelines(difflib.unified_diff(want.splitlines(True), got.splitlines(True),
                                               "expected", args.way))
    print(f"--- stderr of {' '.join(command)}:\n{err}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
