/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A guest without a machine: it opens /dev/vhost-vsock, has the rings in its own
 * memory, and speaks the protocol of virtio-vsock as a driver would.
 *
 * Field names and numbers are those of the virtio specification.
 */
#ifndef GUEST_H
#define GUEST_H

#include "bench.h"
#include <endian.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_vsock.h>

#define RING 256		/* descriptors of each ring */
#ifndef BUFFER
#define BUFFER 4096		/* bytes of each buffer */
#endif
#define GUEST_CREDIT (256 * 1024)

enum { TO_GUEST, FROM_GUEST, QUEUES };

struct queue {
	struct vring ring;
	uint16_t avail, used;
	int kick, call;
	unsigned char *buffers;
};

struct guest {
	int fd;
	uint32_t cid;
	void *memory;
	size_t size;
	struct queue queue[QUEUES];
};

/* A packet from the host, in the buffer it came in until the next one is taken. */
struct packet {
	struct virtio_vsock_hdr header;
	const unsigned char *payload;
};

static inline void device_ioctl(struct guest *g, unsigned long command, const void *argument,
				const char *name)
{
	if (ioctl(g->fd, command, argument) < 0)
		die("%s", name);
}

#define DEVICE_IOCTL(g, command, argument) device_ioctl(g, command, argument, #command)

static inline void kick(struct queue *q)
{
	uint64_t one = 1;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&q->ring.used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY)
		return;
	if (write(q->kick, &one, sizeof(one)) != sizeof(one))
		die("kick");
}

static inline void give(struct queue *q, uint16_t head)
{
	q->ring.avail->ring[q->avail % RING] = head;
	__atomic_store_n(&q->ring.avail->idx, ++q->avail, __ATOMIC_RELEASE);
}

/* The next buffer that the device is done with; waits for it. */
static inline struct vring_used_elem *take(struct queue *q, int timeout)
{
	uint64_t count;

	while (__atomic_load_n(&q->ring.used->idx, __ATOMIC_ACQUIRE) == q->used) {
		struct pollfd ready = { q->call, POLLIN, 0 };

		if (poll(&ready, 1, timeout) != 1)
			return NULL;
		if (read(q->call, &count, sizeof(count)) < 0)
			die("call");
	}
	return &q->ring.used->ring[q->used++ % RING];
}

static inline void queue_setup(struct guest *g, unsigned int index, unsigned char *memory)
{
	struct queue *q = &g->queue[index];
	struct vhost_vring_state num = { index, RING }, base = { index, 0 };
	struct vhost_vring_addr address = { .index = index };
	struct vhost_vring_file file = { .index = index };

	vring_init(&q->ring, RING, memory, 4096);
	q->buffers = memory + 0x4000;
	q->kick = eventfd(0, EFD_CLOEXEC);
	q->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->kick < 0 || q->call < 0)
		die("eventfd");
	for (unsigned int n = 0; n < RING; n++) {
		q->ring.desc[n].addr = (uint64_t)(uintptr_t)(q->buffers + n * BUFFER);
		q->ring.desc[n].len = BUFFER;
		q->ring.desc[n].flags = index == TO_GUEST ? VRING_DESC_F_WRITE : 0;
	}
	address.desc_user_addr = (uintptr_t)q->ring.desc;
	address.avail_user_addr = (uintptr_t)q->ring.avail;
	address.used_user_addr = (uintptr_t)q->ring.used;
	DEVICE_IOCTL(g, VHOST_SET_VRING_NUM, &num);
	DEVICE_IOCTL(g, VHOST_SET_VRING_BASE, &base);
	DEVICE_IOCTL(g, VHOST_SET_VRING_ADDR, &address);
	file.fd = q->kick;
	DEVICE_IOCTL(g, VHOST_SET_VRING_KICK, &file);
	file.fd = q->call;
	DEVICE_IOCTL(g, VHOST_SET_VRING_CALL, &file);
}

