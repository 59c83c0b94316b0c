// SPDX-License-Identifier: GPL-2.0
/*
 * Sockets in BPF sockmaps: what comes for them goes through a program first,
 * which lets it pass, drops it, or sends it to another socket.
 */
#include "api.h"
#include "bpf.h"
#include "sockmap.h"
#include <linux/errqueue.h>

/* Only a socket that has a peer has a place. */
static void test_states(int type)
{
	struct setup s = setup(PASS);
	struct sockaddr_vm addr;
	int fd, client, server;

	fd = vm_socket(type);
	expect_errno(map_insert(s.map, 0, fd, BPF_ANY), EOPNOTSUPP);
	addr = vm_addr(VMADDR_CID_ANY, VMADDR_PORT_ANY);
	must(bind(fd, SA(&addr)));
	expect_errno(map_insert(s.map, 0, fd, BPF_ANY), EOPNOTSUPP);
	must(listen(fd, 1));
	expect_errno(map_insert(s.map, 0, fd, BPF_ANY), EOPNOTSUPP);
	close(fd);

	fd = vm_socket(type);
	addr = vm_addr(VMADDR_CID_LOCAL, 1);
	expect_errno(connect(fd, SA(&addr)), ECONNRESET);
	expect_errno(map_insert(s.map, 0, fd, BPF_ANY), EOPNOTSUPP);

	pair(type, &client, &server);
	must(map_insert(s.map, 0, client, BPF_ANY));
	must(map_insert(s.map, 1, server, BPF_ANY));
	must(map_delete(s.map, 0));
	must(shutdown(client, SHUT_WR));
	must(map_insert(s.map, 0, client, BPF_ANY));
	must(map_delete(s.map, 0));
	close(server);
	wait_until(poll_now(client, POLLIN, 0) & POLLHUP);
	expect_errno(map_insert(s.map, 0, client, BPF_ANY), EOPNOTSUPP);
}

/* The places of a map. */
static void test_places(int type)
{
	struct setup s = setup(PASS);
	uint64_t cookie, value;
	socklen_t len = sizeof(cookie);
	int a, b;

	pair(type, &a, &b);
	expect_errno(map_lookup(s.map, 0, &value), ENOENT);
	expect_errno(map_delete(s.map, 0), EINVAL);
	expect_errno(map_insert(s.map, 2, a, BPF_ANY), E2BIG);
	expect_errno(map_insert(s.map, 0, a, BPF_EXIST), ENOENT);
	must(map_insert(s.map, 0, a, BPF_NOEXIST));
	expect_errno(map_insert(s.map, 0, b, BPF_NOEXIST), EEXIST);
	must(getsockopt(a, SOL_SOCKET, SO_COOKIE, &cookie, &len));
	must(map_lookup(s.map, 0, &value));
	if (value != cookie)
		fail("the map has another socket");
	/* One socket has one program of each kind. */
	expect_errno(map_insert(s.map, 1, a, BPF_ANY), EBUSY);
	must(map_insert(s.map, 0, b, BPF_EXIST));
	must(map_delete(s.map, 0));
	expect_errno(map_lookup(s.map, 0, &value), ENOENT);
	/* A socket that is closed leaves its place. */
	must(map_insert(s.map, 0, a, BPF_ANY));
	close(a);
	wait_until(map_lookup(s.map, 0, &value) < 0 && errno == ENOENT);
}

/* Which programs vsock takes. */
static void test_programs(int type)
{
	struct bpf_insn pass[] = { MOV_IMM(BPF_REG_0, SK_PASS), EXIT() };
	struct setup s = setup(PASS);
	int a, b;

	pair(type, &a, &b);
	expect_errno(prog_attach(s.map, prog_load(BPF_PROG_TYPE_SK_SKB, pass, 2),
				 BPF_SK_SKB_VERDICT), EBUSY);
	must(prog_attach(s.map, prog_load(BPF_PROG_TYPE_SK_SKB, pass, 2),
			 BPF_SK_SKB_STREAM_PARSER));
	expect_errno(map_insert(s.map, 0, a, BPF_ANY), EOPNOTSUPP);
	/* It goes on as if nothing had been. */
	expect(send_bytes(b, 'x', 10, 0), 10);
	expect_message(a, "10x");

	s.map = map_create(BPF_MAP_TYPE_SOCKMAP, 8, 2);
	must(prog_attach(s.map, prog_load(BPF_PROG_TYPE_SK_MSG, pass, 2), BPF_SK_MSG_VERDICT));
	must(map_insert(s.map, 0, a, BPF_ANY));
	expect(send_bytes(a, 'y', 10, 0), 10);
	expect_message(b, "10y");
	expect(send_bytes(b, 'z', 10, 0), 10);
	expect_message(a, "10z");
}

