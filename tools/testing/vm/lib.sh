# SPDX-License-Identifier: GPL-2.0
# Sourced (bash) by what runs in the host VM: modules, the nested guest, results.

LAB=/lab
OURS=$LAB/modules/ours
KMODS=/lib/modules/$(uname -r)/kernel
AGENT_PORT=2222
CONTROL_PORT=1234
GUEST_CID=${GUEST_CID:-3}
GUEST_LOG=$LAB/out/guest-console.log
export GUEST_CID

# How much slower than Debian's a kernel with all its checks is.
SLOW=1
[ ! -e /sys/kernel/debug/kmemleak ] || SLOW=8

say() { echo "# $*"; }

# mark TEXT: leaves a line in the kernel's log (and the guest's), by which the
# lab tells which test a later complaint of the kernel belongs to.
mark() {
	echo "<4>lab-test: $*" >/dev/kmsg
	if [ -n "$GUEST_PID" ]; then
		echo "lab-test: $*" >>"$GUEST_LOG"
	fi
}

# --- modules -----------------------------------------------------------------

loaded() { [ -d "/sys/module/$1" ]; }

# params FILE: what the user's PARAMS say of it, if it is ours
params() {
	case $1 in
	"$OURS"/*) sed -n "s/^$(basename "$1" .ko)\.//p" $LAB/params ;;
	esac
}

# insert FILE [parameters]: once; these parameters win over the user's
insert() {
	local name file=$1
	shift
	name=$(basename "$file" .ko | tr - _)
	# shellcheck disable=SC2046
	loaded "$name" || insmod "$file" $(params "$file") "$@"
}

insert_ours() {
	local name
	for name in "$@"; do
		# What is not built yet is left out.
		[ -e "$OURS/$name.ko" ] || continue
		insert "$OURS/$name.ko" || { say "cannot load our $name"; return 1; }
	done
}

HOST_OURS='vmw_vsock_virtio_transport_common vsock_loopback vhost_core vhost_vsock'
HOST_C='net/vmw_vsock/vmw_vsock_virtio_transport_common net/vmw_vsock/vsock_loopback
	drivers/vhost/vhost_iotlb drivers/vhost/vhost drivers/vhost/vhost_vsock'

load_kvm() {
	modprobe -q kvm-amd 2>/dev/null || modprobe -q kvm-intel 2>/dev/null
	[ -e /dev/kvm ]
}

# load_host ours|c|none: af_vsock, loopback and /dev/vhost-vsock
load_host() {
	local name
	case $1 in
	none) return 0 ;;
	esac
	insert "$KMODS/net/vmw_vsock/vsock.ko" || return 1
	insert "$KMODS/net/vmw_vsock/vsock_diag.ko" || return 1
	case $1 in
	ours) insert_ours $HOST_OURS || return 1 ;;
	c) for name in $HOST_C; do insert "$KMODS/$name.ko" || return 1; done ;;
	esac
}

# unload NAME...: those that are loaded, in the given order
unload() {
	local name
	for name in "$@"; do
		if loaded "$name"; then rmmod "$name" || return 1; fi
	done
}

# module_idle NAME: waits until no socket and no open device has the module. A closed
# socket whose peer does not answer keeps it for 8 s.
module_idle() {
	local n
	for n in $(seq 120); do
		[ "$(cat "/sys/module/$1/refcnt")" = 0 ] && return 0
		sleep 0.1
	done
	echo "$1 is still used by $(cat "/sys/module/$1/refcnt")"
	return 1
}

unload_host() {
	unload vhost_vsock vhost_core vhost vhost_iotlb vsock_loopback \
		vmw_vsock_virtio_transport vmw_vsock_virtio_transport_common \
		vsock_diag vsock
}

# --- listeners -----------------------------------------------------------------

# says LOG TEXT: until what socat -d -d writes to LOG has that, however slow the machine is. `listening`: a
# client may come; `starting data transfer`: it is connected. SAYS is the same for the guest's shell.
SAYS='says() { n=0; until grep -qs "$2" "$1"; do [ $((n += 1)) -lt 600 ] || return 1; sleep 0.1; done; }'
eval "$SAYS"

# --- the nested guest ---------------------------------------------------------

GUEST_PID=${GUEST_PID:-}
GUEST_HANGS=0
export HOST_BOOT_SECONDS=${HOST_BOOT_SECONDS:-$(cut -d. -f1 /proc/uptime)}
GUEST_LOG_PID=${GUEST_LOG_PID:-}
# A slow machine is no fault of the guest: long watchdogs.
GUEST_APPEND="mitigations=off net.ifnames=0 watchdog_thresh=60
	rcupdate.rcu_cpu_stall_timeout=120 no_timer_check random.trust_cpu=on"

# guest_machine: the first arguments of QEMU for any guest, in MACHINE
guest_machine() {
	local accel=tcg cpu=qemu64
	if [ -e /dev/kvm ]; then
		accel=kvm
		grep -q hypervisor /proc/cpuinfo && ! grep -qw lab.tcg /proc/cmdline || cpu=host
	fi
	MACHINE=(-accel $accel -cpu $cpu -M q35 -m ${GUEST_MEMORY:-512M} -display none -nodefaults -no-reboot
		-name guest,debug-threads=on -global virtio-net-pci.romfile= $GUEST_EXTRA)
}

guest_qemu() {	# MODULES, to be run in the background
	local MACHINE
	guest_machine
	# A CPU of its own for the guest's: one that moves hangs now and then (nested SVM under TCG).
	exec $GUEST_WRAP taskset -c 1 qemu-system-x86_64 "${MACHINE[@]}" \
		-chardev "file,id=log,path=$GUEST_LOG,append=on" -serial chardev:log \
		$GUEST_FIRST ${GUEST_DEVICE:--device vhost-vsock-pci,guest-cid=$GUEST_CID$GUEST_VSOCK} \
		-netdev "user,id=n,hostfwd=tcp:127.0.0.1:$AGENT_PORT-:2222,hostfwd=tcp:127.0.0.1:$CONTROL_PORT-:1234" \
		-device virtio-net-pci,netdev=n \
		-kernel $LAB/vmlinuz -initrd $LAB/guest/initramfs \
		-append "console=ttyS0 panic=-1 loglevel=${GUEST_LOGLEVEL:-7} $GUEST_APPEND lab.modules=$1"
}

# The guest's console: a file per boot here, all of them live on the port lab.guest.
guest_log_begin() {
	local n=1
	while [ -e "$GUEST_LOG.$n" ]; do n=$((n + 1)); done
	[ ! -e "$GUEST_LOG" ] || mv "$GUEST_LOG" "$GUEST_LOG.$n"
	echo "lab: guest starts ($1)" >"$GUEST_LOG"
	if [ -z "$GUEST_LOG_PID" ]; then
		# It outlives what this shell may have open now: the device, for example.
		tail -q -n +1 -F "$GUEST_LOG" >"$LAB_GUESTLOG" 2>/dev/null 9>&- &
		GUEST_LOG_PID=$!
	fi
}

guest_log_has() { grep -qa "$1" "$GUEST_LOG" 2>/dev/null; }

# guest_wait TEXT SECONDS: until the guest's console shows it
guest_wait() {
	local begin=$SECONDS
	while ! guest_log_has "$1"; do
		kill -0 "$GUEST_PID" 2>/dev/null || return 2
		[ $((SECONDS - begin)) -lt "$2" ] || return 1
		sleep 0.2
	done
}

# guest_wait_ready: until READY, as long as the console says something new now and
# then; how long it may be silent depends on how fast this machine boots.
guest_wait_ready() {
	local size last=0 moved=$SECONDS begin=$SECONDS
	local silent=$((25 + 2 * HOST_BOOT_SECONDS))
	while ! guest_log_has LAB-GUEST-READY; do
		kill -0 "$GUEST_PID" 2>/dev/null || return 2
		size=$(stat -c %s "$GUEST_LOG")
		[ "$size" = "$last" ] || moved=$SECONDS
		last=$size
		[ $((SECONDS - moved)) -lt $silent ] || return 1
		[ $((SECONDS - begin)) -lt "${GUEST_READY_SECONDS:-300}" ] || return 1
		sleep 0.2
	done
}

guest_initramfs() {
	[ -e $LAB/guest/initramfs ] || cat $LAB/guest/base $LAB/guest/overlay >$LAB/guest/initramfs
}

# guest_spread: only the guest's own CPU stays where it is. With the worker of vhost-vsock on the
# same one each packet costs two switches, and the time limits of the kernel's tests are too short.
guest_spread() {
	local thread
	for thread in /proc/$GUEST_PID/task/*; do
		case $(cat "$thread/comm" 2>/dev/null) in
		CPU* | '') ;;
		*) taskset -pc 0-1 "${thread##*/}" >/dev/null 2>&1 || [ ! -e "$thread" ] || return 1 ;;
		esac
	done
}

