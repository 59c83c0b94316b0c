# SPDX-License-Identifier: GPL-2.0
# Sourced: programs that play a guest on /dev/vhost-vsock.

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
		python3 /lab/vm/device/parameters.py || status=1
	device_load || status=1
	return $status
}

# LC-11: no cache of the kernel grows by an object per device, in three rounds. What is
# freed after a grace period, or kept by a CPU for its next allocation, is in use for a
# few seconds yet. Open files are counted exactly.
device_lives() {
	local round try lives=40 files
	python3 /lab/vm/device/lives.py 10 || return 1
	for round in 1 2 3; do
		sleep 2
		slabs >/tmp/slabs.before
		files=$(cut -f1 /proc/sys/fs/file-nr)
		python3 /lab/vm/device/lives.py $lives || return 1
		for try in 1 2 3 4 5; do
			sleep 1
			slabs >/tmp/slabs.after
			awk -v lives=$lives 'NR == FNR { before[$1] = $2; next }
				$2 - before[$1] >= lives {
					print "slab " $1 " grew from " before[$1] " to " $2 " objects by " lives " devices" }' \
				/tmp/slabs.before /tmp/slabs.after >/tmp/slabs.grown
			[ "$(cut -f1 /proc/sys/fs/file-nr)" -lt $((files + lives)) ] ||
				echo "$(cut -f1 /proc/sys/fs/file-nr) open files, $files before" >>/tmp/slabs.grown
			[ -s /tmp/slabs.grown ] || return 0
		done
	done
	cat /tmp/slabs.grown
	return 1
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
	python3 /lab/vm/device/run.py T3/device "${LAB_TESTS:-}"
	check T3/device/no-slab-growth device_lives
	check T3/device/parameters-at-load device_parameters
	device_compat
}
