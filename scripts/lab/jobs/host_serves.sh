# shellcheck shell=bash
# One of two guests: an executor that is there until its machine goes.
LAB_FAR=rxe0 LAB_LISTEN=tcp:${LAB_HOSTS}1:0
case $LAB_HOSTS in *:*) LAB_LISTEN="tcp:[${LAB_HOSTS}1]:0" ;; esac
. "$LAB_TREE/scripts/lab/kit.sh"
within 120 grep -q ACTIVE /sys/class/infiniband/rxe0/ports/1/state || fail "the other guest does not come"
executor_start TFR_UCX_RC_TIMEOUT=1073ms # see host_dies.sh
cp "$HOME/.config/tfr/key" /run/results/key || fail "no key"
echo "$address" >/run/results/address.new
mv /run/results/address.new /run/results/address
sleep 600