static void pass_as(int type, int attach)
{
	struct setup s = setup_as(PASS, attach);
	char runs[100];
	int a, b, n;

	pair(type, &a, &b);
	must(map_insert(s.map, 0, b, BPF_ANY));
	expect(send_bytes(a, 'x', 10, 0), 10);
	expect_message(b, "10x");
	expect_nothing(b);
	expect(send_bytes(a, 'y', 100, 0), 100);
	expect(send_bytes(a, 'z', 100, 0), 100);
	wait_until(seen(&s).packets == 3);
	must(ioctl(b, SIOCINQ, &n));
	say("%d bytes", n);
	/* Message bounds, too, are the map's business now. */
	expect(recv_runs(b, MSG_PEEK, runs, sizeof(runs)), 200);
	say("%s", runs);
	expect_message(b, "100y 100z");
	expect(seen(&s).bytes, 210);
	expect(seen(&s).family, AF_VSOCK);
	/* The other way is as it was. */
	expect(send_bytes(b, 'w', 10, 0), 10);
	expect_message(a, "10w");
	expect(seen(&s).packets, 3);
}

static void test_pass(int type)
{
	pass_as(type, BPF_SK_SKB_STREAM_VERDICT);
}

static void test_pass_skb_verdict(int type)
{
	pass_as(type, BPF_SK_SKB_VERDICT);
}

/* What the program sees of the buffer is not what the kernel uses it for. */
static void test_control_block(int type)
{
	struct setup s = setup(PASS);
	int a, b;

	pair(type, &a, &b);
	must(map_insert(s.map, 0, b, BPF_ANY));
	expect(send_bytes(a, 'x', 10, 0), 10);
	expect_message(b, "10x");
	expect(seen(&s).cb, 0);
}

/* Credit comes back when a buffer goes to the program, not when its bytes are read. */
static void test_pass_much(int type)
{
	struct setup s = setup(PASS);
	struct flow flow = { .total = 1 << 20, .chunk = 100000 };
	pthread_t thread;
	int b;

	pair(type, &flow.fd, &b);
	must(map_insert(s.map, 0, b, BPF_ANY));
	thread = flow_start(&flow);
	expect_flow(b, flow.total);
	pthread_join(thread, NULL);
	expect_nothing(b);
	expect(seen(&s).bytes, flow.total);
}

static void test_drop(int type)
{
	struct setup s = setup(DROP);
	struct flow flow = { .total = 1 << 20, .chunk = 100000 };
	int b, n;

	pair(type, &flow.fd, &b);
	must(map_insert(s.map, 0, b, BPF_ANY));
	flow_send(&flow);
	expect(flow.done, flow.total);
	wait_until(seen(&s).bytes == flow.total);
	expect_nothing(b);
	must(ioctl(b, SIOCINQ, &n));
	expect(n, 0);
	must(ioctl(flow.fd, SIOCOUTQ, &n));
	expect(n, 0);
	expect(poll_now(b, POLLIN, 50), 0);
}

/* poll() looks at what passed. */
static void test_poll(int type)
{
	struct setup s = setup(BY_BYTE);
	int a, b;

	pair(type, &a, &b);
	must(map_insert(s.map, 0, b, BPF_ANY));
	expect(poll_now(b, POLLIN, 50), 0);
	expect(send_bytes(a, 'D', 10, 0), 10);
	wait_until(seen(&s).packets == 1);
	expect(poll_now(b, POLLIN, 50), 0);
	expect(send_bytes(a, 'P', 10, 0), 10);
	expect(poll_now(b, POLLIN, 20000), POLLIN);
	expect_message(b, "10P");
	expect(poll_now(b, POLLIN, 50), 0);
}

/* Out by another socket: to the peer of that one. */
static void test_redirect(int type)
{
	struct setup s = setup(BY_BYTE);
	int a, b, c, d;

	pair(type, &a, &b);
	pair(type, &c, &d);
	must(map_insert(s.map, 0, b, BPF_ANY));
	must(map_insert(s.map, 1, c, BPF_ANY));
	expect(send_bytes(a, 'R', 10, 0), 10);
	expect_message(d, "10R");
	expect(send_bytes(a, 'P', 10, 0), 10);
	expect_message(b, "10P");
	expect(send_bytes(a, 'D', 10, 0), 10);
	expect(send_bytes(a, 'R', 20, 0), 20);
	expect_message(d, "20R");
	expect_nothing(b);
	expect_nothing(c);
	/* A place without a socket is no place to go to. */
	must(map_delete(s.map, 1));
	expect(send_bytes(a, 'R', 10, 0), 10);
	expect(send_bytes(a, 'P', 10, 0), 10);
	expect_message(b, "10P");
	expect_nothing(d);
}

