# SPDX-License-Identifier: GPL-2.0
# vsock-rust-dkms in a Debian with a compiler: what a kernel update does with it, and without what it
# needs. Runs in a chroot, at the speed of this machine; the modules go to /out.
stage=dkms
. /pkg/lib.sh

release=$(basename "$(dirname /usr/lib/modules/*/build)")
why=/var/lib/vsock-rust/why-not-$release
place=/usr/lib/modules/$release/updates/dkms
update() { /etc/kernel/postinst.d/dkms "$release"; }
taken_file() { modinfo -k "$release" -n vhost_vsock; }
reason() { cat "$why"; }

# A compiler of another version than the kernel's.
printf '#!/bin/sh\necho "rustc 1.96.1 (0123456 2026-07-01)"\n' >/usr/local/bin/rustc
chmod +x /usr/local/bin/rustc
check install-without-compiler sh -c 'dpkg -i /debs/vsock-rust-tools_*.deb /debs/vsock-rust-dkms_*.deb >/tmp/install 2>&1'
same one-sentence 1 "$(grep -c '^vsock-rust: no modules for' /tmp/install)"
sed -n 's/^vsock-rust: /# &/p' /tmp/install
check says-compiler grep -q 'built by rustc 1.85.1 .* rustc is rustc 1.96.1 ' "$why"
check c-is-taken sh -c "case $(taken_file) in */kernel/drivers/vhost/*) ;; *) false ;; esac"
rm /usr/local/bin/rustc

dpkg -r --force-depends linux-source-7.3 >/dev/null
check update-without-source update
same says-source "its source is not installed: apt install linux-source-7.3=$(dpkg-query -W -f '${Version}' "linux-headers-$release")" "$(reason)"
check nothing-was-built sh -c "! test -e $place"
dpkg -i /kernel/linux-source-*.deb >/dev/null

check other-series sh -c "/usr/src/vsock-rust-*/dkms/check 6.12.0-1-amd64 /nowhere $$ 2>&1 | grep -q 'they are made for 7.3,'"

SECONDS=0
check update update
echo "# DKMS built the modules in $SECONDS s"
check reason-is-gone sh -c "! test -e $why"
for module in vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport vsock_loopback vhost_core vhost_vsock; do
	file=$(modinfo -k "$release" -n $module)
	check taken-$module test "$file" = "/lib/modules/$release/updates/dkms/$module.ko.xz"
	same vermagic-$module "$(modinfo -k "$release" -F vermagic vsock)" "$(modinfo -F vermagic "$file")"
	check signed-$module sh -c "modinfo -F signer $file | grep -q ."
	xz -dc "$file" >"/out/$module.ko"
done
check update-again update
check no-rest-of-the-kernel sh -c '! find /var/lib/dkms/vsock-rust -name linux | grep .'

check remove sh -c 'dpkg -r vsock-rust-dkms >/tmp/remove 2>&1'
check c-is-taken-again sh -c "case $(taken_file) in */kernel/drivers/vhost/*) ;; *) false ;; esac"
same nothing-left '' "$(find /var/lib/dkms /usr/src /usr/lib/modules /var/lib/vsock-rust/* 2>/dev/null | grep -e vsock-rust- -e why-not -e vhost_core)"
