// SPDX-License-Identifier: GPL-2.0
/*
 * One end of AF_VSOCK connections, for tests of what happens to them when a
 * device goes, sleeps, or lies. It knows nothing of the other end but that it
 * echoes, keeps silent, or does not answer at all.
 *
 *   vsock_peer cid                           the machine's CID
 *   vsock_peer echo PORT                     a listener that sends back what it gets
 *   vsock_peer hold PORT                     a listener that accepts, and never reads
 *   vsock_peer late PORT                     reads once /tmp/late.go exists, and counts
 *   vsock_peer try CID PORT [TYPE]           connects, and has a few bytes echoed
 *   vsock_peer block CID HOLD SILENT_CID SILENT SECONDS
 *                                            system calls that wait until the peer is gone
 *   vsock_peer traffic CID PORT SECONDS N    N connections that verify what is echoed
 *   vsock_peer fill CID PORT SECONDS         writes to a peer that does not read
 *   vsock_peer zerocopy CID PORT SECONDS     the same with MSG_ZEROCOPY, and waits for
 *                                            its pages when the peer is gone
 *   vsock_peer flood CID PORT N FILE         N connections send small packets until nothing
 *                                            more is taken, then one more sends a byte;
 *                                            once FILE exists
 *
 * TYPE is stream or seqpacket. A listener takes streams on PORT, and sequenced
 * packets on the port after it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/errqueue.h>
#include <linux/vm_sockets.h>

#define CHUNK 8192

static void die(const char *what)
{
	printf("%s %s\n", what, strerrorname_np(errno));
	exit(1);
}

static const char *name_of(int err)
{
	const char *name = err ? strerrorname_np(err) : "OK";

	return name ? name : "?";
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static unsigned int number(const char *text)
{
	return strtoul(text, NULL, 0);
}

static int new_socket(int type)
{
	int fd = socket(AF_VSOCK, type, 0);

	if (fd < 0)
		die("socket");
	return fd;
}

static int connect_by(int fd, unsigned int cid, unsigned int port, int flags)
{
	struct sockaddr_vm addr = {
		.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port, .svm_flags = flags,
	};

	return connect(fd, (struct sockaddr *)&addr, sizeof(addr)) ? errno : 0;
}

static int connect_to(int fd, unsigned int cid, unsigned int port)
{
	return connect_by(fd, cid, port, 0);
}

static int listen_on(unsigned int port, int type)
{
	struct sockaddr_vm addr = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port,
	};
	int fd = new_socket(type);

	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
		die("bind");
	if (listen(fd, 128))
		die("listen");
	return fd;
}

static void start_thread(void *(*run)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 64 << 10);
	if (pthread_create(&thread, &attr, run, arg))
		die("pthread_create");
}

/* Sends all of it, or says why not. */
static int send_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n < 0)
			return errno;
		data += n;
		len -= n;
	}
	return 0;
}

/* An orderly end is ENODATA here. */
static int recv_all(int fd, char *data, size_t len)
{
	while (len) {
		ssize_t n = recv(fd, data, len, 0);

		if (n < 0)
			return errno;
		if (!n)
			return ENODATA;
		data += n;
		len -= n;
	}
	return 0;
}

/* --- listeners ------------------------------------------------------------ */

static void *echo_one(void *arg)
{
	char buf[CHUNK];
	int fd = (intptr_t)arg;
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
		if (send_all(fd, buf, n))
			break;
	close(fd);
	return NULL;
}

static void *echo_listener(void *arg)
{
	int fd;

	while ((fd = accept((intptr_t)arg, NULL, NULL)) >= 0)
		start_thread(echo_one, (void *)(intptr_t)fd);
	die("accept");
	return NULL;
}

static int echo(unsigned int port)
{
	int stream = listen_on(port, SOCK_STREAM);

	start_thread(echo_listener, (void *)(intptr_t)listen_on(port + 1, SOCK_SEQPACKET));
	printf("listening\n");
	fflush(stdout);
	echo_listener((void *)(intptr_t)stream);
	return 1;
}

static void *hold_listener(void *arg)
{
	while (accept((intptr_t)arg, NULL, NULL) >= 0)
		;
	die("accept");
	return NULL;
}

static int hold(unsigned int port)
{
	int stream = listen_on(port, SOCK_STREAM);

	start_thread(hold_listener, (void *)(intptr_t)listen_on(port + 1, SOCK_SEQPACKET));
	printf("listening\n");
	fflush(stdout);
	hold_listener((void *)(intptr_t)stream);
	return 1;
}

