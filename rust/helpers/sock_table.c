// SPDX-License-Identifier: GPL-2.0

#include <linux/jhash.h>
#include <linux/random.h>
#include <linux/rculist.h>
#include <net/sock.h>

__rust_helper void rust_vsock_helper_hlist_add_head_rcu(struct hlist_node *node,
							struct hlist_head *head)
{
	hlist_add_head_rcu(node, head);
}

__rust_helper void rust_vsock_helper_hlist_del_rcu(struct hlist_node *node)
{
	hlist_del_rcu(node);
}

__rust_helper u32 rust_vsock_helper_jhash_3words(u32 a, u32 b, u32 c, u32 seed)
{
	return jhash_3words(a, b, c, seed);
}

__rust_helper u32 rust_vsock_helper_random_u32(void)
{
	return get_random_u32();
}
