# shellcheck shell=bash
# Sourced by scripts/rdma-lab for --full: what it runs beyond the short form, a guest per group, so that one
# that breaks its guest leaves the others alone.

# shellcheck disable=SC2154 # the caller's

# Each program that runs where client and executor share no memory, with its settings: those that ctest runs
# over the fault transport.
python3 "$tree/scripts/lab/programs.py" "$build" >"$out/programs" || exit 1

run_jobs short "${short[@]}"
LAB_JOB_LIMIT=1800 limit=2400 run_jobs programs e2e_all