/* Bytes of the first connection, and those among them that are no 'f'. */
static int late(unsigned int port)
{
	unsigned long bytes = 0, others = 0;
	int conn, fd = listen_on(port, SOCK_STREAM);
	char buf[CHUNK];
	ssize_t n;

	printf("listening\n");
	fflush(stdout);
	conn = accept(fd, NULL, NULL);
	while (access("/tmp/late.go", F_OK))
		usleep(20000);
	while ((n = recv(conn, buf, sizeof(buf), 0)) > 0) {
		bytes += n;
		while (n--)
			others += buf[n] != 'f';
	}
	printf("late %lu %lu\n", bytes, others);
	return 0;
}

/* --- one exchange --------------------------------------------------------- */

static int try(unsigned int cid, unsigned int port, int type)
{
	struct timeval wait = { .tv_sec = 10 };
	static const char text[] = "over and out";
	char answer[sizeof(text)];
	int fd = new_socket(type);
	int err = connect_to(fd, cid, port);

	if (err) {
		printf("connect %s\n", name_of(err));
		return 1;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	err = send_all(fd, text, sizeof(text));
	if (!err)
		err = recv_all(fd, answer, sizeof(answer));
	if (!err && memcmp(text, answer, sizeof(text)))
		err = EILSEQ;
	printf("%s\n", name_of(err));
	return !!err;
}

/* --- system calls that wait ------------------------------------------------ */

static unsigned int block_cid, block_hold, block_silent_cid, block_silent, block_seconds;
static int block_ready, block_done;
static pthread_mutex_t block_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t block_changed = PTHREAD_COND_INITIALIZER;

#define BLOCK_KINDS 6

static void block_count(int *counter)
{
	pthread_mutex_lock(&block_lock);
	++*counter;
	pthread_cond_broadcast(&block_changed);
	pthread_mutex_unlock(&block_lock);
}

static void block_report(const char *kind, int err)
{
	printf("%s %s\n", kind, name_of(err));
	fflush(stdout);
	block_count(&block_done);
}

static int block_connected(const char *kind, int type)
{
	int fd = new_socket(type);
	int err = connect_to(fd, block_cid, type == SOCK_STREAM ? block_hold : block_hold + 1);

	if (err) {
		printf("%s: connect %s\n", kind, name_of(err));
		exit(1);
	}
	return fd;
}

static int so_error(int fd)
{
	int err = 0;
	socklen_t len = sizeof(err);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) ? errno : err;
}

static void *block_recv(void *arg)
{
	int fd = block_connected("recv", SOCK_STREAM);
	char byte;

	block_count(&block_ready);
	block_report("recv", recv_all(fd, &byte, 1));
	return NULL;
}

static void *block_seqpacket(void *arg)
{
	int err, fd = block_connected("seqpacket", SOCK_SEQPACKET);
	char byte;

	block_count(&block_ready);
	err = recv_all(fd, &byte, 1);
	/* The kernel's core tells such a reader of an end, but it keeps the error. */
	block_report("seqpacket", err == ENODATA ? so_error(fd) : err);
	return NULL;
}

static void *block_send(void *arg)
{
	static char data[CHUNK];
	int fd = block_connected("send", SOCK_STREAM);
	int err;

	/* Until nothing more goes, and then once more. */
	fcntl(fd, F_SETFL, O_NONBLOCK);
	do {
		err = send_all(fd, data, sizeof(data));
	} while (!err);
	if (err != EAGAIN) {
		block_report("send", err);
		return NULL;
	}
	fcntl(fd, F_SETFL, 0);
	block_count(&block_ready);
	do {
		err = send_all(fd, data, sizeof(data));
	} while (!err);
	block_report("send", err);
	return NULL;
}

static int poll_for(int fd, short events)
{
	struct pollfd entry = { .fd = fd, .events = events };
	int n;

	do {
		n = poll(&entry, 1, -1);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? errno : so_error(fd);
}

static void *block_poll(void *arg)
{
	int fd = block_connected("poll", SOCK_STREAM);

	block_count(&block_ready);
	block_report("poll", poll_for(fd, POLLIN));
	return NULL;
}

/*
 * Sleeping in connect() would be interrupted when the machine is suspended. The
 * timer keeps the socket, and its module, for as long as it was set to.
 */
static void *block_connect(void *arg)
{
	struct timeval wait = { .tv_sec = block_seconds };
	int fd = new_socket(SOCK_STREAM);
	int err;

	setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW, &wait, sizeof(wait));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	err = connect_by(fd, block_silent_cid, block_silent, VMADDR_FLAG_TO_HOST);
	if (err != EINPROGRESS) {
		block_report("connect", err);
		return NULL;
	}
	block_count(&block_ready);
	block_report("connect", poll_for(fd, POLLOUT));
	return NULL;
}

