# shellcheck shell=bash
# Sourced by scripts/rdma-lab: boots one guest, runs a script in it, and gives back its status and output.
# QEMU emulates the processor (TCG), since machines that run CI seldom let their guests have guests.

# Starts a guest in the background, its pid in lab_qemu: lab_boot IMAGE RESULTS CPUS MEMORY [QEMU_OPTION...].
# The guest's clock counts its instructions (8 ns each) while it works: a busy host makes the lab slow, and
# nothing in it late, whatever the limits and time-outs there are.
# RESULTS holds job.sh and binds; the guest's kernel log goes to serial.log there, the job's output to out.
lab_boot() {
    local image=$1 results=$2 cpus=$3 memory=$4
    shift 4
    qemu-system-x86_64 -accel tcg,thread=single -icount shift=3,align=off,sleep=on \
        -M q35 -cpu max -smp "$cpus" -m "$memory" \
        -nodefaults -no-user-config -display none -no-reboot -monitor none \
        -serial "file:$results/serial.log" \
        -kernel "$image/vmlinuz" -initrd "$image/initrd.gz" -append 'console=ttyS0 quiet panic=-1 no_timer_check' \
        -device isa-debug-exit,iobase=0xf4,iosize=0x04 -device virtio-rng-pci \
        -fsdev local,id=r0,path=/,security_model=none,readonly=on,multidevs=remap \
        -device virtio-9p-pci,fsdev=r0,mount_tag=hostroot \
        -fsdev local,id=r1,path="$results",security_model=none \
        -device virtio-9p-pci,fsdev=r1,mount_tag=results \
        -device virtio-serial-pci -chardev "file,id=out,path=$results/out" \
        -device virtconsole,chardev=out "$@" </dev/null >"$results/qemu.log" 2>&1 &
    # shellcheck disable=SC2034 # the caller's
    lab_qemu=$!
}

# Waits for the guest of RESULTS to end, for at most LIMIT seconds; answers its status, 124 if it did not
# end in time and 125 if it ended without saying how.
lab_wait() {
    local pid=$1 results=$2 end=$((SECONDS + $3)) status
    while kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $end ]; do
        sleep 0.2
    done
    if kill -0 "$pid" 2>/dev/null; then
        kill -KILL "$pid"
        wait "$pid" 2>/dev/null
        return 124
    fi
    wait "$pid"
    status=$?
    if [ $((status & 1)) -eq 0 ] || ! grep -q "LAB_EXIT rc=$((status >> 1))\b" "$results/serial.log"; then
        return 125
    fi
    return $((status >> 1))
}
