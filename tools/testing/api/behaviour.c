// SPDX-License-Identifier: GPL-2.0
/*
 * What the calls of a connected socket do, as far as the kernel's vsock_test does
 * not look at it: sizes, marks, counts, ends and errors, as they are with C.
 */
#include "api.h"
#include <linux/sockios.h>
#include <sys/sendfile.h>

static uint64_t get_u64(int fd, int option)
{
	uint64_t value = 0;
	socklen_t len = sizeof(value);

	must(getsockopt(fd, AF_VSOCK, option, &value, &len));
	return value;
}

static void set_u64(int fd, int option, uint64_t value)
{
	must(setsockopt(fd, AF_VSOCK, option, &value, sizeof(value)));
}

static int get_int(int fd, int option)
{
	socklen_t len = sizeof(int);
	int value;

	must(getsockopt(fd, SOL_SOCKET, option, &value, &len));
	return value;
}

static int bytes(int fd, int request)
{
	int n;

	must(ioctl(fd, request, &n));
	return n;
}

/* Until there are that many bytes to read, and they stay as many. */
#define wait_bytes(fd, n) wait_until(bytes(fd, SIOCINQ) == (n))

/*
 * Until all packets before were delivered: loopback keeps their order, also of
 * those of other connections.
 */
static void quiet(void)
{
	static int a = -1, b;
	char byte = 0;

	if (a < 0)
		pair(SOCK_STREAM, &a, &b);
	for (int n = 0; n < 3; n++) {
		expect(send(a, &byte, 1, 0), 1);
		expect(recv(b, &byte, 1, 0), 1);
		expect(send(b, &byte, 1, 0), 1);
		expect(recv(a, &byte, 1, 0), 1);
	}
}

/* There is room for so much, and not for more. */
#define expect_room(fd, room) do {					\
	size_t total_ = 0;						\
	ssize_t ret_;							\
									\
	quiet();							\
	while (total_ < (room)) {					\
		ret_ = send_bytes(fd, 'f', 65536, MSG_DONTWAIT);	\
		if (ret_ < 0 && errno != EAGAIN)			\
			fail("send: %s", strerror(errno));		\
		if (ret_ < 0 && !poll_now(fd, POLLOUT, 20000))		\
			fail("there is room for %zu bytes only", total_); \
		total_ += ret_ < 0 ? 0 : ret_;				\
	}								\
	expect(total_, room);						\
	expect(poll_now(fd, POLLOUT, 20), 0);				\
	expect_errno(send_bytes(fd, 'f', 1, MSG_DONTWAIT), EAGAIN);	\
} while (0)

static void drain(int fd, size_t total)
{
	static char data[1 << 20];

	for (ssize_t ret; total; total -= ret)
		ret = must(recv(fd, data, total < sizeof(data) ? total : sizeof(data), 0));
}