/* A connection that is not used when the peer goes. */
static void *block_idle(void *arg)
{
	int fd = block_connected("idle", SOCK_STREAM);
	int err;

	block_count(&block_ready);
	pthread_mutex_lock(&block_lock);
	while (block_done < BLOCK_KINDS - 1)
		pthread_cond_wait(&block_changed, &block_lock);
	pthread_mutex_unlock(&block_lock);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	err = recv(fd, &(char){ 0 }, 1, 0) < 0 ? errno : ENODATA;
	block_report("idle", err);
	return NULL;
}

static int block(char **argv)
{
	block_cid = number(argv[0]);
	block_hold = number(argv[1]);
	block_silent_cid = number(argv[2]);
	block_silent = number(argv[3]);
	block_seconds = number(argv[4]);
	start_thread(block_recv, NULL);
	start_thread(block_seqpacket, NULL);
	start_thread(block_send, NULL);
	start_thread(block_poll, NULL);
	start_thread(block_connect, NULL);
	start_thread(block_idle, NULL);
	pthread_mutex_lock(&block_lock);
	while (block_ready + block_done < BLOCK_KINDS)
		pthread_cond_wait(&block_changed, &block_lock);
	printf("ready\n");
	fflush(stdout);
	while (block_done < BLOCK_KINDS)
		pthread_cond_wait(&block_changed, &block_lock);
	printf("done\n");
	return 0;
}

/* --- traffic ---------------------------------------------------------------- */

static struct {
	unsigned int cid, port;
	double end;
	unsigned long connections, bytes, damaged, errors[134];
} traffic_state;

static void traffic_count(unsigned long *counter, unsigned long n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static void traffic_one(unsigned int *seed, int type)
{
	struct timeval wait = { .tv_sec = 20 };
	char out[CHUNK], in[CHUNK];
	int fd = new_socket(type), rounds = 1 + rand_r(seed) % 64;
	int err = connect_to(fd, traffic_state.cid,
			     traffic_state.port + (type == SOCK_SEQPACKET));

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	if (!err)
		traffic_count(&traffic_state.connections, 1);
	while (!err && rounds-- && now() < traffic_state.end) {
		size_t len = 1 + rand_r(seed) % (rand_r(seed) % 2 ? 64 : sizeof(out));

		for (size_t n = 0; n < len; n++)
			out[n] = rand_r(seed);
		err = send_all(fd, out, len);
		if (!err)
			err = recv_all(fd, in, len);
		if (err)
			break;
		if (memcmp(in, out, len))
			traffic_count(&traffic_state.damaged, 1);
		traffic_count(&traffic_state.bytes, len);
	}
	close(fd);
	if (err) {
		traffic_count(&traffic_state.errors[err], 1);
		usleep(20000);
	}
}

static void *traffic_thread(void *arg)
{
	unsigned int seed = (uintptr_t)arg;

	while (now() < traffic_state.end)
		traffic_one(&seed, seed % 4 ? SOCK_STREAM : SOCK_SEQPACKET);
	return NULL;
}

static int traffic(unsigned int cid, unsigned int port, double seconds, unsigned int n)
{
	pthread_t threads[64];

	if (n > 64)
		n = 64;
	traffic_state.cid = cid;
	traffic_state.port = port;
	traffic_state.end = now() + seconds;
	for (unsigned int t = 0; t < n; t++)
		if (pthread_create(&threads[t], NULL, traffic_thread, (void *)(uintptr_t)(t + 1)))
			die("pthread_create");
	for (unsigned int t = 0; t < n; t++)
		pthread_join(threads[t], NULL);
	printf("traffic connections %lu bytes %lu damaged %lu", traffic_state.connections,
	       traffic_state.bytes, traffic_state.damaged);
	for (int err = 0; err < 134; err++)
		if (traffic_state.errors[err])
			printf(" %s %lu", name_of(err), traffic_state.errors[err]);
	printf("\n");
	return traffic_state.damaged || !traffic_state.bytes;
}

/* How many sends the kernel has finished, of those whose end was not seen before. */
static unsigned int completed(int fd)
{
	char control[256];
	unsigned int count = 0;

	for (;;) {
		struct msghdr msg = { .msg_control = control, .msg_controllen = sizeof(control) };
		struct sock_extended_err *done;
		struct cmsghdr *cm;

		if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			return count;
		cm = CMSG_FIRSTHDR(&msg);
		if (!cm)
			continue;
		done = (struct sock_extended_err *)CMSG_DATA(cm);
		count += done->ee_data - done->ee_info + 1;
	}
}

/* How much the kernel takes for a peer that does not read. */
static int fill(unsigned int cid, unsigned int port, double seconds, int zerocopy)
{
	static char data[CHUNK] __attribute__((aligned(4096)));
	double end = now() + seconds;
	unsigned long taken = 0;
	unsigned int sends = 0, done = 0;
	int fd = new_socket(SOCK_STREAM);
	int err = connect_to(fd, cid, port);

	if (zerocopy && setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &(int){ 1 }, sizeof(int)))
		die("SO_ZEROCOPY");
	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (!err && now() < end) {
		ssize_t n = send(fd, data, sizeof(data),
				 MSG_NOSIGNAL | (zerocopy ? MSG_ZEROCOPY : 0));

		if (n > 0) {
			taken += n;
			sends++;
		} else if (errno == EAGAIN) {
			usleep(10000);
		} else {
			err = errno;
		}
	}
	if (!zerocopy) {
		printf("fill %lu %s\n", taken, name_of(err));
		return 0;
	}
	for (end = now() + 5; done < sends && now() < end; usleep(10000))
		done += completed(fd);
	printf("zerocopy %lu %s %u %u\n", taken, name_of(err), sends, done);
	return 0;
}

