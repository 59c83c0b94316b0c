// SPDX-License-Identifier: GPL-2.0

#include <linux/workqueue.h>
#include <net/af_vsock.h>
#include <net/sock.h>
#include <net/tcp_states.h>

__rust_helper void rust_vsock_helper_sock_hold(struct sock *sk)
{
	sock_hold(sk);
}

__rust_helper void rust_vsock_helper_sock_put(struct sock *sk)
{
	sock_put(sk);
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
