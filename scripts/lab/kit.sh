# shellcheck shell=bash
# Sourced by the lab's jobs, in the guest.  Client and executor have an RDMA device each, so that every byte
# between them crosses the wire.  In the guest soft-RoCE works on the same processors as the two ends:
# waits sleep, and limits are ample; how long things take is told and proves nothing.

: "${LAB_TRANSPORT:=verbs}" "${LAB_LISTEN:=tcp:10.0.0.2:0}" "${LAB_BIN:=$LAB_BUILD/tests/e2e/bin}"
: "${LAB_NEAR:=rxe0}" "${LAB_FAR:=rxe1}"
near=(env TFR_VERBS_DEVICE="$LAB_NEAR" TFR_UCX_NET_DEVICES="$LAB_NEAR:1")
far=(env TFR_VERBS_DEVICE="$LAB_FAR" TFR_UCX_NET_DEVICES="$LAB_FAR:1")
# An acknowledgement may take long where the guest's processors are threads of a busy host.
[ -n "${LAB_FAST:-}" ] || export TFR_VERBS_TIMEOUT=16 TFR_VERBS_LOST_MS=6000 TFR_LOST_MS=9000 TFR_UCX_RC_TIMEOUT=268ms
export TFR_SPIN_US=0 TFR_CONNECT_MS=60000 TFR_JOIN_MS=60000 TFR_TRANSPORT=$LAB_TRANSPORT
executor_pid=
executor_log=/tmp/executor.log

fail() {
    [ ! -s "$executor_log" ] || sed 's/^/executor: /' "$executor_log" | tail -n 40
    echo "FAILED: $*"
    exit 1
}

# Starts an executor on the far device, with further settings; its address is in `address` then.
# shellcheck disable=SC2120 # few jobs have settings
executor_start() {
    local pipe=/tmp/ready line=
    rm -f "$pipe"
    mkfifo "$pipe"
    "${far[@]}" "$@" "$LAB_BUILD/bin/tf-executor" --listen "$LAB_LISTEN" --gpu soft --ready-fd 9 \
        9>"$pipe" >"$executor_log" 2>&1 </dev/null &
    executor_pid=$!
    trap executor_stop EXIT
    read -r -t 60 line <"$pipe" || fail "the executor did not get ready"
    [ -n "$line" ] || fail "the executor ended"
    address=$(sed -n 's/.*listening at \([^ ,]*\).*/\1/p' "$executor_log" | head -n 1)
}

executor_stop() {
    [ -n "$executor_pid" ] || return 0
    kill "$executor_pid" 2>/dev/null
    wait "$executor_pid" 2>/dev/null
    executor_pid=
}

# The executor's workers, one a line.
workers() {
    pgrep -P "$executor_pid" | sort
}

client() {
    "${near[@]}" "$LAB_BUILD/bin/tf-run" --executor "$address" "$@"
}

# Runs a CUDA program of tests/e2e and compares stdout and status with what is expected of it:
# program_with GOLDEN NAME [SETTING=VALUE...].
program_with() {
    local golden=$1 name=$2 status
    shift 2
    env "$@" "${near[@]}" "$LAB_BUILD/bin/tf-run" --executor "$address" \
        timeout -k 5 "${LAB_LIMIT:-100}" "$LAB_BIN/$name" >/tmp/out 2>/tmp/err </dev/null
    status=$?
    [ $status -eq 0 ] || echo "exit $status" >>/tmp/out
    cmp -s /tmp/out "$golden" && return
    diff "$golden" /tmp/out | head -n 20
    head -n 20 /tmp/err
    return 1
}

program() {
    program_with "$LAB_TREE/tests/e2e/$1.out" "$1"
}

# Passes lines on, and notes when each came: MILLISECONDS LINE in $1.
stamp() {
    local line
    while IFS= read -r line; do
        echo "$(now_ms) $line" >>"$1"
        printf '%s\n' "$line"
    done
}

# Starts `probe WORD...` and waits until it is at work; its pid is in probe_pid then.
probe_start() {
    : >/tmp/probe.out
    : >/tmp/probe.when
    "${near[@]}" "$LAB_BUILD/bin/tf-run" --executor "$address" "$LAB_BIN/probe" "$@" \
        >/tmp/probe.out 2> >(stamp /tmp/probe.when >/tmp/probe.err) </dev/null &
    probe_pid=$!
    within 60 grep -q '^ready' /tmp/probe.out ||
        fail "the probe did not start: $(cat /tmp/probe.err)"
}

# within SECONDS COMMAND...: asks until it succeeds.
within() {
    local end=$((SECONDS + $1 + 1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

gone() {
    ! kill -0 "$1" 2>/dev/null
}

now_ms() {
    local up
    read -r up _ </proc/uptime
    echo $((10#${up/./} * 10))
}

# The probe must end by itself with the error of a lost session: lost_within SECONDS SINCE_MS.
lost_within() {
    within "$1" gone "$probe_pid" || fail "the client still waits after $1 s: $(cat /tmp/probe.err)"
    wait "$probe_pid"
    local status=$? ended knew
    ended=$(now_ms)
    knew=$(sed -n '/ lost/{s/ .*//p;q}' /tmp/probe.when)
    echo "the client knew after $((${knew:-$ended} - $2)) ms, ended after $((ended - $2)), exit $status:" \
        "$(grep -m 1 ' lost' /tmp/probe.err)"
    [ $status -ne 0 ] || fail "the client ended as if nothing had happened"
    [ $status -lt 128 ] || fail "the client died of a signal"
}
