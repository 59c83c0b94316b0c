// SPDX-License-Identifier: GPL-2.0
/*
 * What a message costs with one connection on a listener, and with many.
 *
 *   connections [--tell] [NUMBER]
 *
 * A message goes over a connection picked at random, and the answer comes back.
 * First there is only one connection, then NUMBER, then one again. This is done
 * over loopback, and between the host and a guest (guest.h).
 */
#include "guest.h"

#define WARM_UP 200
#define BATCH 2000		/* round trips of a sample */
#define SAMPLES 5
#define LIMIT 1.05
#define GUEST_CID 77
#define FIRST_PORT 20000

struct path {
	const char *name;
	void (*begin)(void);
	void (*open)(unsigned int n);
	void (*round_trip)(unsigned int n);
	void (*end)(unsigned int count);
};

static int listener;
static int *server, *client;
static char message[MESSAGE], answer[MESSAGE];

/* --- loopback --------------------------------------------------------------- */

static void loopback_begin(void)
{
}

static void loopback_open(unsigned int n)
{
	client[n] = vsock_connect(VMADDR_CID_LOCAL, PORT, 0);
	server[n] = vsock_accept(listener);
}

static void loopback_round_trip(unsigned int n)
{
	send_message(client[n], message);
	receive_message(server[n], answer);
	send_message(server[n], answer);
	receive_message(client[n], answer);
}

static void loopback_end(unsigned int count)
{
	for (unsigned int n = 0; n < count; n++) {
		close(client[n]);
		close(server[n]);
	}
	sleep(1);
}

/* --- host and guest ----------------------------------------------------------- */

static struct guest guest;
static uint32_t *guest_read;

static void guest_begin(void)
{
	guest_open(&guest, GUEST_CID);
}

static void guest_open_connection(unsigned int n)
{
	guest_read[n] = 0;
	server[n] = guest_connect(&guest, FIRST_PORT + n, listener);
}

static void guest_use(unsigned int n)
{
	guest_round_trip(&guest, FIRST_PORT + n, &guest_read[n], server[n], message, answer);
}

static void guest_end(unsigned int count)
{
	close(guest.fd);
	guest_forget(&guest);
	for (unsigned int n = 0; n < count; n++)
		close(server[n]);
	sleep(1);
}

/* --- measuring ---------------------------------------------------------------- */

static uint64_t context_switches(void)
{
	static char text[1 << 16];
	int fd = open("/proc/stat", O_RDONLY);
	ssize_t length = read(fd, text, sizeof(text) - 1);
	char *line;

	close(fd);
	text[length > 0 ? length : 0] = 0;
	line = strstr(text, "\nctxt ");
	return line ? strtoull(line + 6, NULL, 10) : 0;
}

/* Samples of round trips over connections below `count`. */
static void sample(const struct path *path, unsigned int count, struct samples *cost,
		   struct samples *switches)
{
	for (int n = 0; n < WARM_UP; n++)
		path->round_trip(next_random() % count);
	for (int number = 0; number < SAMPLES; number++) {
		uint64_t switched = context_switches(), begin = clock_ns(CLOCK_MONOTONIC);

		for (int n = 0; n < BATCH; n++) {
			memset(answer, 0, MESSAGE);
			path->round_trip(next_random() % count);
			if (memcmp(message, answer, MESSAGE))
				die("another message came back");
		}
		add_sample(cost, (clock_ns(CLOCK_MONOTONIC) - begin) / (double)BATCH);
		add_sample(switches, (context_switches() - switched) / (double)BATCH);
	}
}

static void measure(const struct path *path, unsigned int count)
{
	struct samples one = { 0 }, one_switches = { 0 }, many = { 0 }, many_switches = { 0 };
	struct samples same = { 0 }, setup = { 0 };
	char label[128];
	double random_ratio, same_ratio;

	path->begin();
	path->open(0);
	sample(path, 1, &one, &one_switches);
	for (unsigned int n = 1; n < count; n += 1000) {
		uint64_t begin = clock_ns(CLOCK_MONOTONIC);
		unsigned int end = n + 1000 < count ? n + 1000 : count;

		for (unsigned int i = n; i < end; i++)
			path->open(i);
		add_sample(&setup, (clock_ns(CLOCK_MONOTONIC) - begin) / (double)(end - n));
	}
	printf("# %s: connection set up, first thousand %.0f insn, last %.0f\n", path->name,
	       setup.value[0], setup.value[setup.count - 1]);
	sample(path, count, &many, &many_switches);
	sample(path, 1, &same, &many_switches);
	path->end(count);

	path->begin();
	path->open(0);
	sample(path, 1, &one, &one_switches);
	path->end(1);

	snprintf(label, sizeof(label), "%s: round trip, 1 connection", path->name);
	tell(label, &one);
	snprintf(label, sizeof(label), "%s: round trip, random one of %u", path->name, count);
	tell(label, &many);
	snprintf(label, sizeof(label), "%s: round trip, the first one of %u", path->name, count);
	tell(label, &same);
	printf("# %s: context switches per round trip: %.2f with 1, %.2f with %u\n", path->name,
	       median(&one_switches), median(&many_switches), count);
	random_ratio = median(&many) / median(&one);
	same_ratio = median(&same) / median(&one);
	snprintf(label, sizeof(label), "%s/cost-of-message", path->name);
	verdict(random_ratio <= LIMIT && same_ratio <= LIMIT, label,
		"with %u connections %.4f of that with 1 (the first one: %.4f), at most %.2f",
		count, random_ratio, same_ratio, LIMIT);
}

int main(int argc, char **argv)
{
	static const struct path paths[] = {
		{ "loopback", loopback_begin, loopback_open, loopback_round_trip, loopback_end },
		{ "guest", guest_begin, guest_open_connection, guest_use, guest_end },
	};
	unsigned int count = arguments(argc, argv);

	server = calloc(count, sizeof(*server));
	client = calloc(count, sizeof(*client));
	guest_read = calloc(count, sizeof(*guest_read));
	if (!server || !client || !guest_read)
		die("memory");
	for (int n = 0; n < MESSAGE; n++)
		message[n] = n;
	listener = vsock_listen(PORT);
	for (unsigned int n = 0; n < sizeof(paths) / sizeof(*paths); n++)
		measure(&paths[n], count);
	return failures != 0;
}
