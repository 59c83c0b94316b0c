// SPDX-License-Identifier: GPL-2.0
/*
 * A 32-bit program on /dev/vhost-vsock: ioctls come by the compat entry, with
 * pointers of 32 bits. It plays a guest: a packet goes in, its answer comes out.
 *
 * There is no 32-bit C library: system calls are made by hand.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

_Static_assert(sizeof(void *) == 4, "compile with -m32");

enum { SYS_EXIT = 1, SYS_WRITE = 4, SYS_OPEN = 5, SYS_CLOSE = 6, SYS_IOCTL = 54,
       SYS_NANOSLEEP = 162, SYS_EVENTFD2 = 328 };
enum { EBADF = 9, EFAULT = 14, EBUSY = 16, EINVAL = 22, ENOTTY = 25, ENOBUFS = 105 };

static long call(long number, long a, long b, long c)
{
	long ret;

	asm volatile("int $0x80" : "=a"(ret) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
	return ret;
}

/* GCC makes calls of these. */
void *memset(void *to, int byte, unsigned long size)
{
	u8 *p = to;

	while (size--)
		*p++ = byte;
	return to;
}

void *memcpy(void *to, const void *from, unsigned long size)
{
	u8 *p = to;
	const u8 *q = from;

	while (size--)
		*p++ = *q++;
	return to;
}

static int failed;

static void print(const char *text)
{
	unsigned long size = 0;

	while (text[size])
		size++;
	call(SYS_WRITE, 1, (long)text, size);
}

static void print_number(long value)
{
	char text[12], *p = text + sizeof(text) - 1;
	unsigned long rest = value < 0 ? -value : value;

	*p = 0;
	do
		*--p = '0' + rest % 10;
	while (rest /= 10);
	if (value < 0)
		*--p = '-';
	print(p);
}

/* A test is one word. */
static void print_name(const char *name)
{
	char text[2] = "";

	for (; *name; name++) {
		text[0] = *name == ' ' ? '-' : *name;
		print(text);
	}
}

static void expect(const char *name, long found, long wanted)
{
	print(found == wanted ? "ok " : "not ok ");
	print_name(name);
	if (found != wanted) {
		failed = 1;
		print(" # ");
		print_number(found);
		print(" instead of ");
		print_number(wanted);
	}
	print("\n");
}

#define IO(dir, nr, size) ((u32)(dir) << 30 | (u32)(size) << 16 | 0xaf << 8 | (nr))
enum { NONE, W, R, WR };

