// SPDX-License-Identifier: GPL-2.0

#include <linux/mm.h>
#include <linux/skbuff.h>
#include <linux/uio.h>
#include <net/sock.h>

/* A function of the kernel only where somebody may trace it. */
#ifndef CONFIG_TRACEPOINTS
__rust_helper void rust_vsock_helper_consume_skb(struct sk_buff *skb)
{
	consume_skb(skb);
}
#endif

__rust_helper void rust_vsock_helper_skb_orphan(struct sk_buff *skb)
{
	skb_orphan(skb);
}

__rust_helper void rust_vsock_helper_skb_reserve(struct sk_buff *skb, int len)
{
	skb_reserve(skb, len);
}

/* Refers to a socket without a charge: skb_set_owner_sk_safe() for who knows that it is alive. */
__rust_helper void rust_vsock_helper_skb_set_owner_sk(struct sk_buff *skb, struct sock *sk)
{
	skb_orphan(skb);
	sock_hold(sk);
	skb->destructor = sock_efree;
	skb->sk = sk;
}

/* Moves an owner, and with it the charge, from one buffer to another: for an answer. */
__rust_helper void rust_vsock_helper_skb_copy_owner_w(struct sk_buff *to, const struct sk_buff *from)
{
	if (from->sk)
		skb_set_owner_w(to, from->sk);
}

__rust_helper void rust_vsock_helper_skb_zcopy_set(struct sk_buff *skb, struct ubuf_info *uarg)
{
	skb_zcopy_set(skb, uarg, NULL);
}

__rust_helper void rust_vsock_helper_net_zcopy_put(struct ubuf_info *uarg)
{
	net_zcopy_put(uarg);
}

__rust_helper void rust_vsock_helper_net_zcopy_put_abort(struct ubuf_info *uarg, bool have_uref)
{
	net_zcopy_put_abort(uarg, have_uref);
}

__rust_helper void rust_vsock_helper_zerocopy_set_copied(struct ubuf_info *uarg)
{
	uarg_to_msgzc(uarg)->zerocopy = 0;
}

/* Returns whether the first bytes of the payload could be dropped. */
__rust_helper bool rust_vsock_helper_pskb_pull(struct sk_buff *skb, unsigned int len)
{
	return pskb_pull(skb, len);
}

/*
 * A compound page of zeroes, which others may have as well. Not of the reserves: it is kept. For more
 * than one page nobody reclaims: there are smaller ones.
 */
__rust_helper void *rust_vsock_helper_block_alloc(unsigned int order, gfp_t gfp)
{
	struct page *page;

	if (order)
		gfp = (gfp & ~__GFP_DIRECT_RECLAIM) | __GFP_COMP | __GFP_NORETRY;
	page = alloc_pages(gfp | __GFP_ZERO | __GFP_NOWARN | __GFP_NOMEMALLOC, order);
	return page ? page_address(page) : NULL;
}

__rust_helper void rust_vsock_helper_block_get(void *block)
{
	get_page(virt_to_page(block));
}

__rust_helper void rust_vsock_helper_block_put(void *block)
{
	put_page(virt_to_page(block));
}

/* Whether nobody else has the block. If so, all that others did with it is done. */
__rust_helper bool rust_vsock_helper_block_is_alone(void *block)
{
	if (page_ref_count(virt_to_page(block)) != 1)
		return false;
	/* Pairs with put_page() of the others. */
	smp_acquire__after_ctrl_dep();
	return true;
}

/* The buffer gets a reference to the block of @size bytes. Nobody writes to a shared fragment. */
__rust_helper void rust_vsock_helper_skb_add_block(struct sk_buff *skb, void *block, unsigned int offset,
						   unsigned int len, unsigned int size)
{
	struct page *page = virt_to_page(block);

	get_page(page);
	skb_add_rx_frag(skb, 0, page, offset, len, size);
	skb_shinfo(skb)->flags |= SKBFL_SHARED_FRAG;
}

/* Where all bytes of the fragments are, if that is one piece. */
__rust_helper void *rust_vsock_helper_skb_only_frag(const struct sk_buff *skb)
{
	const struct skb_shared_info *shinfo = skb_shinfo(skb);

	if (shinfo->nr_frags != 1 || shinfo->frag_list || skb_frag_size(&shinfo->frags[0]) != skb->data_len)
		return NULL;
	return skb_frag_address_safe(&shinfo->frags[0]);
}

__rust_helper bool rust_vsock_helper_copy_from_iter_full(void *to, size_t len, struct iov_iter *from)
{
	return copy_from_iter_full(to, len, from);
}
