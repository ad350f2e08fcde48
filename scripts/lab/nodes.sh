# shellcheck shell=bash
# Sourced by the lab's jobs, in the guest: one network namespace with two RDMA devices that reach each other
# over a wire: rxe0 on ve0 with 10.0.0.1, rxe1 on ve1 with 10.0.0.2.  Left to itself the kernel would
# deliver between its own addresses without a wire, which rxe does not survive, so rules by source send
# both TCP and RDMA through the pair of veths; then a lost link or netem hits them as they would hit a cable.

lab_nodes() {
    local i
    ip link add ve0 type veth peer name ve1
    ip addr add 10.0.0.1/24 dev ve0
    ip addr add 10.0.0.2/24 dev ve1
    for i in all ve0 ve1; do
        echo 1 >/proc/sys/net/ipv4/conf/$i/accept_local
        echo 0 >/proc/sys/net/ipv4/conf/$i/rp_filter
    done
    ip link set ve0 mtu 4200 up
    ip link set ve1 mtu 4200 up
    lab_routes
    rdma link add rxe0 type rxe netdev ve0
    rdma link add rxe1 type rxe netdev ve1
}

# Also brings back what a link that went down has lost.
lab_routes() {
    if ! ip rule show | grep -q 'lookup 101'; then
        ip rule add pref 0 iif ve0 lookup local
        ip rule add pref 1 iif ve1 lookup local
        ip rule add pref 2 from 10.0.0.1 to 10.0.0.1 lookup local
        ip rule add pref 3 from 10.0.0.2 to 10.0.0.2 lookup local
        ip rule add pref 4 iif lo to 10.0.0.2 lookup 101
        ip rule add pref 5 iif lo to 10.0.0.1 lookup 102
        ip rule add pref 10 lookup local
        ip rule del pref 0 from all lookup local
    fi
    ip route replace 10.0.0.2/32 dev ve0 src 10.0.0.1 table 101
    ip route replace 10.0.0.1/32 dev ve1 src 10.0.0.2 table 102
}

# One of two guests: lab_node ADDRESS (IPv4 or IPv6), its network card with an RDMA device on it.
lab_node() {
    local card prefix=24 now=''
    case $1 in *:*) prefix=64 now=nodad ;; esac
    card=$(basename "$(dirname "$(grep -l 52:54:00:00:00 /sys/class/net/*/address)")")
    # shellcheck disable=SC2086 # a word or none
    ip addr add "$1/$prefix" dev "$card" $now
    ip link set "$card" mtu 4200 up
    rdma link add rxe0 type rxe netdev "$card"
}
