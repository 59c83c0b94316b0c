// SPDX-License-Identifier: GPL-2.0

#include <linux/futex.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/unaligned.h>
#include <asm/futex.h>

/* A single, aligned load: unlike copy_from_user(), it cannot be torn. */
__rust_helper int rust_vsock_helper_get_user_u16(u16 *val, const u16 __user *ptr)
{
	return get_user(*val, ptr);
}

__rust_helper int rust_vsock_helper_put_user_u16(u16 val, u16 __user *ptr)
{
	return put_user(val, ptr);
}

__rust_helper bool rust_vsock_helper_access_ok(const void __user *addr, unsigned long size)
{
	return access_ok(addr, size);
}

/*
 * Sets bits of an aligned word atomically, also against user space. This is the
 * operation of FUTEX_WAKE_OP; a fault in it is handled as for put_user(). Some
 * architectures give up after a while, about 100 times, if others keep changing the
 * word. User space may do so for ever, and a thread of the kernel gets no signal:
 * there is an end, with -EAGAIN, and only what this user space asked for is missing.
 */
#define OR_USER_TRIES	1000

__rust_helper int rust_vsock_helper_or_user_u32(u32 mask, u32 __user *ptr)
{
	unsigned int tries = OR_USER_TRIES;
	int old, ret;

	might_fault();
	if (!access_ok(ptr, sizeof(*ptr)))
		return -EFAULT;
	for (;;) {
		ret = arch_futex_atomic_op_inuser(FUTEX_OP_OR, mask, &old, ptr);
		if (ret != -EAGAIN || !--tries || fatal_signal_pending(current))
			return ret;
		cond_resched();
	}
}

#define read_user_part(type, to, from, offset, label)				\
	do {									\
		type part;							\
										\
		unsafe_get_user(part, (const type __user *)((from) + (offset)), label); \
		put_unaligned(part, (type *)((to) + (offset)));			\
	} while (0)

#define write_user_part(type, to, from, offset, label)				\
	unsafe_put_user(get_unaligned((const type *)((from) + (offset))),	\
			(type __user *)((to) + (offset)), label)

/* Both ways: in words, four at a time, then what is left. */
#define user_parts(one, to, from, len, label)					\
	do {									\
		const unsigned long word = sizeof(long);			\
										\
		for (; len >= 4 * word; len -= 4 * word, to += 4 * word, from += 4 * word) { \
			one(unsigned long, to, from, 0, label);			\
			one(unsigned long, to, from, word, label);		\
			one(unsigned long, to, from, 2 * word, label);		\
			one(unsigned long, to, from, 3 * word, label);		\
		}								\
		for (; len >= word; len -= word, to += word, from += word)	\
			one(unsigned long, to, from, 0, label);			\
		if (word > sizeof(u32) && (len & sizeof(u32))) {		\
			one(u32, to, from, 0, label);				\
			to += sizeof(u32);					\
			from += sizeof(u32);					\
		}								\
		if (len & sizeof(u16)) {					\
			one(u16, to, from, 0, label);				\
			to += sizeof(u16);					\
			from += sizeof(u16);					\
		}								\
		if (len & sizeof(u8))						\
			one(u8, to, from, 0, label);				\
	} while (0)

/* From this length on, a copy of the architecture is faster than one by the words. */
#define USER_PARTS_MAX	256

static __always_inline bool user_in_parts(unsigned long len)
{
	return IS_ENABLED(CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS) && len < USER_PARTS_MAX;
}

/*
 * copy_from_user() and copy_to_user(), but without a look for the object that the memory of the
 * kernel belongs to: that is a slice of Rust or a socket buffer, of known length. A few bytes,
 * such as the entries of a ring, are one call.
 */
__rust_helper int rust_vsock_helper_read_user(void *to, const void __user *from, unsigned long len)
{
	might_fault();
	if (!user_in_parts(len))
		return _copy_from_user(to, from, len) ? -EFAULT : 0;
	if (!user_read_access_begin(from, len))
		return -EFAULT;
	user_parts(read_user_part, to, from, len, fault);
	user_read_access_end();
	return 0;
fault:
	user_read_access_end();
	return -EFAULT;
}

__rust_helper int rust_vsock_helper_write_user(void __user *to, const void *from, unsigned long len)
{
	might_fault();
	if (!user_in_parts(len))
		return _copy_to_user(to, from, len) ? -EFAULT : 0;
	if (!user_write_access_begin(to, len))
		return -EFAULT;
	user_parts(write_user_part, to, from, len, fault);
	user_write_access_end();
	return 0;
fault:
	user_write_access_end();
	return -EFAULT;
}

/*
 * Writes an entry of a used ring at an offset that is a multiple of four, then the index in the
 * second two bytes of the ring, which shows the entry to the other side.
 */
__rust_helper int rust_vsock_helper_put_user_used(void __user *used, unsigned long offset, u32 id,
						  u32 len, u16 index)
{
	u32 __user *entry = used + offset;

	might_fault();
	if (!user_write_access_begin(used, offset + 2 * sizeof(u32)))
		return -EFAULT;
	unsafe_put_user(id, entry, fault);
	unsafe_put_user(len, entry + 1, fault);
	smp_wmb();
	unsafe_put_user(index, (u16 __user *)used + 1, fault);
	user_write_access_end();
	return 0;
fault:
	user_write_access_end();
	return -EFAULT;
}
