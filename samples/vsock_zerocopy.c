// SPDX-License-Identifier: GPL-2.0
/*
 * Sends memory without copying it (MSG_ZEROCOPY), and waits until it may be used again.
 *
 *	vsock_zerocopy CID PORT MEBIBYTES
 *
 * to a receiver such as `socat -u VSOCK-LISTEN:PORT /dev/null`. Each send has a number;
 * the error queue of the socket tells which are done, and whether the kernel copied
 * after all, as it does for what does not fit into the ring (and over loopback).
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/errqueue.h>
#include <linux/vm_sockets.h>

#define PIECE (256 << 10)

static unsigned long done, copied;

static int fail(const char *what)
{
	fprintf(stderr, "vsock_zerocopy: %s: %s\n", what, strerror(errno));
	return 1;
}

/* One report: sends ee_info to ee_data are done. */
static int completion(int fd)
{
	char control[256];
	struct msghdr msg = { .msg_control = control, .msg_controllen = sizeof(control) };
	struct sock_extended_err *report;
	struct cmsghdr *head;

	if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
		return errno == EAGAIN ? 0 : -1;
	head = CMSG_FIRSTHDR(&msg);
	if (!head || head->cmsg_level != SOL_VSOCK || head->cmsg_type != VSOCK_RECVERR) {
		errno = EPROTO;
		return -1;
	}
	report = (void *)CMSG_DATA(head);
	done += report->ee_data - report->ee_info + 1;
	if (report->ee_code & SO_EE_CODE_ZEROCOPY_COPIED)
		copied += report->ee_data - report->ee_info + 1;
	return 1;
}

int main(int argc, char **argv)
{
	struct sockaddr_vm addr = { .svm_family = AF_VSOCK };
	unsigned long left, sends = 0;
	struct pollfd end = { 0 };
	int fd, on = 1;
	char *memory;

	if (argc != 4) {
		fprintf(stderr, "usage: vsock_zerocopy CID PORT MEBIBYTES\n");
		return 2;
	}
	addr.svm_cid = strtoul(argv[1], NULL, 0);
	addr.svm_port = strtoul(argv[2], NULL, 0);
	left = strtoul(argv[3], NULL, 0) << 20;
	memory = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
		      -1, 0);
	if (memory == MAP_FAILED)
		return fail("mmap");
	fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (fd < 0)
		return fail("socket (is the module vsock loaded?)");
	if (setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)))
		return fail("SO_ZEROCOPY");
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return fail("connect");
	while (left > 0) {
		ssize_t sent = send(fd, memory, left < PIECE ? left : PIECE,
				    MSG_ZEROCOPY | MSG_NOSIGNAL);

		if (sent < 0)
			return fail("send");
		left -= sent;
		sends++;
		/* Reports are few if they are fetched late: neighbours are joined. */
		while (done < sends && completion(fd) > 0)
			;
	}
	/* The error queue needs no bit in `events`. */
	end.fd = fd;
	while (done < sends) {
		if (poll(&end, 1, 10000) <= 0)
			return fail("poll");
		if (completion(fd) < 0)
			return fail("MSG_ERRQUEUE");
	}
	printf("%lu sends done, %lu of them copied\n", done, copied);
	return 0;
}
