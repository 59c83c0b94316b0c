// SPDX-License-Identifier: GPL-2.0
/*
 * A session in lock-step, and what others see of it: each packet on a monitoring
 * device, both tracepoints, vsock_diag and ss. All of that is the same with C and
 * with ours, and is compared line by line.
 *
 *	session			both ends here, over loopback
 *	session server		one end, for a client on the other machine
 *	session client CID	the other one, which watches
 *
 * The client tells the server what to do on a connection of its own, whose packets
 * are left out. Packets keep their order, so that whatever a step causes is over
 * when three questions on that connection were answered.
 */
#include "api.h"
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/virtio_vsock.h>
#include <linux/vm_sockets_diag.h>
#include <linux/vsockmon.h>
#include <net/if.h>

#define CONTROL_PORT 9999
/* Ports are fixed, so that they are the same in each session. */
#define FIRST_PORT 7000
#define TRACING "/sys/kernel/tracing/"

enum command { PING, LISTEN, ACCEPT, CONNECT, SEND, RECV, SHUTDOWN, CLOSE, SIZE, LOWAT };

struct request {
	int command, slot, a, b, c;
};

struct answer {
	int ret, error;
	unsigned int sum;
};

/* The sockets of one end, by their number. */
static int slots[4] = { -1, -1, -1, -1 };
static char data[1 << 20];

static unsigned int checksum(const void *from, size_t len)
{
	unsigned int sum = 2166136261u;

	for (size_t n = 0; n < len; n++)
		sum = (sum ^ ((const unsigned char *)from)[n]) * 16777619u;
	return sum;
}

/* Does something at this end. */
static struct answer act(struct request r)
{
	struct answer answer = { 0 };
	struct sockaddr_vm addr;
	uint64_t size = r.a;
	int *fd = &slots[r.slot];

	switch (r.command) {
	case LISTEN:	/* type, port, backlog */
		*fd = vm_socket(r.a);
		addr = vm_addr(VMADDR_CID_ANY, r.b);
		answer.ret = bind(*fd, SA(&addr)) ?: listen(*fd, r.c);
		break;
	case ACCEPT:	/* to slot */
		answer.ret = slots[r.a] = accept(*fd, NULL, NULL);
		break;
	case CONNECT:	/* type, own port, CID * 65536 + port */
		*fd = vm_socket(r.a);
		addr = vm_addr(VMADDR_CID_ANY, r.b);
		must(bind(*fd, SA(&addr)));
		addr = vm_addr(r.c >> 16, r.c & 0xffff);
		answer.ret = connect(*fd, SA(&addr));
		break;
	case SEND:	/* seed, bytes, flags */
		for (int n = 0; n < r.b; n++)
			data[n] = (n * 31 + r.a) >> 2;
		answer.ret = send(*fd, data, r.b, r.c | MSG_NOSIGNAL | MSG_DONTWAIT);
		break;
	case RECV:	/* bytes, flags */
		answer.ret = recv(*fd, data, r.a, r.b | MSG_DONTWAIT);
		if (answer.ret > 0)
			answer.sum = checksum(data, answer.ret < r.a ? answer.ret : r.a);
		break;
	case SHUTDOWN:	/* how */
		answer.ret = shutdown(*fd, r.a);
		break;
	case CLOSE:
		answer.ret = close(*fd);
		*fd = -1;
		break;
	case SIZE:	/* bytes */
		answer.ret = setsockopt(*fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &size,
					sizeof(size));
		break;
	case LOWAT:	/* bytes */
		answer.ret = setsockopt(*fd, SOL_SOCKET, SO_RCVLOWAT, &r.a, sizeof(r.a));
		break;
	}
	/* The number of a descriptor says nothing. */
	if (answer.ret >= 0 && (r.command == ACCEPT))
		answer.ret = 0;
	answer.error = answer.ret < 0 ? errno : 0;
	return answer;
}

/* --- the server ------------------------------------------------------------ */

static void serve(int control)
{
	struct request request;
	struct answer answer;

	while (recv(control, &request, sizeof(request), MSG_WAITALL) == sizeof(request)) {
		answer = act(request);
		send(control, &answer, sizeof(answer), MSG_NOSIGNAL);
	}
	for (int n = 0; n < 4; n++) {
		close(slots[n]);
		slots[n] = -1;
	}
	close(control);
}

