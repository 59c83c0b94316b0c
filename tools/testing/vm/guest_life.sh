# SPDX-License-Identifier: GPL-2.0
# Sourced: what becomes of the guest's sockets, and of its driver, when the guest
# sleeps, its device is unplugged or unbound, or it moves to another machine with
# another CID. The device is QEMU's, and the host's end is real.

LIFE_CID=$GUEST_CID
LIFE_DRIVER=/sys/bus/virtio/drivers/vmw_vsock_virtio_transport
# Ports: echo and hold take streams, and sequenced packets on the next one.
LIFE_ECHO=7000 LIFE_HOLD=7002 LIFE_GUEST=5000
# A machine that there is not: who connects to it waits.
LIFE_NOBODY=77

# --- the guest -------------------------------------------------------------------

life_device() {
	echo "-device pcie-root-port,id=slot0,chassis=1 -device vhost-vsock-pci,id=vsock,bus=slot0,guest-cid=$1"
}

LIFE_EXTRA="$QMP_EXTRA -global ICH9-LPC.disable_s3=0"

life_start() {	# MODULES
	rm -f $QMP_SOCKET
	GUEST_DEVICE=$(life_device $GUEST_CID) GUEST_EXTRA="$GUEST_EXTRA $LIFE_EXTRA" guest_start "$1" &&
		qmp_open && life_listen
}

life_listen() {
	guest_sh "vsock_peer echo $LIFE_GUEST >/tmp/echo 2>&1 &
		while ! grep -q listening /tmp/echo; do sleep 0.1; done"
}

life_host_peers() {
	vsock_peer echo $LIFE_ECHO >/dev/null 2>&1 &
	LIFE_PEERS=$!
	vsock_peer hold $LIFE_HOLD >/dev/null 2>&1 &
	LIFE_PEERS="$LIFE_PEERS $!"
}

