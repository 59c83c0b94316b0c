/* SPDX-License-Identifier: GPL-2.0 */
/* The few BPF calls and instructions that the tests of sockmaps need, without a library. */
#ifndef TESTING_API_BPF_H
#define TESTING_API_BPF_H

#include <stddef.h>
#include <sys/syscall.h>
#include <linux/bpf.h>
#include "api.h"

#define INSN(c, d, s, o, i) \
	((struct bpf_insn){ .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) })
#define MOV(d, s)	INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define MOV_IMM(d, i)	INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define ADD_IMM(d, i)	INSN(BPF_ALU64 | BPF_ADD | BPF_K, d, 0, 0, i)
#define OR(d, s)	INSN(BPF_ALU64 | BPF_OR | BPF_X, d, s, 0, 0)
#define LOAD(size, d, s, o)	INSN(BPF_LDX | BPF_MEM | (size), d, s, o, 0)
#define STORE(size, d, o, s)	INSN(BPF_STX | BPF_MEM | (size), d, s, o, 0)
#define STORE_IMM(size, d, o, i) INSN(BPF_ST | BPF_MEM | (size), d, 0, o, i)
#define ATOMIC_ADD(d, o, s)	INSN(BPF_STX | BPF_ATOMIC | BPF_DW, d, s, o, BPF_ADD)
#define JEQ_IMM(d, i, o)	INSN(BPF_JMP | BPF_JEQ | BPF_K, d, 0, o, i)
#define JGT(d, s, o)	INSN(BPF_JMP | BPF_JGT | BPF_X, d, s, o, 0)
#define CALL(function)	INSN(BPF_JMP | BPF_CALL, 0, 0, 0, function)
#define EXIT()		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
/* Two instructions. */
#define MAP(d, fd)	INSN(BPF_LD | BPF_DW | BPF_IMM, d, BPF_PSEUDO_MAP_FD, 0, fd), \
			INSN(0, 0, 0, 0, 0)

static inline long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static inline int map_create(int type, int value_size, int entries)
{
	union bpf_attr attr = {
		.map_type = type,
		.key_size = 4,
		.value_size = value_size,
		.max_entries = entries,
	};

	return must(bpf(BPF_MAP_CREATE, &attr));
}

static inline long map_update(int map, uint32_t key, const void *value, uint64_t flags)
{
	union bpf_attr attr = {
		.map_fd = map,
		.key = (uintptr_t)&key,
		.value = (uintptr_t)value,
		.flags = flags,
	};

	return bpf(BPF_MAP_UPDATE_ELEM, &attr);
}

static inline long map_lookup(int map, uint32_t key, void *value)
{
	union bpf_attr attr = {
		.map_fd = map,
		.key = (uintptr_t)&key,
		.value = (uintptr_t)value,
	};

	return bpf(BPF_MAP_LOOKUP_ELEM, &attr);
}

static inline long map_delete(int map, uint32_t key)
{
	union bpf_attr attr = { .map_fd = map, .key = (uintptr_t)&key };

	return bpf(BPF_MAP_DELETE_ELEM, &attr);
}

/* Sockets are put into maps by their descriptor, as a 64-bit value. */
static inline long map_insert(int map, uint32_t key, int fd, uint64_t flags)
{
	uint64_t value = fd;

	return map_update(map, key, &value, flags);
}

static inline int prog_load(int type, const struct bpf_insn *insns, size_t count)
{
	static char log[1 << 16];
	union bpf_attr attr = {
		.prog_type = type,
		.insns = (uintptr_t)insns,
		.insn_cnt = count,
		.license = (uintptr_t)"GPL",
		.log_buf = (uintptr_t)log,
		.log_size = sizeof(log),
		.log_level = 1,
	};
	int fd = bpf(BPF_PROG_LOAD, &attr);

	if (fd < 0)
		fail("the program is refused: %s: %.300s", strerror(errno), log);
	return fd;
}

static inline long prog_attach(int map, int prog, int how)
{
	union bpf_attr attr = {
		.target_fd = map,
		.attach_bpf_fd = prog,
		.attach_type = how,
	};

	return bpf(BPF_PROG_ATTACH, &attr);
}

#endif
