# shellcheck shell=bash
# Lanes in GPU memory: the device writes into the software GPU's memory, and no copy passes the host memory
# of the executor's side.  soft-RoCE takes no dma-buf, so that is tried and its addresses are taken.
. "$LAB_TREE/scripts/lab/kit.sh"
executor_start TFR_LOG=info

# The number of the one session.
number() {
    "$LAB_BUILD/bin/tf-stat" --executor "$address" --json | sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" | head -n 1
}

head -c 50000 /dev/urandom >/tmp/bytes
mkfifo /tmp/bytes.in
client "$LAB_BIN/probe" cat </tmp/bytes.in >/tmp/bytes.out 2>/tmp/err &
exec 8>/tmp/bytes.in
cat /tmp/bytes >&8
within 60 cmp -s /tmp/bytes /tmp/bytes.out || fail "other bytes came back: $(cat /tmp/err)"
direct=$(number bytes_direct) bounced=$(number bytes_bounced) lane=$(number gpu_lane)
exec 8>&-
grep -h -o -e 'lane.*' -e 'verbs: GPU.*' "$executor_log"
[ "${lane:-0}" -gt 0 ] || fail "no lane in GPU memory"
[ "${direct:-0}" -ge 100000 ] || fail "only $direct bytes went directly"
[ "$bounced" = 0 ] || fail "$bounced bytes passed host memory"
program pinned_copies || fail "pinned_copies"
program copies_many_streams || fail "copies_many_streams"
echo "$direct bytes in and out of GPU memory, $bounced through host memory"