# guest_start ours|c: boots the guest and loads its side. A hang before READY
# (no module of anybody is loaded yet) is the lab's: only that is tried again.
guest_start() {
	local try
	load_kvm || say "no /dev/kvm in the host VM: the guest runs under TCG"
	guest_initramfs
	for try in 1 2 3 4 5; do
		guest_log_begin "$1"
		guest_qemu "$1" >$LAB/out/guest-qemu.log 2>&1 </dev/null &
		GUEST_PID=$!
		${GUEST_HOOK:-:}
		if guest_wait_ready; then
			if guest_spread && guest_wait LAB-GUEST-LOADED 90 && guest_agent_wait; then
				return 0
			fi
			say "the guest did not load its modules ($1):"
			tail -n 20 "$GUEST_LOG" | sed 's/^/#   /'
			guest_kill
			return 1
		fi
		if ! kill -0 $GUEST_PID 2>/dev/null; then
			say "QEMU of the guest stopped:"
			sed 's/^/#   /' $LAB/out/guest-qemu.log
			tail -n 5 "$GUEST_LOG" | sed 's/^/#   /'
			GUEST_PID=
			return 1
		fi
		GUEST_HANGS=$((GUEST_HANGS + 1))
		echo "LAB-GUEST-HANG $GUEST_HANGS"
		guest_kill
	done
	say "the guest hung before READY $try times"
	return 1
}

