# SPDX-License-Identifier: GPL-2.0
# Sourced: the programs of samples/, over loopback and on a device.

SAMPLES=$LAB/samples

# sample_until COMMAND...: once the other side listens
sample_until() {
	local n
	for n in $(seq 50); do
		"$@" 2>/tmp/sample.err && return 0
		grep -q 'Connection reset' /tmp/sample.err || break
		sleep 0.1
	done
	cat /tmp/sample.err
	return 1
}

sample_echo() {
	local pid status
	head -c 300000 /dev/urandom >/tmp/sample.in
	$SAMPLES/vsock_echo listen 4000 >/tmp/sample.log &
	pid=$!
	sample_until sh -c "$SAMPLES/vsock_echo connect 1 4000 </tmp/sample.in >/tmp/sample.out"
	status=$?
	kill $pid
	cmp /tmp/sample.in /tmp/sample.out || return 1
	grep -q '^from CID 1, port' /tmp/sample.log || { cat /tmp/sample.log; return 1; }
	return $status
}

sample_messages() {
	$SAMPLES/vsock_messages receive 4001 >/tmp/sample.out &
	sample_until $SAMPLES/vsock_messages send 1 4001 one 'the second of three' \
		'one that is longer than the buffer of the receiver' || { kill $!; return 1; }
	wait $! || return 1
	diff - /tmp/sample.out <<-END
		3 bytes: one
		19 bytes: the second of three
		50 bytes, cut: one that is longer than the buff
	END
}

sample_zerocopy() {
	rm -f /tmp/sample.out
	timeout 60 socat -u VSOCK-LISTEN:4002 OPEN:/tmp/sample.out,creat &
	sample_until $SAMPLES/vsock_zerocopy 1 4002 8 >/tmp/sample.log || { kill $!; return 1; }
	wait $! || return 1
	[ "$(stat -c %s /tmp/sample.out)" = $((8 << 20)) ] &&
		grep -Eq '^[0-9]+ sends done, [0-9]+ of them copied$' /tmp/sample.log && return 0
	ls -l /tmp/sample.out
	cat /tmp/sample.log
	return 1
}

sample_devices() {
	local status=0
	python3 - <<-'END' >/tmp/sample.log || status=1
		import fcntl, os, struct, subprocess
		device = os.open("/dev/vhost-vsock", os.O_RDWR)
		fcntl.ioctl(device, 0xAF01)
		fcntl.ioctl(device, 0x4008AF60, struct.pack("<Q", 4242))
		print(os.getpid())
		print(subprocess.check_output(["/lab/samples/vhost_vsock_devices"], text=True))
	END
	awk 'NR == 1 { pid = $1 }
		$1 == 4242 && $2 == "stopped" && $3 == pid && $4 ~ /^python3/ { found++ }
		END { exit found != 1 }' /tmp/sample.log && return $status
	cat /tmp/sample.log
	return 1
}

group_samples() {
	local name
	want_group T2/samples || return 0
	ensure_host ours T2/samples || return 1
	for name in echo messages zerocopy devices; do
		check T2/samples/$name sample_$name
	done
}
