#!/usr/bin/env bash
# Runs the kernels of AMX, as they are compiled for such CPUs, under Linux on an emulated one: Bochs, whose Sapphire
# Rapids executes them. tests/README.md says what that proves.
#
#     tests/emulate_amx.sh [folder]
#
# What is fetched and built is kept in `folder`, and not made again there; without one it is temporary. Needs Debian or
# Ubuntu's apt with Debian's keys, g++, cmake, make, patch, xorriso and cpio; not root.
set -euo pipefail
tests="$(cd "$(dirname "$0")" && pwd)"
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    work="$(cd "$1" && pwd)"
else
    work="$(mktemp -d)"
    trap 'rm -rf "$work"' EXIT
fi
heading() { printf '\n== %s\n' "$*"; }
for tool in apt-get dpkg g++ cmake make patch xorriso cpio; do
    command -v "$tool" > /dev/null || { echo "$0: there is no $tool" >&2; exit 2; }
done

# The release whose Bochs tests/emulate_amx.patch fits. Its apt lists are our own: the machine's are left alone.
mirror=http://deb.debian.org/debian
suite=trixie
source=pool/main/b/bochs/bochs_3.0+dfsg.orig.tar.xz
source_sha256=78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b

fetch() {
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/debian"
    cd "$work/apt"
    : > status
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" > sources.list
    cat > apt.conf <<END
Dir::Etc::SourceList "$PWD/sources.list";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$PWD/lists";
Dir::State::Status "$PWD/status";
Dir::Cache "$PWD/cache";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Sandbox::User "";
END
    export APT_CONFIG="$PWD/apt.conf"
    apt-get -qq update
    local linux
    linux="$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/ *Depends: //p')"
    apt-get -qq download bochsbios vgabios isolinux syslinux-common busybox-static "$linux"
    for package in *.deb; do dpkg -x "$package" "$work/debian"; done
    /usr/lib/apt/apt-helper -qq download-file "$mirror/$source" "$work/bochs.tar.xz" "SHA256:$source_sha256"
}

build_bochs() {
    rm -rf "$work/bochs"
    mkdir "$work/bochs"
    cd "$work/bochs"
    tar -xf "$work/bochs.tar.xz" --strip-components 1
    patch -s -p1 < "$tests/emulate_amx.patch"
    ./configure --quiet --with-nogui --disable-docbook --enable-all-optimizations --enable-pci --enable-cdrom \
        --enable-cpu-level=6 --enable-x86-64 --enable-memtype --enable-perfmon --enable-vmx=2 --enable-svm \
        --enable-avx --enable-evex --enable-amx --enable-cet --enable-uintr --enable-protection-keys
    make -s -j "$(nproc)" > make.log 2>&1 || { tail -n 30 make.log; return 1; }
}

build_tests() {
    cmake -S "$tests/.." -B "$work/tests" -DCMAKE_BUILD_TYPE=Release -DCMAKE_EXE_LINKER_FLAGS=-static \
        -DRESNETCORE_BUILD_PYTHON=OFF -DRESNETCORE_BUILD_TESTS=ON > /dev/null
    cmake --build "$work/tests" -j "$(nproc)" --target test_tiles test_bfloat16 test_residual test_allocations
}

# A CD with Linux, and the tests in its initial file system.
make_cd() {
    rm -rf "$work/init" "$work/cd"
    mkdir -p "$work/init/proc" "$work/init/bin" "$work/cd"
    cd "$work"
    cp debian/usr/bin/busybox tests/tests/cpp/test_{tiles,bfloat16,residual,allocations} init/bin
    strip init/bin/test_*
    cat > init/init <<'END'
#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox grep -m 1 -o 'model name.*' /proc/cpuinfo
busybox grep -m 1 flags /proc/cpuinfo | busybox grep -o -w -E 'avx512f|avx512_bf16|amx_tile|amx_bf16' | busybox xargs
run() {
    echo "-- $*"
    start="$(busybox cut -d ' ' -f 1 /proc/uptime)"
    "$@"
    echo "exit status $? after $start to $(busybox cut -d ' ' -f 1 /proc/uptime) s"
}
run test_tiles
run test_bfloat16 avx512_amx
export RESNETCORE_ISA=avx512_amx
run test_residual
run test_allocations
echo "the end"
busybox sleep 1  # until the serial port has sent it
busybox reboot -f
END
    chmod +x init/init
    (cd init && find . | cpio -o -H newc --quiet) > cd/init.img
    cp debian/boot/vmlinuz-* cd/linux
    cp debian/usr/lib/ISOLINUX/isolinux.bin debian/usr/lib/syslinux/modules/bios/ldlinux.c32 cd
    cat > cd/isolinux.cfg <<'END'
DEFAULT linux
LABEL linux
KERNEL linux
APPEND initrd=init.img console=ttyS0 loglevel=0 acpi=off reboot=triple panic=-1 mitigations=off tsc=reliable
END
    xorriso -as mkisofs -quiet -o cd.iso -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table cd
}

# Linux ends with a triple fault, and with it Bochs: with ACPI it could turn itself off, but does not boot there.
# `ips` is how fast the guest's clock runs: 1 s are so many instructions.
boot() {
    cd "$work"
    cat > bochsrc <<END
cpu: model=sapphire_rapids, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=1
clock: sync=none
memory: guest=512, host=512
romimage: file="$work/debian/usr/share/bochs/BIOS-bochs-latest"
vgaromimage: file="$work/debian/usr/share/vgabios/vgabios.bin"
ata0-master: type=cdrom, path="$work/cd.iso", status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev="$work/serial.txt"
display_library: nogui
log: "$work/bochs.log"
panic: action=fatal
END
    rm -f serial.txt
    timeout "${EMULATE_AMX_SECONDS:-3600}" bochs/bochs -q -f bochsrc > bochs.out 2>&1 || true
    tr -d '\r' < serial.txt > output.txt
    cat output.txt
}

verdict() {
    cd "$work"
    local programs=4
    if grep -q "^the end" output.txt && [ "$(grep -c '^exit status 0' output.txt)" = "$programs" ] &&
        [ "$(grep -c ': 0 failures$' output.txt)" = "$programs" ] && ! grep -q "^skipped" output.txt; then
        echo "passed"
    else
        echo "FAILED; see output.txt and bochs.log in $work, if you gave a folder"
        return 1
    fi
}

[ -e "$work/bochs.tar.xz" ] || { heading "fetch Bochs' source, Linux and a boot loader"; fetch; }
[ "$work/bochs/bochs" -nt "$tests/emulate_amx.patch" ] || { heading "build Bochs"; build_bochs; }
heading "build the tests"
build_tests
heading "boot"
make_cd
SECONDS=0
boot
heading "verdict, after $SECONDS s of emulation"
verdict
