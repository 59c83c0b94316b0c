// SPDX-License-Identifier: GPL-2.0

#include <linux/futex.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
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
