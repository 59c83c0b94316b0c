# SPDX-License-Identifier: GPL-2.0
# Sourced: talks to the monitor of the guest's QEMU.

QMP_SOCKET=${QMP_SOCKET:-/tmp/qmp}
# What QEMU is started with, so that there is a monitor.
QMP_EXTRA="-qmp unix:$QMP_SOCKET,server=on,wait=off"

# Waits for a QEMU that was just started.
qmp_open() {
	local n
	for n in $(seq 50); do
		[ -S $QMP_SOCKET ] && break
		sleep 0.1
	done
	# Of its own, for functions that run in a subshell use it as well.
	coproc QMP { exec socat - UNIX-CONNECT:$QMP_SOCKET; }
	exec 7<&"${QMP[0]}" 8>&"${QMP[1]}"
	qmp qmp_capabilities
}

qmp_close() {
	exec 7<&- 8>&-
	if [ -n "$QMP_PID" ]; then
		kill "$QMP_PID" 2>/dev/null
		wait "$QMP_PID" 2>/dev/null
	fi
	rm -f $QMP_SOCKET
}

# qmp COMMAND [MEMBERS]: the answer is in QMP_ANSWER, events before it in QMP_EVENTS
qmp() {
	local line
	QMP_ANSWER=
	printf '{"execute":"%s","arguments":{%s}}\n' "$1" "$2" >&8
	while IFS= read -r -t 60 line <&7; do
		case $line in
		*'"return"'*) QMP_ANSWER=$line; return 0 ;;
		*'"error"'*) echo "QEMU: $1: $line"; return 1 ;;
		*'"event"'*) QMP_EVENTS="$QMP_EVENTS $line" ;;
		esac
	done
	echo "QEMU does not answer to $1"
	return 1
}

# qmp_migrated SECONDS: until a migration, in or out, is complete
qmp_migrated() {
	local begin=$SECONDS
	while [ $((SECONDS - begin)) -lt "$1" ]; do
		qmp query-migrate || return 1
		case $QMP_ANSWER in
		*'"status": "completed"'*) return 0 ;;
		*'"status": "failed"'* | *'"status": "cancelled"'*) echo "$QMP_ANSWER"; return 1 ;;
		esac
		sleep 0.2
	done
	echo "the migration did not end within $1 s: $QMP_ANSWER"
	return 1
}
