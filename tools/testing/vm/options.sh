# SPDX-License-Identifier: GPL-2.0
# Sourced: the vsock device with options of QEMU that people use, and memory that
# is in pieces, of which some come while the guest runs. (An IOMMU: vmm.sh.)

# --- a descriptor of somebody else, no messages ---------------------------------

# A process opens the device, sets a CID, and QEMU gets the descriptor: libvirt's way.
options_device() {
	python3 - <<-END
		import fcntl, struct
		for cid in range($GUEST_CID, $GUEST_CID + 20):
		    try:
		        fcntl.ioctl(9, 0x4008AF60, struct.pack("=Q", cid))
		    except OSError as error:
		        if error.errno != 98:
		            raise
		        continue
		    print(cid)
		    break
	END
}

# The guest's device has a feature (by its bit), or has it not
options_feature() {	# BIT 0|1
	guest_sh "[ \$(cut -c$(($1 + 1)) \$(dirname \$(grep -l 0x0013 /sys/bus/virtio/devices/*/device))/features) = $2 ]" ||
		{ echo "feature $1 is not $2"; return 1; }
}

options_no_messages() {
	local text
	options_feature 1 0 || return 1
	text=$(guest_sh "vsock_peer try 2 7000 seqpacket")
	[ "$text" = 'connect ESOCKTNOSUPPORT' ] || { echo "from the guest: $text"; return 1; }
	text=$(vsock_peer try "$GUEST_CID" 7000 seqpacket)
	[ "$text" = 'connect ESOCKTNOSUPPORT' ] || { echo "from the host: $text"; return 1; }
}

# options_vhostfd NAME GUEST
options_vhostfd() {
	local name=$1 cid status=0
	want_group "$name" || return 0
	mark "$name/boot"
	exec 9<>/dev/vhost-vsock || { not_ok "$name/boot" "no device"; return 1; }
	cid=$(options_device)
	if GUEST_DEVICE="-device vhost-vsock-pci,guest-cid=$cid,vhostfd=9,seqpacket=off,packed=off" guest_start "$2"; then
		! want "$name/boot" || ok "$name/boot"
		GUEST_CID=$cid
		check "$name/no-messages" options_no_messages
		PAIR_SKIP='SOCK_SEQPACKET*' vsock_test_both "$name"
		check "$name/switch-off" guest_stop
		check "$name/qemu-says-nothing" qemu_says_nothing
	else
		not_ok "$name/boot" "the guest did not start"
		status=1
	fi
	guest_kill
	exec 9>&-
	return $status
}

# --- memory in pieces --------------------------------------------------------------

OPTIONS_DIMM=$((256 << 20))

# options_plug N: memory is plugged in, and the guest uses it
options_plug() {
	local before after n
	before=$(guest_sh "awk '/MemTotal/ { print \$2 }' /proc/meminfo")
	qmp object-add "\"qom-type\":\"memory-backend-ram\",\"id\":\"m$1\",\"size\":$OPTIONS_DIMM" || return 1
	qmp device_add "\"driver\":\"pc-dimm\",\"id\":\"d$1\",\"memdev\":\"m$1\"" || return 1
	for n in $(seq 100); do
		after=$(guest_sh "awk '/MemTotal/ { print \$2 }' /proc/meminfo")
		[ $((after - before)) -lt $((OPTIONS_DIMM / 1024)) ] || return 0
		sleep 0.2
	done
	echo "the guest has $after kB, $before before"
	return 1
}

# What a program of the guest gets is from the new memory now: its zone is used first.
options_memory_in_use() {
	guest_sh 'movable_free() { awk "/zone +Movable/ { zone = 1 } zone && /nr_free_pages/ { print \$2; exit }" /proc/zoneinfo; }
		before=$(movable_free)
		dd if=/dev/zero bs=64M count=1 2>/dev/null | sleep 4 &
		sleep 2
		after=$(movable_free)
		wait
		echo "free pages: $before, $after while a program has 64 MiB"
		[ $((before - after)) -gt 8192 ]'
}

# options_memory NAME GUEST
options_memory() {
	local name=$1
	want_group "$name" || return 0
	mark "$name/boot"
	rm -f $QMP_SOCKET
	if GUEST_MEMORY=600M,slots=8,maxmem=4G GUEST_VSOCK=,seqpacket=on \
			GUEST_EXTRA="$GUEST_EXTRA $QMP_EXTRA" \
			GUEST_APPEND="$GUEST_APPEND memhp_default_state=online_movable" guest_start "$2" && qmp_open; then
		! want "$name/boot" || ok "$name/boot"
		check "$name/messages" options_feature 1 1
		life_host_peers
		life_listen
		LIFE_CID=$GUEST_CID
		exec 3>&1
		# Regions come while packets move.
		life_traffic 8
		check "$name/plug-1" options_plug 1
		check "$name/plug-2" options_plug 2
		check "$name/traffic" life_traffic_good
		exec 3>&-
		check "$name/in-use" options_memory_in_use
		vsock_test_both "$name"
		check "$name/file-guest-to-host" to_host
		check "$name/file-host-to-guest" to_guest
		check "$name/switch-off" guest_stop
		check "$name/qemu-says-nothing" qemu_says_nothing
		qmp_close
		kill $LIFE_PEERS
		wait $LIFE_PEERS 2>/dev/null
	else
		not_ok "$name/boot" "the guest did not start"
	fi
	guest_kill
}

# options_tests HOST GUEST
options_tests() {
	options_vhostfd "T4/options-host-$1-guest-$2/vhostfd" "$2"
	options_memory "T4/options-host-$1-guest-$2/memory" "$2"
}
