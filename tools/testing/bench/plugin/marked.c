// SPDX-License-Identifier: GPL-2.0
/*
 * A program whose windows are known: what the plugin must have counted comes out as lines
 * `expect <instructions at least> <at most>`, one for each window.
 */
#include <stdio.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <linux/vm_sockets.h>

#define OPEN() asm volatile(".byte 0x0f,0x1f,0x80; .long 0x76616201" ::: "memory")
#define CLOSE() asm volatile(".byte 0x0f,0x1f,0x80; .long 0x76616202" ::: "memory")

static void spin(unsigned long turns)
{
	/* Two instructions a turn. */
	asm volatile("1: dec %0; jnz 1b" : "+r"(turns) :: "cc");
}

int main(void)
{
	struct sockaddr_vm nobody = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_LOCAL, .svm_port = 9 };
	int i, fd;

	/* Once before, so that the page of the code is there. */
	CLOSE();
	OPEN();
	OPEN();
	CLOSE();
	puts("expect 0 0");
	OPEN();
	spin(1000);
	CLOSE();
	puts("expect 2000 2100");
	OPEN();
	spin(10 * 1000 * 1000);
	CLOSE();
	/* Timer interrupts are in it. */
	puts("expect 20000000 22000000");
	OPEN();
	for (i = 0; i < 100; i++)
		syscall(SYS_getppid);
	CLOSE();
	puts("expect 5000 100000");
	/* Time alone is nothing: the CPU sleeps. */
	OPEN();
	usleep(200000);
	CLOSE();
	puts("expect 1000 400000");
	/* A connection that nobody accepts: through a transport and back. */
	fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	OPEN();
	i = connect(fd, (struct sockaddr *)&nobody, sizeof(nobody));
	CLOSE();
	if (i == 0) {
		fputs("somebody listens\n", stderr);
		return 1;
	}
	puts("expect 3000 200000");
	return 0;
}
