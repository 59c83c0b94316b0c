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
 * architectures give up after a while if others keep changing the word.
 */
__rust_helper int rust_vsock_helper_or_user_u32(u32 mask, u32 __user *ptr)
{
	int old, ret;

	might_fault();
	if (!access_ok(ptr, sizeof(*ptr)))
		return -EFAULT;
	for (;;) {
		ret = arch_futex_atomic_op_inuser(FUTEX_OP_OR, mask, &old, ptr);
		if (ret != -EAGAIN || fatal_signal_pending(current))
			return ret;
		cond_resched();
	}
}

#define read_user_part(type, to, from, len, label)				\
	do {									\
		type part;							\
										\
		unsafe_get_user(part, (const type __user *)(from), label);	\
		put_unaligned(part, (type *)(to));				\
		(to) += sizeof(type);						\
		(from) += sizeof(type);						\
		(len) -= sizeof(type);						\
	} while (0)

/*
 * copy_from_user() for some bytes, such as the entries of a ring. It is one call, and does not
 * look for the object that the destination belongs to: that is a slice of Rust, of known length.
 */
__rust_helper int rust_vsock_helper_read_user(void *to, const void __user *from, unsigned long len)
{
	might_fault();
	if (!IS_ENABLED(CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS))
		return copy_from_user(to, from, len) ? -EFAULT : 0;
	if (!user_read_access_begin(from, len))
		return -EFAULT;
	while (len >= sizeof(long))
		read_user_part(unsigned long, to, from, len, fault);
	if (sizeof(long) > sizeof(u32) && len >= sizeof(u32))
		read_user_part(u32, to, from, len, fault);
	if (len >= sizeof(u16))
		read_user_part(u16, to, from, len, fault);
	if (len)
		read_user_part(u8, to, from, len, fault);
	user_read_access_end();
	return 0;
fault:
	user_read_access_end();
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
