# SPDX-License-Identifier: GPL-2.0
# Sourced: the kernel's tools/testing/selftests/vsock/vmtest.sh, unmodified, with
# the lab's guest in the place of virtme-ng's.

VMTEST=$LAB/vmtest
VMTEST_DIR=$VMTEST/tree/tools/testing/selftests/vsock
export LAB_VMTEST_RUN=/run/lab-vmtest LAB_VMTEST_CURRENT=/run/lab-vmtest.test
export LAB_VMTEST_CONSOLE=$GUEST_LOG

vmtest_install() {
	[ ! -e /usr/bin/ssh ] || return 0
	tar -xf $VMTEST/host.tar -C / || return 1
	mkdir -p "$VMTEST/bin" $LAB_VMTEST_RUN
	ln -sf $LAB/vm/vmtest/{vng,socat} $VMTEST/bin/
	ln -sf $LAB/bin/vsock_test $VMTEST_DIR/vsock_test
	guest_initramfs
	load_kvm || say "no /dev/kvm in the host VM: the guest runs under TCG"
}

vmtest_all() { bash $VMTEST_DIR/vmtest.sh -h | sed -n 's/^\t\([a-z0-9_]*\) .*/\1/p'; }

# vmtest_follow NAME FILE PID: verdicts as they come, with the time of each test
vmtest_follow() {
	local line begin=$SECONDS number text
	tail -n +1 -f -s 0.2 --pid="$3" "$2" 2>/dev/null | while IFS= read -r line; do
		case $line in
		"host:  Executing test_"*)
			# Level 3: the script counts warnings with `vsock` in them.
			echo "$1/${line##*test_}" >$LAB_VMTEST_CURRENT
			echo "<3>lab-test: $1/${line##*test_}" >/dev/kmsg
			;;
		LAB-GUEST-HANG*) echo "$line" ;;
		"ok "[0-9]* | "not ok "[0-9]*)
			number=${line#*ok }
			text=${number#* }
			echo "${line%%ok *}ok $1/$text"
			echo "#   $((SECONDS - begin)) s"
			begin=$SECONDS
			;;
		esac
	done
}

# A script that dies leaves its guests: it forgets their pid files.
vmtest_guests_left() {
	local file n
	for file in "$LAB_VMTEST_RUN"/*; do
		[ -e "$file" ] || continue
		say "a guest of vmtest.sh was left"
		kill "$(cat "$file")" 2>/dev/null
	done
	for n in $(seq 50); do
		[ -n "$(ls "$LAB_VMTEST_RUN")" ] || return 0
		sleep 0.2
	done
}

# vmtest NAME HOST GUEST TEST...: host modules (ours|c) are loaded already
vmtest() {
	local name=$1 out=$LAB/out/vmtest.log pid test status
	export LAB_VMTEST_GUEST=$2 GUEST_EXTRA HOST_BOOT_SECONDS
	shift 2
	vmtest_install || { not_ok "$name/install" "cannot unpack what the script needs"; return 1; }
	guest_log_begin vmtest
	echo "$name/vm" >$LAB_VMTEST_CURRENT
	# By a pipe: the script opens /dev/stdout anew, which would empty a file.
	rm -f /tmp/vmtest.pipe && mkfifo /tmp/vmtest.pipe
	: >"$out"
	cat </tmp/vmtest.pipe >"$out" &
	USER=root PATH=$VMTEST/bin:$PATH bash $VMTEST_DIR/vmtest.sh -v "$@" \
		>/tmp/vmtest.pipe 2>&1 </dev/null &
	pid=$!
	vmtest_follow "$name" "$out" $pid | tee /tmp/vmtest.verdicts
	wait $pid
	status=$?
	for test in "$@"; do
		grep -qE "^(not )?ok $name/$test( |\$)" /tmp/vmtest.verdicts ||
			not_ok "$name/$test" "the script ended before it"
	done
	if [ $status != 0 ]; then
		not_ok "$name/exit" "status $status"
		tail -n 30 "$out" | sed 's/^/#   /'
	fi
	vmtest_guests_left
	sleep 1		# for the guests' consoles to reach the lab
}

# In a run of everything: those that boot no guest. TESTS=vmtest runs all.
vmtest_short() {
	case $1 in
	ns_host_* | ns_*_loopback_*) ;;
	*) return 1 ;;
	esac
}

group_vmtest() {
	local name=T4/vmtest tests=() test
	want_group $name || return 0
	for test in $(vmtest_all); do
		want "$name/$test" || continue
		case ${LAB_TESTS:-} in
		*vmtest* | *ns_* | *vm_*) ;;
		*) vmtest_short "$test" || continue ;;
		esac
		tests+=("$test")
	done
	[ ${#tests[@]} != 0 ] || return 0
	ensure_host ours $name && vmtest $name ours "${tests[@]}"
}
