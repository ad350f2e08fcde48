# shellcheck shell=bash
# The other of two guests: programs across them, then the executor's machine goes without a word
# (its QEMU is killed once we are at work).
LAB_NEAR=rxe0
. "$LAB_TREE/scripts/lab/kit.sh"
within 200 test -s /run/results/address || fail "the executor does not come"
mkdir -p "$HOME/.config/tfr"
install -m 600 /run/results/key "$HOME/.config/tfr/key"
address=$(cat /run/results/address)
# The clocks of two guests go apart while one of them is busy: a device waits longer here than elsewhere.
export TFR_UCX_RC_TIMEOUT=1073ms
for name in vector_add streams_events registered_copies; do
    program $name || fail "$name between two machines"
done
TFR_UCX_RC_TIMEOUT=268ms TFR_VERBS_RETRY=3 probe_start hang
touch /run/results/at_work
within 60 test -e /run/results/killed || fail "nobody killed the other guest"
lost_within 12 "$(now_ms)" # of 4 s that are promised