static void test_redirect_much(int type)
{
	struct setup s = setup(REDIRECT);
	struct flow flow = { .total = 1 << 20, .chunk = 50000 };
	pthread_t thread;
	int b, c, d;

	pair(type, &flow.fd, &b);
	pair(type, &c, &d);
	must(map_insert(s.map, 0, b, BPF_ANY));
	must(map_insert(s.map, 1, c, BPF_ANY));
	thread = flow_start(&flow);
	expect_flow(d, flow.total);
	pthread_join(thread, NULL);
	expect(seen(&s).bytes, flow.total);
	expect_nothing(d);
}

/* What a vsock socket has in its own queue comes from its peer only. */
static void test_redirect_ingress(int type)
{
	struct setup s = setup(REDIRECT_INGRESS);
	int a, b, c, d;

	pair(type, &a, &b);
	pair(type, &c, &d);
	must(map_insert(s.map, 0, b, BPF_ANY));
	must(map_insert(s.map, 1, c, BPF_ANY));
	expect(send_bytes(a, 'x', 10, 0), 10);
	wait_until(seen(&s).packets == 1);
	expect_nothing(b);
	expect_nothing(c);
	expect_nothing(d);
}

/* To a socket of another family, and from there. */
static void test_redirect_unix(int type)
{
	struct setup s = setup(REDIRECT_INGRESS);
	int a, b, unix_pair[2];

	pair(type, &a, &b);
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, unix_pair));
	set_timeout(unix_pair[0], SO_RCVTIMEO, 20000);
	must(map_insert(s.map, 0, b, BPF_ANY));
	must(map_insert(s.map, 1, unix_pair[0], BPF_ANY));
	expect(send_bytes(a, 'x', 10, 0), 10);
	expect_message(unix_pair[0], "10x");

	s = setup(REDIRECT);
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, unix_pair));
	pair(type, &a, &b);
	must(map_insert(s.map, 0, unix_pair[0], BPF_ANY));
	must(map_insert(s.map, 1, b, BPF_ANY));
	expect(send_bytes(unix_pair[1], 'y', 10, 0), 10);
	expect_message(a, "10y");
}

/* Into the map and out of it, with something unread. */
static void test_unread(int type)
{
	struct setup s = setup(DROP);
	char runs[100];
	int a, b, n;

	pair(type, &a, &b);
	expect(send_bytes(a, 'x', 1000, 0), 1000);
	wait_until(!ioctl(b, SIOCINQ, &n) && n == 1000);
	must(map_insert(s.map, 0, b, BPF_ANY));
	/* The program gets one buffer for each that arrives: the oldest. */
	expect(send_bytes(a, 'y', 500, 0), 500);
	wait_until(seen(&s).packets == 1);
	expect(seen(&s).bytes, 1000);
	must(ioctl(b, SIOCINQ, &n));
	expect(n, 500);
	must(map_delete(s.map, 0));
	expect(send_bytes(a, 'z', 300, 0), 300);
	wait_until(!ioctl(b, SIOCINQ, &n) && n == 800);
	must(recv_runs(b, 0, runs, sizeof(runs)));
	say("%s", runs);
	if (type == SOCK_SEQPACKET)
		expect_message(b, "300z");
	expect_nothing(b);
}

/* A buffer of which some was read before: the program gets the rest. */
static void test_partly_read(int type)
{
	struct setup s = setup(PASS);
	char data[400];
	int a, b, n;

	pair(type, &a, &b);
	expect(send_bytes(a, 'x', 1000, 0), 1000);
	expect(recv(b, data, sizeof(data), MSG_WAITALL), 400);
	must(map_insert(s.map, 0, b, BPF_ANY));
	expect(send_bytes(a, 'y', 500, 0), 500);
	wait_until(seen(&s).packets == 1);
	expect(seen(&s).bytes, 600);
	expect_message(b, "600x");
	must(ioctl(b, SIOCINQ, &n));
	expect(n, 500);
	expect_message(b, "500y");
	expect_nothing(b);
}

