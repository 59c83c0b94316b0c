# SPDX-License-Identifier: GPL-2.0
# What DKMS built runs.
. /lab/vm/lib.sh
stage=dkms
. /lab/pkg-lib.sh

check loads load_host ours
same is-ours rust "$(runs vhost_vsock)"
check loopback loopback
check device-opens device_opens
check unloads unload_host
