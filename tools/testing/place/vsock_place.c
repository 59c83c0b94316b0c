// SPDX-License-Identifier: GPL-2.0
/*
 * Takes the place of vsock transports, and carries nothing: what ours say and do
 * if somebody else was there first. `kinds` is a sum of VSOCK_TRANSPORT_F_*.
 */
#include <linux/module.h>
#include <net/af_vsock.h>

static unsigned int kinds;
module_param(kinds, uint, 0444);

static int place_init_sock(struct vsock_sock *vsk, struct vsock_sock *psk)
{
	return 0;
}

static void place_destruct(struct vsock_sock *vsk)
{
}

/* The socket is in a table of the core's from the beginning on. */
static void place_release(struct vsock_sock *vsk)
{
	vsock_remove_sock(vsk);
}

static int place_connect(struct vsock_sock *vsk)
{
	return -ENETUNREACH;
}

static u32 place_local_cid(void)
{
	return kinds & VSOCK_TRANSPORT_F_H2G ? VMADDR_CID_HOST : VMADDR_CID_ANY;
}

static struct vsock_transport place = {
	.module = THIS_MODULE,
	.init = place_init_sock,
	.destruct = place_destruct,
	.release = place_release,
	.connect = place_connect,
	.get_local_cid = place_local_cid,
};

static int __init place_init(void)
{
	return vsock_core_register(&place, kinds);
}

static void __exit place_exit(void)
{
	vsock_core_unregister(&place);
}

module_init(place_init);
module_exit(place_exit);
MODULE_DESCRIPTION("Takes the place of vsock transports");
MODULE_LICENSE("GPL");
