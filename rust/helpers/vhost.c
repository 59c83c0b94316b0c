// SPDX-License-Identifier: GPL-2.0

#include <linux/poll.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/sched/clock.h>
#include <linux/sched/mm.h>
#include <linux/string.h>
#include <linux/uaccess.h>

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

/*
 * Whether the current thread is one of user space, in @mm, and in process context, with page faults
 * possible: it will go back there. A thread of io_uring or vhost is none of these, and one that
 * ends does not go back.
 */
__rust_helper bool rust_vsock_helper_current_goes_back_to(const struct mm_struct *mm)
{
	const unsigned int others = PF_KTHREAD | PF_USER_WORKER | PF_IO_WORKER | PF_EXITING;

	return current->mm == mm && !(current->flags & others) && in_task() && !pagefault_disabled();
}

/* From here on nothing that user space can hold up is waited for: no page, no file, no device. */
__rust_helper unsigned int rust_vsock_helper_begin_without_faults(void)
{
	pagefault_disable();
	return memalloc_noio_save();
}

__rust_helper void rust_vsock_helper_end_without_faults(unsigned int flags)
{
	memalloc_noio_restore(flags);
	pagefault_enable();
}

__rust_helper u64 rust_vsock_helper_local_nanos(void)
{
	return local_clock();
}
