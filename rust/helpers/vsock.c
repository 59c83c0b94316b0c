// SPDX-License-Identifier: GPL-2.0

#include <net/af_vsock.h>
#include <net/sock.h>

__rust_helper bool rust_vsock_helper_vsock_net_check_mode(struct net *a, struct net *b)
{
	return vsock_net_check_mode(a, b);
}

__rust_helper bool rust_vsock_helper_vsock_net_is_global(struct net *net)
{
	return vsock_net_mode(net) == VSOCK_NET_MODE_GLOBAL;
}
