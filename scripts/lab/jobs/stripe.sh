# shellcheck shell=bash
# Both sides have two devices, each pair on a wire of its own, and the client is told of none: both find the
# two pairs, and large copies go by both in like parts.  tf-info says what was detected, and to whom may not.
. "$LAB_TREE/scripts/lab/kit.sh"
lab_second() {
    local i
    ip link add ve2 type veth peer name ve3
    ip addr add 10.0.1.1/24 dev ve2
    ip addr add 10.0.1.2/24 dev ve3
    for i in ve2 ve3; do
        echo 1 >/proc/sys/net/ipv4/conf/$i/accept_local
        echo 0 >/proc/sys/net/ipv4/conf/$i/rp_filter
        ip link set $i mtu 4200 up
        ip rule add pref 0 iif $i lookup local
    done
    ip rule add pref 2 from 10.0.1.1 to 10.0.1.1 lookup local
    ip rule add pref 3 from 10.0.1.2 to 10.0.1.2 lookup local
    ip rule add pref 4 iif lo to 10.0.1.2 lookup 103
    ip rule add pref 5 iif lo to 10.0.1.1 lookup 104
    ip route replace 10.0.1.2/32 dev ve2 src 10.0.1.1 table 103
    ip route replace 10.0.1.1/32 dev ve3 src 10.0.1.2 table 104
    rdma link add rxe2 type rxe netdev ve2
    rdma link add rxe3 type rxe netdev ve3
}
sent() { cat "/sys/class/net/$1/statistics/tx_bytes"; }

lab_second || fail "no second wire"
near=(env -u TFR_VERBS_DEVICE TFR_LOG=info)
far=(env "TFR_VERBS_DEVICE=rxe1,rxe3" TFR_LOG=info)
trap 'executor_stop; ip link del ve2' EXIT
executor_start
trap 'executor_stop; ip link del ve2' EXIT
one=$(sent ve0) two=$(sent ve2)
for name in pinned_copies registered_copies; do
    program $name || fail $name
done
one=$(($(sent ve0) - one)) two=$(($(sent ve2) - two))
grep -h -o 'verbs link:.*' "$executor_log" | tail -n 1
grep -q 'verbs link: rxe1.* 2 rails' "$executor_log" || fail "not by two rails"
text="$((one >> 10)) KiB by the first pair, $((two >> 10)) KiB by the second"
[ $((two * 3)) -gt "$one" ] || fail "$text"
"${far[@]}" "$LAB_BUILD/bin/tf-info" >/tmp/info
grep -E 'rxe[13]: inline [0-9]+ bytes, depth [0-9]+, service level 0, traffic class 0, relaxed' /tmp/info ||
    fail "tf-info does not say what was detected: $(grep rxe /tmp/info)"
chmod 600 /dev/infiniband/uverbs*
setpriv --reuid 65534 --clear-groups "$LAB_BUILD/bin/tf-info" >/tmp/info 2>&1
chmod 666 /dev/infiniband/uverbs*
grep -q 'needs rights to /dev/infiniband' /tmp/info || fail "a user without rights is told: $(grep -A 2 '^verbs' /tmp/info)"
echo "$text"
