# SPDX-License-Identifier: GPL-2.0
# Sourced after groups.sh: the groups on the debug kernel. After each one the
# kernel looks for leaked memory, while the modules are still loaded (their
# names are lost with them), and once more when they are gone.

KMEMLEAK=/sys/kernel/debug/kmemleak
# Frames of ours and of the core that our code gives references to. An address
# without a name is of a module that went: those were ours.
LEAK_FRAMES='vsock|vhost|virtio_transport|kernel_ext|vring|\] 0x[0-9a-f]+$'

# leaks NAME: fails if something is lost that was allocated by our code
leaks() {
	local file=/lab/out/kmemleak.${1//\//-} found
	[ -w "$KMEMLEAK" ] || { echo "there is no kmemleak"; return 1; }
	sleep 6			# younger objects are not reported
	echo scan >"$KMEMLEAK"
	echo scan >"$KMEMLEAK"
	cat "$KMEMLEAK" >"$file"
	echo clear >"$KMEMLEAK"
	found=$(grep -E '^    \[<' "$file" | grep -cE "$LEAK_FRAMES")
	if [ "$found" != 0 ]; then
		head -n 60 "$file"
		echo "$(grep -c '^unreferenced' "$file") objects are lost; see out/${file##*/}"
		return 1
	fi
	[ -s "$file" ] || rm -f "$file"
}

# Loads and unloads everything a few times.
group_debug_life() {
	local n
	ensure_host none T2/life || return 1
	insert "$KMODS/net/vmw_vsock/vsock.ko"
	for n in 1 2 3; do
		check "T2/life/cycle-$n" life_cycle || return 1
	done
}

# The KUnit suites of our modules, which are there when the modules are; a line of
# /lab/kunit names each one in the tree.
group_debug_kunit() {
	local suite place
	want_group T1/kunit || return 0
	ensure_host ours T1/kunit || return 1
	# That of the guest has suites, too, and no device here.
	insert_ours vmw_vsock_virtio_transport || return 1
	while read -r suite; do
		want_group "T1/kunit/$suite" || continue
		place=/sys/kernel/debug/kunit/$suite
		mark "T1/kunit/$suite"
		if ! echo run >"$place/run" || ! grep -q "Subtest: $suite" "$place/results"; then
			not_ok "T1/kunit/$suite" "our modules have no such suite"
			continue
		fi
		sed -nE "s#^ +(not )?ok [0-9]+ ([^ ]+)#\\1ok T1/kunit/$suite/\\2#p" "$place/results"
		if grep -q 'not ok' "$place/results"; then
			sed 's/^ *#*/#  /' "$place/results"
		fi
	done </lab/kunit
	unload vmw_vsock_virtio_transport
}

run_debug_groups() {
	local group begin
	echo clear >"$KMEMLEAK"
	for group in $LAB_GROUPS; do
		begin=$SECONDS
		echo "LAB-GROUP begin $group"
		mark "$group"
		"group_$group"
		guest_kill
		check "$group/kmemleak" leaks "$group"
		check "$group/lockdep-still-on" lockdep_on
		echo "LAB-GROUP end $group $((SECONDS - begin))"
	done
	mark "end"
	ensure_host none end
	check end/kmemleak leaks end
}

# After its first report lockdep switches itself off: what follows proves nothing.
lockdep_on() {
	grep -qE '^ *debug_locks: +1' /proc/lockdep_stats || { echo "lockdep is off"; return 1; }
}
