# shellcheck shell=bash
# shellcheck disable=SC2154 # the caller's
# Sourced by scripts/rdma-lab for --full: what it runs beyond the short form, a guest per group, so that one
# that breaks its guest leaves the others alone.

# Until a file is there: appears FILE SECONDS.
appears() {
    local end=$((SECONDS + $2))
    until [ -e "$1" ]; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

# Two guests at once, on a wire that is a socket; the second runs the job, in the midst of which the first
# is killed.  LAB_HOSTS is what their addresses begin with: fd00:: makes them speak IPv6 alone.
run_two() {
    local serves=$out/host_serves dies=$out/host_dies status
    export LAB_HOSTS=${LAB_HOSTS:-10.1.0.}
    other_link=$(mktemp -d) || return
    write_job "$serves" "lab_node ${LAB_HOSTS}1" "$tree/scripts/lab/run-jobs" host_serves
    write_job "$dies" "lab_node ${LAB_HOSTS}2" "$tree/scripts/lab/run-jobs" host_dies
    lab_boot "$image" "$serves" 1 1024 -netdev "stream,id=n0,server=on,addr.type=unix,addr.path=$other_link/wire" \
        -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01,host_mtu=4200
    other_qemu=$lab_qemu
    lab_qemu=
    (
        appears "$serves/address" 200 && cp "$serves/key" "$serves/address" "$dies/"
        appears "$dies/at_work" 600 && kill -KILL "$other_qemu" && touch "$dies/killed"
    ) &
    other_helper=$!
    appears "$other_link/wire" 20
    cpus=1 memory=1024 run_guest "$dies" -netdev "stream,id=n0,server=off,addr.type=unix,addr.path=$other_link/wire" \
        -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:02,host_mtu=4200
    status=$?
    [ $status -le "$worst" ] || worst=$status
    summaries+=("$dies/summary")
    kill "$other_helper" 2>/dev/null
    kill -KILL "$other_qemu" 2>/dev/null
    wait "$other_qemu" 2>/dev/null
    rm -rf "$other_link"
    other_qemu=
    other_helper=
    other_link=
}

run_all() {
    [ "$limit" -gt 3900 ] || limit=3900
    export LAB_JOB_LIMIT=${LAB_JOB_LIMIT:-900}
    run_jobs short "${short[@]}"
    run_jobs cuts cut=down,link cut=silent,link cut=silent,link,slow cut=down,host cut=silent,host
    run_jobs ways cost cost=TFR_VERBS_NOTIFY:imm conform=verbs,TFR_VERBS_NOTIFY:imm conform=verbs,TFR_VERBS_CM:1 \
        "e2e_with=TFR_VERBS_NOTIFY:send,$five" detour stripe
    run_jobs settings memlock=64 memlock=8192 "e2e_with=TFR_VERBS_CM:1,$five" "e2e_with=TFR_VERBS_NOTIFY:mem,$five" \
        "e2e_with=TFR_VERBS_NOTIFY:imm,$five" loss=5,d2d_copies,reduce,streams_events
    LAB_TRANSPORT=ucx run_jobs ucx conform=ucx conform=fault:ucx "e2e=$five" kill_client kill_executor \
        loss=3,vector_add,streams_events cut=silent,host cut=down,link
    run_two
    LAB_HOSTS=fd00:: LAB_TRANSPORT=ucx out=$out/ipv6 run_two
    LAB_JOB_LIMIT=3600 run_jobs programs e2e_all
}
