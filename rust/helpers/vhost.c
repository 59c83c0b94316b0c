// SPDX-License-Identifier: GPL-2.0

#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/string.h>

__rust_helper void rust_vsock_helper_set_task_running(void)
{
	__set_current_state(TASK_RUNNING);
}

__rust_helper void rust_vsock_helper_cond_resched(void)
{
	cond_resched();
}

__rust_helper __poll_t rust_vsock_helper_vfs_poll(struct file *file, struct poll_table_struct *pt)
{
	return vfs_poll(file, pt);
}

/* Of the process, not of the thread. `comm` has TASK_COMM_LEN bytes. */
__rust_helper void rust_vsock_helper_current_process_comm(char *comm)
{
	strscpy_pad(comm, current->group_leader->comm, TASK_COMM_LEN);
}
