# shellcheck shell=bash
# A client that is killed while a kernel of its runs takes its worker with it, and the next client is served.
. "$LAB_TREE/scripts/lab/kit.sh"
executor_start
probe_start hang
before=$(workers)
begin=$(now_ms)
kill -KILL "$probe_pid"
fewer() { [ -n "$(comm -23 <(echo "$before") <(workers))" ]; }
within 10 fewer || fail "the worker outlives its client"
echo "the worker was gone after $(($(now_ms) - begin)) ms"
program vector_add || fail "the next client is not served"
