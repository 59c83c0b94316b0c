# SPDX-License-Identifier: GPL-2.0
# Sourced: what QEMU does with a device beyond the usual: an IOMMU in front of it,
# and migration while data flows.

# --- behind an IOMMU ------------------------------------------------------------

# Every address of the rings is one of the IOMMU's; QEMU answers what the device asks.
GUEST_IOMMU="-machine kernel-irqchip=split -device intel-iommu,intremap=on,device-iotlb=on"

iommu_in_use() {
	local dev
	dev=$(guest_sh 'dirname $(grep -l 0x0013 /sys/bus/virtio/devices/*/device)')
	guest_sh "[ -d $dev/driver ]" || { echo "the guest has no vsock device"; return 1; }
	guest_sh "dmesg | grep -q 'DMAR: Intel(R) Virtualization'" ||
		{ echo "the guest does not use the IOMMU"; return 1; }
	# The PCI device: it is in a group only if an IOMMU translates for it.
	guest_sh "[ -d \$(readlink -f $dev)/../iommu_group ]" ||
		{ echo "the IOMMU is not in front of the device"; return 1; }
	guest_sh "cut -c34 $dev/features | grep -q 1" ||
		{ echo "the guest did not negotiate VIRTIO_F_ACCESS_PLATFORM"; return 1; }
}

# iommu_tests HOST GUEST
iommu_tests() {
	local name=T4/iommu-host-$1-guest-$2
	want_group "$name" || return 0
	mark "$name/boot"
	if ! GUEST_FIRST="$GUEST_IOMMU" GUEST_VSOCK=",iommu_platform=on,ats=on,disable-legacy=on" \
			GUEST_APPEND="$GUEST_APPEND intel_iommu=on" guest_start "$2"; then
		not_ok "$name/boot" "the guest did not start"
		guest_kill
		return 1
	fi
	want "$name/boot" && ok "$name/boot"
	check "$name/in-use" iommu_in_use
	vsock_test_both "$name"
	check "$name/file-guest-to-host" to_host
	check "$name/file-host-to-guest" to_guest
	check "$name/driver-again" iommu_driver_again "$2"
	check "$name/switch-off" guest_stop
	check "$name/qemu-says-nothing" qemu_says_nothing
	guest_kill
}

# The driver goes and comes: all translations are taken back, and asked for again.
iommu_driver_again() {
	guest_sh "rmmod vmw_vsock_virtio_transport && /lab/guest-insert $1 vmw_vsock_virtio_transport.ko" ||
		return 1
	to_host && to_guest
}

# What QEMU has to complain of goes to its standard error.
qemu_says_nothing() {
	grep -v '^qemu-system-x86_64: warning: TCG doesn' $LAB/out/guest-qemu.log | grep . || return 0
	return 1
}

# --- migration ------------------------------------------------------------------

MIGRATE_BYTES=$((256 << 20))
MIGRATE_STATE=/tmp/migrate.state

# migrate_stream PORT: what the host sends to the guest's reader is never the same. The
# reader may not listen yet.
migrate_stream() {
	local n
	for n in $(seq 50); do
		socat -u OPEN:/dev/urandom "VSOCK-CONNECT:$GUEST_CID:$1" 2>/dev/null &
		sleep 0.3
		if kill -0 $! 2>/dev/null; then
			MIGRATE_PIDS="$MIGRATE_PIDS $!"
			return 0
		fi
	done
	echo "the stream to port $1 does not run"
	return 1
}

# Streams in both directions that never end.
migrate_traffic() {
	local port
	socat -u VSOCK-LISTEN:6003 /dev/null 2>/dev/null &
	MIGRATE_PIDS=$!
	sleep 0.5
	guest_sh 'for p in 6000 6001 6002; do
			(socat -u VSOCK-LISTEN:$p /dev/null; echo "reader $p: $?" >>/tmp/streams) >/dev/null 2>&1 &
		done
		(socat -u OPEN:/dev/urandom VSOCK-CONNECT:2:6003; echo "writer: $?" >>/tmp/streams) >/dev/null 2>&1 &'
	for port in 6000 6001 6002; do migrate_stream $port || return 1; done
	sleep 1
	for port in $MIGRATE_PIDS; do
		kill -0 "$port" 2>/dev/null || { echo "a stream does not run"; return 1; }
	done
}

# migrate_save FILE: the guest's memory, which does not run
migrate_save() {
	qmp pmemsave "\"val\":0,\"size\":$MIGRATE_BYTES,\"filename\":\"$1\""
}

