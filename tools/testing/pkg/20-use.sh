# SPDX-License-Identifier: GPL-2.0
# The boot after: ours run, by themselves and with all that C gave; and the way there and back.
stage=20-use
. ./lib.sh

same rust-is-taken rust "$(taken vhost_vsock)"
# udev, systemd and programs load what they need; a host is one that somebody made one.
check device-module-loads modprobe vhost_vsock
same rust-runs rust "$(runs vhost_vsock)"
same loopback-comes-along rust "$(runs vsock_loopback)"
check says-version sh -c 'dmesg | grep -q "vsock-rust [0-9]"'
check node test -c /dev/vhost-vsock
check loopback loopback
same doctor '[]' "$(vsockctl --format json doctor)"
check not-waiting sh -c '! test -e /var/lib/vsock-rust/next-boot'

# A guest: only its descriptor counts here.
qemu-system-x86_64 -S -M q35 -m 64 -nodefaults -display none -device vhost-vsock-pci,guest-cid=4242 &
guest=$!
for _ in $(seq 100); do
	vsockctl who 4242 >/dev/null 2>&1 && break
	sleep 0.2
done
same who $guest "$(vsockctl --format json who 4242 | sed -n 's/.*"pid": \([0-9]*\),/\1/p')"
check who-nobody sh -c '! vsockctl who 4243'
check doctor-cid sh -c 'vsockctl doctor --cid 4242 | grep -q cid-in-use'
check prometheus sh -c 'vsockctl stats --prometheus | grep -q "^vhost_vsock_queued_packets{cid=\"4242\""'
vsockctl --format text list | sed 's/^/# /'
same use-c-while-guest-runs 'the c modules are used from the next boot on' \
	"$(vsockctl use c | sed 's/, not now.*//')"
same rust-still-runs rust "$(runs vhost_vsock)"
check device-opens device_opens
kill $guest
wait $guest

same use-c 'the c modules are used from now on' "$(vsockctl use c)"
same c-runs c "$(runs vhost_vsock)"
same c-loopback-runs c "$(runs vsock_loopback)"
check c-loopback loopback
same use-c-again 'the c modules are used already' "$(vsockctl use c)"
same use-rust 'the rust modules are used from now on' "$(vsockctl use rust)"
same rust-runs-again rust "$(runs vhost_vsock)"
check rust-loopback loopback
vsockctl --format text modules | sed 's/^/# /'

check depmod-conf-is-gone sh -c '! test -e /etc/depmod.d/vsock-rust.conf'
check use-c-next-boot vsockctl use c --next-boot
same rust-is-taken-until-then rust "$(taken vhost_vsock)"