/* SO_VM_SOCKETS_BUFFER_*: limits, and who gets what. */
static void test_sizes(int type)
{
	struct sockaddr_vm addr;
	int listening, client, server;

	client = vm_socket(type);
	expect(get_u64(client, SO_VM_SOCKETS_BUFFER_SIZE), 262144);
	expect(get_u64(client, SO_VM_SOCKETS_BUFFER_MIN_SIZE), 128);
	expect(get_u64(client, SO_VM_SOCKETS_BUFFER_MAX_SIZE), 262144);
	set_u64(client, SO_VM_SOCKETS_BUFFER_SIZE, 1 << 20);
	expect(get_u64(client, SO_VM_SOCKETS_BUFFER_SIZE), 262144);
	set_u64(client, SO_VM_SOCKETS_BUFFER_SIZE, 1);
	expect(get_u64(client, SO_VM_SOCKETS_BUFFER_SIZE), 128);
	set_u64(client, SO_VM_SOCKETS_BUFFER_MIN_SIZE, 4096);
	expect(get_u64(client, SO_VM_SOCKETS_BUFFER_SIZE), 4096);
	set_u64(client, SO_VM_SOCKETS_BUFFER_MAX_SIZE, 1ULL << 40);
	set_u64(client, SO_VM_SOCKETS_BUFFER_SIZE, 1ULL << 33);
	expect(get_u64(client, SO_VM_SOCKETS_BUFFER_SIZE), 1LL << 33);
	listening = listener(type, &addr);
	set_u64(listening, SO_VM_SOCKETS_BUFFER_MAX_SIZE, 1 << 20);
	set_u64(listening, SO_VM_SOCKETS_BUFFER_SIZE, 1 << 20);
	must(connect(client, SA(&addr)));
	server = must(accept(listening, NULL, NULL));
	/* The wire has 32 bits for it. */
	expect(get_u64(client, SO_VM_SOCKETS_BUFFER_SIZE), 0xffffffff);
	expect(get_u64(server, SO_VM_SOCKETS_BUFFER_SIZE), 1 << 20);
	expect(get_u64(server, SO_VM_SOCKETS_BUFFER_MAX_SIZE), 1 << 20);
	set_u64(client, SO_VM_SOCKETS_BUFFER_SIZE, 1ULL << 34);
	expect(get_u64(client, SO_VM_SOCKETS_BUFFER_SIZE), 0xffffffff);
	expect_room(client, 1 << 20);
}

/* A buffer that changes its size: the peer knows at once. */
static void test_resize(int type)
{
	int a, b;

	pair(type, &a, &b);
	expect_room(a, 262144);
	set_u64(b, SO_VM_SOCKETS_BUFFER_SIZE, 65536);
	drain(b, 196608);
	usleep(50000);
	expect(poll_now(a, POLLOUT, 0), 0);
	drain(b, 65536);
	expect_room(a, 65536);
	set_u64(b, SO_VM_SOCKETS_BUFFER_SIZE, 131072);
	expect_room(a, 65536);
	drain(b, 131072);
	/* Nobody sends more than his own buffer has. */
	set_u64(b, SO_VM_SOCKETS_BUFFER_SIZE, 262144);
	set_u64(a, SO_VM_SOCKETS_BUFFER_SIZE, 131072);
	expect_room(a, 131072);
}

/* Bytes of several sends: as many as there is room for, and the rest later. */
static void test_room(int unused)
{
	int a, b;

	pair_sized(SOCK_STREAM, 100000, &a, &b);
	expect(send_bytes(a, 'x', 70000, MSG_DONTWAIT), 70000);
	expect(send_bytes(a, 'y', 70000, MSG_DONTWAIT), 30000);
	expect_errno(send_bytes(a, 'z', 1, MSG_DONTWAIT), EAGAIN);
	set_timeout(a, SO_SNDTIMEO, 100);
	expect_errno(send_bytes(a, 'z', 1, 0), EAGAIN);
	wait_bytes(b, 100000);
	expect_message(b, "70000x 30000y");
	expect(poll_now(a, POLLOUT, 20000), POLLOUT);
	expect(send_bytes(a, 'z', 1000, 0), 1000);
	expect_message(b, "1000z");
}

static void set_lowat(int fd, int value)
{
	must(setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value)));
}

static void test_rcvlowat(int unused)
{
	int a, b, value = 262145;
	char data[1000];

	pair(SOCK_STREAM, &a, &b);
	expect_errno(setsockopt(b, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value)), EINVAL);
	set_lowat(b, 0);
	expect(get_int(b, SO_RCVLOWAT), 1);
	set_lowat(b, 500);
	expect(get_int(b, SO_RCVLOWAT), 500);
	expect(send_bytes(a, 'x', 499, 0), 499);
	wait_bytes(b, 499);
	expect(poll_now(b, POLLIN, 50), 0);
	expect(send_bytes(a, 'y', 1, 0), 1);
	expect(poll_now(b, POLLIN, 20000), POLLIN);
	expect(recv(b, data, sizeof(data), 0), 500);
	/* It is a mark for who waits, not for who does not. */
	expect(send_bytes(a, 'z', 10, 0), 10);
	wait_bytes(b, 10);
	expect(recv(b, data, sizeof(data), MSG_DONTWAIT), 10);
	/* The end of the stream is below all marks. */
	expect(send_bytes(a, 'w', 10, 0), 10);
	must(shutdown(a, SHUT_WR));
	expect(poll_now(b, POLLIN, 20000), POLLIN);
	expect(recv(b, data, sizeof(data), 0), 10);
	expect(recv(b, data, sizeof(data), 0), 0);
}

