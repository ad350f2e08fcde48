# shellcheck shell=bash
# What a launch with 128 bytes of parameters costs over verbs, counted in the client: alone at most one
# doorbell, two work requests and 220 bytes copied into them; in a burst at most an eighth of a doorbell; and
# none of the burst stays behind when the program makes no further call: cost [NAME:VALUE], a setting for both sides.
[ $# -eq 0 ] || export "${1/:/=}"
. "$LAB_TREE/scripts/lab/kit.sh"
executor_start
ALONE=100 BURST=500

# The counters of a run of the probe, less the transport's own bells and signs of life, as words:
# requests, doorbells, inlined bytes.
counted() {
    TFR_COUNTERS=/tmp/counters client "$LAB_BIN/probe" launch "$@" >/tmp/out 2>/tmp/err </dev/null ||
        fail "launch $*: $(cat /tmp/out /tmp/err)"
    awk '{n[$1] = $2} END {print n["link_requests"] - n["link_extras"], n["link_doorbells"] - n["link_extras"],
        n["link_inlined"]}' /tmp/counters
}

# Thousandths of what one of N launches adds: each N COUNTERS COUNTERS_OF_NONE.
each() {
    paste <(tr ' ' '\n' <<<"$2") <(tr ' ' '\n' <<<"$3") |
        awk -v n="$1" '{printf "%d ", ($1 - $2) * 1000 / n}'
}

launches() {
    "$LAB_BUILD/bin/tf-stat" --executor "$address" --json | sed -n 's/.*"launches": \([0-9]*\).*/\1/p' | head -n 1
}

none=$(counted 0 0) || fail "$none"
alone=$(counted $ALONE 20000) || fail "$alone"
many=$(counted $BURST 0) || fail "$many"
read -r requests doorbells inlined < <(each $ALONE "$alone" "$none")
read -r _ burst _ < <(each $BURST "$many" "$none")
text="a launch: $requests/1000 requests, $doorbells/1000 doorbells, $((inlined / 1000)) bytes inline; in a burst $burst/1000 doorbells"
# A wait or a page of the client's may add one in a hundred.
[ "$requests" -le 2020 ] || fail "$text"
[ "$doorbells" -le 1010 ] || fail "$text"
[ "$inlined" -le 222000 ] || fail "$text"
[ "$burst" -le 125 ] || fail "$text"
probe_start launch 100 0 20
all() { [ "$(launches)" = 101 ]; }
within 10 all || fail "of 101 launches $(launches) have arrived, and the program makes no further call"
kill "$probe_pid"
echo "$text"
