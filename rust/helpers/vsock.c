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

/*
 * Takes a reference to each connected socket of a transport, at most `cap` of them, and returns
 * how many there are: vsock_for_each_connected_socket() passes no context to its callback.
 */
__rust_helper size_t rust_vsock_helper_collect_connected(const struct vsock_transport *transport,
							 struct vsock_sock **socks, size_t cap)
{
	struct vsock_sock *vsk;
	size_t count = 0;
	int i;

	spin_lock_bh(&vsock_table_lock);
	for (i = 0; i < VSOCK_HASH_SIZE; i++) {
		list_for_each_entry(vsk, &vsock_connected_table[i], connected_table) {
			if (vsk->transport != transport)
				continue;
			if (count < cap) {
				sock_hold(sk_vsock(vsk));
				socks[count] = vsk;
			}
			count++;
		}
	}
	spin_unlock_bh(&vsock_table_lock);
	return count;
}