static int server(int ready)
{
	struct sockaddr_vm addr = vm_addr(VMADDR_CID_ANY, CONTROL_PORT);
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (bind(fd, SA(&addr)) || listen(fd, 1)) {
		perror("control port");
		return 2;
	}
	close(ready);
	for (;;)
		serve(accept(fd, NULL, NULL));
}

/* --- the client ------------------------------------------------------------ */

static unsigned int peer_cid = VMADDR_CID_LOCAL;
static int control = -1, capture = -1, trace = -1;

static struct answer there(struct request request)
{
	struct answer answer;

	expect(send(control, &request, sizeof(request), 0), sizeof(request));
	expect(recv(control, &answer, sizeof(answer), MSG_WAITALL), sizeof(answer));
	return answer;
}

/* A test has a number, by which its ports differ from those of others, and a type. */
#define TEST(number, type) ((number) << 8 | (type))

static struct {
	int type, from, to, address;
} ends;

/* Of this test? What the one before leaves behind may go while this one runs. */
static bool in_test(unsigned int one, unsigned int other)
{
	return (int)one == ends.to || (int)other == ends.to;
}

static void show_packets(void)
{
	static unsigned char packet[1 << 18];
	ssize_t len;

	while ((len = recv(capture, packet, sizeof(packet), MSG_DONTWAIT)) > 0) {
		struct af_vsockmon_hdr *mon = (void *)packet;
		struct virtio_vsock_hdr *hdr = (void *)(packet + sizeof(*mon));
		size_t heads = sizeof(*mon) + sizeof(*hdr);

		if (len < (ssize_t)heads)
			fail("a captured packet has %zd bytes", len);
		if (!in_test(hdr->src_port, hdr->dst_port))
			continue;
		say("packet %llu:%u > %llu:%u type %u op %u flags %u len %u buf_alloc %u fwd_cnt %u, %zd bytes %08x, monitor %llu:%u > %llu:%u op %u transport %u len %u reserved %u",
		    (unsigned long long)hdr->src_cid, hdr->src_port,
		    (unsigned long long)hdr->dst_cid, hdr->dst_port, hdr->type, hdr->op,
		    hdr->flags, hdr->len, hdr->buf_alloc, hdr->fwd_cnt, len - (ssize_t)heads,
		    checksum(packet + heads, len - heads),
		    (unsigned long long)mon->src_cid, mon->src_port,
		    (unsigned long long)mon->dst_cid, mon->dst_port, mon->op, mon->transport,
		    mon->len, mon->reserved[0] | mon->reserved[1]);
	}
}

/* Lines of both tracepoints; each has an order of its own. */
static void show_trace(void)
{
	static const char *const names[] = { "virtio_transport_alloc_pkt", "virtio_transport_recv_pkt" };
	static char text[1 << 18], copy[1 << 18];
	size_t used = 0;
	ssize_t len;

	while ((len = read(trace, text + used, sizeof(text) - 1 - used)) > 0)
		used += len;
	text[used] = 0;
	for (int n = 0; n < 2; n++) {
		strcpy(copy, text);
		for (char *line = strtok(copy, "\n"); line; line = strtok(NULL, "\n")) {
			char *event = strstr(line, names[n]);
			unsigned int from, to;

			if (!event || sscanf(strchr(event, ' '), " %*u:%u -> %*u:%u", &from, &to) != 2)
				continue;
			if (in_test(from, to))
				say("trace %s", event);
		}
	}
}

/* Until all is quiet; then what was seen. */
static void settle(void)
{
	for (int n = 0; n < 3; n++)
		there((struct request){ .command = PING });
	show_packets();
	show_trace();
}

#define REQUEST(command_, slot_, ...) ((struct request){ command_, slot_, ##__VA_ARGS__ })

static void step(const char *where, struct answer answer, const char *what)
{
	say("%s: %s = %d%s%s", where, what, answer.ret, answer.error ? ", " : "",
	    answer.error ? strerrorname_np(answer.error) : "");
	if (answer.sum)
		say("  got %08x", answer.sum);
	settle();
}