# migrate_out: the guest goes to a file while data flows; its memory is saved as it is in the end
migrate_out() {
	local n
	migrate_wall_clock || return 1
	migrate_traffic || return 1
	rm -f $MIGRATE_STATE
	qmp migrate-set-parameters '"max-bandwidth":4000000000,"downtime-limit":3000' || return 1
	qmp migrate "\"uri\":\"file:$MIGRATE_STATE\"" || return 1
	qmp_migrated 180 || return 1
	migrate_save /tmp/memory.out || return 1
	qmp_close
	for n in $MIGRATE_PIDS; do kill "$n" 2>/dev/null; done
	guest_kill
	# The device and its CID are free now.
	[ "$(stat -c %s $MIGRATE_STATE)" -gt 1000000 ] || { echo "there is next to nothing in the file"; return 1; }
	[ "$(stat -c %s /tmp/memory.out)" = $MIGRATE_BYTES ] || { echo "the memory was not saved"; return 1; }
}

# migrate_in MODULES: a new QEMU takes the guest from the file, and does not run it yet
migrate_in() {
	guest_log_begin "$1 from a file"
	GUEST_MEMORY=$((MIGRATE_BYTES >> 20))M \
		GUEST_EXTRA="$GUEST_EXTRA -S $QMP_EXTRA -incoming file:$MIGRATE_STATE" \
		guest_qemu "$1" >$LAB/out/guest-qemu.log 2>&1 </dev/null &
	GUEST_PID=$!
	qmp_open && qmp_migrated 120 || { cat $LAB/out/guest-qemu.log; return 1; }
	guest_spread && migrate_save /tmp/memory.in
}

# migrate_wall_clock: the guest's address of the 12 bytes in which KVM tells it when it was
# started, which are written anew on the other side.
migrate_wall_clock() {
	set -- $(guest_sh "grep -E ' (_text|wall_clock)\$' /proc/kallsyms | sort -k 3 | cut -d' ' -f1
		grep 'Kernel code' /proc/iomem")
	# _text, wall_clock, START-END : Kernel code
	[ $# = 6 ] || { echo "no address of KVM's clock: $*"; return 1; }
	MIGRATE_CLOCK=$((0x$2 - 0x$1 + 0x${3%-*}))
}

# Not a byte of the guest's memory is other than it was: what the device wrote was seen.
migrate_same_memory() {
	cmp -l /tmp/memory.out /tmp/memory.in | awk -v clock="$MIGRATE_CLOCK" '
		$1 > clock && $1 <= clock + 12 { next }
		{ page = int(($1 - 1) / 4096); bytes[page]++; if (!(page in first)) first[page] = ($1 - 1) % 4096; last[page] = ($1 - 1) % 4096 }
		END { for (page in bytes) { printf "page %#x: %d bytes differ, from %#x to %#x\n", page, bytes[page], first[page], last[page]; n++ }
			if (n) print n " pages of the guest are out of date"
			exit n != 0 }'
}

migrate_resume() {
	local n
	qmp cont || return 1
	for n in $(seq 50); do
		guest_sh true && return 0
		sleep 0.2
	done
	echo "the guest does not answer"
	return 1
}

# The streams from before got a reset, all of them.
migrate_streams_reset() {
	local n
	for n in $(seq 50); do
		[ "$(guest_sh 'cat /tmp/streams 2>/dev/null | wc -l')" = 4 ] && return 0
		sleep 0.2
	done
	guest_sh 'cat /tmp/streams; ps | grep socat'
	echo "a stream from before the migration is still there"
	return 1
}

# migrate_tests HOST GUEST
migrate_tests() {
	local name=T4/migrate-host-$1-guest-$2
	want_group "$name" || return 0
	mark "$name/boot"
	rm -f $QMP_SOCKET
	if ! GUEST_MEMORY=$((MIGRATE_BYTES >> 20))M GUEST_EXTRA="$GUEST_EXTRA $QMP_EXTRA" guest_start "$2" ||
			! qmp_open; then
		not_ok "$name/boot" "the guest did not start"
		guest_kill
		return 1
	fi
	want "$name/boot" && ok "$name/boot"
	step "$name/out-under-traffic" migrate_out || { guest_kill; return 1; }
	step "$name/in" migrate_in "$2" || { guest_kill; return 1; }
	check "$name/memory-is-the-same" migrate_same_memory
	rm -f /tmp/memory.out /tmp/memory.in
	step "$name/resume" migrate_resume || { guest_kill; return 1; }
	check "$name/streams-are-reset" migrate_streams_reset
	check "$name/file-guest-to-host" to_host
	check "$name/file-host-to-guest" to_guest
	check "$name/switch-off" guest_stop
	rm -f $MIGRATE_STATE
	qmp_close
	guest_kill
}
