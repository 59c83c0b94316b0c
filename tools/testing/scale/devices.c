// SPDX-License-Identifier: GPL-2.0
/*
 * What a device costs that nobody talks to: its memory, and what it takes to open,
 * start and close it, next to many others.
 *
 *   devices [--tell] [NUMBER]
 *
 * The memory is what is not available any more, without the guest's own. The cost is that of
 * everything that ran meanwhile, whoever it was for: while the machine waits, a
 * thread of the lowest priority spins, whose time is taken off.
 */
/* There are many of them, and nothing is in them. */
#define BUFFER 64
#include "guest.h"
#include <pthread.h>
#include <sched.h>

#define SAMPLES 9
#define FIRST_CID 1000
#define MAX_DEVICES 1000
/* With the worker's task, its stack of 16 KiB, and what the open files are for the kernel. */
#define LIMIT_KIB 60

static struct guest device[MAX_DEVICES];
static clockid_t spinner_clock;

static void *spin(void *unused)
{
	for (;;)
		;
	return unused;
}

static void start_spinner(void)
{
	struct sched_param none = { 0 };
	pthread_t spinner;

	if (pthread_create(&spinner, NULL, spin, NULL) ||
	    pthread_setschedparam(spinner, SCHED_IDLE, &none) ||
	    pthread_getcpuclockid(spinner, &spinner_clock))
		die("a thread of the lowest priority");
}

/* Instructions of everybody but the one that spins. */
static double work_ns(void)
{
	return (double)clock_ns(CLOCK_MONOTONIC) - (double)clock_ns(spinner_clock);
}

static double field_kib(const char *name)
{
	FILE *file = fopen("/proc/meminfo", "r");
	char line[128], key[64];
	double value;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%63[^:]: %lf", key, &value) == 2 && !strcmp(key, name)) {
			fclose(file);
			return value;
		}
	die("%s of /proc/meminfo", name);
}

/* The objects in use. */
static double memory_kib(void)
{
	FILE *file = fopen("/proc/slabinfo", "r");
	double active, size, bytes = 0;
	char line[512];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%*s %lf %*f %lf", &active, &size) == 2)
			bytes += active * size;
	if (!bytes)
		die("/proc/slabinfo");
	fclose(file);
	return bytes / 1024;
}

static void settle(void)
{
	/* What waits for a grace period is freed. */
	usleep(300000);
}

static void start(unsigned int n)
{
	guest_open(&device[n], FIRST_CID + n);
}

int main(int argc, char **argv)
{
	unsigned int count = arguments(argc, argv);
	double before, slab, stack, available;
	struct samples alone = { 0 }, among = { 0 };

	if (count > MAX_DEVICES)
		count = MAX_DEVICES;
	start_spinner();
	/* What is done for the first time allocates. */
	for (unsigned int n = 0; n < 2; n++) {
		start(0);
		close(device[0].fd);
		guest_forget(&device[0]);
	}
	for (unsigned int n = 0; n < SAMPLES; n++) {
		start(0);
		settle();
		before = work_ns();
		close(device[0].fd);
		add_sample(&alone, work_ns() - before);
		guest_forget(&device[0]);
	}
	settle();
	slab = memory_kib();
	stack = field_kib("KernelStack");
	available = field_kib("MemAvailable");
	for (unsigned int n = 0; n < count; n++)
		start(n);
	settle();
	slab = (memory_kib() - slab) / count;
	stack = (field_kib("KernelStack") - stack) / count;
	available = (available - field_kib("MemAvailable")) / count - device[0].size / 1024.0;
	printf("# %u devices: %.1f KiB of slab, %.1f of stack, %.1f of MemAvailable each\n", count,
	       slab, stack, available);

	for (unsigned int n = 0; n < SAMPLES; n++) {
		unsigned int which = n * 37 % count;

		before = work_ns();
		close(device[which].fd);
		add_sample(&among, work_ns() - before);
		guest_forget(&device[which]);
		start(which);
		settle();
	}
	tell("close of a device: nobody else", &alone);
	tell("close of a device: among many", &among);
	verdict(available <= LIMIT_KIB, "memory-of-a-device", "%.1f KiB, at most %u", available,
		LIMIT_KIB);
	return failures != 0;
}
