/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the programs here have in common: each has a table of tests, runs each in
 * a process of its own, and prints for each
 *
 *	  what was seen		(lines that are compared between C and ours)
 *	ok NAME | not ok NAME # why | skip NAME # why
 */
#ifndef TESTING_API_H
#define TESTING_API_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/sockios.h>
#include <linux/vm_sockets.h>

/* Seconds for one test: the debug kernel under TCG is slow. */
#define TEST_SECONDS 60

struct test {
	const char *name;
	void (*run)(int arg);
	int arg;
};

/* The reason of the child that failed, or was not needed. */
struct verdict {
	bool skipped;
	char why[400];
};

static struct verdict *verdict;

static inline void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("  ", stdout);
	vprintf(format, args);
	putchar('\n');
	va_end(args);
}

static inline void __attribute__((noreturn)) end(bool skipped, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	verdict->skipped = skipped;
	vsnprintf(verdict->why, sizeof(verdict->why), format, args);
	va_end(args);
	fflush(stdout);
	_exit(1);
}

#define fail(format, ...) end(false, "line %d: " format, __LINE__, ##__VA_ARGS__)

/* The call must not fail. */
#define must(call) ({							\
	long must_ = (long)(call);					\
	if (must_ < 0)							\
		fail("%s: %s", #call, strerror(errno));			\
	must_;								\
})

/* Two numbers that must be equal. */
#define expect(got, want) do {						\
	long long got_ = (got), want_ = (want);				\
	if (got_ != want_)						\
		fail("%s is %lld, not %lld", #got, got_, want_);	\
} while (0)

/* A call that must fail in a certain way. */
#define expect_errno(call, number) do {					\
	long ret_ = (long)(call);					\
	if (ret_ >= 0)							\
		fail("%s returned %ld, not %s", #call, ret_, #number);	\
	if (errno != (number))						\
		fail("%s: %s, not %s", #call, strerror(errno), #number); \
} while (0)

static inline const char *kind(int type)
{
	return type == SOCK_STREAM ? "stream" : "seqpacket";
}

static inline struct sockaddr_vm vm_addr(unsigned int cid, unsigned int port)
{
	struct sockaddr_vm addr = {
		.svm_family = AF_VSOCK,
		.svm_cid = cid,
		.svm_port = port,
	};

	return addr;
}

#define SA(addr) ((struct sockaddr *)(addr)), sizeof(*(addr))

static inline void set_size(int fd, uint64_t size)
{
	must(setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &size, sizeof(size)));
}

static inline void set_timeout(int fd, int option, int ms)
{
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	must(setsockopt(fd, SOL_SOCKET, option, &tv, sizeof(tv)));
}

static inline int vm_socket(int type)
{
	return must(socket(AF_VSOCK, type | SOCK_CLOEXEC, 0));
}

/* A listener on any port, which is stored in *addr. */
static inline int listener(int type, struct sockaddr_vm *addr)
{
	socklen_t len = sizeof(*addr);
	int fd = vm_socket(type);

	*addr = vm_addr(VMADDR_CID_ANY, VMADDR_PORT_ANY);
	must(bind(fd, SA(addr)));
	must(listen(fd, 10));
	must(getsockname(fd, (struct sockaddr *)addr, &len));
	addr->svm_cid = VMADDR_CID_LOCAL;
	return fd;
}

/* Two ends of a connection with buffers of that size, 0 for the default. */
static inline void pair_sized(int type, uint64_t size, int *client, int *server)
{
	struct sockaddr_vm addr;
	int fd = listener(type, &addr);

	if (size)
		set_size(fd, size);
	*client = vm_socket(type);
	if (size)
		set_size(*client, size);
	must(connect(*client, SA(&addr)));
	*server = must(accept(fd, NULL, NULL));
	close(fd);
	set_timeout(*client, SO_RCVTIMEO, 20000);
	set_timeout(*server, SO_RCVTIMEO, 20000);
}

static inline void pair(int type, int *client, int *server)
{
	pair_sized(type, 0, client, server);
}

/* Sends len times that byte. */
static inline ssize_t send_bytes(int fd, char byte, size_t len, int flags)
{
	char *data = malloc(len + 1);
	ssize_t ret;
	int saved;

	memset(data, byte, len);
	ret = send(fd, data, len, flags | MSG_NOSIGNAL);
	saved = errno;
	free(data);
	errno = saved;
	return ret;
}

