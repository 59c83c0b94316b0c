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

# KUnit suites of our modules run when the modules are loaded.
group_debug_kunit() {
	local suite results=/sys/kernel/debug/kunit seen=
	ensure_host ours T1/kunit || return 1
	for suite in "$results"/*/; do
		[ -r "${suite}results" ] || continue
		seen=1
		sed -nE 's/^ +(not )?ok [0-9]+ ([^ ]+)( # .*)?$/\1ok T1\/kunit\/'"$(basename "$suite")"'\/\2/p' \
			"${suite}results"
	done
	[ -n "$seen" ] || echo "skip T1/kunit # our modules have no KUnit suite"
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
