# shellcheck shell=bash
# As e2e, with a setting for both sides: e2e_with NAME:VALUE PROGRAM...
export "${1/:/=}"
shift
. "$LAB_TREE/scripts/lab/jobs/e2e.sh"
