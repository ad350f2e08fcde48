# shellcheck shell=bash
# The executor has two devices in one subnet, and the one that comes first does not reach the client: both
# sides find out and take the other.
. "$LAB_TREE/scripts/lab/kit.sh"
ip link add ve2 type veth peer name ve3
ip addr add 10.0.0.3/24 dev ve2
ip link set ve2 mtu 4200 up && ip link set ve3 mtu 4200 up
rdma link add rxe2 type rxe netdev ve2
trap 'executor_stop; ip link del ve2' EXIT
far=(env "TFR_VERBS_DEVICE=rxe2,rxe1" TFR_LOG=info)
executor_start
trap 'executor_stop; ip link del ve2' EXIT
program vector_add || fail "vector_add"
grep -h -o -e 'verbs: queue pair.*' -e 'verbs link.*' "$executor_log"
grep -q 'verbs link: rxe1' "$executor_log" || fail "not by rxe1"
grep -q 'another pair of ports' "$executor_log" || fail "rxe2 was never tried: this showed nothing"
echo "rxe2 did not reach the client, rxe1 did"
