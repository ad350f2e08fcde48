# shellcheck shell=bash
# The lab itself: two RDMA devices reach each other over the wire, by librdmacm and by queue pairs that are
# connected by hand.  If this fails, nothing that follows says anything about TFR.
set -e
# Nobody says when the server of these programs listens: the client tries until it does.
against() {
    local server=$1 tries=0
    shift
    until "$@"; do
        kill -0 "$server"
        [ $((tries += 1)) -lt 30 ]
        sleep 1
    done
    wait "$server"
}
ibv_devinfo -d rxe0 | grep -q PORT_ACTIVE
timeout 60 ibv_rc_pingpong -d rxe1 -g 1 -e -n 20 &
against $! timeout 60 ibv_rc_pingpong -d rxe0 -g 1 -e -n 20 10.0.0.2
timeout 60 rping -s -a 10.0.0.2 -C 5 -V &
against $! timeout 60 rping -c -a 10.0.0.2 -I 10.0.0.1 -C 5 -V
sent=$(cat /sys/class/net/ve0/statistics/tx_packets)
[ "$sent" -gt 50 ]
echo "$sent packets crossed the wire"