#define FLOOD_MAX 64

static int flood(unsigned int cid, unsigned int port, unsigned int n, const char *file)
{
	int fds[FLOOD_MAX + 1];
	unsigned long taken = 0;
	unsigned int full = 0;
	char data[64] = { 0 };

	if (!n || n > FLOOD_MAX)
		return 2;
	for (unsigned int i = 0; i <= n; i++) {
		fds[i] = new_socket(SOCK_STREAM);
		if (connect_to(fds[i], cid, port))
			die("connect");
	}
	printf("connected\n");
	fflush(stdout);
	while (access(file, F_OK))
		usleep(10000);
	/* In turns, so that all of them have something when the first one has all it may. */
	while (full < n) {
		full = 0;
		for (unsigned int i = 0; i < n; i++) {
			ssize_t sent = send(fds[i], data, sizeof(data), MSG_DONTWAIT);

			if (sent > 0)
				taken += sent;
			else if (errno == EAGAIN)
				full++;
			else
				die("send");
		}
	}
	if (send(fds[n], data, 1, MSG_DONTWAIT) != 1)
		die("one");
	printf("taken %lu\n", taken);
	fflush(stdout);
	pause();
	return 0;
}

static int own_cid(void)
{
	unsigned int cid = 0;
	int fd = open("/dev/vsock", O_RDONLY);

	if (fd < 0 || ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid))
		die("cid");
	printf("%u\n", cid);
	return 0;
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";

	signal(SIGPIPE, SIG_IGN);
	if (!strcmp(command, "cid"))
		return own_cid();
	if (!strcmp(command, "echo") && argc == 3)
		return echo(number(argv[2]));
	if (!strcmp(command, "hold") && argc == 3)
		return hold(number(argv[2]));
	if (!strcmp(command, "late") && argc == 3)
		return late(number(argv[2]));
	if (!strcmp(command, "try") && argc >= 4)
		return try(number(argv[2]), number(argv[3]),
			   argc > 4 && !strcmp(argv[4], "seqpacket") ? SOCK_SEQPACKET : SOCK_STREAM);
	if (!strcmp(command, "block") && argc == 7)
		return block(argv + 2);
	if (!strcmp(command, "traffic") && argc == 6)
		return traffic(number(argv[2]), number(argv[3]), atof(argv[4]), number(argv[5]));
	if (!strcmp(command, "fill") && argc == 5)
		return fill(number(argv[2]), number(argv[3]), atof(argv[4]), 0);
	if (!strcmp(command, "zerocopy") && argc == 5)
		return fill(number(argv[2]), number(argv[3]), atof(argv[4]), 1);
	if (!strcmp(command, "flood") && argc == 6)
		return flood(number(argv[2]), number(argv[3]), number(argv[4]), argv[5]);
	fprintf(stderr, "usage: see the top of vsock_peer.c\n");
	return 2;
}
