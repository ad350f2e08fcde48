"""Two network namespaces joined by a pair of virtual interfaces: one for the client, with its address,
one for the executor, with another.  For tests over TCP; needs root and iproute2.

A namespace is held by a process that dies with the test, so that nothing is left behind whatever
happens to the test; there are no names, no files and no routes outside."""
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time

CLIENT, EXECUTOR = "10.77.0.1", "10.77.0.2"
NOBODY = "02:00:00:00:00:99"
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


def die_with_the_test():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def missing():
    """What keeps the tests from running; "" if nothing does."""
    if os.geteuid():
        return "network namespaces need root"
    for tool in ("ip", "unshare", "nsenter"):
        if not shutil.which(tool):
            return f"there is no {tool} (Debian: iproute2, util-linux)"
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"no network namespace can be made: {done.stderr.strip()}"


def ip(prefix, *args):
    subprocess.run([*prefix, "ip", *args], check=True)


@contextlib.contextmanager
def namespace():
    """A prefix for commands that are to run in it."""
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo && exec sleep 100000"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=die_with_the_test)
    try:
        if holder.stdout.readline() != b"\n":
            raise AssertionError("no network namespace")
        yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net"], holder.pid
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


class Pair:
    """client and executor: prefixes of commands."""

    def __init__(self, client, executor):
        self.client, self.executor = client, executor

    def neighbours(self, *args):
        ip(self.client, "neigh", *args, "dev", "tfr0", "to", EXECUTOR)
        ip(self.executor, "neigh", *args, "dev", "tfr1", "to", CLIENT)

    def cut(self, how="down"):
        """Nothing arrives any more.  down: the ports have lost their carrier; vanish: all is well with
        them, but what is sent goes to a card that nobody has."""
        if how == "down":
            ip(self.executor, "link", "set", "dev", "tfr1", "down")
        else:
            self.neighbours("replace", "lladdr", NOBODY, "nud", "permanent")

    def mend(self, how="down"):
        if how == "down":
            ip(self.executor, "link", "set", "dev", "tfr1", "up")
        else:
            self.neighbours("del")


@contextlib.contextmanager
def pair():
    with namespace() as (client, _), namespace() as (executor, holder):
        ip(client, "link", "add", "tfr0", "type", "veth", "peer", "name", "tfr1", "netns", str(holder))
        for prefix, name, address in ((client, "tfr0", CLIENT), (executor, "tfr1", EXECUTOR)):
            ip(prefix, "link", "set", "dev", "lo", "up")
            ip(prefix, "addr", "add", address + "/24", "dev", name)
            ip(prefix, "link", "set", "dev", name, "up")
        yield Pair(client, executor)


@contextlib.contextmanager
def executor(net, binary, env, key, *options, log=None):
    """A tf-executor in the executor's namespace: its address and its process."""
    ready, write = os.pipe()
    stderr = open(log, "wb") if log else subprocess.DEVNULL
    child = subprocess.Popen([*net.executor, binary, "--listen", f"tcp:{EXECUTOR}:0", "--gpu", "soft",
                              "--key-file", key, "--ready-fd", str(write), *options],
                             pass_fds=[write], env=env, stdin=subprocess.DEVNULL, stderr=stderr,
                             start_new_session=True, preexec_fn=die_with_the_test)
    os.close(write)
    try:
        with os.fdopen(ready) as pipe:
            lines = pipe.read().split("\n")
        if not lines[0].startswith("ready"):
            raise AssertionError("tf-executor did not get ready")
        address = next(line.split()[1] for line in lines if line.startswith("listening "))
        yield address, child
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if log:
            stderr.close()


def settle(condition, limit_s):
    """True as soon as it holds, False after the limit."""
    until = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