/* The same for one that is in pages, not linear. */
static void test_partly_read_pages(int type)
{
	struct setup s = setup(PASS);
	struct flow flow = { .total = 60000, .chunk = 60000 };
	char data[1000];
	int b;

	pair(type, &flow.fd, &b);
	flow_send(&flow);
	expect(recv(b, data, sizeof(data), MSG_WAITALL), 1000);
	must(map_insert(s.map, 0, b, BPF_ANY));
	expect(send_bytes(flow.fd, 'y', 500, 0), 500);
	wait_until(seen(&s).packets == 1);
	expect(seen(&s).bytes, 59000);
	for (size_t at = 1000; at < flow.total; at += 1000) {
		expect(recv_soon(b, data, 1000, 0), 1000);
		for (size_t i = 0; i < 1000; i++)
			if ((unsigned char)data[i] != pattern(at + i))
				fail("byte %zu is wrong", at + i);
	}
	expect_message(b, "500y");
	expect_nothing(b);
}

/* Messages that the program took are not counted any more. */
static void test_messages(int unused)
{
	struct setup s = setup(DROP);
	int a, b;

	pair(SOCK_SEQPACKET, &a, &b);
	must(map_insert(s.map, 0, b, BPF_ANY));
	expect(send_bytes(a, 'x', 10, 0), 10);
	/* This one has two packets. */
	expect(send_bytes(a, 'y', 100000, MSG_EOR), 100000);
	wait_until(seen(&s).bytes == 100010);
	expect(seen(&s).packets, 3);
	must(map_delete(s.map, 0));
	expect_nothing(b);
	expect(poll_now(b, POLLIN, 0), 0);
	expect(send_bytes(a, 'z', 70000, 0), 70000);
	expect(send_bytes(a, 'w', 10, 0), 10);
	expect_message(b, "70000z");
	expect_message(b, "10w");
	expect_nothing(b);
}

/* Pages of a user go all the way, and the user is told when they are read. */
static void test_zerocopy(int type)
{
	size_t size = 128 << 10;
	struct setup s = setup(PASS);
	struct sock_extended_err *err;
	union {
		char room[200];
		struct cmsghdr align;
	} control;
	struct msghdr msg = { .msg_control = &control, .msg_controllen = sizeof(control) };
	unsigned char *data;
	int a, b, on = 1;

	pair(type, &a, &b);
	must(map_insert(s.map, 0, b, BPF_ANY));
	must(setsockopt(a, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof(on)));
	data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (data == MAP_FAILED)
		fail("mmap");
	for (size_t i = 0; i < size; i++)
		data[i] = pattern(i);
	expect(send(a, data, size, MSG_ZEROCOPY), size);
	expect_flow(b, size);
	wait_until(poll_now(a, 0, 0) & POLLERR);
	must(recvmsg(a, &msg, MSG_ERRQUEUE));
	err = (struct sock_extended_err *)CMSG_DATA(CMSG_FIRSTHDR(&msg));
	expect(err->ee_origin, SO_EE_ORIGIN_ZEROCOPY);
	say("completion, code %d", err->ee_code);
	expect(seen(&s).bytes, size);
}

/* How a stream ends for a reader in a map. */
static void test_end(int type)
{
	struct setup s = setup(PASS);
	char data[100];
	ssize_t got;
	int a, b;

	pair(type, &a, &b);
	must(map_insert(s.map, 0, b, BPF_ANY));
	expect(send_bytes(a, 'x', 10, 0), 10);
	wait_until(seen(&s).packets == 1);
	must(shutdown(a, SHUT_WR));
	expect_message(b, "10x");
	wait_until(poll_now(b, POLLRDHUP, 0) & POLLRDHUP);
	got = recv(b, data, sizeof(data), MSG_DONTWAIT);
	say("after SHUT_WR: %zd, %s", got, got < 0 ? strerror(errno) : "");
	close(a);
	wait_until(send_bytes(b, 'x', 10, 0) < 0 && errno == EPIPE);
	got = recv(b, data, sizeof(data), MSG_DONTWAIT);
	say("after close: %zd, %s", got, got < 0 ? strerror(errno) : "");
}

static void *receive_all(void *fd)
{
	static char data[1 << 17];

	while (recv_soon(*(int *)fd, data, sizeof(data), 0) > 0)
		;
	return NULL;
}