guest_kill() {
	[ -n "$GUEST_PID" ] || return 0
	pkill -KILL -P "$GUEST_PID" 2>/dev/null
	kill -KILL "$GUEST_PID" 2>/dev/null
	wait "$GUEST_PID" 2>/dev/null
	GUEST_PID=
}

# guest_sh COMMAND: runs in the guest; output and status come back. GUEST_NET is
# what runs a program where QEMU listens, if that is another network namespace.
guest_sh() {
	printf '%s\n' "$1" | $GUEST_NET socat -t 1800 - TCP:127.0.0.1:$AGENT_PORT 2>/dev/null | {
		local line last=
		while IFS= read -r line || [ -n "$line" ]; do
			case $line in
			LAB-RC=*) last=${line#LAB-RC=} ;;
			*) printf '%s\n' "$line" ;;
			esac
		done
		return "${last:-255}"
	}
}

guest_agent_wait() {
	local n
	for n in $(seq 100); do
		guest_sh true && return 0
		sleep 0.2
	done
	say "the guest's agent does not answer"
	return 1
}

# guest_stop: asks the guest to switch off; fails when it must be killed
guest_stop() {
	local n
	[ -n "$GUEST_PID" ] || return 0
	guest_sh 'dmesg -r | grep -c . ; poweroff -f &' >/dev/null
	for n in $(seq 100); do
		if ! kill -0 "$GUEST_PID" 2>/dev/null; then
			wait "$GUEST_PID"
			GUEST_PID=
			sleep 0.3
			return 0
		fi
		sleep 0.2
	done
	say "the guest did not switch off"
	guest_kill
	return 1
}

interactive_shell() {
	export GUEST_PID GUEST_LOG_PID
	stty -F "$LAB_TTY" sane rows "${LINES:-40}" cols "${COLUMNS:-120}" 2>/dev/null
	echo "host VM: $(uname -r); guest: CID $GUEST_CID; guest_sh COMMAND runs in it; exit ends both"
	cd /lab || exit 1
	setsid -c bash --rcfile /lab/vm/lib.sh -i <"$LAB_TTY" >"$LAB_TTY" 2>&1
	guest_stop
}

# --- results -------------------------------------------------------------------
# One line per test on standard output: `ok NAME`, `not ok NAME # why`, `skip NAME # why`.

# want NAME: does the user's TESTS ask for it?
want() {
	# shellcheck disable=SC2254
	case $1 in
	*${LAB_TESTS:-}*) return 0 ;;
	esac
	return 1
}

# want_group PREFIX: could a test whose name begins so be asked for?
want_group() {
	local literal=${LAB_TESTS%%[*?[]*}
	[ -n "$literal" ] || return 0
	case $1 in *"$literal"*) return 0 ;; esac
	case $literal in *"$1"*) return 0 ;; esac
	# Other text may be in the rest of the name, unless it names another group.
	case $literal in
	T[0-9]* | *qemu-ioctls* | *life* | *loopback* | *api/* | *host-*-guest-* | *vmtest* | *netns* | \
	*session-as-c* | *samples* | *options* | *iommu* | *migrate*) return 1 ;;
	esac
	return 0
}

ok() { echo "ok $1"; }
not_ok() { echo "not ok $1 # $2"; }

# check NAME COMMAND...: a test that is one command; its output is shown if it fails
check() {
	local name=$1 output
	shift
	want "$name" || return 0
	mark "$name"
	if output=$("$@" 2>&1); then
		ok "$name"
	else
		check_failed "$name" "$output"
	fi
}

check_failed() {
	not_ok "$1" "$(printf '%s' "$2" | tail -n 1)"
	printf '%s\n' "$2" | tail -n 12 | sed 's/^/#   /'
	return 1
}

# step NAME COMMAND...: the same for one that others depend on. It always runs, and
# in this shell: what it starts and sets stays.
step() {
	local name=$1
	shift
	mark "$name"
	if "$@" >/tmp/step.out 2>&1; then
		! want "$name" || ok "$name"
	else
		check_failed "$name" "$(cat /tmp/step.out)"
	fi
}

# own_program NAME COMMAND...: runs one that prints such lines itself, without NAME/
own_program() {
	local name=$1 status
	shift
	mark "$name"
	# A case that hangs is ended by the program: this is for a program that does. It takes three minutes
	# where there is nothing else to do.
	LAB_T3=$name timeout $((RING_FULL ? 7200 : 1800 * SLOW)) "$@" >/tmp/own_program.out 2>&1
	status=$?
	sed -E "s#^(ok|not ok|skip) +([0-9]+ +)?(- +)?#\\1 $name/#; t; s/^(# )?/# /" /tmp/own_program.out
	if [ $status = 0 ]; then ok "$name/exit"; else not_ok "$name/exit" "status $status"; fi
}

pair() { python3 /lab/vm/pair.py "$@"; }
