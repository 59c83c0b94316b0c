// SPDX-License-Identifier: GPL-2.0
/*
 * A stream between two machines: one sends each byte back.
 *
 *	vsock_echo listen PORT		answers whoever connects, one after the other
 *	vsock_echo connect CID PORT	sends standard input, prints what comes back
 *
 * CID 2 is the host, 1 this machine itself (vsock_loopback), any other a guest.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

static char data[65536];

static int fail(const char *what)
{
	fprintf(stderr, "vsock_echo: %s: %s\n", what, strerror(errno));
	return 1;
}

/* A socket may take less than it is given. */
static int send_all(int fd, const char *from, ssize_t len)
{
	while (len > 0) {
		ssize_t sent = send(fd, from, len, MSG_NOSIGNAL);

		if (sent < 0)
			return -1;
		from += sent;
		len -= sent;
	}
	return 0;
}

static int echo(unsigned int port)
{
	struct sockaddr_vm addr = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port,
	};
	int listener = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (listener < 0)
		return fail("socket (is the module vsock loaded?)");
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) || listen(listener, 16))
		return fail("listen");
	for (;;) {
		socklen_t len = sizeof(addr);
		int fd = accept(listener, (struct sockaddr *)&addr, &len);
		ssize_t got;

		if (fd < 0)
			return fail("accept");
		printf("from CID %u, port %u\n", addr.svm_cid, addr.svm_port);
		fflush(stdout);
		while ((got = recv(fd, data, sizeof(data), 0)) > 0)
			if (send_all(fd, data, got))
				break;
		close(fd);
	}
}

static int converse(unsigned int cid, unsigned int port)
{
	struct sockaddr_vm addr = { .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port };
	struct pollfd ends[2] = { { .fd = 0, .events = POLLIN }, { .events = POLLIN } };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	ssize_t got;

	if (fd < 0)
		return fail("socket (is the module vsock loaded?)");
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return fail("connect");
	ends[1].fd = fd;
	while (poll(ends, 2, -1) > 0) {
		if (ends[0].revents) {
			got = read(0, data, sizeof(data));
			if (got > 0 && send_all(fd, data, got))
				return fail("send");
			/* The end of the input: the other side sees it too, and may still answer. */
			if (got <= 0) {
				shutdown(fd, SHUT_WR);
				ends[0].fd = -1;
			}
		}
		if (ends[1].revents) {
			got = recv(fd, data, sizeof(data), 0);
			if (got < 0)
				return fail("recv");
			if (!got)
				return 0;
			if (write(1, data, got) != got)
				return fail("write");
		}
	}
	return fail("poll");
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "listen"))
		return echo(strtoul(argv[2], NULL, 0));
	if (argc == 4 && !strcmp(argv[1], "connect"))
		return converse(strtoul(argv[2], NULL, 0), strtoul(argv[3], NULL, 0));
	fprintf(stderr, "usage: vsock_echo listen PORT | vsock_echo connect CID PORT\n");
	return 2;
}
