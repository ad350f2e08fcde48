# shellcheck shell=bash
# Every CUDA program of tests/e2e that runs where no memory is shared, out of the list that the host made.
. "$LAB_TREE/scripts/lab/kit.sh"
bad=()
n=0
had=none
while read -r golden path settings; do
    if [ "$settings" != "$had" ]; then
        executor_stop
        # shellcheck disable=SC2086 # words
        executor_start $settings
        had=$settings
    fi
    begin=$(now_ms)
    verdict=ok
    # shellcheck disable=SC2086
    LAB_BIN=$(dirname "$path") program_with "$golden" "$(basename "$path")" $settings || {
        verdict=WRONG
        bad+=("$(basename "$path")")
    }
    n=$((n + 1))
    echo "$(basename "$path"): $verdict, $(($(now_ms) - begin)) ms"
done </run/results/programs
[ ${#bad[@]} -eq 0 ] || fail "${#bad[@]} of $n programs: ${bad[*]}"
echo "$n programs over $LAB_TRANSPORT"
