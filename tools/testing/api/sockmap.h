/* SPDX-License-Identifier: GPL-2.0 */
/* A sockmap with a program that says what becomes of what comes, and bytes that go through it. */
#ifndef TESTING_API_SOCKMAP_H
#define TESTING_API_SOCKMAP_H

#include "api.h"
#include "bpf.h"

/* What the program leaves in an array map, to be read by the test. */
struct seen {
	uint64_t packets, bytes, family, cb;
};

enum what { PASS, DROP, REDIRECT, REDIRECT_INGRESS, BY_BYTE };

/* A sockmap with two places, and its program. */
struct setup {
	int map, stats;
};

/*
 * Counts, then does one of the above. A redirect goes to place 1. BY_BYTE looks at
 * the first byte: 'D' is dropped, 'R' redirected, all else passes.
 */
static int verdict_prog(struct setup *s, enum what what)
{
	struct bpf_insn head[] = {
		MOV(BPF_REG_6, BPF_REG_1),
		STORE_IMM(BPF_W, BPF_REG_10, -4, 0),
		MOV(BPF_REG_2, BPF_REG_10),
		ADD_IMM(BPF_REG_2, -4),
		MAP(BPF_REG_1, s->stats),
		CALL(BPF_FUNC_map_lookup_elem),
		JEQ_IMM(BPF_REG_0, 0, 14),
		MOV_IMM(BPF_REG_1, 1),
		ATOMIC_ADD(BPF_REG_0, offsetof(struct seen, packets), BPF_REG_1),
		LOAD(BPF_W, BPF_REG_1, BPF_REG_6, offsetof(struct __sk_buff, len)),
		ATOMIC_ADD(BPF_REG_0, offsetof(struct seen, bytes), BPF_REG_1),
		LOAD(BPF_W, BPF_REG_1, BPF_REG_6, offsetof(struct __sk_buff, family)),
		STORE(BPF_DW, BPF_REG_0, offsetof(struct seen, family), BPF_REG_1),
		LOAD(BPF_W, BPF_REG_1, BPF_REG_6, offsetof(struct __sk_buff, cb[0])),
		LOAD(BPF_W, BPF_REG_2, BPF_REG_6, offsetof(struct __sk_buff, cb[1])),
		OR(BPF_REG_1, BPF_REG_2),
		LOAD(BPF_W, BPF_REG_2, BPF_REG_6, offsetof(struct __sk_buff, cb[2])),
		OR(BPF_REG_1, BPF_REG_2),
		LOAD(BPF_W, BPF_REG_2, BPF_REG_6, offsetof(struct __sk_buff, cb[3])),
		OR(BPF_REG_1, BPF_REG_2),
		STORE(BPF_DW, BPF_REG_0, offsetof(struct seen, cb), BPF_REG_1),
	};
	struct bpf_insn pass[] = { MOV_IMM(BPF_REG_0, SK_PASS), EXIT() };
	struct bpf_insn drop[] = { MOV_IMM(BPF_REG_0, SK_DROP), EXIT() };
	struct bpf_insn redirect[] = {
		MOV(BPF_REG_1, BPF_REG_6),
		MAP(BPF_REG_2, s->map),
		MOV_IMM(BPF_REG_3, 1),
		MOV_IMM(BPF_REG_4, what == REDIRECT_INGRESS ? BPF_F_INGRESS : 0),
		CALL(BPF_FUNC_sk_redirect_map),
		EXIT(),
	};
	struct bpf_insn by_byte[] = {
		LOAD(BPF_W, BPF_REG_2, BPF_REG_6, offsetof(struct __sk_buff, data)),
		LOAD(BPF_W, BPF_REG_3, BPF_REG_6, offsetof(struct __sk_buff, data_end)),
		MOV(BPF_REG_4, BPF_REG_2),
		ADD_IMM(BPF_REG_4, 1),
		MOV_IMM(BPF_REG_0, SK_PASS),
		JGT(BPF_REG_4, BPF_REG_3, 12),
		LOAD(BPF_B, BPF_REG_5, BPF_REG_2, 0),
		MOV_IMM(BPF_REG_0, SK_DROP),
		JEQ_IMM(BPF_REG_5, 'D', 9),
		MOV_IMM(BPF_REG_0, SK_PASS),
		JEQ_IMM(BPF_REG_5, 'R', 1),
		EXIT(),
		MOV(BPF_REG_1, BPF_REG_6),
		MAP(BPF_REG_2, s->map),
		MOV_IMM(BPF_REG_3, 1),
		MOV_IMM(BPF_REG_4, 0),
		CALL(BPF_FUNC_sk_redirect_map),
		EXIT(),
	};
	struct bpf_insn insns[64];
	size_t count = sizeof(head) / sizeof(*head);

#define APPEND(part) do {						\
	memcpy(insns + count, part, sizeof(part));			\
	count += sizeof(part) / sizeof(*(part));			\
} while (0)
	memcpy(insns, head, sizeof(head));
	switch (what) {
	case PASS:
		APPEND(pass);
		break;
	case DROP:
		APPEND(drop);
		break;
	case REDIRECT:
	case REDIRECT_INGRESS:
		APPEND(redirect);
		break;
	case BY_BYTE:
		APPEND(by_byte);
		break;
	}
	return prog_load(BPF_PROG_TYPE_SK_SKB, insns, count);
}

static struct setup setup_as(enum what what, int attach)
{
	struct setup s = {
		.map = map_create(BPF_MAP_TYPE_SOCKMAP, 8, 2),
		.stats = map_create(BPF_MAP_TYPE_ARRAY, sizeof(struct seen), 1),
	};

	must(prog_attach(s.map, verdict_prog(&s, what), attach));
	return s;
}

static struct setup setup(enum what what)
{
	return setup_as(what, BPF_SK_SKB_STREAM_VERDICT);
}

static struct seen seen(struct setup *s)
{
	struct seen result;

	must(map_lookup(s->stats, 0, &result));
	return result;
}

/* Bytes from a generator, so that any mistake in the middle is found. */
static unsigned char pattern(size_t position)
{
	return (position * 2654435761u) >> 13;
}

struct flow {
	int fd;
	size_t total, chunk;
	size_t done;
};

static void *flow_send(void *arg)
{
	static unsigned char data[1 << 17];
	struct flow *flow = arg;
	size_t n;
	ssize_t ret;

	for (flow->done = 0; flow->done < flow->total; flow->done += ret) {
		n = flow->total - flow->done;
		if (n > flow->chunk)
			n = flow->chunk;
		for (size_t i = 0; i < n; i++)
			data[i] = pattern(flow->done + i);
		ret = send(flow->fd, data, n, MSG_NOSIGNAL);
		if (ret <= 0)
			break;
	}
	return NULL;
}

static pthread_t flow_start(struct flow *flow)
{
	pthread_t thread;

	must(-pthread_create(&thread, NULL, flow_send, flow));
	return thread;
}

static void expect_flow(int fd, size_t total)
{
	static unsigned char data[1 << 17];
	ssize_t ret;

	for (size_t at = 0; at < total; at += ret) {
		ret = recv_soon(fd, data, sizeof(data), 0);
		if (ret <= 0)
			fail("after %zu of %zu bytes: %zd, %s", at, total, ret, strerror(errno));
		for (ssize_t i = 0; i < ret; i++)
			if (data[i] != pattern(at + i))
				fail("byte %zu is wrong", at + i);
	}
}

#endif
