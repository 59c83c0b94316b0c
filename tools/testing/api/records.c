// SPDX-License-Identifier: GPL-2.0
/*
 * Messages of SOCK_SEQPACKET whose sending has to wait and is given up: nothing
 * of them may become a part of the next one.
 *
 * The receiver has a message of FIRST bytes that it has not read, which leaves
 * too little room for the second one.
 */
#include "api.h"
#include <linux/errqueue.h>

#define BUFFER 262144
#define FIRST 200000
#define SECOND 150000

static pthread_t main_thread;

static void on_signal(int number)
{
	(void)number;
}

static void *interrupt(void *unused)
{
	usleep(200000);
	pthread_kill(main_thread, SIGUSR1);
	return NULL;
}

static void interrupt_soon(int flags)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags };
	pthread_t thread;

	main_thread = pthread_self();
	must(sigaction(SIGUSR1, &action, NULL));
	must(-pthread_create(&thread, NULL, interrupt, NULL));
}

/* Two ends; the first message is on its way. */
static void begin(int *from, int *to)
{
	pair_sized(SOCK_SEQPACKET, BUFFER, from, to);
	expect(send_bytes(*from, 'a', FIRST, 0), FIRST);
	wait_until(poll_now(*to, POLLIN, 0) & POLLIN);
}

/* The first message, and after it one that is sent now, and nothing else. */
static void check_end(int from, int to)
{
	expect_message(to, "200000a");
	expect(send_bytes(from, 'c', 100, 0), 100);
	expect_message(to, "100c");
	expect_nothing(to);
}

static void test_signal(int unused)
{
	int from, to;

	begin(&from, &to);
	interrupt_soon(0);
	expect_errno(send_bytes(from, 'b', SECOND, 0), EINTR);
	check_end(from, to);
}

static void test_timeout(int unused)
{
	int from, to;

	begin(&from, &to);
	set_timeout(from, SO_SNDTIMEO, 200);
	expect_errno(send_bytes(from, 'b', SECOND, 0), EAGAIN);
	check_end(from, to);
}

static void test_dontwait(int unused)
{
	int from, to;

	begin(&from, &to);
	expect_errno(send_bytes(from, 'b', SECOND, MSG_DONTWAIT), EAGAIN);
	expect_errno(send_bytes(from, 'b', SECOND, MSG_DONTWAIT), EAGAIN);
	check_end(from, to);
}

/* poll() says when there is room for the message that waits. */
static void test_poll(int unused)
{
	int from, to;

	begin(&from, &to);
	expect(poll_now(from, POLLOUT, 0), POLLOUT);
	expect_errno(send_bytes(from, 'b', SECOND, MSG_DONTWAIT), EAGAIN);
	expect(poll_now(from, POLLOUT, 50), 0);
	expect_message(to, "200000a");
	expect(poll_now(from, POLLOUT, 20000), POLLOUT);
	expect(send_bytes(from, 'b', SECOND, MSG_DONTWAIT), SECOND);
	expect_message(to, "150000b");
	expect_nothing(to);
}

/* A short message has room, whatever did not have any before. */
static void test_short(int unused)
{
	int from, to;

	begin(&from, &to);
	expect_errno(send_bytes(from, 'b', SECOND, MSG_DONTWAIT), EAGAIN);
	expect(send_bytes(from, 'd', 1000, MSG_DONTWAIT), 1000);
	expect_message(to, "200000a");
	expect_message(to, "1000d");
	expect_nothing(to);
}

/* A handler that does not end system calls. */
static void *read_later(void *fd)
{
	usleep(500000);
	expect_message(*(int *)fd, "200000a");
	return NULL;
}

static void test_restart(int unused)
{
	pthread_t thread;
	int from, to;

	begin(&from, &to);
	must(-pthread_create(&thread, NULL, read_later, &to));
	interrupt_soon(SA_RESTART);
	expect(send_bytes(from, 'b', SECOND, 0), SECOND);
	pthread_join(thread, NULL);
	expect_message(to, "150000b");
	expect_nothing(to);
}

static void *send_second(void *fd)
{
	expect(send_bytes(*(int *)fd, 'b', SECOND, 0), SECOND);
	return NULL;
}

/* Two threads send, one of them has to wait. */
static void test_threads(int unused)
{
	bool seen[2] = { false, false };
	pthread_t thread;
	char runs[400];
	int from, to;

	begin(&from, &to);
	must(-pthread_create(&thread, NULL, send_second, &from));
	usleep(200000);
	expect(send_bytes(from, 'd', 1000, 0), 1000);
	expect_message(to, "200000a");
	for (int n = 0; n < 2; n++) {
		must(recv_runs(to, 0, runs, sizeof(runs)));
		seen[0] |= !strcmp(runs, "1000d");
		seen[1] |= !strcmp(runs, "150000b");
	}
	if (!seen[0] || !seen[1])
		fail("the messages are mixed; the last one is \"%s\"", runs);
	pthread_join(thread, NULL);
	expect_nothing(to);
}

