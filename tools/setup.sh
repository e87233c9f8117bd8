#!/bin/sh
# Bring this machine what a make target needs: setup.sh python|qemu|test
# Installs Debian packages only for what is missing; needs root or sudo for that, and for nothing else.
set -eu

missing=""
want() { # want PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || case " $missing " in *" $2 "*) ;; *) missing="$missing $2" ;; esac
}

install_missing() {
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "error: these are needed and not installed:$missing" >&2
        echo "hint: install them with this system's package manager" >&2
        exit 1
    fi
    if [ "$(id -u)" = 0 ]; then as_root=""; elif command -v sudo >/dev/null 2>&1; then as_root=sudo; else
        echo "error: these Debian packages are needed:$missing" >&2
        echo "hint: run as root, or: apt-get install$missing" >&2
        exit 1
    fi
    echo "==> installing$missing"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086  # a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    case "$missing" in *docker-registry*) # the tests start their own; Debian starts one for everybody on port 5000
        [ ! -d /run/systemd/system ] || $as_root systemctl disable --now --quiet docker-registry ;;
    esac
}

for what in "$@"; do
    case "$what" in
    python)
        want python3 python3
        # Debian keeps venv's bundled pip in a package of its own
        python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
        ;;
    qemu)
        case "$(uname -m)" in
        aarch64) want qemu-system-aarch64 qemu-system-arm ;;
        *) want qemu-system-x86_64 qemu-system-x86 ;;
        esac
        ;;
    test)
        want gcc gcc; want git git; want cpio cpio; want gpg gpg; want gpgv gpgv; want gpg-agent gpg-agent
        want zstd zstd; want lz4 lz4; want xz xz-utils; want skopeo skopeo; want umoci umoci
        want buildah buildah
        want docker-registry docker-registry; want htpasswd apache2-utils; want openssl openssl; want curl curl
        want qemu-system-riscv64 qemu-system-misc
        want rpm rpm; want qemu-img qemu-utils; want unshare util-linux; want qemu-system-aarch64 qemu-system-arm
        want fsck.fat dosfstools; want mcopy mtools; want sfdisk fdisk; want sgdisk gdisk
        want sbverify sbsigntool; want objdump binutils
        [ -e /usr/share/OVMF/OVMF_CODE_4M.fd ] || missing="$missing ovmf"
        [ -e /usr/share/AAVMF/AAVMF_CODE.fd ] || missing="$missing qemu-efi-aarch64"
        [ -e /usr/lib/u-boot/qemu-riscv64_smode/uboot.elf ] || missing="$missing u-boot-qemu"
        want xorriso xorriso; want isoinfo genisoimage; want bsdtar libarchive-tools; want syslinux syslinux
        want unsquashfs squashfs-tools; want fsck.erofs erofs-utils; want e2fsck e2fsprogs
        want veritysetup cryptsetup-bin; want swtpm swtpm; want sftp openssh-client; want ssh openssh-client
        [ -e /usr/sbin/sshd ] || missing="$missing openssh-server"
        want libvirtd libvirt-daemon; want virsh libvirt-clients; want xmllint libxml2-utils
        [ -d /usr/share/doc/libvirt-daemon-driver-qemu ] || missing="$missing libvirt-daemon-driver-qemu"
        want node nodejs; want npm npm
        want mkfs.xfs xfsprogs; want mkfs.btrfs btrfs-progs
        [ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
        ;;
    *) echo "usage: setup.sh python|qemu|test..." >&2; exit 2 ;;
    esac
done
install_missing
