# SPDX-License-Identifier: GPL-2.0
# Sourced: the programs of tools/testing/api, over loopback, with our modules and,
# where the two are to be equal, with C.

API_PROGRAMS='records unread behaviour sockmap session'
API_COMPARED='behaviour sockmap session'
API_OUT=/lab/out/api

# What session looks through.
api_watch() {
	insert "$KMODS/drivers/net/vsockmon.ko" || return 1
	ip link add vsockmon0 type vsockmon && ip link set vsockmon0 up || return 1
	[ -d /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing
}

api_unwatch() {
	ip link del vsockmon0
	unload vsockmon
}

# api_run PROGRAM ours|c: all that it prints is in $API_OUT
api_run() {
	mkdir -p $API_OUT
	mark "T2/api/$1"
	timeout $((300 * SLOW)) "/lab/api/$1" >"$API_OUT/$1.$2" 2>&1 ||
		echo "not ok T2/api/$1/exit-$2 # status $?"
}

# api_verdicts PROGRAM: its lines for each test, and what was seen if it failed
api_verdicts() {
	awk -v prefix="T2/api/$1/" '
		/^(ok|not ok|skip) / {
			if ($1 == "not") printf "%s", seen
			seen = ""
			verdict = $1 == "not" ? "not ok" : $1
			print verdict " " prefix substr($0, length(verdict) + 2)
			next
		}
		{ seen = seen "#   " $0 "\n" }
		END { printf "%s", seen }' "$API_OUT/$1.ours"
}

group_api() {
	local program
	want_group T2/api || return 0
	ensure_host ours T2/api || return 1
	api_watch || { not_ok T2/api/watch "there is no vsockmon0"; return 1; }
	for program in $API_PROGRAMS; do
		want_group "T2/api/$program" || want_group "T2/api-as-c/$program" || continue
		api_run "$program" ours
		api_verdicts "$program"
	done
	api_unwatch
	check T2/api/nothing-left module_idle vsock_loopback
}

group_api_c() {
	local program
	want_group T2/api-as-c || return 0
	ensure_host c T2/api-as-c || return 1
	api_watch || { not_ok T2/api-as-c/watch "there is no vsockmon0"; return 1; }
	for program in $API_COMPARED; do
		want_group "T2/api-as-c/$program" || continue
		api_run "$program" c
		python3 /lab/vm/same.py "T2/api-as-c/$program" "$program" "$API_OUT/$program.c" \
			"$API_OUT/$program.ours" /lab/api/differences
	done
	api_unwatch
	module_idle vsock_loopback
}
