# SPDX-License-Identifier: GPL-2.0
# Sourced: the demo. Files both ways and short messages, with ordinary programs.

DEMO_BYTES=${DEMO_BYTES:-$((32 << 20))}
DEMO_TRIPS=${DEMO_TRIPS:-2000}

demo_failed() {
	echo "demo: FAILED: $*"
	exit 1
}

# version MODULE-DIRECTORY: what the module says about itself
demo_versions() {
	local name text
	for name in vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport \
		vsock_loopback vhost_core vhost_vsock; do
		[ -d "/sys/module/$name" ] || continue
		text=
		[ -r "/sys/module/$name/version" ] && text="version $(cat "/sys/module/$name/version") "
		[ -r "/sys/module/$name/srcversion" ] && text="${text}srcversion $(cat "/sys/module/$name/srcversion") "
		text="${text}build $(tail -c 20 "/sys/module/$name/notes/.note.gnu.build-id" 2>/dev/null |
			od -An -tx1 | tr -d ' \n' | cut -c1-12)"
		[ -r "/sys/module/$name/taint" ] && grep -q O "/sys/module/$name/taint" &&
			text="$text (ours)"
		echo "  $name: $text"
	done
}

seconds_since() { awk -v a="$1" -v b="$(date +%s.%N)" 'BEGIN { printf "%.2f", b - a }'; }

demo_line() {	# WHAT SECONDS SUM
	awk -v what="$1" -v bytes=$DEMO_BYTES -v s="$2" -v sum="$3" 'BEGIN {
		printf "demo: %s: %d bytes in %.2f s (%.1f MiB/s), sha256 %s... the same at both ends\n",
			what, bytes, s, bytes / s / 1048576, substr(sum, 1, 16) }'
}

demo_to_host() {
	local begin took there here
	guest_sh "head -c $DEMO_BYTES /dev/urandom >/tmp/f" || demo_failed "no random file in the guest"
	there=$(guest_sh 'sha256sum /tmp/f' | cut -d' ' -f1)
	timeout 120 socat -d -d -u VSOCK-LISTEN:5000 OPEN:/tmp/f,creat,trunc 2>/tmp/f.log &
	says /tmp/f.log listening || demo_failed "socat in the host does not listen"
	begin=$(date +%s.%N)
	guest_sh 'timeout 120 socat -u OPEN:/tmp/f VSOCK-CONNECT:2:5000' || demo_failed "socat in the guest"
	wait $! || demo_failed "socat in the host"
	took=$(seconds_since "$begin")
	here=$(sha256sum /tmp/f | cut -d' ' -f1)
	[ "$(stat -c %s /tmp/f)" = "$DEMO_BYTES" ] && [ "$there" = "$here" ] ||
		demo_failed "guest to host: sha256 differs ($there, $here)"
	demo_line "file, guest (CID $GUEST_CID) to host (CID 2), socat" "$took" "$here"
	guest_sh 'rm /tmp/f'
	rm /tmp/f
}

demo_to_guest() {
	local begin took there here n
	head -c $DEMO_BYTES /dev/urandom >/tmp/f
	here=$(sha256sum /tmp/f | cut -d' ' -f1)
	guest_sh "$SAYS"'
		(timeout 120 socat -d -d -u VSOCK-LISTEN:5001 OPEN:/tmp/f,creat,trunc; echo $? >/tmp/f.done) >/dev/null 2>/tmp/f.log &
		says /tmp/f.log listening' || demo_failed "socat in the guest does not listen"
	begin=$(date +%s.%N)
	timeout 120 socat -u OPEN:/tmp/f VSOCK-CONNECT:$GUEST_CID:5001 || demo_failed "socat in the host"
	guest_sh 'while [ ! -e /tmp/f.done ]; do sleep 0.05; done; exit $(cat /tmp/f.done)' ||
		demo_failed "socat in the guest"
	took=$(seconds_since "$begin")
	there=$(guest_sh 'sha256sum /tmp/f' | cut -d' ' -f1)
	[ -n "$there" ] && [ "$there" = "$here" ] ||
		demo_failed "host to guest: sha256 differs ($here, $there)"
	demo_line "file, host (CID 2) to guest (CID $GUEST_CID), socat" "$took" "$there"
}

demo_trips() {
	guest_sh "$SAYS"'
		socat -d -d VSOCK-LISTEN:5002 PIPE >/dev/null 2>/tmp/trips.log &
		says /tmp/trips.log listening' || demo_failed "socat in the guest does not listen"
	python3 - "$GUEST_CID" "$DEMO_TRIPS" <<'PY' || demo_failed "round trips"
import os
import socket
import sys
import time

cid, count = int(sys.argv[1]), int(sys.argv[2])
peer = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
peer.settimeout(20)
peer.connect((cid, 5002))
times = []
begin = time.perf_counter()
for _ in range(count):
    message = os.urandom(64)
    start = time.perf_counter()
    peer.sendall(message)
    answer = b""
    while len(answer) < 64:
        part = peer.recv(64 - len(answer))
        if not part:
            sys.exit("the guest closed the connection")
        answer += part
    times.append(time.perf_counter() - start)
    if answer != message:
        sys.exit("the guest answered other bytes")
took = time.perf_counter() - begin
times.sort()
print(f"demo: round trips of 64 bytes, host to guest and back: {count} in {took:.2f} s; "
      f"median {times[count // 2] * 1e6:.0f} us, 99% below {times[count * 99 // 100] * 1e6:.0f} us")
PY
}

demo() {
	local began=$SECONDS
	load_host ours || demo_failed "our modules do not load in the host"
	loaded vhost_vsock || demo_failed "there is no vhost_vsock.ko"
	guest_start ours || demo_failed "the guest did not start"
	echo "demo: host  CID 2, kernel $(uname -r) $(uname -v)"
	demo_versions
	echo "demo: guest CID $GUEST_CID, kernel $(guest_sh 'echo $(uname -r) $(uname -v)')"
	guest_sh '. /lab/demo.sh; demo_versions'
	demo_to_host
	demo_to_guest
	demo_trips
	guest_stop || demo_failed "the guest did not switch off"
	unload_host || demo_failed "the modules do not go away when idle"
	echo "demo: guest switched off, modules unloaded; $((SECONDS - began)) s in the host VM"
}
