# shellcheck shell=bash
# CUDA programs on the software GPU, client and executor on a device each: e2e PROGRAM...
. "$LAB_TREE/scripts/lab/kit.sh"
executor_start
bad=()
for name in "$@"; do
    begin=$(now_ms)
    if program "$name"; then verdict=ok; else
        verdict=WRONG
        bad+=("$name")
    fi
    echo "$name: $verdict, $(($(now_ms) - begin)) ms"
done
[ ${#bad[@]} -eq 0 ] || fail "${bad[*]}"
echo "$# programs over $LAB_TRANSPORT"