/* One step of the session, here or there. */
#define HERE(command, ...) step("here", act(REQUEST(command, __VA_ARGS__)), #command " " #__VA_ARGS__)
#define THERE(command, ...) \
	step("there", there(REQUEST(command, __VA_ARGS__)), #command " " #__VA_ARGS__)

struct entry {
	char text[120];
};

static int by_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

static void show_sorted(const char *name, struct entry *entries, size_t count)
{
	qsort(entries, count, sizeof(*entries), by_text);
	for (size_t n = 0; n < count; n++)
		say("%s %s", name, entries[n].text);
}

/* What vsock_diag and ss know of the sockets here. */
static void show_sockets(void)
{
	struct {
		struct nlmsghdr head;
		struct vsock_diag_req diag;
	} request = {
		.head = { sizeof(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0 },
		.diag = { .sdiag_family = AF_VSOCK, .vdiag_states = ~0u },
	};
	int fd = must(socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG));
	struct entry entries[100];
	size_t count = 0;
	bool done = false;
	char line[200];
	FILE *ss;

	must(send(fd, &request, sizeof(request), 0));
	while (!done) {
		int len = must(recv(fd, data, sizeof(data), 0));

		for (struct nlmsghdr *head = (void *)data; NLMSG_OK(head, (unsigned int)len);
		     head = NLMSG_NEXT(head, len)) {
			struct vsock_diag_msg *msg = NLMSG_DATA(head);

			done |= head->nlmsg_type == NLMSG_DONE;
			if (head->nlmsg_type == NLMSG_ERROR)
				fail("vsock_diag");
			if (done || !in_test(msg->vdiag_src_port, msg->vdiag_dst_port) || count == 100)
				continue;
			snprintf(entries[count++].text, sizeof(*entries),
				 "type %u state %u shutdown %u %u:%u > %u:%u inode %s cookie %s",
				 msg->vdiag_type, msg->vdiag_state, msg->vdiag_shutdown,
				 msg->vdiag_src_cid, msg->vdiag_src_port, msg->vdiag_dst_cid,
				 msg->vdiag_dst_port, msg->vdiag_ino ? "some" : "none",
				 msg->vdiag_cookie[0] | msg->vdiag_cookie[1] ? "some" : "none");
		}
	}
	close(fd);
	show_sorted("diag", entries, count);

	count = 0;
	ss = popen("ss -a -n --vsock", "r");
	while (ss && fgets(line, sizeof(line), ss) && count < 100) {
		unsigned int from, to = 0;
		char *colon = strchr(line, ':');

		line[strcspn(line, "\n")] = 0;
		/* A listener has no other end. */
		if (colon && sscanf(colon, ":%u %*[^:]:%u", &from, &to) >= 1 && in_test(from, to))
			snprintf(entries[count++].text, sizeof(*entries), "%.110s", line);
	}
	if (!ss || pclose(ss))
		fail("ss does not work");
	show_sorted("ss", entries, count);
}

static void write_file(const char *name, const char *text)
{
	int fd = must(open(name, O_WRONLY));

	must(write(fd, text, strlen(text)));
	close(fd);
}

/* Begins to watch. */
static void watch(void)
{
	struct sockaddr_ll ll = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = if_nametoindex("vsockmon0"),
	};
	struct sockaddr_vm addr = vm_addr(peer_cid, CONTROL_PORT);
	int size = 64 << 20;

	if (!ll.sll_ifindex)
		fail("there is no vsockmon0");
	capture = must(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)));
	must(setsockopt(capture, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)));
	must(bind(capture, SA(&ll)));
	write_file(TRACING "events/vsock/enable", "1");
	trace = must(open(TRACING "trace_pipe", O_RDONLY | O_NONBLOCK));
	while (read(trace, data, sizeof(data)) > 0)
		;
	control = vm_socket(SOCK_STREAM);
	must(connect(control, SA(&addr)));
}

static void begin(int arg)
{
	ends = (typeof(ends)){
		.type = arg & 0xff,
		.from = FIRST_PORT + (arg >> 8) * 10 + (arg & 0xff),
		.to = FIRST_PORT + 1000 + (arg >> 8) * 10 + (arg & 0xff),
	};

	ends.address = peer_cid << 16 | ends.to;
	watch();
}

