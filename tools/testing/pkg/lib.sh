# SPDX-License-Identifier: GPL-2.0
# For the scripts of tier PKG: a line per test.

# check NAME COMMAND...: the command succeeds.
check() {
	local name=$1 said
	shift
	if said=$("$@" 2>&1); then
		echo "ok PKG/$stage/$name"
		printf %s "$said" | grep 'modules are used' | sed 's/^/# /'
	else
		echo "not ok PKG/$stage/$name # status $?: $(printf %s "$said" | tail -3 | tr '\n' ' ' | cut -c1-200)"
	fi
}

# same NAME EXPECTED FOUND
same() {
	if [ "$2" = "$3" ]; then
		echo "ok PKG/$stage/$1"
	else
		echo "not ok PKG/$stage/$1 # $(printf '%s instead of %s' "$3" "$2" | tr '\n' ' ' | cut -c1-200)"
	fi
}

# Which stack a module that runs is of: rust, c, or none.
runs() {
	if [ ! -e "/sys/module/$1/initstate" ]; then
		echo none
	elif [ -e "/sys/module/$1/version" ]; then
		echo rust
	else
		echo c
	fi
}

# Which stack modprobe would take.
taken() {
	if modinfo -F version "$1" | grep -q .; then echo rust; else echo c; fi
}

# Programs can talk to their own machine.
loopback() {
	rm -f /tmp/got
	socat -u VSOCK-LISTEN:4711 CREATE:/tmp/got &
	local server=$!
	for _ in $(seq 50); do
		echo over loopback | socat -u - VSOCK-CONNECT:1:4711 2>/dev/null && break
		sleep 0.2
	done
	wait $server
	[ "$(cat /tmp/got)" = 'over loopback' ]
}

# Somebody uses vsock, until `let_go`.
hold() {
	socat VSOCK-LISTEN:4712 - </dev/zero >/dev/null 2>&1 &
	holder=$!
	local n
	for n in $(seq 50); do
		vsockctl_or_ss | grep -q 4712 && break
		sleep 0.2
	done
	socat -u VSOCK-CONNECT:1:4712 - >/dev/null 2>&1 &
	peer=$!
	sleep 2
}

vsockctl_or_ss() {
	if command -v vsockctl >/dev/null; then vsockctl --format text list --sockets; else ss --vsock -a; fi
}

let_go() {
	kill $holder $peer 2>/dev/null
	wait $holder $peer 2>/dev/null
	sleep 1
}

# There is a device that a VMM can open.
device_opens() {
	(exec 3<>/dev/vhost-vsock)
}