# Until there is a way in both directions.
life_reachable() {
	local n text
	for n in $(seq 40); do
		text=$(vsock_peer try $LIFE_CID $LIFE_GUEST) && break
		sleep 0.2
	done
	[ "$text" = OK ] || { echo "host to guest (CID $LIFE_CID): $text"; return 1; }
	text=$(guest_sh "vsock_peer try 2 $LIFE_ECHO; vsock_peer try 2 $((LIFE_ECHO + 1)) seqpacket; vsock_peer cid")
	[ "$text" = "OK
OK
$LIFE_CID" ] || { echo "guest to host: $text"; return 1; }
}

# life_block: system calls of the guest that wait for the host
life_block() {
	guest_sh "vsock_peer block 2 $LIFE_HOLD $LIFE_NOBODY 7004 ${LIFE_WAIT:-15} >/tmp/block 2>&1 &
		n=0; while ! grep -q ready /tmp/block && [ \$n -lt 200 ]; do sleep 0.1; n=\$((n+1)); done
		grep -q ready /tmp/block"
}

LIFE_RESET='connect ECONNRESET
idle ECONNRESET
poll ECONNRESET
recv ECONNRESET
send ECONNRESET
seqpacket ECONNRESET'

# life_blocked [SECONDS]: all of them must have been told, soon
life_blocked() {
	local text
	text=$(guest_sh "n=0; while ! grep -q done /tmp/block && [ \$n -lt $((${1:-5} * 10)) ]; do sleep 0.1; n=\$((n+1)); done
		grep ' ' /tmp/block | sort")
	[ "$text" = "$LIFE_RESET" ] || { echo "waiting calls ended so:" $text; return 1; }
}

# life_traffic SECONDS: both ways, verified byte by byte
life_traffic() {
	guest_sh "vsock_peer traffic 2 $LIFE_ECHO $1 3 >/tmp/traffic 2>&1 &"
	vsock_peer traffic $LIFE_CID $LIFE_GUEST "$1" 2 >/tmp/traffic 2>&1 &
	LIFE_TRAFFIC=$!
}

life_traffic_good() {
	local text
	text=$(guest_sh 'n=0; while ! grep -q ^traffic /tmp/traffic && [ $n -lt 400 ]; do sleep 0.1; n=$((n+1)); done
		cat /tmp/traffic')
	while kill -0 "$LIFE_TRAFFIC" 2>/dev/null; do sleep 0.1; done
	say "guest: $text" >&3
	say "host: $(cat /tmp/traffic)" >&3
	case $text in
	*' bytes 0 '* | *'damaged '[1-9]*) echo "$text"; return 1 ;;
	*'damaged 0'*) return 0 ;;
	esac
	echo "no result: $text"
	return 1
}

# --- sleep ------------------------------------------------------------------------

# life_sleep: the guest sleeps, and is awake again. QEMU tells of both by events, which may
# come long after the answer to a command.
life_sleep() {
	local n woken=
	QMP_EVENTS=
	guest_sh '(sleep 0.3; echo mem >/sys/power/state; echo "status $?") >/tmp/sleep 2>&1 &'
	for n in $(seq 300); do
		qmp query-status || return 1
		case $QMP_EVENTS in
		*'"SUSPEND"'*'"WAKEUP"'*) guest_agent_wait; return ;;
		*'"SUSPEND"'*) [ -n "$woken" ] || { woken=1; qmp system_wakeup || return 1; } ;;
		esac
		sleep 0.1
	done
	echo "events of QEMU: $QMP_EVENTS; its state: $QMP_ANSWER"
	[ -n "$woken" ] || timeout 20 bash -c '. /lab/vm/lib.sh; guest_sh "cat /tmp/sleep
		grep . /sys/power/suspend_stats/*; dmesg | tail -n 12"'
	if [ -n "$woken" ]; then echo "the guest does not wake up"; else echo "the guest does not go to sleep"; fi
	return 1
}

life_sleep_reset() { life_block && life_sleep && life_blocked; }

# --- unbind, unplug, unload --------------------------------------------------------

life_rebind() {
	guest_sh "d=\$(basename $LIFE_DRIVER/virtio*); echo \$d >$LIFE_DRIVER/unbind; echo \$d >$LIFE_DRIVER/bind
		[ -e $LIFE_DRIVER/\$d ]"
}

life_unplug() {
	local n
	qmp device_del '"id":"vsock"' || return 1
	for n in $(seq 150); do
		qmp qom-list '"path":"/machine/peripheral"' || return 1
		case $QMP_ANSWER in
		*'"vsock"'*) sleep 0.1 ;;
		*) return 0 ;;
		esac
	done
	echo "the guest does not give the device back"
	return 1
}

life_plug() {	# CID
	qmp device_add "\"driver\":\"vhost-vsock-pci\",\"id\":\"vsock\",\"bus\":\"slot0\",\"guest-cid\":$1"
}

life_rebind_reset() { life_block && life_rebind && life_blocked; }
life_rebind_again() { life_rebind && life_reachable; }
life_unplug_reset() { life_block && life_unplug && life_blocked; }

life_no_device() {
	local text
	text=$(guest_sh "vsock_peer try 2 $LIFE_ECHO")
	[ "$text" = 'connect ENODEV' ] || { echo "without a device: $text"; return 1; }
}

life_replug() { life_plug "$LIFE_CID" && life_reachable; }
life_unplug_again() { life_unplug && life_plug "$LIFE_CID" && life_reachable; }

# A socket that was closed keeps the module until its timers ran out.
life_unload() {
	guest_sh 'killall vsock_peer; n=0
		while ! rmmod vmw_vsock_virtio_transport 2>/tmp/rmmod && [ $n -lt 150 ]; do sleep 0.2; n=$((n+1)); done
		[ ! -d /sys/module/vmw_vsock_virtio_transport ] || { cat /tmp/rmmod; exit 1; }'
}

life_load() {
	guest_sh "/lab/guest-insert $1 vmw_vsock_virtio_transport.ko && ls -d $LIFE_DRIVER/virtio*" &&
		life_listen && life_reachable
}

# --- another machine ----------------------------------------------------------------

# The guest's state goes to a file, and a QEMU with another CID goes on from there.
life_move() {
	qmp migrate '"uri":"file:/tmp/state"' && qmp_migrated 60 && qmp quit
}

life_arrive() {	# MODULES: not in a subshell, for GUEST_PID
	wait "$GUEST_PID" 2>/dev/null
	qmp_close
	GUEST_CID=$LIFE_CID GUEST_DEVICE=$(life_device "$LIFE_CID") \
		GUEST_EXTRA="$GUEST_EXTRA $LIFE_EXTRA -incoming file:/tmp/state" \
		guest_qemu "$1" >/lab/out/guest-qemu.log 2>&1 </dev/null &
	GUEST_PID=$!
}

life_arrived() { guest_spread && guest_agent_wait && rm -f /tmp/state && life_blocked; }

# --- all of it -----------------------------------------------------------------------

# guest_life NAME GUEST: the host's modules are loaded already
guest_life() {
	local name=$1 n
	want_group "$name" || return 0
	mark "$name/boot"
	LIFE_CID=$GUEST_CID
	life_host_peers
	if ! life_start "$2"; then
		not_ok "$name/boot" "the guest did not start"
		guest_kill
		kill $LIFE_PEERS
		return 1
	fi
	check "$name/boot" life_reachable
	exec 3>&1

	check "$name/unbind/sockets" life_rebind_reset
	check "$name/unbind/listener" life_reachable
	life_traffic 8
	for n in 1 2 3 4 5; do check "$name/unbind/round-$n" life_rebind_again; done
	check "$name/unbind/traffic" life_traffic_good

	check "$name/unplug/sockets" life_unplug_reset
	check "$name/unplug/no-device" life_no_device
	LIFE_CID=$((GUEST_CID + 1))
	check "$name/unplug/other-cid" life_replug
	life_traffic 8
	for n in 2 3; do
		LIFE_CID=$((GUEST_CID + n))
		check "$name/unplug/round-$n" life_unplug_again
	done
	check "$name/unplug/traffic" life_traffic_good

	if want_group "$name/move"; then
		life_block
		LIFE_CID=$((GUEST_CID + 10))
		if check "$name/move/leave" life_move; then
			life_arrive "$2"
			check "$name/move/sockets" life_arrived
			check "$name/move/listener-other-cid" life_reachable
			qmp_open
		fi
	fi

	check "$name/unload" life_unload
	check "$name/load-again" life_load "$2"
	check "$name/unload-again" life_unload
	# Last, and once: in a guest in a VM that TCG emulates, timers are late after that, for a minute
	# and with the C modules as well.
	step "$name/load-for-sleep" life_load "$2"
	check "$name/sleep/sockets" life_sleep_reset
	check "$name/sleep/listener" life_reachable
	exec 3>&-
	qmp_close
	guest_kill
	kill $LIFE_PEERS
	wait $LIFE_PEERS 2>/dev/null
}
