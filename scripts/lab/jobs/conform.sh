# shellcheck shell=bash
# The transport conformance suite, its two ends on a device each: conform TRANSPORT [NAME:VALUE...], with settings.
[ -x "$LAB_BUILD/tests/conform/conform_test" ] || {
    echo "conform_test is not built"
    exit 77
}
# An acknowledgement may take long where the guest's processors are threads of a busy host.
export TFR_VERBS_TIMEOUT=16 TFR_VERBS_RETRY=5 TFR_VERBS_LOST_MS=6000 TFR_UCX_RC_TIMEOUT=268ms TFR_UCX_RC_RETRY_COUNT=5
export TFR_TEST_TRANSPORTS=$1
shift
for setting in "$@"; do
    export "${setting/:/=}"
done
export TFR_TEST_NICS=rxe0,rxe1 TFR_PLUGINS=$LAB_BUILD/lib/tfr
refusals() { cat /sys/class/infiniband/rxe*/ports/1/hw_counters/send_rnr_err | awk '{n += $1} END {print n}'; }
before=$(refusals)
"$LAB_BUILD/tests/conform/conform_test" -j1 --xml=/run/results/conform.xml 2>&1 | tee /tmp/conform
status=${PIPESTATUS[0]}
refused=$(($(refusals) - before))
case $TFR_TEST_TRANSPORTS in
*verbs*) [ $refused -eq 0 ] || { echo "FAILED: $refused messages found no receive" && status=1; } ;;
esac
grep Synthesis /tmp/conform | grep -o 'Tested.*'
exit "$status"
