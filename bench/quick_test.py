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


def check(results, names):
    """Complaints about the results."""
    if [r["name"] for r in results] != names:
        yield "the cases that ran are not those of --list"
    for r in results:
        name, counts = r["name"], r["per_op"]
        if not r["ok"]:
            yield f"{name}: {r['failed']}"
            continue
        if not r["tfr"] or not r["native"] or r["tfr"]["samples"] < 3:
            yield f"{name}: no samples"
        if counts is None:
            yield f"{name}: nothing was counted"
        elif r["issue"]:
            if counts["round_trips"] != 0:
                yield f"{name}: {counts['round_trips']} round trips per operation"
            if counts["syscalls"] is not None and counts["syscalls"] > 0.01:
                yield f"{name}: {counts['syscalls']} system calls per operation"


def main():
    bench = sys.argv[1]
    names = [line.split()[0] for line in subprocess.run(
        [bench, "--quick", "--list"], capture_output=True, text=True, check=True).stdout.splitlines()]
    # A busy machine puts an executor to sleep in the middle of a burst, and the wake-up is a system
    # call: let it spin for longer.
    env = {**os.environ, "TFR_SPIN_US": "5000"}
    env.pop("TFR_EXECUTORS", None)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.json")
        done = subprocess.run([bench, "--quick", "--json", path], env=env, check=False)
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
    complaints = list(check(report["results"], names))
    if done.returncode != 0:
        complaints.append(f"exit status {done.returncode}")
    if (report["schema"], report["schema_version"]) != ("tf-bench", 1):
        complaints.append("unknown schema")
    soft = "software" in report["environment"]["tfr_device"]
    if (report["environment"]["gpu"] == "STAND-IN") != soft:
        complaints.append("the report hides what the device was")
    for line in complaints:
        print("quick_test:", line, file=sys.stderr)
    return 1 if complaints else 0


sys.exit(main())
