// SPDX-License-Identifier: GPL-2.0

#include <linux/cgroup.h>
#include <linux/kthread.h>
#include <linux/sched.h>

__rust_helper struct task_struct *
rust_vsock_helper_kthread_create_named(int (*fn)(void *), void *data, const char *name)
{
	return kthread_create(fn, data, "%s", name);
}

__rust_helper int rust_vsock_helper_cgroup_attach_all(struct task_struct *from,
						      struct task_struct *task)
{
	return cgroup_attach_task_all(from, task);
}

__rust_helper void rust_vsock_helper_set_task_interruptible(void)
{
	set_current_state(TASK_INTERRUPTIBLE);
}
