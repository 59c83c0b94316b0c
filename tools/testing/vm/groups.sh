# SPDX-License-Identifier: GPL-2.0
# Sourced: the groups of tests, each from a known state. LAB_GROUPS names those
# to be run; a line tells where each begins and ends, so that the lab knows in
# which one a host VM died.

. /lab/vm/device.sh
. /lab/vm/life.sh
. /lab/vm/api.sh
. /lab/vm/samples.sh
. /lab/vm/t4.sh
. /lab/vm/vmtest.sh
. /lab/vm/netns.sh
. /lab/vm/qmp.sh
. /lab/vm/vmm.sh
. /lab/vm/guest_life.sh
. /lab/vm/options.sh

# ensure_host ours|c|none: those host modules and no others
HOST_NOW=none
ensure_host() {
	[ "$HOST_NOW" != "$1" ] || return 0
	# Closed sockets go within seconds.
	! loaded vhost_vsock || module_idle vhost_vsock
	! loaded vsock_loopback || module_idle vsock_loopback
	unload_host || { echo "not ok $2/unload # the host's modules ($HOST_NOW) do not go"; return 1; }
	HOST_NOW=none
	load_host "$1" || { echo "not ok $2/load # the host's modules ($1) cannot be loaded"; return 1; }
	HOST_NOW=$1
}

group_life() {
	ensure_host none T2/life && life_tests
}

group_loopback() {
	local program
	want_group T2/loopback || return 0
	ensure_host ours T2/loopback || return 1
	loaded vsock_loopback || { not_ok T2/loopback/load "there is no vsock_loopback.ko"; return 1; }
	for program in vsock_test vsock_diag_test vsock_uring_test; do
		want_group "T2/loopback/$program" && pair T2/loopback $program loopback
	done
}

# t3_programs ours|c: those of the list that are for these modules
t3_programs() {
	local modules name program prefix=T3
	[ "$1" = ours ] || prefix=T3-$1
	want_group $prefix || return 0
	while read -r modules name program; do
		[ "$modules" = "$1" ] && want_group "$prefix/$name" || continue
		ensure_host "$1" $prefix || return 1
		# shellcheck disable=SC2086
		(cd /lab/t3 && own_program "$prefix/$name" ./$program)
	done </lab/t3/list
}

group_t3() { t3_programs ours; }
group_t3_c() { t3_programs c; }

group_ours_ours() { ensure_host ours T4/host-ours-guest-ours && t4_pairing ours ours; }
group_ours_c() { ensure_host ours T4/host-ours-guest-c && t4_pairing ours c; }
group_c_ours() { ensure_host c T4/host-c-guest-ours && t4_pairing c ours; }
group_c_c() { ensure_host c T4/host-c-guest-c && t4_pairing c c; }

group_session() {
	want_group T4/session-as-c || return 0
	t4_session ours c && t4_session c c && t4_session c ours || return 1
	t4_session_compare ours c
	t4_session_compare c ours
}

group_guest_life() { ensure_host ours T4/guest-life-ours && guest_life T4/guest-life-ours ours; }

group_strace_ours() {
	want T4/qemu-ioctls/ours || want T4/qemu-ioctls/same || return 0
	ensure_host ours T4/qemu-ioctls && check T4/qemu-ioctls/ours strace_guest ours
}

group_strace_c() {
	want T4/qemu-ioctls/c || want T4/qemu-ioctls/same || return 0
	ensure_host c T4/qemu-ioctls || return 1
	check T4/qemu-ioctls/c strace_guest c
	check T4/qemu-ioctls/same t4_strace_compare
}

group_options() { ensure_host ours T4/options-host-ours-guest-ours && options_tests ours ours; }
group_options_c() { ensure_host c T4/options-host-c-guest-c && options_tests c c; }
group_iommu() { ensure_host ours T4/iommu-host-ours-guest-ours && iommu_tests ours ours; }
group_migrate() { ensure_host ours T4/migrate-host-ours-guest-c && migrate_tests ours c; }
group_iommu_c() { ensure_host c T4/iommu-host-c-guest-c && iommu_tests c c; }
group_migrate_c() { ensure_host c T4/migrate-host-c-guest-c && migrate_tests c c; }

run_groups() {
	local group begin
	for group in $LAB_GROUPS; do
		begin=$SECONDS
		echo "LAB-GROUP begin $group"
		mark "$group"
		"group_$group"
		echo "LAB-GROUP end $group $((SECONDS - begin))"
	done
	guest_kill
	mark "the end"
	ensure_host none end
}
