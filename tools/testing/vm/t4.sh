# SPDX-License-Identifier: GPL-2.0
# Sourced: host VM and nested guest in one pairing, files, QEMU's ioctls.

FILE_BYTES=$((8 << 20))

sum_here() { sha256sum "$1" | cut -d' ' -f1; }
sum_guest() { guest_sh "sha256sum $1" | cut -d' ' -f1; }

# to_host: a file made in the guest arrives here whole
to_host() {
	local there here
	guest_sh "head -c $FILE_BYTES /dev/urandom >/tmp/up" || return 1
	rm -f /tmp/up
	timeout 120 socat -d -d -u VSOCK-LISTEN:5000 OPEN:/tmp/up,creat,trunc 2>/tmp/up.log &
	says /tmp/up.log listening || { cat /tmp/up.log; return 1; }
	guest_sh "timeout 120 socat -u OPEN:/tmp/up VSOCK-CONNECT:2:5000" || return 1
	wait $! || { echo "the receiver failed"; return 1; }
	there=$(sum_guest /tmp/up)
	here=$(sum_here /tmp/up)
	guest_sh "rm -f /tmp/up"
	rm -f /tmp/up
	[ -n "$there" ] && [ "$there" = "$here" ] || { echo "sha256 differs: $there $here"; return 1; }
}

# to_guest: and the other way
to_guest() {
	local there here n
	head -c $FILE_BYTES /dev/urandom >/tmp/down
	guest_sh "timeout 120 socat -u VSOCK-LISTEN:5011 OPEN:/tmp/down,creat,trunc >/tmp/down.log 2>&1 &
		echo \$! >/tmp/down.pid"
	for n in $(seq 40); do
		sleep 0.3
		timeout 120 socat -u OPEN:/tmp/down VSOCK-CONNECT:$GUEST_CID:5011 2>/tmp/down.err && break
	done
	guest_sh 'n=0; while kill -0 $(cat /tmp/down.pid) 2>/dev/null && [ $n -lt 100 ]; do n=$((n+1)); sleep 0.1; done'
	there=$(sum_guest /tmp/down)
	here=$(sum_here /tmp/down)
	[ "$there" = "$here" ] || { cat /tmp/down.err; guest_sh 'cat /tmp/down.log; df /tmp; free'; }
	guest_sh "rm -f /tmp/down"
	rm -f /tmp/down
	[ -n "$there" ] && [ "$there" = "$here" ] || { echo "sha256 differs: $there $here"; return 1; }
}

# While a socket of the guest is connected its driver cannot go.
guest_driver_refused() {
	local status
	socat -d -d -u VSOCK-LISTEN:5002 /dev/null 2>/tmp/refused.log &
	says /tmp/refused.log listening || { cat /tmp/refused.log; return 1; }
	guest_sh "$SAYS"'
		(sleep 60 | socat -d -d -u - VSOCK-CONNECT:2:5002) >/dev/null 2>/tmp/refused.log &
		says /tmp/refused.log "starting data transfer" || exit 1
		for m in vmw_vsock_virtio_transport vmw_vsock_virtio_transport_common; do
			if rmmod $m 2>/dev/null; then echo "rmmod $m was not refused"; s=1; fi
		done
		killall sleep 2>/dev/null
		exit ${s:-0}'
	status=$?
	wait $!
	return $status
}

# t4_session HOST GUEST: the session of tools/testing/api with the server in the guest; all
# that is seen of it here is in $API_OUT/session.HOST-GUEST.
t4_session() {
	local name=T4/session-as-c/host-$1-guest-$2
	ensure_host "$1" "$name" || return 1
	mark "$name"
	mkdir -p $API_OUT
	if ! guest_start "$2" || ! api_watch; then
		not_ok "$name/boot" "the guest did not start, or there is no vsockmon0"
		guest_kill
		return 1
	fi
	guest_sh 'session server >/dev/null 2>&1 &
		sleep 0.5'
	timeout 120 /lab/api/session client "$GUEST_CID" >"$API_OUT/session.$1-$2" 2>&1 ||
		echo "not ok $name/exit # status $?"
	guest_sh 'killall session'
	api_unwatch
	guest_stop
	guest_kill
}

