# SPDX-License-Identifier: GPL-2.0
# A machine that uses the C modules gets the packages while a connection is open: it goes on, and
# nothing that worked stops working before the next boot.
stage=10-install
. ./lib.sh

modprobe -a vsock_loopback vhost_vsock
same c-runs c "$(runs vmw_vsock_virtio_transport_common)"
check c-loopback loopback
hold
check install dpkg -i debs/*.deb
same still-c c "$(runs vmw_vsock_virtio_transport_common)"
same c-is-taken c "$(taken vhost_vsock)"
check waits-for-next-boot grep -qx rust /var/lib/vsock-rust/next-boot
check connection-is-open kill -0 $peer
check device-opens device_opens
let_go
# What is loaded later fits what runs.
rmmod vhost_vsock
check device-module-loads modprobe vhost_vsock
check device-opens-again device_opens
check loopback loopback
same doctor '[]' "$(vsockctl --format json doctor)"
check unit systemctl is-active vsock-rust-apply.service
