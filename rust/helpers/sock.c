// SPDX-License-Identifier: GPL-2.0

#include <linux/rcupdate.h>
#include <linux/workqueue.h>
#include <net/af_vsock.h>
#include <net/sock.h>
#include <net/tcp_states.h>

/*
 * What tells which way a packet went into a socket. Not inline functions, which cannot be probed: an administrator,
 * and a test, sees by a kprobe on each how often that way was taken.
 */
bool rust_vsock_helper_sk_data_ready_unlocked(struct sock *sk);
int rust_vsock_helper_sock_lock_or_backlog(struct sock *sk, struct sk_buff *skb, unsigned int limit,
					   int (*rcv)(struct sock *, struct sk_buff *));
void rust_vsock_helper_sock_backlog_taken(struct sock *sk, struct sk_buff *skb);

__rust_helper void rust_vsock_helper_sock_hold(struct sock *sk)
{
	sock_hold(sk);
}

__rust_helper void rust_vsock_helper_sock_put(struct sock *sk)
{
	sock_put(sk);
}

__rust_helper bool rust_vsock_helper_sk_get_unless_zero(struct sock *sk)
{
	return refcount_inc_not_zero(&sk->sk_refcnt);
}

__rust_helper void rust_vsock_helper_lock_sock(struct sock *sk)
{
	lock_sock(sk);
}

/* For a child whose listener is locked already. */
__rust_helper void rust_vsock_helper_lock_sock_child(struct sock *sk)
{
	lock_sock_nested(sk, SINGLE_DEPTH_NESTING);
}

__rust_helper void rust_vsock_helper_sk_set_state(struct sock *sk, int state)
{
	sk->sk_state = state;
}

__rust_helper void rust_vsock_helper_sk_set_done(struct sock *sk)
{
	sock_set_flag(sk, SOCK_DONE);
}

__rust_helper void rust_vsock_helper_sk_set_err(struct sock *sk, int err)
{
	WRITE_ONCE(sk->sk_err, err);
}

__rust_helper void rust_vsock_helper_sk_state_change(struct sock *sk)
{
	sk->sk_state_change(sk);
}

__rust_helper void rust_vsock_helper_sk_write_space(struct sock *sk)
{
	sk->sk_write_space(sk);
}

__rust_helper void rust_vsock_helper_sk_data_ready(struct sock *sk)
{
	sk->sk_data_ready(sk);
}

__rust_helper int rust_vsock_helper_sock_rcvlowat(const struct sock *sk)
{
	return sock_rcvlowat(sk, 0, INT_MAX);
}

__rust_helper bool rust_vsock_helper_sk_acceptq_is_full(const struct sock *sk)
{
	return sk_acceptq_is_full(sk);
}

/* A connecting socket always has a `struct socket`: it was not accepted but created. */
__rust_helper void rust_vsock_helper_sk_socket_connected(struct sock *sk)
{
	if (sk->sk_socket)
		sk->sk_socket->state = SS_CONNECTED;
}

__rust_helper void rust_vsock_helper_init_close_work(struct vsock_sock *vsk, work_func_t fn)
{
	INIT_DELAYED_WORK(&vsk->close_work, fn);
}

__rust_helper bool rust_vsock_helper_schedule_close_work(struct vsock_sock *vsk,
							 unsigned long delay)
{
	return schedule_delayed_work(&vsk->close_work, delay);
}

__rust_helper bool rust_vsock_helper_current_exiting(void)
{
	return current->flags & PF_EXITING;
}

/* Something of ours ran on behalf of a socket, and may be in its last instructions. */
static bool vsock_ran_for_socket;

__rust_helper void rust_vsock_helper_note_ran_for_socket(void)
{
	WRITE_ONCE(vsock_ran_for_socket, true);
}

/*
 * Waits until each task that was preempted has slept or gone to user space, if any may be in the last
 * instructions of what ran for a socket. (That takes a second.)
 */
__rust_helper void rust_vsock_helper_wait_for_tasks(void)
{
	if (READ_ONCE(vsock_ran_for_socket))
		synchronize_rcu_tasks();
}

/* What the socket layer set, of which all vsock sockets have the same. */
static int (*vsock_own_backlog_rcv)(struct sock *sk, struct sk_buff *skb);