# t4_session_compare HOST GUEST: with what was seen of two that are C
t4_session_compare() {
	python3 /lab/vm/same.py "T4/session-as-c/host-$1-guest-$2" session "$API_OUT/session.c-c" \
		"$API_OUT/session.$1-$2" /lab/api/differences
}

# vsock_test_both NAME: the kernel's test with the guest as client and as server
vsock_test_both() {
	local direction
	for direction in guest-client guest-server; do
		want_group "$1/$direction" || continue
		mark "$1/$direction/vsock_test"
		pair "$1/$direction" vsock_test $direction
	done
}

# t4_pairing HOST GUEST: ours|c each; our or C host modules are loaded already
t4_pairing() {
	local name=T4/host-$1-guest-$2 program direction
	want_group "$name" || return 0
	mark "$name/boot"
	if ! guest_start "$2"; then
		not_ok "$name/boot" "the guest did not start"
		guest_kill
		return 1
	fi
	want "$name/boot" && ok "$name/boot"
	for direction in guest-client guest-server; do
		for program in vsock_test vsock_diag_test vsock_uring_test; do
			want_group "$name/$direction" || continue
			mark "$name/$direction/$program"
			pair "$name/$direction" $program $direction
		done
	done
	check "$name/file-guest-to-host" to_host
	check "$name/file-host-to-guest" to_guest
	if [ "$1" = ours ]; then
		check "$name/unload-refused-running-guest" refused vhost_vsock vhost_core \
			vmw_vsock_virtio_transport_common
	fi
	if [ "$2" = ours ]; then
		check "$name/unload-refused-in-guest" guest_driver_refused
	fi
	check "$name/switch-off" guest_stop
	guest_kill
}

# QEMU's ioctls on /dev/vhost-vsock. strace is attached only while QEMU talks to
# the device (at its start, and when the guest's driver comes and goes): every
# KVM_RUN would be traced too, which makes a boot take minutes.
strace_attach() {	# FILE
	strace -f -q -e trace=openat,ioctl -o "$1" -p "$GUEST_PID" 2>/lab/out/strace.log &
	STRACE_PID=$!
	sleep 1
}

strace_detach() {
	kill -INT $STRACE_PID
	wait $STRACE_PID 2>/dev/null
	kill -CONT "$GUEST_PID"
}

strace_wait() {		# FILE TEXT
	local n
	for n in $(seq 150); do
		grep -q "$2" "$1" 2>/dev/null && sleep 1 && return 0
		sleep 0.2
	done
	echo "QEMU did not call $2"
	return 1
}

strace_start() {
	local n
	for n in $(seq 50); do
		grep -q '^State:.T' "/proc/$GUEST_PID/status" && break
		sleep 0.1
	done
	strace_attach "$STRACE_OUT.1"
	kill -CONT "$GUEST_PID"
	strace_wait "$STRACE_OUT.1" VHOST_VSOCK_SET_GUEST_CID
	strace_detach
}

strace_guest() {
	local status=0
	STRACE_OUT=/lab/out/strace.$1
	GUEST_WRAP=/lab/vm/stopped GUEST_HOOK=strace_start guest_start none || return 1
	strace_attach "$STRACE_OUT.2"
	guest_sh '/lab/guest-load c' || status=1
	strace_wait "$STRACE_OUT.2" VHOST_VSOCK_SET_RUNNING || status=1
	guest_sh 'rmmod vmw_vsock_virtio_transport' || status=1
	strace_wait "$STRACE_OUT.2" VHOST_GET_VRING_BASE || status=1
	strace_detach
	guest_stop || status=1
	cat "$STRACE_OUT.1" "$STRACE_OUT.2" | python3 /lab/vm/ioctls.py >"$STRACE_OUT"
	[ -s "$STRACE_OUT" ] || { echo "no vhost ioctl was seen"; return 1; }
	return $status
}

t4_strace_compare() {
	[ -s /lab/out/strace.ours ] && [ -s /lab/out/strace.c ] || { echo "a trace is missing"; return 1; }
	diff -u /lab/out/strace.c /lab/out/strace.ours >/lab/out/strace.diff && return 0
	cat /lab/out/strace.diff
	echo "QEMU's ioctls differ between the C device and ours"
	return 1
}
