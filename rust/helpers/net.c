// SPDX-License-Identifier: GPL-2.0

#include <linux/nsproxy.h>
#include <linux/sched.h>
#include <net/net_namespace.h>

__rust_helper void rust_vsock_helper_get_net(struct net *net)
{
	get_net(net);
}

__rust_helper void rust_vsock_helper_put_net(struct net *net)
{
	put_net(net);
}

__rust_helper struct net *rust_vsock_helper_current_net(void)
{
	return current->nsproxy->net_ns;
}

__rust_helper unsigned int rust_vsock_helper_net_inum(const struct net *net)
{
	return net->ns.inum;
}

__rust_helper u64 rust_vsock_helper_net_cookie(const struct net *net)
{
	return net->net_cookie;
}