/* What a buffer takes that was put into a backlog: all of them the same. */
static unsigned int vsock_token_size;

/* Whether the next buffer would be in the backlog beyond @limit, as below; for one that has some. */
__rust_helper bool rust_vsock_helper_sock_backlog_is_full(struct sock *sk, unsigned int limit)
{
	u64 size;
	bool full;

	spin_lock_bh(&sk->sk_lock.slock);
	size = READ_ONCE(vsock_token_size);
	full = sk->sk_backlog.len && sk->sk_backlog.len + size > limit * size;
	spin_unlock_bh(&sk->sk_lock.slock);
	return full;
}

/*
 * Locks @sk if nobody has it, and returns 1. Else @skb goes to its backlog, with @rcv as what takes it from
 * there, and the result is 0; or it would be there beyond @limit, or is NULL, and the result is
 * -ENOBUFS. The limit is in buffers like @skb.
 */
int rust_vsock_helper_sock_lock_or_backlog(struct sock *sk, struct sk_buff *skb, unsigned int limit,
					   int (*rcv)(struct sock *, struct sk_buff *))
{
	int ret = 0;

	spin_lock_bh(&sk->sk_lock.slock);
	if (!sk->sk_lock.owned) {
		sk->sk_lock.owned = 1;
		ret = 1;
	} else if (!skb || sk->sk_backlog.len + (u64)skb->truesize > (u64)limit * skb->truesize) {
		ret = -ENOBUFS;
	} else {
		if (sk->sk_backlog_rcv != rcv) {
			vsock_own_backlog_rcv = sk->sk_backlog_rcv;
			sk->sk_backlog_rcv = rcv;
		}
		/* The one before is not the last one any more. */
		if (sk->sk_backlog.tail)
			sk->sk_backlog.tail->mark = 1;
		skb->mark = 0;
		/* It carries no data; else it would be for sockets that memory reserves are for. */
		skb->pfmemalloc = 0;
		__sk_add_backlog(sk, skb);
		sk->sk_backlog.len += skb->truesize;
		WRITE_ONCE(vsock_token_size, skb->truesize);
	}
	spin_unlock_bh(&sk->sk_lock.slock);
	if (ret == 1)
		mutex_acquire(&sk->sk_lock.dep_map, 0, 1, _RET_IP_);
	return ret;
}

/*
 * @skb was taken out of the backlog. After the last one of those that were taken together the socket layer's
 * own function is back in place, as ours may be unloaded before the socket is freed.
 *
 * The owner may be about to sleep, and have said so to the scheduler: it looks again before it does.
 */
void rust_vsock_helper_sock_backlog_taken(struct sock *sk, struct sk_buff *skb)
{
	spin_lock_bh(&sk->sk_lock.slock);
	if (!skb->mark && !sk->sk_backlog.tail)
		sk->sk_backlog_rcv = vsock_own_backlog_rcv;
	spin_unlock_bh(&sk->sk_lock.slock);
	rust_vsock_helper_note_ran_for_socket();
	__set_current_state(TASK_RUNNING);
}

/* The current task may have said to the scheduler that it is about to sleep: it looks again first. */
__rust_helper void rust_vsock_helper_task_stay_awake(void)
{
	__set_current_state(TASK_RUNNING);
}

/* Runs what is in the backlog, for the owner. */
__rust_helper void rust_vsock_helper_sk_flush_backlog(struct sock *sk)
{
	sk_flush_backlog(sk);
}

/* As the one above: how readers are woken. */
static void (*vsock_own_data_ready)(struct sock *sk);

/* For a socket that no other part of the kernel took over yet. */
__rust_helper void rust_vsock_helper_sk_note_data_ready(const struct sock *sk)
{
	WRITE_ONCE(vsock_own_data_ready, sk->sk_data_ready);
}

/* Wakes readers, unless another part of the kernel took the socket over, which expects the lock. */
bool rust_vsock_helper_sk_data_ready_unlocked(struct sock *sk)
{
	void (*own)(struct sock *sk) = READ_ONCE(vsock_own_data_ready);

	if (READ_ONCE(sk->sk_data_ready) != own)
		return false;
	own(sk);
	return true;
}

__rust_helper bool rust_vsock_helper_sk_has_refs(const struct sock *sk)
{
	return refcount_read(&sk->sk_refcnt);
}
