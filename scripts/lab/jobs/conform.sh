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
"$LAB_BUILD/tests/conform/conform_test" -j1 --xml=/run/results/conform.xml 2>&1 | tee /tmp/conform
status=${PIPESTATUS[0]}
grep Synthesis /tmp/conform | grep -o 'Tested.*'
exit "$status"
