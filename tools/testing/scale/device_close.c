// SPDX-License-Identifier: GPL-2.0
/*
 * A device that is closed resets its own connections, and has nothing to do with
 * those of others.
 *
 *   device_close [--tell] [NUMBER]
 *
 * Devices with a few connections are closed, first with no other connections on
 * the machine, then with NUMBER of another guest, and as many sockets of loopback.
 * The cost is the time that the closing thread runs, which in a VM that counts
 * instructions is their number.
 */
#include "guest.h"

#define SAMPLES 9
#define LIMIT 1.2
#define ESTABLISHED 12
#define CONNECTING 4
#define OWN_CID 1000
#define FOREIGN_CID 77
#define OWN_PORT 20000
#define FOREIGN_PORT 40000

static int listener;

/* Whether a socket knows at once that its connection was reset. */
static bool was_reset(int fd)
{
	struct pollfd ready = { fd, POLLIN, 0 };
	char byte;

	return poll(&ready, 1, 0) == 1 && recv(fd, &byte, 1, MSG_DONTWAIT) < 0 &&
	       errno == ECONNRESET;
}

static bool connect_failed(int fd)
{
	struct pollfd ready = { fd, POLLOUT, 0 };
	socklen_t length = sizeof(int);
	int error = 0;

	return poll(&ready, 1, 0) == 1 &&
	       !getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) && error == ECONNRESET;
}

/* What it costs to close a device; how many of its connections were not reset. */
static double close_device(uint32_t cid, bool change_cid, unsigned int *missed)
{
	int established[ESTABLISHED], connecting[CONNECTING];
	struct guest own;
	double cost;

	guest_open(&own, cid);
	if (change_cid) {
		uint64_t wide = cid + 1;

		DEVICE_IOCTL(&own, VHOST_VSOCK_SET_GUEST_CID, &wide);
		own.cid = cid + 1;
	}
	for (unsigned int n = 0; n < ESTABLISHED; n++)
		established[n] = guest_connect(&own, OWN_PORT + n, listener);
	for (unsigned int n = 0; n < CONNECTING; n++)
		connecting[n] = vsock_connect(own.cid, OWN_PORT, SOCK_NONBLOCK);

	cost = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	close(own.fd);
	cost = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cost;

	for (unsigned int n = 0; n < ESTABLISHED; n++) {
		*missed += !was_reset(established[n]);
		close(established[n]);
	}
	for (unsigned int n = 0; n < CONNECTING; n++) {
		*missed += !connect_failed(connecting[n]);
		close(connecting[n]);
	}
	guest_forget(&own);
	return cost;
}

struct costs {
	struct samples plain, changed;
	unsigned int missed;
};

static void close_some(struct costs *costs)
{
	static uint32_t cid = OWN_CID;

	memset(costs, 0, sizeof(*costs));
	/* What is done for the first time allocates. */
	close_device(cid++, false, &costs->missed);
	for (int n = 0; n < SAMPLES; n++) {
		add_sample(&costs->plain, close_device(cid, false, &costs->missed));
		add_sample(&costs->changed, close_device(cid + 1, true, &costs->missed));
		cid += 3;
	}
}

static void compare(const char *name, struct samples *alone, struct samples *among,
		    unsigned int count)
{
	char label[128];
	double ratio = median(among) / median(alone);

	snprintf(label, sizeof(label), "%s: nobody else", name);
	tell(label, alone);
	snprintf(label, sizeof(label), "%s: %u others and loopback", name, count);
	tell(label, among);
	verdict(ratio <= LIMIT, name, "with %u connections of others %.3f of that without, at most %.2f",
		count, ratio, LIMIT);
}

int main(int argc, char **argv)
{
	unsigned int count = arguments(argc, argv), lost = 0;
	uint32_t *foreign_read = calloc(count, sizeof(*foreign_read));
	int *foreign = calloc(count, sizeof(*foreign)), *local = calloc(count, sizeof(*local));
	char message[MESSAGE], answer[MESSAGE];
	struct costs alone, among;
	struct guest other;

	if (!foreign_read || !foreign || !local)
		die("memory");
	listener = vsock_listen(PORT);
	guest_open(&other, FOREIGN_CID);

	close_some(&alone);
	for (unsigned int n = 0; n < count; n++)
		foreign[n] = guest_connect(&other, FOREIGN_PORT + n, listener);
	for (unsigned int n = 0; n + 1 < count; n += 2) {
		local[n] = vsock_connect(VMADDR_CID_LOCAL, PORT, 0);
		local[n + 1] = vsock_accept(listener);
	}
	close_some(&among);

	compare("cost-of-close", &alone.plain, &among.plain, count);
	compare("cost-of-close-after-change-of-cid", &alone.changed, &among.changed, count);
	verdict(!alone.missed && !among.missed, "own-connections-reset",
		"%u and %u did not get ECONNRESET at once", alone.missed, among.missed);

	for (unsigned int n = 0; n < count; n++) {
		for (int i = 0; i < MESSAGE; i++)
			message[i] = n + i;
		guest_round_trip(&other, FOREIGN_PORT + n, &foreign_read[n], foreign[n], message,
				 answer);
		lost += memcmp(message, answer, MESSAGE) != 0;
	}
	for (unsigned int n = 0; n + 1 < count; n += 2) {
		for (int i = 0; i < MESSAGE; i++)
			message[i] = n - i;
		send_message(local[n], message);
		receive_message(local[n + 1], answer);
		lost += memcmp(message, answer, MESSAGE) != 0;
	}
	verdict(!lost, "others-go-on", "%u of %u connections lost a message", lost,
		count + count / 2);
	return failures != 0;
}
