#!/bin/sh
# selfcheck.sh PROGRAM USER [sandbox]: build and run a tiny image as an ordinary user. The image is made of this machine's own
# shell, so it needs no network. Prints what failed; leaves nothing behind.
set -eu
program=$1
user=$2
kind=${3:-image}
work=$(mktemp -d /var/tmp/gpuops-selfcheck.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
chown "$user" "$work"

cat > "$work/tiny.def" <<'DEFINITION'
Bootstrap: scratch

%setup
    set -eu
    root=${APPTAINER_ROOTFS:-$SINGULARITY_ROOTFS}
    mkdir -p "$root/bin" "$root/tmp" "$root/proc" "$root/sys" "$root/dev" "$root/etc"
    for program in /bin/sh /usr/bin/id; do
        for file in $(ldd "$program" | grep -o '/[^ )]*'); do
            mkdir -p "$root$(dirname "$file")"
            cp -L "$file" "$root$file"
        done
        cp -L "$program" "$root/bin/${program##*/}"
    done

%post
    test "$(id -u)" = 0
    echo gpuops > /built

%test
    test -s /built

%runscript
    read -r word < /built
    echo "selfcheck $word $(id -u)"
DEFINITION

as_user() {
    runuser -u "$user" -- env -i HOME="$work" PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LC_ALL=C.UTF-8 \
        APPTAINER_TMPDIR="$work" SINGULARITY_TMPDIR="$work" "$@"
}

cd "$work"
option=
[ "$kind" = image ] || option=--sandbox # an execution control list lets no image run that nobody signed
if ! as_user "$program" build --fakeroot $option "$work/tiny.sif" "$work/tiny.def" > "$work/log" 2>&1; then
    echo "$user cannot build an image with $program: $(grep -v -e '^+' -e '^INFO' "$work/log" | tail -n 3)" >&2
    exit 1
fi
if ! said=$(as_user "$program" run --contain "$work/tiny.sif" 2> "$work/log"); then
    echo "$user cannot run an image with $program: $(tail -n 3 "$work/log")" >&2
    exit 1
fi
if [ "$said" != "selfcheck gpuops $(id -u "$user")" ]; then
    echo "the image that $user ran said \"$said\"" >&2
    exit 1
fi
echo "$said"
