# shellcheck shell=bash
# The wire goes while the client waits for a kernel: cut HOW WHAT [slow].  HOW: down, a port without a
# carrier; silent, packets vanish and nobody says so.  WHAT: link, the boot channel (a unix socket) survives;
# host, it is cut as well.  slow: the device would try again for a quarter of a minute, as some do.  The client
# must get its error, and with the wire back the next one is served.
how=$1 what=$2
[ "${3:-}" != slow ] || export TFR_VERBS_TIMEOUT=19
LAB_FAST=1 # what it promises where nothing else is set
limit=12 # of 4 s that are promised; of 2 s for a link
[ "$what" = host ] || {
    limit=6
    export LAB_LISTEN=unix:/tmp/lab.sock
}
. "$LAB_TREE/scripts/lab/kit.sh"

cut() {
    if [ "$how" = down ]; then
        ip link set ve1 down
    else
        tc qdisc add dev ve0 root netem loss 100%
        begin=$(now_ms) # one way is enough, and under emulation each command takes its time
        tc qdisc add dev ve1 root netem loss 100%
    fi
}
# Where soft-RoCE had to send a message of the connection manager into the port that was down, it never sends one
# again (its queue pair 1 stays in error), which is the driver's alone: a new device stands for a NIC.
managers_mend() {
    local i
    for i in 0 1; do
        rdma res show qp link rxe$i | grep -q 'type GSI state ERR' || continue
        rdma link del rxe$i && rdma link add rxe$i type rxe netdev ve$i
        echo "rxe$i was made anew: its connection manager was dead"
    done
}
mend() {
    if [ "$how" = down ]; then
        ip link set ve1 up
        lab_routes
    else
        tc qdisc del dev ve0 root
        tc qdisc del dev ve1 root
    fi
}

. "$LAB_TREE/scripts/lab/nodes.sh"
executor_start
program vector_add || fail "not even before"
probe_start hang
served=$(workers)
begin=$(now_ms)
cut
trap 'mend; executor_stop' EXIT
lost_within $limit "$begin"
fewer() { [ -n "$(comm -23 <(echo "$served") <(workers))" ]; }
within $limit fewer || fail "the worker does not notice"
mend
trap executor_stop EXIT
within 10 grep -q ACTIVE /sys/class/infiniband/rxe1/ports/1/state || fail "the port stays down"
[ "$LAB_TRANSPORT" != ucx ] || managers_mend
program vector_add || fail "the wire is back, and the next client is not served"
