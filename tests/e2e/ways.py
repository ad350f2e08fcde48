"""How a test starts a CUDA program: the environment for each way.  Used by run.py and behaviour_test.py.

The programs are not built with sanitizers; where our libraries are, the sanitizers' run-time must come
first in the process, so it is preloaded (tf-run keeps that from the executor, which has its own).
"""
import os
import subprocess


def sanitizer_env(sanitize):
    """Settings for a process that is to load a libcuda.so.1 of ours."""
    names = [n for n in sanitize.replace(";", ",").split(",") if n]
    if not names:
        return {}
    libs = []
    for name in names:
        lib = {"address": "libasan.so", "undefined": "libubsan.so", "thread": "libtsan.so"}[name]
        path = subprocess.run(["gcc", "-print-file-name=" + lib], capture_output=True, text=True,
                              check=True).stdout.strip()
        libs.append(os.path.realpath(path))
    return {"LD_PRELOAD": ":".join(libs),
            # The programs and cudart leak by design; our own leaks are found by the unit tests.  With
            # the default quarantine a worker takes half a gigabyte, and fifty of them the machine.
            "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16:" + os.environ.get("ASAN_OPTIONS", ""),
            "UBSAN_OPTIONS": "print_stacktrace=1:" + os.environ.get("UBSAN_OPTIONS", "")}


def environment(build, sanitize="", way="tfr", cudart=None):
    """The environment of a program: on softgpu directly, or through tf-run."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TFR_TEST_")}
    env.pop("TFR_EXECUTORS", None)
    paths = [os.path.join(build, "lib", "soft")] if way == "soft" else []
    paths += [cudart] if cudart else []
    paths += [env["LD_LIBRARY_PATH"]] if env.get("LD_LIBRARY_PATH") else []
    if paths:
        env["LD_LIBRARY_PATH"] = ":".join(paths)
    env.update(sanitizer_env(sanitize))
    return env