/* What poll() says now, or within some milliseconds. */
static inline int poll_now(int fd, int events, int ms)
{
	struct pollfd p = { .fd = fd, .events = events };

	must(poll(&p, 1, ms));
	return p.revents;
}

/*
 * recv() that waits, at most 20 s. It does so in poll(), since recv() on a socket
 * in a sockmap keeps the socket locked meanwhile, and with it its peer away.
 */
static inline ssize_t recv_soon(int fd, void *data, size_t len, int flags)
{
	ssize_t ret;

	for (int n = 0; n < 2000; n++) {
		if (!poll_now(fd, POLLIN, 20000))
			break;
		ret = recv(fd, data, len, flags | MSG_DONTWAIT);
		if (ret >= 0 || errno != EAGAIN)
			return ret;
		usleep(10000);
	}
	errno = ETIMEDOUT;
	return -1;
}

/* Receives a message, or what is there, and says how long it is and what it has: "3a 2b". */
static inline ssize_t recv_runs(int fd, int flags, char *runs, size_t size)
{
	static char data[1 << 20];
	ssize_t len = flags & MSG_DONTWAIT ? recv(fd, data, sizeof(data), flags) :
		recv_soon(fd, data, sizeof(data), flags);
	size_t used = 0;

	runs[0] = 0;
	for (ssize_t begin = 0, n; begin < len; begin += n) {
		for (n = 1; begin + n < len && data[begin + n] == data[begin]; n++)
			;
		if (used < size)
			used += snprintf(runs + used, size - used, "%s%zd%c", begin ? " " : "", n,
					 data[begin]);
	}
	return len;
}

/* The next message must be this, in runs. */
#define expect_message(fd, want) do {					\
	char runs_[400];						\
									\
	if (recv_runs(fd, 0, runs_, sizeof(runs_)) < 0)			\
		fail("no message: %s", strerror(errno));		\
	if (strcmp(runs_, want))					\
		fail("the message is \"%s\", not \"%s\"", runs_, want);	\
} while (0)

/* Nothing must be there. */
#define expect_nothing(fd) do {						\
	char runs_[400];						\
	ssize_t ret_ = recv_runs(fd, MSG_DONTWAIT, runs_, sizeof(runs_)); \
									\
	if (ret_ >= 0 || errno != EAGAIN)				\
		fail("there is \"%s\" (%zd)", runs_, ret_);		\
} while (0)

/* Waits until a condition is true: for what has no event of its own. */
#define wait_until(condition) do {					\
	int left_ = 4000;						\
									\
	while (!(condition)) {						\
		if (!left_--)						\
			fail("not true within 20 s: %s", #condition);	\
		usleep(5000);						\
	}								\
} while (0)

static inline void run_one(const struct test *test)
{
	int status;
	pid_t pid;

	memset(verdict, 0, sizeof(*verdict));
	fflush(stdout);
	pid = fork();
	if (!pid) {
		alarm(TEST_SECONDS);
		test->run(test->arg);
		fflush(stdout);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		perror("fork");
		exit(2);
	}
	if (WIFSIGNALED(status))
		snprintf(verdict->why, sizeof(verdict->why), "ended by %s",
			 WTERMSIG(status) == SIGALRM ? "its time limit" : strsignal(WTERMSIG(status)));
	if (!status)
		printf("ok %s\n", test->name);
	else if (verdict->skipped)
		printf("skip %s # %s\n", test->name, verdict->why);
	else
		printf("not ok %s # %s\n", test->name, verdict->why);
}

/* All tests, or those that match one of the arguments. */
static inline int run_all(const struct test *tests, size_t count, int argc, char **argv)
{
	bool wanted;

	setvbuf(stdout, NULL, _IOLBF, 0);
	verdict = mmap(NULL, sizeof(*verdict), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (verdict == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	for (size_t n = 0; n < count; n++) {
		wanted = argc < 2;
		for (int arg = 1; arg < argc; arg++)
			wanted |= !fnmatch(argv[arg], tests[n].name, 0);
		if (wanted)
			run_one(&tests[n]);
	}
	return 0;
}

#endif
