/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the programs here share: how costs are measured and told.
 *
 * They are for a VM that counts instructions (`-icount shift=0`), where a
 * nanosecond of CLOCK_MONOTONIC is one instruction. On another machine the
 * figures are times.
 */
#ifndef BENCH_H
#define BENCH_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

#define MESSAGE 64		/* bytes, of every message */
#define PORT 9000		/* of the one listener */

static int failures;
static bool only_tell;		/* about modules that are not ours */

__attribute__((noreturn, format(printf, 1, 2)))
static inline void die(const char *format, ...)
{
	int error = errno;
	va_list args;

	printf("# ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(": %s\n", strerror(error));
	exit(1);
}

__attribute__((format(printf, 3, 4)))
static inline void verdict(bool good, const char *name, const char *format, ...)
{
	va_list args;

	printf("%s %s # ", only_tell ? "#" : good ? "ok" : "not ok", name);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	failures += !good && !only_tell;
}

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

/* The same sequence in every run. */
static inline uint32_t next_random(void)
{
	static uint64_t state = 88172645463325252ull;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state >> 32;
}

struct samples {
	double value[64];
	unsigned int count;
};

static inline void add_sample(struct samples *s, double value)
{
	if (s->count < 64)
		s->value[s->count++] = value;
}

static inline int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static inline double median(struct samples *s)
{
	qsort(s->value, s->count, sizeof(double), compare_doubles);
	return s->count ? (s->value[s->count / 2] + s->value[(s->count - 1) / 2]) / 2 : 0;
}

/* Distance of the farthest sample from the median, in percent. */
static inline double spread(struct samples *s)
{
	double middle = median(s), farthest = 0;

	for (unsigned int n = 0; n < s->count; n++) {
		double distance = s->value[n] - middle;

		if (distance < 0)
			distance = -distance;
		if (distance > farthest)
			farthest = distance;
	}
	return middle ? 100 * farthest / middle : 0;
}

static inline void tell(const char *what, struct samples *s)
{
	double middle = median(s);

	printf("# %-44s %9.0f insn  spread %.2f %% of %u\n", what, middle, spread(s), s->count);
	fflush(stdout);
}

static inline void raise_limits(unsigned int files)
{
	struct rlimit limit = { files, files };

	if (setrlimit(RLIMIT_NOFILE, &limit))
		die("cannot have %u open files", files);
}

/* [--tell] [NUMBER]: the number of connections */
static inline unsigned int arguments(int argc, char **argv)
{
	unsigned int count = 10000;

	for (int n = 1; n < argc; n++) {
		if (!strcmp(argv[n], "--tell"))
			only_tell = true;
		else
			count = strtoul(argv[n], NULL, 10);
	}
	if (count < 2)
		die("at least 2 connections");
	raise_limits(3 * count + 128);
	return count;
}

static inline int vsock_socket(int flags)
{
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	if (fd < 0)
		die("socket");
	return fd;
}

static inline int vsock_listen(unsigned int port)
{
	struct sockaddr_vm address = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port,
	};
	int fd = vsock_socket(0);

	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 128))
		die("listen on port %u", port);
	return fd;
}

static inline int vsock_connect(unsigned int cid, unsigned int port, int flags)
{
	struct sockaddr_vm address = {
		.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port,
	};
	int fd = vsock_socket(flags);

	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) && errno != EINPROGRESS)
		die("connect to %u:%u", cid, port);
	return fd;
}

static inline int vsock_accept(int listener)
{
	int fd = accept(listener, NULL, NULL);

	if (fd < 0)
		die("accept");
	return fd;
}

static inline void send_message(int fd, const char *message)
{
	if (send(fd, message, MESSAGE, 0) != MESSAGE)
		die("send");
}

static inline void receive_message(int fd, char *message)
{
	if (recv(fd, message, MESSAGE, MSG_WAITALL) != MESSAGE)
		die("recv");
}

#endif
