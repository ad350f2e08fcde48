#!/usr/bin/env python3
"""Lists the CUDA programs that can run where client and executor share no memory: those that ctest runs
over the fault transport.  A line each: golden file, program, NAME=VALUE settings.

usage: programs.py BUILD        (called by scripts/lab/full.sh)
"""
import json
import subprocess
import sys


def main():
    said = subprocess.run(["ctest", "--test-dir", sys.argv[1], "--show-only=json-v1"], check=True,
                          capture_output=True, text=True).stdout
    seen = set()
    for test in json.loads(said)["tests"]:
        words = test.get("command", [])
        if not test["name"].startswith("e2e.fault.") or words[-1] in seen:
            continue
        seen.add(words[-1])
        settings = [w for w in words[3:words.index("--golden")] if w.startswith("TFR_SOFT_")]
        if "--cudart" in words:
            settings.append("LD_LIBRARY_PATH=" + words[words.index("--cudart") + 1])
        print(words[words.index("--golden") + 1], words[-1], *settings)
    return 0 if seen else 1


if __name__ == "__main__":
    sys.exit(main())