struct state { u32 index, num; };
struct file { u32 index; int fd; };
struct addr { u32 index, flags; u64 desc, used, avail, log; };
struct table { u32 count, padding; u64 guest, size, user, flags; };
struct desc { u64 addr; u32 len; u16 flags, next; };
struct avail { u16 flags, idx, ring[4]; u16 event; };
struct used { u16 flags, idx; struct { u32 id, len; } ring[4]; u16 event; };
struct header {
	u64 src_cid, dst_cid;
	u32 src_port, dst_port, len;
	u16 type, op;
	u32 flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

#define CID 32
#define GUEST 0x100000000ull	/* where the guest has what we have at `memory` */

static struct {
	struct desc desc[2][4];
	struct avail avail[2];
	struct used used[2] __attribute__((aligned(4)));
	struct header header[2];
} memory __attribute__((aligned(4096)));

static int device;

static long vhost(u32 request, const void *argument)
{
	return call(SYS_IOCTL, device, request, (long)argument);
}

static u64 guest_address(const void *p)
{
	return GUEST + ((const u8 *)p - (const u8 *)&memory);
}

static void ring(u32 index)
{
	struct state size = { index, 4 }, base = { index, 0 };
	struct addr addr = { index, 0, (u32)&memory.desc[index], (u32)&memory.used[index],
			     (u32)&memory.avail[index], 0 };
	struct file kick = { index, call(SYS_EVENTFD2, 0, 0, 0) };
	struct file none = { index, -1 }, bad = { index, 999 };

	expect("SET_VRING_NUM", vhost(IO(W, 0x10, 8), &size), 0);
	expect("SET_VRING_BASE", vhost(IO(W, 0x12, 8), &base), 0);
	expect("SET_VRING_ADDR", vhost(IO(W, 0x11, 40), &addr), 0);
	addr.desc |= 1ull << 63;
	expect("SET_VRING_ADDR above 4 GiB", vhost(IO(W, 0x11, 40), &addr), 0);
	addr.desc &= ~(1ull << 63);
	expect("SET_VRING_ADDR again", vhost(IO(W, 0x11, 40), &addr), 0);
	expect("SET_VRING_KICK", vhost(IO(W, 0x20, 8), &kick), 0);
	expect("SET_VRING_CALL", vhost(IO(W, 0x21, 8), &none), 0);
	expect("SET_VRING_ERR of no file", vhost(IO(W, 0x22, 8), &bad), -EBADF);
}

static void exchange(void)
{
	struct { long seconds, nanoseconds; } millisecond = { 0, 1000000 };
	int tries;

	memory.header[1] = (struct header){ .src_cid = CID, .dst_cid = 2, .src_port = 5,
		.dst_port = 9999, .type = 1, .op = 1 };
	memory.desc[0][0] = (struct desc){ guest_address(&memory.header[0]),
		sizeof(struct header), 2, 0 };
	memory.desc[1][0] = (struct desc){ guest_address(&memory.header[1]),
		sizeof(struct header), 0, 0 };
	memory.avail[0].idx = memory.avail[1].idx = 1;
	/* The device looks at the rings when it is started. */
	expect("SET_RUNNING 1", vhost(IO(W, 0x61, 4), &(int){ 1 }), 0);
	for (tries = 0; tries < 5000 && !*(volatile u16 *)&memory.used[0].idx; tries++)
		call(SYS_NANOSLEEP, (long)&millisecond, 0, 0);
	expect("an answer", memory.used[0].idx, 1);
	expect("its length", memory.used[0].ring[0].len, sizeof(struct header));
	expect("it is a reset", memory.header[0].op, 3);
	expect("for us", memory.header[0].dst_cid == CID && memory.header[0].dst_port == 5, 1);
	expect("the buffer of the question is back", memory.used[1].idx, 1);
}

static void run(void)
{
	struct table table = { 1, 0, GUEST, sizeof(memory), (u32)&memory, 0 };
	struct state state = { 0, 0 };
	u64 features = 0, cid = CID;
	u8 fork = 9;

	device = call(SYS_OPEN, (long)"/dev/vhost-vsock", 2, 0);
	expect("open", device > 0, 1);
	expect("GET_FEATURES", vhost(IO(R, 0x00, 8), &features), 0);
	expect("VERSION_1", features >> 32 & 1, 1);
	expect("GET_FEATURES to nowhere", vhost(IO(R, 0x00, 8), 0), -EFAULT);
	expect("GET_FEATURES to the end of memory", vhost(IO(R, 0x00, 8), (void *)0xfffffffc), -EFAULT);
	expect("SET_GUEST_CID", vhost(IO(W, 0x60, 8), &cid), 0);
	cid = 1ull << 32;
	expect("SET_GUEST_CID of 33 bits", vhost(IO(W, 0x60, 8), &cid), -EINVAL);
	expect("GET_FORK_FROM_OWNER", vhost(IO(R, 0x85, 1), &fork), 0);
	expect("a thread of the owner", fork, 1);
	expect("SET_OWNER", vhost(IO(NONE, 0x01, 0), 0), 0);
	expect("SET_OWNER again", vhost(IO(NONE, 0x01, 0), 0), -EBUSY);
	features = 1ull << 32;
	expect("SET_FEATURES", vhost(IO(W, 0x00, 8), &features), 0);
	expect("SET_MEM_TABLE", vhost(IO(W, 0x03, 8), &table), 0);
	ring(0);
	ring(1);
	state.index = 2;
	expect("GET_VRING_BASE of no ring", vhost(IO(WR, 0x12, 8), &state), -ENOBUFS);
	state.index = 0;
	expect("GET_VRING_ENDIAN", vhost(IO(W, 0x14, 8), &state), -ENOTTY);
	expect("what is no ioctl", vhost(IO(W, 0x7f, 8), &state), -ENOTTY);
	exchange();
	state = (struct state){ 1, 77 };
	expect("GET_VRING_BASE", vhost(IO(WR, 0x12, 8), &state), 0);
	expect("the position", state.num, 1);
	expect("GET_VRING_WORKER", vhost(IO(WR, 0x16, 8), &state), 0);
	expect("the worker", state.num, 0);
	expect("close", call(SYS_CLOSE, device, 0, 0), 0);
}

void _start(void)
{
	/* The kernel aligns the stack for a function that is entered by a jump. */
	asm volatile("and $-16, %esp");
	run();
	call(SYS_EXIT, failed, 0, 0);
	__builtin_unreachable();
}
