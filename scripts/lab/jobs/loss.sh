# shellcheck shell=bash
# A wire that loses packets, one in PERCENT hundredths, both ways: loss PERCENT PROGRAM...
. "$LAB_TREE/scripts/lab/kit.sh"
percent=$1
shift
executor_start
for dev in ve0 ve1; do
    tc qdisc add dev $dev root netem loss "$percent%" || exit 1
done
before=$(cat /sys/class/infiniband/rxe*/ports/1/hw_counters/completer_retry_err | awk '{n += $1} END {print n}')
bad=()
for name in "$@"; do
    LAB_LIMIT=200 program "$name" || bad+=("$name")
done
dropped=$(tc -s qdisc show | grep -o 'dropped [0-9]*' | awk '{n += $2} END {print n}')
after=$(cat /sys/class/infiniband/rxe*/ports/1/hw_counters/completer_retry_err | awk '{n += $1} END {print n}')
for dev in ve0 ve1; do
    tc qdisc del dev $dev root
done
[ ${#bad[@]} -eq 0 ] || fail "${bad[*]}; given up by TCP: $(nstat -asz TcpExtTCPAbortOnTimeout | awk 'NR > 1 {print $2}')"
[ "$dropped" -gt 0 ] || fail "nothing was lost: this showed nothing"
echo "$# programs over a wire that lost $dropped packets; $((after - before)) retries"
