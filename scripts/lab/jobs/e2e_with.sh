# shellcheck shell=bash
# As e2e, with a setting for both sides: e2e_with NAME:VALUE PROGRAM...
export "${1/:/=}"
[ "${1%%:*}" != TFR_TRANSPORT ] || LAB_TRANSPORT=${1#*:}
shift
. "$LAB_TREE/scripts/lab/jobs/e2e.sh"
