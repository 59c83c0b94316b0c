// SPDX-License-Identifier: GPL-2.0
/*
 * A TCG plugin that counts the instructions of a VM between two markers.
 *
 * A marker is `nopl disp32(%rax)`, which does nothing anywhere: with one displacement it opens a
 * window, with the other it closes it. All that the VM's CPUs execute in between counts, whoever
 * executes it (user space, kernel, interrupts), but neither the markers nor the time a CPU is
 * halted. An open within a window starts it again, a close without one is nothing. For each
 * window, numbered from 0, a line goes to the output, at once:
 *
 *	window <number> <instructions>
 *
 * With profile=on, what each instruction was executed within the window comes before it, as far
 * as it is not 0; instructions of user space (the lower half of the addresses) are added up per
 * page of 4 KiB, and what found no counter is at address 0:
 *
 *	pc <number> <address in hex> <count>
 *
 * Counters are added to per instruction, not per translated block: a block that is left in the
 * middle (a fault, an access to a device) counts what was executed.
 *
 * Arguments: out=FILE, profile=on|off.
 *
 * Made for a VM with -icount, whose CPUs run on one thread: nothing here is locked.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu_plugin.h"

#define MARK_OPEN 0x76616201u
#define MARK_CLOSE 0x76616202u
#define MARK_SIZE 7

/* A counter of one address each; a power of two. A kernel executes about 200,000 of its own. */
#define SLOTS (1u << 20)
#define PAGE_MASK 0xfffull

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static FILE *out;
static bool profile;
static qemu_plugin_u64 executed;
static bool is_open;
static uint64_t begin;		/* `executed` when the window was opened */
static uint64_t number;

/* Profile: slot 0 is for what found no other one. */
static struct qemu_plugin_scoreboard *slots;
static uint64_t *address;	/* of a slot; 0 when free */
static uint64_t *before;	/* its count when the window was opened */
static uint32_t *used;		/* slots with an address, in the order they were taken */
static uint32_t used_count;

static qemu_plugin_u64 counter(uint32_t slot)
{
	return (qemu_plugin_u64){ slots, slot * sizeof(uint64_t) };
}

static uint32_t slot_of(uint64_t addr)
{
	uint32_t slot;

	if (!(addr >> 63))
		addr &= ~PAGE_MASK;
	if (addr == 0)
		return 0;
	slot = (addr * 0x9e3779b97f4a7c15ull) >> 44;
	for (;;) {
		slot &= SLOTS - 1;
		if (slot != 0 && address[slot] == addr)
			return slot;
		if (slot != 0 && address[slot] == 0)
			break;
		slot++;
	}
	/* A quarter stays free, so that a search ends soon. */
	if (used_count >= SLOTS / 4 * 3)
		return 0;
	address[slot] = addr;
	used[used_count++] = slot;
	return slot;
}

static void opened(unsigned int cpu, void *data)
{
	uint32_t i;

	if (profile) {
		for (i = 0; i < used_count; i++)
			before[used[i]] = qemu_plugin_u64_sum(counter(used[i]));
	}
	begin = qemu_plugin_u64_sum(executed);
	is_open = true;
}

static void closed(unsigned int cpu, void *data)
{
	uint64_t count = qemu_plugin_u64_sum(executed) - begin;
	uint32_t i;

	if (!is_open)
		return;
	is_open = false;
	for (i = 0; i < used_count; i++) {
		uint32_t slot = used[i];
		uint64_t now = qemu_plugin_u64_sum(counter(slot));

		if (now != before[slot])
			fprintf(out, "pc %" PRIu64 " %" PRIx64 " %" PRIu64 "\n", number,
				address[slot], now - before[slot]);
		/* A slot that is taken later begins at 0, which `before` is as well. */
	}
	fprintf(out, "window %" PRIu64 " %" PRIu64 "\n", number, count);
	fflush(out);
	number++;
}

/* The displacement of a marker, or 0. */
static uint32_t marker(const struct qemu_plugin_insn *insn)
{
	uint8_t bytes[MARK_SIZE];

	if (qemu_plugin_insn_size(insn) != MARK_SIZE ||
	    qemu_plugin_insn_data(insn, bytes, sizeof(bytes)) != MARK_SIZE)
		return 0;
	if (bytes[0] != 0x0f || bytes[1] != 0x1f || bytes[2] != 0x80)
		return 0;
	return bytes[3] | bytes[4] << 8 | bytes[5] << 16 | (uint32_t)bytes[6] << 24;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t count = qemu_plugin_tb_n_insns(tb), i;

	for (i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint32_t mark = marker(insn);

		if (mark == MARK_OPEN || mark == MARK_CLOSE) {
			qemu_plugin_register_vcpu_insn_exec_cb(insn, mark == MARK_OPEN ? opened : closed,
							       QEMU_PLUGIN_CB_NO_REGS, NULL);
			continue;
		}
		qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
			insn, QEMU_PLUGIN_INLINE_ADD_U64, executed, 1);
		if (profile)
			qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
				insn, QEMU_PLUGIN_INLINE_ADD_U64,
				counter(slot_of(qemu_plugin_insn_vaddr(insn))), 1);
	}
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
					   char **argv)
{
	const char *path = NULL;
	int i;

	for (i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4))
			path = argv[i] + 4;
		else if (!strcmp(argv[i], "profile=on"))
			profile = true;
		else if (strcmp(argv[i], "profile=off")) {
			fprintf(stderr, "count: unknown argument %s\n", argv[i]);
			return -1;
		}
	}
	if (!path) {
		fprintf(stderr, "count: no out=FILE\n");
		return -1;
	}
	out = fopen(path, "w");
	if (!out) {
		perror(path);
		return -1;
	}
	executed.score = qemu_plugin_scoreboard_new(sizeof(uint64_t));
	if (profile) {
		slots = qemu_plugin_scoreboard_new(SLOTS * sizeof(uint64_t));
		address = calloc(SLOTS, sizeof(*address));
		before = calloc(SLOTS, sizeof(*before));
		used = calloc(SLOTS, sizeof(*used));
		if (!address || !before || !used) {
			fprintf(stderr, "count: no memory\n");
			return -1;
		}
		used[used_count++] = 0;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