static inline void guest_open(struct guest *g, uint32_t cid)
{
	/* The guest's addresses are ours. */
	size_t part = 0x4000 + RING * BUFFER;
	struct {
		struct vhost_memory head;
		struct vhost_memory_region region;
	} table = { .head.nregions = 1 };
	uint64_t features = 1ull << VIRTIO_F_VERSION_1, wide = cid;
	int on = 1;

	memset(g, 0, sizeof(*g));
	g->cid = cid;
	g->size = QUEUES * part;
	g->memory = mmap(NULL, g->size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	g->fd = open("/dev/vhost-vsock", O_RDWR | O_CLOEXEC);
	if (g->memory == MAP_FAILED || g->fd < 0)
		die("/dev/vhost-vsock");
	table.region.guest_phys_addr = (uintptr_t)g->memory;
	table.region.userspace_addr = (uintptr_t)g->memory;
	table.region.memory_size = g->size;
	DEVICE_IOCTL(g, VHOST_SET_OWNER, NULL);
	DEVICE_IOCTL(g, VHOST_SET_FEATURES, &features);
	DEVICE_IOCTL(g, VHOST_SET_MEM_TABLE, &table);
	DEVICE_IOCTL(g, VHOST_VSOCK_SET_GUEST_CID, &wide);
	for (unsigned int n = 0; n < QUEUES; n++)
		queue_setup(g, n, (unsigned char *)g->memory + n * part);
	for (unsigned int n = 0; n < RING; n++)
		give(&g->queue[TO_GUEST], n);
	DEVICE_IOCTL(g, VHOST_VSOCK_SET_RUNNING, &on);
}

/* What is left of a guest whose device was closed. */
static inline void guest_forget(struct guest *g)
{
	for (unsigned int n = 0; n < QUEUES; n++) {
		close(g->queue[n].kick);
		close(g->queue[n].call);
	}
	munmap(g->memory, g->size);
}

static inline void guest_send(struct guest *g, uint16_t op, uint32_t from, uint32_t to,
			      uint32_t fwd_cnt, const void *payload, uint32_t len)
{
	struct queue *q = &g->queue[FROM_GUEST];
	uint16_t head = q->avail % RING;
	unsigned char *buffer = q->buffers + head * BUFFER;
	struct virtio_vsock_hdr header = {
		.src_cid = htole64(g->cid), .dst_cid = htole64(VMADDR_CID_HOST),
		.src_port = htole32(from), .dst_port = htole32(to), .len = htole32(len),
		.type = htole16(VIRTIO_VSOCK_TYPE_STREAM), .op = htole16(op),
		.buf_alloc = htole32(GUEST_CREDIT), .fwd_cnt = htole32(fwd_cnt),
	};

	/* The device takes them in order: this buffer is free when RING later ones are. */
	while ((uint16_t)(q->avail - q->used) >= RING)
		if (!take(q, 10000))
			die("the device takes nothing");
	memcpy(buffer, &header, sizeof(header));
	if (len)
		memcpy(buffer + sizeof(header), payload, len);
	q->ring.desc[head].len = sizeof(header) + len;
	give(q, head);
	kick(q);
}

/*
 * The next packet from the host, false if there is none in time. It is valid
 * until guest_return().
 */
static inline bool guest_receive(struct guest *g, struct packet *p, uint32_t *head, int timeout)
{
	struct queue *q = &g->queue[TO_GUEST];
	struct vring_used_elem *used = take(q, timeout);

	if (!used)
		return false;
	*head = used->id;
	memcpy(&p->header, q->buffers + *head * BUFFER, sizeof(p->header));
	p->payload = q->buffers + *head * BUFFER + sizeof(p->header);
	return true;
}

static inline void guest_return(struct guest *g, uint32_t head)
{
	give(&g->queue[TO_GUEST], head);
	kick(&g->queue[TO_GUEST]);
}

/* Waits for a packet of a kind and drops what comes before; returns its dst_port. */
static inline uint32_t guest_expect(struct guest *g, uint16_t op, void *payload, uint32_t len)
{
	for (;;) {
		struct packet p;
		uint32_t head, port;
		uint16_t got;

		if (!guest_receive(g, &p, &head, 10000))
			die("no packet %u for the guest", op);
		got = le16toh(p.header.op);
		port = le32toh(p.header.dst_port);
		if (got == op && le32toh(p.header.len) == len && len)
			memcpy(payload, p.payload, len);
		guest_return(g, head);
		if (got == op)
			return port;
		if (got == VIRTIO_VSOCK_OP_RST)
			die("the host resets port %u", port);
	}
}

/* A connection of the guest to PORT of the host; the host's end of it is returned. */
static inline int guest_connect(struct guest *g, uint32_t port, int listener)
{
	int fd;

	guest_send(g, VIRTIO_VSOCK_OP_REQUEST, port, PORT, 0, NULL, 0);
	fd = vsock_accept(listener);
	if (guest_expect(g, VIRTIO_VSOCK_OP_RESPONSE, NULL, 0) != port)
		die("the response is not for port %u", port);
	return fd;
}

/* A message to the host, which sends it back; *fwd_cnt is what the guest has read. */
static inline void guest_round_trip(struct guest *g, uint32_t port, uint32_t *fwd_cnt, int fd,
				    const char *message, char *answer)
{
	guest_send(g, VIRTIO_VSOCK_OP_RW, port, PORT, *fwd_cnt, message, MESSAGE);
	receive_message(fd, answer);
	send_message(fd, answer);
	if (guest_expect(g, VIRTIO_VSOCK_OP_RW, answer, MESSAGE) != port)
		die("the answer is not for port %u", port);
	*fwd_cnt += MESSAGE;
}

#endif
