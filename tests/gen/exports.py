#!/usr/bin/env python3
"""Does a libcuda of ours export exactly the names of its version script, all of them functions or
data of its own?

exports.py LIBRARY MAP
"""

import re
import subprocess
import sys


def main(library, script):
    with open(script, encoding="utf-8") as f:
        want = set(re.findall(r"^ {8}(\w+);", f.read(), re.M))
    text = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
    ).stdout
    have = {line.split()[-1] for line in text.splitlines()}
    if len(want) < 600:
        return f"{script} names only {len(want)} symbols"
    return (
        "\n".join(
            [f"missing: {n}" for n in sorted(want - have)]
            + [f"too many: {n}" for n in sorted(have - want)]
        )
        or 0
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
