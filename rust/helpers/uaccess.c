// SPDX-License-Identifier: GPL-2.0

#include <linux/uaccess.h>

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
