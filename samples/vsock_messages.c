// SPDX-License-Identifier: GPL-2.0
/*
 * Messages that keep their bounds (SOCK_SEQPACKET).
 *
 *	vsock_messages receive PORT		prints the length and the text of each message
 *	vsock_messages send CID PORT TEXT...	sends each TEXT as a message
 *
 * A message that is longer than the buffer of recv() is cut; with MSG_TRUNC recv()
 * tells its real length. The guest's driver or the host may not know the type
 * (QEMU: -device vhost-vsock-pci,seqpacket=off): connect() says ESOCKTNOSUPPORT
 * then.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

static int fail(const char *what)
{
	fprintf(stderr, "vsock_messages: %s: %s\n", what, strerror(errno));
	return 1;
}

static int receive(unsigned int port)
{
	struct sockaddr_vm addr = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port,
	};
	int listener = socket(AF_VSOCK, SOCK_SEQPACKET, 0);
	char text[32];
	ssize_t len;
	int fd;

	if (listener < 0)
		return fail("socket (is the module vsock loaded?)");
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) || listen(listener, 1))
		return fail("listen");
	fd = accept(listener, NULL, NULL);
	if (fd < 0)
		return fail("accept");
	while ((len = recv(fd, text, sizeof(text), MSG_TRUNC)) > 0) {
		int kept = len < (ssize_t)sizeof(text) ? len : (ssize_t)sizeof(text);

		printf("%zd bytes%s: %.*s\n", len, kept < len ? ", cut" : "", kept, text);
	}
	return len ? fail("recv") : 0;
}

static int send_each(unsigned int cid, unsigned int port, char **texts)
{
	struct sockaddr_vm addr = { .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port };
	int fd = socket(AF_VSOCK, SOCK_SEQPACKET, 0);

	if (fd < 0)
		return fail("socket (is the module vsock loaded?)");
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return fail("connect");
	for (; *texts; texts++)
		if (send(fd, *texts, strlen(*texts), MSG_EOR | MSG_NOSIGNAL) < 0)
			return fail("send");
	return close(fd) ? fail("close") : 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "receive"))
		return receive(strtoul(argv[2], NULL, 0));
	if (argc > 4 && !strcmp(argv[1], "send"))
		return send_each(strtoul(argv[2], NULL, 0), strtoul(argv[3], NULL, 0), argv + 4);
	fprintf(stderr, "usage: vsock_messages receive PORT | vsock_messages send CID PORT TEXT...\n");
	return 2;
}