/* A mark above what the sender may send: he gets to know of all the room. */
static void test_rcvlowat_credit(int unused)
{
	static char data[65536];
	int a, b;

	pair(SOCK_STREAM, &a, &b);
	expect_room(a, 262144);
	wait_bytes(b, 262144);
	expect(recv(b, data, 65536, MSG_WAITALL), 65536);
	usleep(50000);
	expect(poll_now(a, POLLOUT, 0), 0);
	set_lowat(b, 262144);
	expect(poll_now(a, POLLOUT, 20000), POLLOUT);
	expect(poll_now(b, POLLIN, 0), 0);
	expect_room(a, 65536);
	expect(poll_now(b, POLLIN, 20000), POLLIN);
}

static void test_waitall(int unused)
{
	char *data = malloc(262144);
	int a, b;

	pair(SOCK_STREAM, &a, &b);
	expect_errno(recv(b, data, 262144, MSG_WAITALL | MSG_DONTWAIT), ENOMEM);
	expect(send_bytes(a, 'x', 100, 0), 100);
	wait_bytes(b, 100);
	expect(recv(b, data, 1000, MSG_WAITALL | MSG_DONTWAIT), 100);
	set_timeout(b, SO_RCVTIMEO, 200);
	expect(send_bytes(a, 'x', 100, 0), 100);
	expect(recv(b, data, 1000, MSG_WAITALL), 100);
	expect_errno(recv(b, data, 1000, MSG_WAITALL), EAGAIN);
}

/* Counts of bytes, and where there are none. */
static void test_counts(int type)
{
	struct sockaddr_vm addr;
	char data[100];
	int a, b, fd, n;

	fd = vm_socket(type);
	expect_errno(ioctl(fd, SIOCINQ, &n), EOPNOTSUPP);
	expect_errno(ioctl(fd, SIOCOUTQ, &n), EOPNOTSUPP);
	expect_errno(ioctl(fd, SIOCATMARK, &n), ENOTTY);
	fd = listener(type, &addr);
	expect_errno(ioctl(fd, SIOCINQ, &n), EOPNOTSUPP);
	pair(type, &a, &b);
	expect(bytes(b, SIOCINQ), 0);
	expect(send_bytes(a, 'x', 1000, 0), 1000);
	wait_bytes(b, 1000);
	/* What waits for a reader of the same machine is sent. */
	expect(bytes(a, SIOCOUTQ), 0);
	expect(recv(b, data, 100, MSG_PEEK), 100);
	expect(bytes(b, SIOCINQ), 1000);
	expect(recv(b, data, 100, 0), 100);
	expect(bytes(b, SIOCINQ), type == SOCK_STREAM ? 900 : 0);
	close(a);
	wait_until(poll_now(b, 0, 0) & POLLHUP || poll_now(b, POLLRDHUP, 0));
	expect(bytes(b, SIOCINQ), type == SOCK_STREAM ? 900 : 0);
}

