// SPDX-License-Identifier: GPL-2.0

#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mmzone.h>
#include <linux/pagemap.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/unaligned.h>

__rust_helper void rust_vsock_helper_mmu_interval_set_seq(struct mmu_interval_notifier *sub,
							  unsigned long seq)
{
	mmu_interval_set_seq(sub, seq);
}

__rust_helper bool rust_vsock_helper_mmu_interval_read_retry(struct mmu_interval_notifier *sub,
							     unsigned long seq)
{
	return mmu_interval_read_retry(sub, seq);
}

#define WINDOW_PAGES	16

/*
 * Only memory that belongs to processes and can always be dirty: a page of a file would have to be
 * made dirty by its file system. A page that user space gave up (MADV_FREE) is not swap-backed: it
 * is taken when that is over.
 */
static __always_inline bool window_page_ok(struct page *page)
{
	struct folio *folio = page_folio(page);

	if (PageHighMem(page) || folio_is_zone_device(folio))
		return false;
	return folio_test_hugetlb(folio) || folio_test_swapbacked(folio);
}

/*
 * Where the kernel has up to WINDOW_PAGES pages of the current process, from `start` on, that it
 * may write: no fault is taken, so this does not sleep, and gets only what is mapped. The result is
 * how many there are; an address is NULL for a page that is not to be used. No reference is kept:
 * the caller has a notifier.
 *
 * The pages are dirty from now on. Whatever makes them clean unmaps or protects them first, which
 * the notifier says.
 */
__rust_helper unsigned int rust_vsock_helper_current_pages(unsigned long start, unsigned int count,
							   void **addresses)
{
	unsigned long untagged = untagged_addr(start);
	struct page *pages[WINDOW_PAGES];
	int i, got;

	/* The notifier and the page tables know nothing of tags. */
	if (IS_ENABLED(CONFIG_ARCH_HAS_CPU_CACHE_ALIASING) || untagged != start)
		return 0;
	count = min(count, (unsigned int)WINDOW_PAGES);
	got = get_user_pages_fast_only(start, count, FOLL_WRITE, pages);
	if (got <= 0)
		return 0;
	for (i = 0; i < got; i++) {
		bool ok = window_page_ok(pages[i]);

		addresses[i] = ok ? page_address(pages[i]) : NULL;
		if (ok && !PageDirty(pages[i]))
			set_page_dirty(pages[i]);
		put_page(pages[i]);
	}
	return got;
}

#define window_part(type, to, from, offset)					\
	put_unaligned(get_unaligned((const type *)((from) + (offset))), (type *)((to) + (offset)))

/* From this length on, the kernel's copy is faster than one by the words. */
#define WINDOW_PARTS_MAX	256

/*
 * Between memory of the kernel and a window, which others change at any time. A few bytes, such as
 * the entries of a ring, are one call.
 */
__rust_helper void rust_vsock_helper_window_copy(void *to, const void *from, unsigned long len)
{
	if (!IS_ENABLED(CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS) || len >= WINDOW_PARTS_MAX) {
		memcpy(to, from, len);
		return;
	}
	for (; len >= 4 * sizeof(u64); len -= 4 * sizeof(u64)) {
		window_part(u64, to, from, 0);
		window_part(u64, to, from, 8);
		window_part(u64, to, from, 16);
		window_part(u64, to, from, 24);
		to += 4 * sizeof(u64);
		from += 4 * sizeof(u64);
	}
	for (; len >= sizeof(u64); len -= sizeof(u64)) {
		window_part(u64, to, from, 0);
		to += sizeof(u64);
		from += sizeof(u64);
	}
	if (len & sizeof(u32)) {
		window_part(u32, to, from, 0);
		to += sizeof(u32);
		from += sizeof(u32);
	}
	if (len & sizeof(u16)) {
		window_part(u16, to, from, 0);
		to += sizeof(u16);
		from += sizeof(u16);
	}
	if (len & sizeof(u8))
		window_part(u8, to, from, 0);
}

/* As copy_from_iter(), but memory of a user that is not there is the end. */
__rust_helper unsigned long rust_vsock_helper_copy_from_iter_nofault(void *to, unsigned long len,
								     struct iov_iter *iter)
{
	unsigned long copied;

	pagefault_disable();
	copied = _copy_from_iter(to, len, iter);
	pagefault_enable();
	return copied;
}