/* Some of the memory of the user is not there: behind the first packet of the message. */
static void test_fault(int unused)
{
	size_t size = 160 << 10, there = 100 << 10;
	int from, to;
	char *data;

	pair_sized(SOCK_SEQPACKET, BUFFER, &from, &to);
	expect(send_bytes(from, 'a', 1000, 0), 1000);
	data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (data == MAP_FAILED)
		fail("mmap");
	memset(data, 'b', there);
	must(munmap(data + there, size - there));
	expect_errno(send(from, data, size, 0), ENOMEM);
	expect(send_bytes(from, 'c', 100, 0), 100);
	expect_message(to, "1000a");
	expect_message(to, "100c");
	expect_nothing(to);
}

/* What can never be sent is refused, at once or when that turns out. */
static void test_too_long(int unused)
{
	int from, to;

	begin(&from, &to);
	expect_errno(send_bytes(from, 'b', BUFFER + 1, 0), EMSGSIZE);
	check_end(from, to);
}

static void *shrink(void *fd)
{
	int *fds = fd;

	usleep(200000);
	set_size(fds[0], 100000);
	expect_message(fds[1], "200000a");
	return NULL;
}

static void test_shrink(int unused)
{
	pthread_t thread;
	int fds[2];

	begin(&fds[0], &fds[1]);
	must(-pthread_create(&thread, NULL, shrink, fds));
	expect_errno(send_bytes(fds[0], 'b', SECOND, 0), EMSGSIZE);
	pthread_join(thread, NULL);
	expect(send_bytes(fds[0], 'c', 100, 0), 100);
	expect_message(fds[1], "100c");
	expect_nothing(fds[1]);
}

static void *close_later(void *fd)
{
	usleep(200000);
	close(*(int *)fd);
	return NULL;
}

/* Who waits is told that the peer is gone. */
static void test_closed(int unused)
{
	pthread_t thread;
	int from, to;

	begin(&from, &to);
	must(-pthread_create(&thread, NULL, close_later, &to));
	expect_errno(send_bytes(from, 'b', SECOND, 0), EPIPE);
	pthread_join(thread, NULL);
}

/* A notification for what was sent, and none for what was not. */
static void test_zerocopy(int unused)
{
	struct sock_extended_err *err;
	union {
		char room[200];
		struct cmsghdr align;
	} control;
	struct msghdr msg = { .msg_control = &control, .msg_controllen = sizeof(control) };
	int from, to, on = 1;
	char *data;

	begin(&from, &to);
	must(setsockopt(from, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)));
	data = mmap(NULL, SECOND, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (data == MAP_FAILED)
		fail("mmap");
	memset(data, 'b', SECOND);
	expect_errno(send(from, data, SECOND, MSG_ZEROCOPY | MSG_DONTWAIT), EAGAIN);
	expect_message(to, "200000a");
	expect_errno(recvmsg(from, &msg, MSG_ERRQUEUE | MSG_DONTWAIT), EAGAIN);
	expect(send(from, data, SECOND, MSG_ZEROCOPY), SECOND);
	expect_message(to, "150000b");
	wait_until(poll_now(from, 0, 0) & POLLERR);
	must(recvmsg(from, &msg, MSG_ERRQUEUE));
	if (!CMSG_FIRSTHDR(&msg))
		fail("there is no notification");
	err = (struct sock_extended_err *)CMSG_DATA(CMSG_FIRSTHDR(&msg));
	expect(err->ee_origin, SO_EE_ORIGIN_ZEROCOPY);
	expect(err->ee_info, err->ee_data);
	msg.msg_controllen = sizeof(control);
	expect_errno(recvmsg(from, &msg, MSG_ERRQUEUE | MSG_DONTWAIT), EAGAIN);
}

static const struct test tests[] = {
	{ "signal", test_signal },
	{ "timeout", test_timeout },
	{ "dontwait", test_dontwait },
	{ "poll", test_poll },
	{ "short-one-next", test_short },
	{ "restart", test_restart },
	{ "two-threads", test_threads },
	{ "fault", test_fault },
	{ "too-long", test_too_long },
	{ "shrink", test_shrink },
	{ "peer-closes", test_closed },
	{ "zerocopy", test_zerocopy },
};

int main(int argc, char **argv)
{
	return run_all(tests, sizeof(tests) / sizeof(*tests), argc, argv);
}
