# SPDX-License-Identifier: GPL-2.0
# Sourced: how our modules come and go. Expects none of them loaded.

LIFE_LOAD="$HOST_OURS vmw_vsock_virtio_transport"
LIFE_UNLOAD='vmw_vsock_virtio_transport vhost_vsock vhost_core vsock_loopback
	vmw_vsock_virtio_transport_common'

life_ours() {
	local name
	for name in $LIFE_LOAD; do [ -e "$OURS/$name.ko" ] && echo "$name"; done
}

# One life: everything in, one exchange over loopback, everything out.
life_cycle() {
	local name answer
	insert_ours $LIFE_LOAD || return 1
	if loaded vsock_loopback; then
		socat -T 10 VSOCK-LISTEN:4000 PIPE &
		for name in 1 2 3 4 5 6 7 8 9 10; do
			answer=$(echo hello | socat -T 10 - VSOCK-CONNECT:1:4000 2>/dev/null) && break
			sleep 0.1
		done
		wait $!
		[ "$answer" = hello ] || { echo "loopback answered '$answer'"; return 1; }
	fi
	for name in $LIFE_UNLOAD; do
		loaded "$name" || continue
		rmmod "$name" || { echo "rmmod $name failed"; return 1; }
	done
}

# Objects in use per slab cache. Shrinking first gives back the caches' own
# reserves, which would otherwise count as used.
slabs() {
	local cache
	for cache in /sys/kernel/slab/*/shrink; do echo 1 >"$cache" 2>/dev/null; done
	awk '$1 ~ /^(kmalloc|kmalloc-.*|AF_VSOCK|vsock|skbuff|sock_inode|task_struct|filp)/ {print $1, $2}' \
		/proc/slabinfo
}

# Twenty lives; no cache may grow by an object per life. Other parts of the
# kernel allocate too, so growth counts only if it is there in three rounds.
life_twenty() {
	local round n
	life_cycle || return 1
	life_cycle || return 1
	for round in 1 2 3; do
		sleep 1
		slabs >/tmp/slabs.before
		for n in $(seq 20); do
			life_cycle || { echo "in round $round, life $n"; return 1; }
		done
		sleep 1
		slabs >/tmp/slabs.after
		awk 'NR == FNR { before[$1] = $2; next }
		     $2 - before[$1] >= 20 { print "slab " $1 " grew from " before[$1] " to " $2 " objects in 20 lives" }' \
			/tmp/slabs.before /tmp/slabs.after >/tmp/slabs.grown
		[ -s /tmp/slabs.grown ] || return 0
	done
	cat /tmp/slabs.grown
	return 1
}

# refused NAME...: rmmod must fail for each
refused() {
	local name
	for name in "$@"; do
		loaded "$name" || continue
		if rmmod "$name" 2>/dev/null; then
			echo "rmmod $name was not refused"
			return 1
		fi
	done
}

refused_by_socket() {
	local status listener client
	socat -d -d -u VSOCK-LISTEN:4001 /dev/null 2>/tmp/refused.log &
	listener=$!
	says /tmp/refused.log listening || { cat /tmp/refused.log; return 1; }
	sleep 60 | socat -u - VSOCK-CONNECT:1:4001 &
	client=$!
	says /tmp/refused.log 'starting data transfer' || { cat /tmp/refused.log; return 1; }
	refused vsock_loopback vmw_vsock_virtio_transport_common
	status=$?
	kill $client $listener 2>/dev/null
	pkill -x sleep
	wait $client $listener 2>/dev/null
	return $status
}

refused_by_fd() {
	local status
	exec 9<>/dev/vhost-vsock || { echo "cannot open /dev/vhost-vsock"; return 1; }
	refused vhost_vsock vhost_core
	status=$?
	exec 9>&-
	return $status
}

# life_place KINDS MODULE...: the place of the last module's transport is taken. It must not
# load, it must say who is there, and after the command that it tells it must load.
life_place() {
	local kinds=$1 name status=0 said
	shift
	insmod $LAB/modules/vsock_place.ko kinds=$kinds || return 1
	insert_ours ${@:1:$#-1} || status=1
	dmesg -C
	for name; do :; done
	if insmod "$OURS/$name.ko" 2>/tmp/insmod; then
		echo "$name loads"
		status=1
	elif ! grep -q 'resource busy' /tmp/insmod; then
		cat /tmp/insmod
		status=1
	fi
	said=$(dmesg -t | grep 'vsock transport')
	case $said in
	*" is vsock_place already: "*" then 'modprobe -r vsock_place'") ;;
	*) echo "the log says: $said"; status=1 ;;
	esac
	rmmod vsock_place || status=1
	insert_ours "$name" || status=1
	unload $LIFE_UNLOAD || status=1
	return $status
}

life_tests() {
	want_group T2/life || return 0
	insert "$KMODS/net/vmw_vsock/vsock.ko"
	check T2/life/unload-20-times-no-slab-growth life_twenty
	insert_ours $LIFE_LOAD
	if loaded vsock_loopback; then
		check T2/life/unload-refused-open-socket refused_by_socket
	fi
	if loaded vhost_vsock; then
		check T2/life/unload-refused-open-device refused_by_fd
	fi
	check T2/life/unload-after-use unload $LIFE_UNLOAD
	check T2/life/place-taken/loopback life_place 8 vmw_vsock_virtio_transport_common vsock_loopback
	check T2/life/place-taken/host life_place 1 vmw_vsock_virtio_transport_common vhost_core vhost_vsock
	check T2/life/place-taken/guest life_place 2 vmw_vsock_virtio_transport_common \
		vmw_vsock_virtio_transport
}
