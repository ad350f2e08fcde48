# shellcheck shell=bash
# An executor's worker that is killed under a waiting client: the client gets its error, and the next one
# is served.
. "$LAB_TREE/scripts/lab/kit.sh"
executor_start
program vector_add || fail "not even before"
for how in worker all; do
    probe_start hang
    begin=$(now_ms)
    if [ $how = worker ]; then
        # shellcheck disable=SC2046 # one word each
        kill -KILL $(workers)
        lost_within 10 "$begin"
        program vector_add || fail "the next client is not served"
    else
        kill -KILL "$executor_pid"
        lost_within 10 "$begin"
    fi
done