/* Slot 0 there listens; 1 on both sides is connected. */
static void begin_connected(int arg)
{
	begin(arg);

	THERE(LISTEN, 0, ends.type, ends.to, 5);
	HERE(CONNECT, 1, ends.type, ends.from, ends.address);
	THERE(ACCEPT, 0, 1);
}

static void test_sockets(int arg)
{
	begin_connected(arg);
	show_sockets();
	HERE(SHUTDOWN, 1, SHUT_WR);
	show_sockets();
	THERE(SEND, 1, 1, 100);
	THERE(CLOSE, 1);
	show_sockets();
	HERE(RECV, 1, 1000);
	show_sockets();
	HERE(CLOSE, 1);
	THERE(CLOSE, 0);
	show_sockets();
}

/* Data of all lengths, both ways, and the room that comes back. */
static void test_data(int arg)
{
	begin_connected(arg);
	HERE(SEND, 1, 1, 10);
	THERE(RECV, 1, 1000);
	HERE(SEND, 1, 2, 65536);
	THERE(RECV, 1, 65536);
	HERE(SEND, 1, 3, 65537);
	THERE(RECV, 1, 65537);
	HERE(SEND, 1, 4, 200000, MSG_EOR);
	THERE(RECV, 1, 200000);
	THERE(SEND, 1, 5, 100000);
	THERE(SEND, 1, 6, 1000);
	HERE(RECV, 1, 262144);
	HERE(RECV, 1, 262144);
	HERE(SEND, 1, 7, 1);
	THERE(RECV, 1, 1);
}

/* Messages that are cut, looked at, and many small ones. */
static void test_bounds(int arg)
{
	begin_connected(arg);
	for (int n = 0; n < 5; n++)
		HERE(SEND, 1, n, 50, n & 1 ? MSG_EOR : 0);
	THERE(RECV, 1, 250, MSG_PEEK);
	for (int n = 0; n < 5; n++)
		THERE(RECV, 1, 50);
	THERE(RECV, 1, 50);
	HERE(SEND, 1, 1, 1000);
	HERE(SEND, 1, 2, 100000);
	THERE(RECV, 1, 101000, MSG_TRUNC);
	THERE(RECV, 1, 101000, MSG_TRUNC);
}

/* No room; and other room than before. */
static void test_credit(int arg)
{
	begin_connected(arg);
	for (int n = 0; n < 5; n++)
		HERE(SEND, 1, n, 65536);
	THERE(RECV, 1, 65536);
	THERE(LOWAT, 1, 262144);
	THERE(RECV, 1, 65536);
	THERE(RECV, 1, 65536);
	HERE(SEND, 1, 9, 65536);
	THERE(SIZE, 1, 131072);
	THERE(RECV, 1, 65536);
	THERE(RECV, 1, 65536);
	HERE(SEND, 1, 8, 65536);
	HERE(SIZE, 1, 65536);
	THERE(SEND, 1, 8, 65536);
	THERE(SEND, 1, 8, 1);
	HERE(RECV, 1, 65536);
}

/* Ends: in halves, by either side, with something unread. */
static void test_half_close(int arg)
{
	begin_connected(arg);
	HERE(SHUTDOWN, 1, SHUT_WR);
	THERE(RECV, 1, 100);
	THERE(SEND, 1, 1, 100);
	THERE(SHUTDOWN, 1, SHUT_WR);
	HERE(RECV, 1, 100);
	HERE(RECV, 1, 100);
	THERE(CLOSE, 1);
	HERE(CLOSE, 1);
}

static void test_shut_rd(int arg)
{
	begin_connected(arg);
	HERE(SHUTDOWN, 1, SHUT_RD);
	THERE(SEND, 1, 1, 100);
	HERE(SEND, 1, 1, 100);
	THERE(RECV, 1, 100);
	HERE(SHUTDOWN, 1, SHUT_RDWR);
	THERE(RECV, 1, 100);
	THERE(CLOSE, 1);
	HERE(CLOSE, 1);
}

