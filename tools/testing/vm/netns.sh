# SPDX-License-Identifier: GPL-2.0
# Sourced: network namespaces over loopback, and a guest in a local one. (Two tests
# of vmtest.sh about such a guest cannot fail: the shell at the other end of ssh
# runs `bash -c echo TEST | socat`, which sends an empty line, and they only look
# whether "TEST" came.)

NETNS_PORT=7000

group_netns() {
	want_group T2/netns || return 0
	ensure_host ours T2/netns && python3 /lab/vm/netns.py T2/netns
}

# lab-guest and lab-other are local, lab-global is not.
netns_make() {
	ip netns add lab-parent &&
		echo local | ip netns exec lab-parent tee /proc/sys/net/vsock/child_ns_mode >/dev/null &&
		nsenter --net=/run/netns/lab-parent ip netns add lab-guest &&
		nsenter --net=/run/netns/lab-parent ip netns add lab-other &&
		ip netns add lab-global && ip -n lab-guest link set lo up
}

netns_remove() {
	local name
	for name in lab-guest lab-other lab-global lab-parent; do
		ip netns del "$name" 2>/dev/null
	done
}

# guest_calls NAMESPACE ANSWER: the guest calls a listener there: `TEST` comes, or an error
guest_calls() {
	local pid said got=/tmp/netns.got
	: >$got
	ip netns exec "$1" timeout 60 socat -d -d -u VSOCK-LISTEN:$NETNS_PORT OPEN:$got,append 2>$got.log &
	pid=$!
	says $got.log listening || { cat $got.log; return 1; }
	said=$(guest_sh "echo TEST | timeout 30 socat -u STDIN VSOCK-CONNECT:2:$NETNS_PORT 2>&1")
	if [ "$2" = TEST ]; then
		wait $pid || { echo "the listener failed"; return 1; }
		[ "$(cat $got)" = TEST ] || { echo "came: '$(cat $got)', the guest says: '$said'"; return 1; }
		return 0
	fi
	kill $pid
	wait $pid
	[ ! -s $got ] || { echo "came: '$(cat $got)'"; return 1; }
	case $said in *"$2"*) ;; *) echo "the guest says: '$said'"; return 1 ;; esac
}

# host_calls NAMESPACE ANSWER: the other way; the guest's listener takes one call
host_calls() {
	local said
	said=$(echo TEST | ip netns exec "$1" timeout 30 socat -u STDIN \
		VSOCK-CONNECT:$GUEST_CID:$NETNS_PORT 2>&1)
	if [ "$2" = TEST ]; then
		guest_sh "timeout 30 sh -c 'until grep -qx TEST /tmp/got; do sleep 0.2; done'" ||
			{ echo "came: '$(guest_sh 'cat /tmp/got')', the caller says: '$said'"; return 1; }
		return 0
	fi
	[ -z "$(guest_sh 'cat /tmp/got')" ] || { echo "something came"; return 1; }
	case $said in *"$2"*) ;; *) echo "the caller says: '$said'"; return 1 ;; esac
}

group_netns_guest() {
	local name=T4/netns GUEST_NET='ip netns exec lab-guest' GUEST_WRAP='ip netns exec lab-guest'
	want_group $name || return 0
	ensure_host ours $name || return 1
	check $name/make netns_make || return 1
	mark $name/boot
	if ! guest_start ours; then
		not_ok $name/boot "the guest did not start"
	else
		check $name/guest-to-same-local guest_calls lab-guest TEST
		check $name/guest-to-other-local guest_calls lab-other 'Connection reset by peer'
		check $name/guest-to-global guest_calls lab-global 'Connection reset by peer'
		guest_sh "$SAYS; : >/tmp/got
			timeout 120 socat -d -d -u VSOCK-LISTEN:$NETNS_PORT OPEN:/tmp/got,append >/dev/null 2>/tmp/got.log &
			says /tmp/got.log listening"
		check $name/other-local-to-guest host_calls lab-other 'No such device'
		check $name/global-to-guest host_calls lab-global 'No such device'
		check $name/same-local-to-guest host_calls lab-guest TEST
		check $name/switch-off guest_stop
	fi
	guest_kill
	netns_remove
}