static ssize_t recv_with(int fd, size_t len, int flags, int *got)
{
	static char data[1 << 18];
	struct iovec iov = { .iov_base = data, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t ret = must(recvmsg(fd, &msg, flags));

	*got = msg.msg_flags;
	return ret;
}

/* MSG_PEEK, MSG_TRUNC and MSG_EOR for messages of one packet and of several. */
static void test_peek_trunc(int len)
{
	int a, b, flags, begin = len / 4;

	pair(SOCK_SEQPACKET, &a, &b);
	expect(send_bytes(a, 'x', len, MSG_EOR), len);
	expect(send_bytes(a, 'y', len, 0), len);
	wait_bytes(b, 2 * len);
	for (int n = 0; n < 2; n++) {
		int eor = n ? 0 : MSG_EOR;

		expect(recv_with(b, begin, MSG_PEEK, &flags), begin);
		expect(flags & (MSG_TRUNC | MSG_EOR), MSG_TRUNC | eor);
		expect(recv_with(b, begin, MSG_PEEK | MSG_TRUNC, &flags), len);
		expect(flags & (MSG_TRUNC | MSG_EOR), MSG_TRUNC | eor);
		expect(recv_with(b, len, MSG_PEEK | MSG_TRUNC, &flags), len);
		expect(flags & (MSG_TRUNC | MSG_EOR), eor);
		expect(recv_with(b, len + 10, MSG_PEEK, &flags), len);
		expect(flags & (MSG_TRUNC | MSG_EOR), eor);
		expect(bytes(b, SIOCINQ), (2 - n) * len);
		if (!n)
			expect(recv_with(b, begin, 0, &flags), begin);
		else
			expect(recv_with(b, begin, MSG_TRUNC, &flags), len);
		expect(flags & (MSG_TRUNC | MSG_EOR), MSG_TRUNC | eor);
	}
	expect_nothing(b);
	/* All of it came back as room. */
	expect_room(a, 262144);
}

/* A stream has no messages to cut. */
static void test_stream_trunc(int unused)
{
	int a, b, flags;

	pair(SOCK_STREAM, &a, &b);
	expect(send_bytes(a, 'x', 100, MSG_EOR), 100);
	wait_bytes(b, 100);
	expect(recv_with(b, 40, MSG_PEEK | MSG_TRUNC, &flags), 40);
	expect(flags & (MSG_TRUNC | MSG_EOR), 0);
	expect(recv_with(b, 40, MSG_TRUNC, &flags), 40);
	expect(flags & (MSG_TRUNC | MSG_EOR), 0);
	expect_message(b, "60x");
}

static void test_nothing(int type)
{
	int a, b, flags;

	pair(type, &a, &b);
	expect(send_bytes(a, 'x', 0, 0), 0);
	expect_nothing(b);
	expect(recv_with(b, 0, 0, &flags), 0);
	expect(send_bytes(a, 'x', 10, 0), 10);
	wait_bytes(b, 10);
	expect(recv_with(b, 0, 0, &flags), 0);
	expect_message(b, "10x");
}

/* close() waits only for what is not with the peer yet, and takes nothing away. */
static void test_linger(int type)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 30 };
	struct timespec before, after;
	int a, b;

	pair(type, &a, &b);
	must(setsockopt(a, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	expect(send_bytes(a, 'x', 200000, 0), 200000);
	clock_gettime(CLOCK_MONOTONIC, &before);
	must(close(a));
	clock_gettime(CLOCK_MONOTONIC, &after);
	if (after.tv_sec - before.tv_sec > 5)
		fail("close() took %ld s", (long)(after.tv_sec - before.tv_sec));
	if (type == SOCK_SEQPACKET)
		expect_message(b, "200000x");
	else
		drain(b, 200000);
	linger.l_linger = 0;
	pair(type, &a, &b);
	must(setsockopt(a, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	expect(send_bytes(a, 'y', 100, 0), 100);
	must(close(a));
	expect_message(b, "100y");
}

/* The end of a connection, step by step. */
static void test_ends(int type)
{
	int all = POLLIN | POLLOUT | POLLRDHUP;
	char runs[100];
	int a, b;

	pair(type, &a, &b);
	expect(poll_now(a, all, 0), POLLOUT);
	must(shutdown(a, SHUT_WR));
	say("after own SHUT_WR: %#x", poll_now(a, all, 0));
	wait_until(poll_now(b, POLLRDHUP, 0));
	say("after the peer's SHUT_WR: %#x", poll_now(b, all, 0));
	expect_errno(send_bytes(a, 'x', 1, 0), EPIPE);
	expect(recv_runs(b, 0, runs, sizeof(runs)), 0);
	expect(send_bytes(b, 'y', 10, 0), 10);
	expect_message(a, "10y");
	must(shutdown(a, SHUT_RD));
	expect(recv_runs(a, 0, runs, sizeof(runs)), 0);
	wait_until(poll_now(b, 0, 0) & POLLHUP || poll_now(b, POLLOUT, 0));
	usleep(50000);
	say("after both: %#x", poll_now(b, all, 0));
	expect_errno(send_bytes(b, 'y', 10, 0), EPIPE);
	expect(recv_runs(b, 0, runs, sizeof(runs)), 0);
	say("itself: %#x", poll_now(a, all, 0));

	/* The peer closes, with something unread. */
	pair(type, &a, &b);
	expect(send_bytes(a, 'x', 10, 0), 10);
	wait_bytes(b, 10);
	close(a);
	wait_until(poll_now(b, POLLRDHUP, 0));
	say("closed, unread: %#x", poll_now(b, all, 0));
	expect_errno(send_bytes(b, 'y', 1, 0), EPIPE);
	expect_message(b, "10x");
	say("closed, read: %#x", poll_now(b, all, 0));
	expect(recv_runs(b, 0, runs, sizeof(runs)), 0);
	expect(recv_runs(b, 0, runs, sizeof(runs)), 0);
}

static void test_errors(int type)
{
	struct sockaddr_vm addr, used, self;
	int a, b, fd, other;
	uint64_t size = 1;
	socklen_t len = sizeof(addr);
	struct timeval tv = { .tv_usec = 1000000 };
	char data[10] = "";

	fd = vm_socket(type);
	expect_errno(send_bytes(fd, 'x', 1, 0), ENOTCONN);
	expect_errno(recv(fd, data, 1, 0), ENOTCONN);
	expect_errno(shutdown(fd, SHUT_RD), ENOTCONN);
	expect_errno(getpeername(fd, (struct sockaddr *)&addr, &len), ENOTCONN);
	expect_errno(listen(fd, 1), EINVAL);
	expect_errno(accept(fd, NULL, NULL), EINVAL);
	expect_errno(setsockopt(fd, AF_VSOCK, 77, &size, sizeof(size)), ENOPROTOOPT);
	expect_errno(setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &size, 4), EINVAL);
	expect_errno(setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &tv, sizeof(tv)),
		     ERANGE);
	addr = vm_addr(0x12345678, VMADDR_PORT_ANY);
	expect_errno(bind(fd, SA(&addr)), EADDRNOTAVAIL);
	addr = vm_addr(VMADDR_CID_LOCAL, 1);
	expect_errno(connect(fd, SA(&addr)), ECONNRESET);

	other = listener(type, &used);
	addr = vm_addr(VMADDR_CID_ANY, used.svm_port);
	expect_errno(bind(vm_socket(type), SA(&addr)), EADDRINUSE);
	expect_errno(bind(other, SA(&addr)), EINVAL);
	expect_errno(connect(other, SA(&used)), EINVAL);
	must(fcntl(other, F_SETFL, O_NONBLOCK));
	expect_errno(accept(other, NULL, NULL), EAGAIN);
	fd = vm_socket(type == SOCK_STREAM ? SOCK_SEQPACKET : SOCK_STREAM);
	expect_errno(connect(fd, SA(&used)), ECONNRESET);

	pair(type, &a, &b);
	expect_errno(send(a, data, 1, MSG_OOB), EOPNOTSUPP);
	expect_errno(recv(a, data, 1, MSG_OOB), EOPNOTSUPP);
	expect_errno(sendto(a, data, 1, 0, SA(&used)), EISCONN);
	expect_errno(connect(a, SA(&used)), EISCONN);
	expect_errno(accept(a, NULL, NULL), EINVAL);
	expect_errno(shutdown(a, 3), EINVAL);
	len = sizeof(addr);
	must(getpeername(a, (struct sockaddr *)&addr, &len));
	must(getsockname(b, (struct sockaddr *)&self, &len));
	expect(addr.svm_cid, VMADDR_CID_LOCAL);
	expect(self.svm_cid, VMADDR_CID_LOCAL);
	expect(addr.svm_port, self.svm_port);
}

/* Connections that nobody accepts, and those that are not waited for. */
static void test_connect(int type)
{
	struct sockaddr_vm addr;
	int fds[12], fd, listening, refused = 0, error;
	socklen_t len = sizeof(error);

	listening = listener(type, &addr);
	for (int n = 0; n < 12; n++) {
		fds[n] = vm_socket(type);
		if (connect(fds[n], SA(&addr))) {
			expect(errno, ECONNRESET);
			refused++;
		}
	}
	say("%d of 12 refused", refused);
	for (int n = 0; n < 12 - refused; n++)
		close(must(accept(listening, NULL, NULL)));

	fd = vm_socket(type);
	must(fcntl(fd, F_SETFL, O_NONBLOCK));
	expect_errno(connect(fd, SA(&addr)), EINPROGRESS);
	wait_until(poll_now(fd, POLLOUT, 0) == POLLOUT);
	must(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
	expect(error, 0);
	close(must(accept(listening, NULL, NULL)));

	fd = vm_socket(type);
	must(fcntl(fd, F_SETFL, O_NONBLOCK));
	addr.svm_port = 1;
	expect_errno(connect(fd, SA(&addr)), EINPROGRESS);
	wait_until(poll_now(fd, POLLOUT, 0) & POLLERR);
	must(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
	expect(error, ECONNRESET);
}

/* Pages of a file, not memory of the caller. */
static void test_sendfile(int type)
{
	static char data[1 << 17];
	int a, b, fd = must(memfd_create("data", 0));
	size_t total = 0;
	ssize_t ret;

	for (size_t n = 0; n < sizeof(data); n++)
		data[n] = n * 7 >> 3;
	must(write(fd, data, sizeof(data)));
	pair(type, &a, &b);
	for (off_t at = 0; at < (off_t)sizeof(data);)
		must(sendfile(a, fd, &at, sizeof(data) - at));
	wait_bytes(b, (int)sizeof(data));
	while (total < sizeof(data)) {
		static char got[1 << 17];

		ret = must(recv(b, got, sizeof(got), 0));
		if (!ret || memcmp(got, data + total, ret))
			fail("wrong data after %zu bytes", total);
		total += ret;
	}
	expect(total, sizeof(data));
	expect_nothing(b);
}

#define BOTH(name, run) { "stream/" name, run, SOCK_STREAM }, \
			{ "seqpacket/" name, run, SOCK_SEQPACKET }

static const struct test tests[] = {
	BOTH("sizes", test_sizes),
	BOTH("resize", test_resize),
	{ "stream/room", test_room },
	{ "stream/rcvlowat", test_rcvlowat },
	{ "stream/rcvlowat-credit", test_rcvlowat_credit },
	{ "stream/waitall", test_waitall },
	BOTH("counts", test_counts),
	{ "seqpacket/peek-trunc", test_peek_trunc, 100 },
	{ "seqpacket/peek-trunc-long", test_peek_trunc, 100000 },
	{ "stream/trunc", test_stream_trunc },
	BOTH("nothing", test_nothing),
	BOTH("linger", test_linger),
	BOTH("ends", test_ends),
	BOTH("errors", test_errors),
	BOTH("connect", test_connect),
	BOTH("sendfile", test_sendfile),
};

int main(int argc, char **argv)
{
	return run_all(tests, sizeof(tests) / sizeof(*tests), argc, argv);
}