static void test_close(int arg)
{
	begin_connected(arg);
	HERE(CLOSE, 1);
	THERE(SEND, 1, 1, 100);
	THERE(RECV, 1, 100);
	THERE(CLOSE, 1);
}

static void test_close_there(int arg)
{
	begin_connected(arg);
	THERE(CLOSE, 1);
	HERE(SEND, 1, 1, 100);
	HERE(RECV, 1, 100);
	HERE(CLOSE, 1);
}

static void test_close_unread(int arg)
{
	begin_connected(arg);
	HERE(SEND, 1, 1, 1000);
	HERE(CLOSE, 1);
	THERE(SEND, 1, 1, 100);
	THERE(RECV, 1, 1000);
	THERE(CLOSE, 1);
}

static void test_close_with_unread(int arg)
{
	begin_connected(arg);
	HERE(SEND, 1, 1, 1000);
	THERE(CLOSE, 1);
	HERE(SEND, 1, 1, 1000);
	HERE(CLOSE, 1);
}

/* Nobody there, nobody of that kind, and no place. */
static void test_refused(int arg)
{
	begin(arg);

	HERE(CONNECT, 0, ends.type, ends.from, ends.address);
	HERE(CLOSE, 0);
	THERE(LISTEN, 0, ends.type, ends.to, 0);
	HERE(CONNECT, 0, ends.type == SOCK_STREAM ? SOCK_SEQPACKET : SOCK_STREAM, ends.from + 1000 - 10,
	     ends.address);
	HERE(CLOSE, 0);
	HERE(CONNECT, 1, ends.type, ends.from + 500, ends.address);
	HERE(CONNECT, 2, ends.type, ends.from + 600, ends.address);
	HERE(CONNECT, 3, ends.type, ends.from + 700, ends.address);
	/* A listener that goes takes those along whom nobody accepted. */
	THERE(CLOSE, 0);
	HERE(SEND, 1, 1, 10);
	HERE(CLOSE, 1);
}

/* What programs that use the tracepoints rely on. */
static void test_format(int unused)
{
	static const char *const names[] = { "alloc", "recv" };
	char path[200], line[2000];

	for (int n = 0; n < 2; n++) {
		FILE *file;

		snprintf(path, sizeof(path), TRACING "events/vsock/virtio_transport_%s_pkt/format",
			 names[n]);
		file = fopen(path, "r");
		if (!file)
			fail("%s: %s", path, strerror(errno));
		while (fgets(line, sizeof(line), file)) {
			line[strcspn(line, "\n")] = 0;
			if (strncmp(line, "ID:", 3))
				say("%s", line);
		}
		fclose(file);
	}
}

#define BOTH(number, name, run) { "stream/" name, run, TEST(number, SOCK_STREAM) }, \
				{ "seqpacket/" name, run, TEST(number, SOCK_SEQPACKET) }

static const struct test tests[] = {
	{ "trace-format", test_format },
	BOTH(1, "sockets", test_sockets),
	BOTH(2, "data", test_data),
	BOTH(3, "bounds", test_bounds),
	BOTH(4, "credit", test_credit),
	BOTH(5, "half-close", test_half_close),
	BOTH(6, "shut-rd", test_shut_rd),
	BOTH(7, "close", test_close),
	BOTH(8, "close-there", test_close_there),
	BOTH(9, "close-unread", test_close_unread),
	BOTH(10, "close-with-unread", test_close_with_unread),
	BOTH(11, "refused", test_refused),
};

int main(int argc, char **argv)
{
	int ready[2], ret;
	pid_t pid = 0;
	char byte;

	if (argc > 1 && !strcmp(argv[1], "server"))
		return server(-1);
	if (argc > 2 && !strcmp(argv[1], "client")) {
		peer_cid = atoi(argv[2]);
		argv += 2;
		argc -= 2;
	} else {
		if (pipe(ready))
			return 2;
		pid = fork();
		if (!pid) {
			close(ready[0]);
			return server(ready[1]);
		}
		close(ready[1]);
		/* The server closes its end when it listens. */
		if (read(ready[0], &byte, 1))
			return 2;
	}
	ret = run_all(tests, sizeof(tests) / sizeof(*tests), argc, argv);
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return ret;
}
