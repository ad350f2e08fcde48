# shellcheck shell=bash
# A client that may lock little memory, and lacks the right to go beyond: memlock KIB.  Nothing forces the
# transport: programs run all the same, and what is done about it, or should be, is said once.
unset TFR_TRANSPORT
. "$LAB_TREE/scripts/lab/kit.sh"
unset TFR_TRANSPORT
executor_start
near+=(setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock prlimit --memlock=$(($1 * 1024)))
for name in vector_add pinned_copies d2d_copies; do
    program $name || fail "$name"
done
grep -iE 'memlock|ulimit -l|lock' /tmp/err | head -n 3
[ "$1" -gt 64 ] || grep -qiE 'memlock|ulimit -l' /tmp/err || fail "nobody says that memory cannot be locked: $(cat /tmp/err)"
echo "programs run with $1 KiB: $(head -n 1 /tmp/err)"
