#!/bin/sh
# Turns a freshly unpacked Debian tree ($1) into a guest image: no host identity in it, sshd with a
# key made on first boot, and no unit that would act on the host's kernel, console or clock.
set -eu
root=$1
units="$root/etc/systemd/system"

rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname"
: > "$root/etc/machine-id"
[ -e "$root/etc/default/locale" ] || : > "$root/etc/default/locale"

for unit in systemd-firstboot.service systemd-modules-load.service systemd-sysctl.service \
    systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-remount-fs.service \
    systemd-udevd.service systemd-timesyncd.service systemd-networkd.service systemd-networkd.socket \
    getty.target console-getty.service getty@.service getty-static.service \
    dev-hugepages.mount sys-fs-fuse-connections.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    sys-kernel-config.mount sshd-keygen.service fstrim.timer e2scrub_all.timer e2scrub_reap.service \
    apt-daily.timer apt-daily-upgrade.timer; do
    ln -sf /dev/null "$units/$unit"
done

# Whoever configures it starts it; without configuration it looks for one, and boot waits for it for 90 s.
rm -f "$units/multi-user.target.wants/slurmd.service"

cat > "$units/guest-prepare.service" <<'UNIT'
[Unit]
Description=SSH host key and device permissions of a container guest
DefaultDependencies=no
After=local-fs.target systemd-tmpfiles-setup-dev.service
Before=sysinit.target ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'test -s /etc/ssh/ssh_host_ed25519_key.pub || { rm -f /etc/ssh/ssh_host_ed25519_key; ssh-keygen -q -t ed25519 -N "" -C "" -f /etc/ssh/ssh_host_ed25519_key; }'
ExecStart=/bin/sh -c 'test ! -c /dev/fuse || chmod 666 /dev/fuse'

[Install]
WantedBy=sysinit.target
UNIT
mkdir -p "$units/sysinit.target.wants" "$units/systemd-poweroff.service.d" "$root/etc/ssh/sshd_config.d"
ln -sf ../guest-prepare.service "$units/sysinit.target.wants/guest-prepare.service"

# A container's reboot and power-off both end in a signal; only a clean exit code tells podman's
# restart policy (on-failure) to leave a guest that was powered off from inside alone.
cat > "$units/systemd-poweroff.service.d/guest.conf" <<'UNIT'
[Unit]
SuccessAction=exit-force
SuccessActionExitStatus=0
UNIT

cat > "$root/etc/ssh/sshd_config.d/guest.conf" <<'CONF'
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
CONF
