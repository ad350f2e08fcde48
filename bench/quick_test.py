#!/usr/bin/env python3
"""tf-bench --quick: every case runs with the right data, the JSON says so, and what claims to be
asynchronous makes no round trip and no system call.  No time is judged.

    quick_test.py TF_BENCH
"""
import json
import os
import subprocess
import sys
import tempfile

SYSCALLS_MAX = 0.01
# A busy machine puts an executor to sleep in the middle of a burst, and waking it is a system call; or the
# thread that has a lock, and who waits for it gives the core away: a case with more is counted again.
WAKES_MAX = 0.1
TRIES = 4


def bench(args):
    """The report and the exit status of one run."""
    env = {k: v for k, v in os.environ.items() if k != "TFR_EXECUTORS"}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.json")
        done = subprocess.run([sys.argv[1], "--quick", "--json", path] + args, env=env, check=False)
        with open(path, encoding="utf-8") as file:
            return json.load(file), done.returncode


def wakes(counts):
    """Wake-ups per operation, where system calls could be counted."""
    return counts["wakes"] or 0


def others(counts):
    """System calls per operation that wake nobody."""
    return 0 if counts["syscalls"] is None else counts["syscalls"] - wakes(counts)


def counts_again(name, counts):
    """Looks for a quieter moment."""
    for _ in range(TRIES):
        if counts is None or (wakes(counts) <= WAKES_MAX and others(counts) <= SYSCALLS_MAX):
            break
        report, _ = bench(["--case", name])
        counts = next(r["per_op"] for r in report["results"] if r["name"] == name)
    return counts


def complaints_of(result):
    """What is wrong with one case."""
    if not result["ok"]:
        yield result["failed"]
        return
    if not result["tfr"] or not result["native"] or result["tfr"]["samples"] < 3:
        yield "no samples"
    counts = result["per_op"]
    if counts and result["issue"]:
        counts = counts_again(result["name"], counts)
    if not counts:
        yield "nothing was counted"
    elif result["issue"]:
        if counts["round_trips"] != 0:
            yield f"{counts['round_trips']} round trips per operation"
        if wakes(counts) > WAKES_MAX:
            yield f"{counts['wakes']} wake-ups per operation"
        if others(counts) > SYSCALLS_MAX:
            yield f"{counts['syscalls']} system calls per operation"


def main():
    names = [line.split()[0] for line in subprocess.run(
        [sys.argv[1], "--quick", "--list"], capture_output=True, text=True,
        check=True).stdout.splitlines()]
    report, status = bench([])
    bad = [f"{r['name']}: {c}" for r in report["results"] for c in complaints_of(r)]
    if [r["name"] for r in report["results"]] != names:
        bad.append("the cases that ran are not those of --list")
    if status != 0:
        bad.append(f"exit status {status}")
    if (report["schema"], report["schema_version"]) != ("tf-bench", 1):
        bad.append("unknown schema")
    soft = "software" in report["environment"]["tfr_device"]
    if (report["environment"]["gpu"] == "STAND-IN") != soft:
        bad.append("the report hides what the device was")
    for line in bad:
        print("quick_test:", line, file=sys.stderr)
    return 1 if bad else 0


sys.exit(main())
