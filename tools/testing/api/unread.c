// SPDX-License-Identifier: GPL-2.0
/*
 * Messages of all sizes that nobody reads for a while, over loopback.
 *
 * A sender that has credit may send any number of SOCK_SEQPACKET messages: the
 * connection stays, and all of them arrive with their bounds, whatever memory
 * they take at the receiver. Prints a line per case.
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

#define MAX_LEN 70000

struct pattern {
	const char *name;
	size_t (*len)(uint32_t n);
	uint64_t buffer;	/* of the receiver; 0: the default, 256 KiB */
};

static uint32_t hash(uint32_t n)
{
	n ^= n >> 16;
	n *= 0x7feb352d;
	n ^= n >> 15;
	n *= 0x846ca68b;
	return n ^ n >> 16;
}

static size_t len_1(uint32_t n) { return 1; }
static size_t len_62(uint32_t n) { return 62 + n % 3; }
static size_t len_1_5000(uint32_t n) { return n % 2 ? 5000 : 1; }
static size_t len_1_400(uint32_t n) { return n % 2 ? 400 : 1; }
static size_t len_random(uint32_t n)
{
	static const uint32_t top[] = { 3, 20, 200, 2000, 9000, 69000 };

	return 1 + hash(n) % top[hash(n + 1000000) % 6];
}

static const struct pattern patterns[] = {
	/* Bytes bound it: as many messages as the buffer has, of which each takes some hundred bytes in a packet. */
	{ "1-byte", len_1, 8192 },
	{ "62-to-64-bytes", len_62 },
	{ "1-and-400-bytes", len_1_400 },
	{ "1-and-5000-bytes", len_1_5000 },
	{ "random", len_random },
};

static char sent[MAX_LEN], got[MAX_LEN];

static void fill(uint32_t n, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sent[i] = hash(n) + i * 7;
}

static int is_record(uint32_t n) { return hash(n) % 3 == 0; }

static int fail(const char *name, const char *what, uint32_t n)
{
	printf("not ok %s # message %u: %s: %s\n", name, n, what, strerror(errno));
	return 1;
}

/* Sends until there is no credit left. */
static int send_all(const struct pattern *p, int fd, uint32_t *next)
{
	for (;; ++*next) {
		size_t len = p->len(*next);
		int flags = MSG_DONTWAIT | (is_record(*next) ? MSG_EOR : 0);

		fill(*next, len);
		errno = 0;
		if (send(fd, sent, len, flags) == (ssize_t)len)
			continue;
		return errno == EAGAIN ? 0 : fail(p->name, "send", *next);
	}
}

/* recvmsg() that waits for a message which the worker of loopback has not delivered yet. */
static ssize_t receive_one(int fd, struct msghdr *msg, int flags)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t ret = recvmsg(fd, msg, flags | MSG_DONTWAIT);

	if (ret < 0 && errno == EAGAIN && poll(&p, 1, 20000) == 1)
		ret = recvmsg(fd, msg, flags | MSG_DONTWAIT);
	return ret;
}

static int receive(const struct pattern *p, int fd, uint32_t from, uint32_t to)
{
	for (uint32_t n = from; n < to; n++) {
		struct iovec iov = { got, sizeof(got) }, some = { got, 3 };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
		struct msghdr peek = { .msg_iov = &some, .msg_iovlen = 1 };
		size_t len = p->len(n);
		ssize_t ret;

		errno = 0;
		if (n % 5 == 0 && receive_one(fd, &peek, MSG_PEEK | MSG_TRUNC) != (ssize_t)len)
			return fail(p->name, "the length seen by MSG_PEEK | MSG_TRUNC is wrong", n);
		ret = receive_one(fd, &msg, 0);
		if (ret != (ssize_t)len)
			return fail(p->name, "the length is wrong", n);
		fill(n, len);
		if (memcmp(sent, got, len))
			return fail(p->name, "the content is wrong", n);
		if (!(msg.msg_flags & MSG_EOR) != !is_record(n))
			return fail(p->name, "MSG_EOR is wrong", n);
	}
	return 0;
}

static int run(const struct pattern *p, int client, int server)
{
	uint32_t next = 0, read = 0;

	for (int round = 0; round < 4; round++) {
		/* Loopback hands over in a worker: credit may come back late. */
		for (int again = 0; again < 5; again++) {
			if (send_all(p, client, &next))
				return 1;
			usleep(20000);
		}
		if (receive(p, server, read, read + (next - read) / 2))
			return 1;
		read += (next - read) / 2;
	}
	if (receive(p, server, read, next))
		return 1;
	errno = 0;
	if (recv(server, got, 1, MSG_DONTWAIT) != -1 || errno != EAGAIN)
		return fail(p->name, "there is more than was sent", next);
	printf("# %s: %u messages\n", p->name, next);
	printf("ok %s\n", p->name);
	return 0;
}

int main(void)
{
	struct sockaddr_vm addr = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_LOCAL, .svm_port = 5200 };
	int listener = socket(AF_VSOCK, SOCK_SEQPACKET, 0), failed = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (bind(listener, (void *)&addr, sizeof(addr)) || listen(listener, 5)) {
		perror("bind");
		return 2;
	}
	for (size_t i = 0; i < sizeof(patterns) / sizeof(*patterns); i++) {
		int client = socket(AF_VSOCK, SOCK_SEQPACKET, 0), server;
		uint64_t size = patterns[i].buffer ?: 262144;

		if (setsockopt(listener, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &size, sizeof(size)) ||
		    connect(client, (void *)&addr, sizeof(addr)) ||
		    (server = accept(listener, NULL, NULL)) < 0) {
			perror("connect");
			return 2;
		}
		failed |= run(&patterns[i], client, server);
		close(client);
		close(server);
	}
	return failed;
}
