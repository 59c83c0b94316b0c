# SPDX-License-Identifier: GPL-2.0
# Sourced: the programs of tools/testing/api, over loopback, with our modules.

API_PROGRAMS='records unread'

# api_run PROGRAM ours: its verdicts as tests; all that it prints is in out/api
api_run() {
	local out=/lab/out/api/$1.$2 status
	mkdir -p /lab/out/api
	mark "T2/api/$1"
	timeout 300 "/lab/api/$1" >"$out" 2>&1
	status=$?
	[ $status = 0 ] || echo "not ok T2/api/$1/exit # status $status"
	# What a test saw, if it failed.
	awk -v prefix="T2/api/$1/" '
		/^(ok|not ok|skip) / {
			if ($1 == "not") printf "%s", seen
			seen = ""
			verdict = $1 == "not" ? "not ok" : $1
			print verdict " " prefix substr($0, length(verdict) + 2)
			next
		}
		{ seen = seen "#   " $0 "\n" }
		END { printf "%s", seen }' "$out"
}

group_api() {
	local program
	want_group T2/api || return 0
	ensure_host ours T2/api || return 1
	for program in $API_PROGRAMS; do
		want_group "T2/api/$program" && api_run "$program" ours
	done
}
