# shellcheck shell=bash
# Sourced by scripts/rdma-lab: lab_image CACHE_DIR gives the folder that holds a bootable vmlinuz and
# initrd.gz, made at the first call out of a Debian kernel package that is unpacked, never installed.
# The newer kernel of the release's backports is asked for through apt settings of our own, so that the
# machine's sources and lists stay as they are; without it the release's own kernel has to do.

# In load order by way of modprobe; rxe computes its checksums with crc32 without saying so.
lab_modules=(crc32_generic crc32_pclmul virtio_pci virtio_net virtio_console virtio_rng 9pnet_virtio 9p
    overlay veth ib_uverbs ib_umad rdma_ucm rdma_rxe sch_netem)

# Sets apt_own to options that make apt use lists below $1, for the suite named by the machine's own
# main suite followed by -backports.
lab_apt_own() {
    local dir=$1 line uri codename component signed
    # shellcheck disable=SC2016 # apt's variables
    while IFS='|' read -r uri codename component signed; do
        [ "$component" = main ] && [ "$codename" = "$lab_codename" ] && break
        uri=
    done < <(apt-get indextargets --format \
        '$(REPO_URI)|$(CODENAME)|$(COMPONENT)|$(SIGNED_BY)' 'Created-By: Packages')
    [ -n "$uri" ] || return 1
    [ -e "$signed" ] || signed=/usr/share/keyrings/debian-archive-keyring.gpg
    line="deb [signed-by=$signed] $uri $lab_codename-backports main"
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/parts"
    printf '%s\n' "$line" >"$dir/sources.list"
    apt_own=(-o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache" -o APT::Sandbox::User=root
        -o "Dir::Etc::sourcelist=$dir/sources.list" -o "Dir::Etc::sourceparts=$dir/parts")
    apt-get "${apt_own[@]}" update -qq </dev/null >&2
}

# Downloads the newest kernel package into $1; its name goes to stdout.
lab_fetch_kernel() {
    local dir=$1 package apt_own=()
    lab_codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    lab_apt_own "$dir/apt" || apt_own=()
    package=$(apt-cache "${apt_own[@]}" depends linux-image-amd64 2>/dev/null |
        sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)/\1/p' | head -n 1)
    if [ -z "$package" ]; then # the release without backports
        apt_own=()
        package=$(apt-cache depends linux-image-amd64 2>/dev/null |
            sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)/\1/p' | head -n 1)
    fi
    [ -n "$package" ] || return 1
    (cd "$dir" && apt-get "${apt_own[@]}" download -q "$package" </dev/null >&2) || return 1
    echo "$package"
}

# Copies what modprobe would load, numbered in load order, from the unpacked kernel $1 into $2.
lab_pick_modules() {
    local from=$1 to=$2 version=$3 name file at=100 seen=" "
    depmod -b "$from" "$version"
    for name in "${lab_modules[@]}"; do
        while read -r _ file _; do
            case $seen in *" $file "*) continue ;; esac
            seen+="$file "
            at=$((at + 1))
            case $file in
            *.xz) xz -dc "$file" >"$to/$at-$(basename "$file" .xz)" ;;
            *) cp "$file" "$to/$at-$(basename "$file")" ;;
            esac
        done < <(modprobe -d "$from" -S "$version" --show-depends "$name" | grep '^insmod')
    done
    strip --strip-debug "$to"/*.ko
}

# Unpacks the package in $1 and leaves vmlinuz and initrd.gz in $2.
lab_pack() {
    local dir=$1 out=$2 here=$3 version
    dpkg-deb -x "$dir"/linux-image-*.deb "$dir/k"
    version=$(basename "$dir"/k/boot/vmlinuz-* | cut -d- -f2-)
    [ -d "$dir/k/lib" ] || ln -s usr/lib "$dir/k/lib"
    mkdir -p "$dir/root/bin" "$dir/root/modules"
    cp "$(command -v busybox)" "$dir/root/bin/busybox"
    cp "$here/init" "$dir/root/init"
    lab_pick_modules "$dir/k" "$dir/root/modules" "$version" || return 1
    (cd "$dir/root" && find . | cpio -o -H newc --quiet | gzip -1) >"$out/initrd.gz"
    cp "$dir/k/boot/vmlinuz-$version" "$out/vmlinuz"
    echo "$version" >"$out/version"
}

# The newest image in the cache $1 that fits these scripts ($2: their folder), or a new one.
lab_image() (
    cache=$1 here=$2
    hash=$(cat "$here/init" "$here/image.sh" | sha256sum | cut -c1-12)
    # shellcheck disable=SC2012
    newest() { ls -1dt "$cache"/linux-*-"$hash" 2>/dev/null | head -n 1 | grep .; }
    newest && return
    mkdir -p "$cache" && work=$(mktemp -d "$cache/new.XXXXXX") || return 1
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM HUP
    package=$(lab_fetch_kernel "$work") && mkdir "$work/out" &&
        lab_pack "$work" "$work/out" "$here" || return 1
    package+=_$(dpkg-deb -f "$work"/linux-image-*.deb Version)
    mv -T "$work/out" "$cache/$package-$hash" 2>/dev/null # unless somebody else was faster
    newest
)