/* In and out while there is traffic: nobody hangs, and afterwards all is as it was. */
static void remove_during(int type, enum what what)
{
	struct setup s = setup(what);
	struct flow flow = { .total = 1 << 30, .chunk = 20000 };
	pthread_t thread, reader, other;
	int b, c, d;

	pair(type, &flow.fd, &b);
	pair(type, &c, &d);
	must(map_insert(s.map, 1, c, BPF_ANY));
	thread = flow_start(&flow);
	must(-pthread_create(&reader, NULL, receive_all, &b));
	must(-pthread_create(&other, NULL, receive_all, &d));
	for (int n = 0; n < 50; n++) {
		long ret;

		/* The core may still use what was removed last, for a moment. */
		wait_until((ret = map_insert(s.map, 0, b, BPF_ANY)) >= 0 || errno != EBUSY);
		must(ret);
		usleep(1000);
		must(map_delete(s.map, 0));
		usleep(500);
	}
	if (!seen(&s).packets)
		fail("the program never ran");
	/* The sender gets to its end: the reader reads. */
	flow.total = 0;
	pthread_join(thread, NULL);
	must(shutdown(flow.fd, SHUT_WR));
	pthread_join(reader, NULL);
	expect_nothing(c);
}

static void test_remove_pass(int type)
{
	remove_during(type, PASS);
}

static void test_remove_drop(int type)
{
	remove_during(type, DROP);
}

static void test_remove_redirect(int type)
{
	remove_during(type, REDIRECT);
}

/* Closed in the map while there is traffic: the sender is told. */
static void close_during(int type, enum what what)
{
	for (int n = 0; n < 4; n++) {
		struct setup s = setup(what);
		struct flow flow = { .total = 1 << 30, .chunk = 20000 };
		pthread_t thread;
		uint64_t value;
		int b, c, d;

		pair(type, &flow.fd, &b);
		pair(type, &c, &d);
		must(map_insert(s.map, 0, b, BPF_ANY));
		must(map_insert(s.map, 1, c, BPF_ANY));
		thread = flow_start(&flow);
		wait_until(seen(&s).packets > 10);
		/* The target of a redirect goes first every other time. */
		if (n & 1)
			close(c);
		close(b);
		pthread_join(thread, NULL);
		wait_until(map_lookup(s.map, 0, &value) < 0);
		close(flow.fd);
		if (!(n & 1))
			close(c);
		close(d);
		close(s.map);
		close(s.stats);
	}
}

static void test_close_pass(int type)
{
	close_during(type, PASS);
}

static void test_close_drop(int type)
{
	close_during(type, DROP);
}

static void test_close_redirect(int type)
{
	close_during(type, REDIRECT);
}

/* The map goes first, while its sockets have traffic. */
static void test_map_goes(int type)
{
	struct setup s = setup(DROP);
	struct flow flow = { .total = 1 << 30, .chunk = 20000 };
	pthread_t thread, reader;
	int b;

	pair(type, &flow.fd, &b);
	must(map_insert(s.map, 0, b, BPF_ANY));
	thread = flow_start(&flow);
	wait_until(seen(&s).packets > 10);
	close(s.map);
	must(-pthread_create(&reader, NULL, receive_all, &b));
	usleep(100000);
	flow.total = 0;
	pthread_join(thread, NULL);
	must(shutdown(flow.fd, SHUT_WR));
	pthread_join(reader, NULL);
}

#define BOTH(name, run) { "stream/" name, run, SOCK_STREAM }, \
			{ "seqpacket/" name, run, SOCK_SEQPACKET }

static const struct test tests[] = {
	BOTH("states", test_states),
	BOTH("places", test_places),
	BOTH("programs", test_programs),
	BOTH("pass", test_pass),
	BOTH("pass-skb-verdict", test_pass_skb_verdict),
	BOTH("control-block", test_control_block),
	BOTH("pass-much", test_pass_much),
	BOTH("drop", test_drop),
	BOTH("poll", test_poll),
	BOTH("redirect", test_redirect),
	BOTH("redirect-much", test_redirect_much),
	BOTH("redirect-ingress", test_redirect_ingress),
	BOTH("redirect-unix", test_redirect_unix),
	BOTH("unread", test_unread),
	{ "stream/partly-read", test_partly_read, SOCK_STREAM },
	{ "stream/partly-read-pages", test_partly_read_pages, SOCK_STREAM },
	{ "seqpacket/messages", test_messages, SOCK_SEQPACKET },
	BOTH("zerocopy", test_zerocopy),
	BOTH("end", test_end),
	BOTH("remove-pass", test_remove_pass),
	BOTH("remove-drop", test_remove_drop),
	BOTH("remove-redirect", test_remove_redirect),
	BOTH("close-pass", test_close_pass),
	BOTH("close-drop", test_close_drop),
	BOTH("close-redirect", test_close_redirect),
	BOTH("map-goes", test_map_goes),
};

int main(int argc, char **argv)
{
	return run_all(tests, sizeof(tests) / sizeof(*tests), argc, argv);
}
