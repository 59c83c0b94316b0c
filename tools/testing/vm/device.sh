# SPDX-License-Identifier: GPL-2.0
# Sourced: what a program that plays a guest cannot do by itself.

# device_values NAME=VALUE...: what sysfs shows of the parameters of our vhost core
device_values() {
	local pair found
	for pair in "$@"; do
		found=$(cat "/sys/module/vhost_core/parameters/${pair%%=*}")
		[ "$found" = "${pair#*=}" ] || { echo "$pair is $found in sysfs"; return 1; }
	done
}

device_load() {	# PARAMETERS of vhost_core
	unload vhost_vsock vhost_core && insert "$OURS/vhost_core.ko" "$@" && insert_ours vhost_vsock
}

# Parameters of vhost_core take effect when it is loaded, and wrong ones are refused.
device_parameters() {
	local wrong status=0
	module_idle vhost_vsock || return 1
	unload vhost_vsock vhost_core || return 1
	for wrong in max_mem_regions=65536 max_iotlb_entries=many fork_from_owner_default=perhaps; do
		if insmod "$OURS/vhost_core.ko" $wrong 2>/dev/null; then
			echo "vhost_core takes $wrong"
			status=1
			rmmod vhost_core
		fi
	done
	device_load max_mem_regions=100 max_iotlb_entries=0 fork_from_owner_default=0 &&
		device_values max_mem_regions=100 max_iotlb_entries=0 fork_from_owner_default=N &&
		/lab/t3/ring ABI-17/parameters-at-load || status=1
	device_load || status=1
	return $status
}

# The module is removed as soon as it can be, when the threads of a VMM that was killed may have kicks to
# serve, or be in the last instructions of that.
device_unload_kicked() {
	local n try pid
	module_idle vhost_vsock || return 1
	for n in 1 2 3 4 5; do
		/lab/t3/ring --kicking >/tmp/kicking & pid=$!
		for try in $(seq 300); do grep -q kicking /tmp/kicking && break; sleep 0.1; done
		kill -9 $pid
		for try in $(seq 1000); do rmmod vhost_vsock 2>/dev/null && break; sleep 0.01; done
		wait $pid 2>/dev/null
		! loaded vhost_vsock || { echo "round $n: vhost_vsock cannot be removed"; return 1; }
		unload vhost_core && device_load || return 1
	done
}

# Silent guests, with short times.
device_keepalive() {
	local status=0
	unload_host && insert "$KMODS/net/vmw_vsock/vsock.ko" &&
		insert "$KMODS/net/vmw_vsock/vsock_diag.ko" && insert "$OURS/vmw_vsock_virtio_transport_common.ko" \
		keepalive_time=2 keepalive_interval=1 keepalive_probes=3 && insert_ours $HOST_OURS &&
		/lab/t3/ring KA-1/silent-guests KA-2/paused-guest KA-3/credit-that-was-not-told || status=1
	unload_host && load_host ours || status=1
	return $status
}

# A 32-bit program. The debug kernel does not run those.
device_compat() {
	local status
	want_group T3/device/compat32 || return 0
	mark T3/device/compat32
	/lab/api/compat32 >/lab/out/compat32 2>&1
	status=$?
	if [ $status = 126 ] && [ -e /sys/kernel/debug/kmemleak ]; then
		echo "skip T3/device/compat32 # this kernel runs no 32-bit programs"
		return 0
	fi
	sed -E 's#^(ok|not ok) #\1 T3/device/compat32/#' /lab/out/compat32
	if [ $status = 0 ]; then ok T3/device/compat32/exit; else not_ok T3/device/compat32/exit "status $status"; fi
}

group_device() {
	want_group T3/device || return 0
	ensure_host ours T3/device || return 1
	check T3/device/parameters-at-load device_parameters
	check T3/device/unload-with-kicks-pending device_unload_kicked
	check T3/device/keepalive device_keepalive
	device_compat
}
