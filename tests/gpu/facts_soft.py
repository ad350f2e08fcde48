#!/usr/bin/env python3
"""Runs every fact on the software GPU, quickly: usage facts_soft.py FACTS LIBCUDA.

Fails if a fact did not run, hung or crashed, if softgpu differs where it models the thing, if the JSON
does not parse, or if the report could be read as a GPU's."""
import json
import os
import subprocess
import sys
import tempfile

FINE = {"agrees", "not modelled", "measured"}


def main(facts, libcuda):
    if not os.path.exists(libcuda):
        print(f"skipped: no software GPU at {libcuda}")
        return 77
    names = [line.split()[0] for line in
             subprocess.run([facts, "--list"], check=True, capture_output=True,
                            text=True).stdout.splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "facts.json")
        run = subprocess.run([facts, "--quick", "--limit-scale", "2", "--json", path, libcuda],
                             capture_output=True, text=True)
        print(run.stdout)
        if not os.path.exists(path):
            print(run.stderr)
            return 1
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
    bad = []
    if report["gpu"] != "STAND-IN" or "STAND-IN" not in run.stdout:
        bad.append(f"the report calls softgpu {report['gpu']}")
    if run.returncode != 0:
        bad.append(f"facts ended with {run.returncode}")
    ran = {fact["name"]: fact for fact in report["facts"]}
    bad += [f"{name} did not run" for name in names if name not in ran]
    bad += [f"{name}: {fact['verdict']}: {fact['seen']}" for name, fact in ran.items()
            if fact["verdict"] not in FINE]
    print("\n".join(bad) if bad else f"{len(ran)} facts ran")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
