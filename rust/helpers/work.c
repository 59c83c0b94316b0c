// SPDX-License-Identifier: GPL-2.0

#include <linux/workqueue.h>

__rust_helper struct workqueue_struct *rust_vsock_helper_alloc_workqueue(const char *name,
									 unsigned int flags)
{
	return alloc_workqueue("%s", flags, 0, name);
}

__rust_helper void rust_vsock_helper_flush_workqueue(struct workqueue_struct *wq)
{
	flush_workqueue(wq);
}
