/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Attributes of /dev/vhost-vsock: what a guest may do, and who may do something with it. See
 * Documentation/vhost-vsock.rst.
 */
#ifndef _UAPI_LINUX_VHOST_VSOCK_ATTR_H
#define _UAPI_LINUX_VHOST_VSOCK_ATTR_H

#include <linux/types.h>
#include <linux/vhost.h>

struct vhost_vsock_attr {
	__u32 attr;
	__u32 size;		/* of the value, or of the room for it */
	__aligned_u64 data;	/* where it is */
};

#define VHOST_VSOCK_SET_ATTR	_IOW(VHOST_VIRTIO, 0xE0, struct vhost_vsock_attr)
#define VHOST_VSOCK_GET_ATTR	_IOWR(VHOST_VIRTIO, 0xE1, struct vhost_vsock_attr)

/* Connections with the guest: __u32, 0 for any number. */
#define VHOST_VSOCK_ATTR_MAX_CONNECTIONS	1
/* Ports of the host that the guest may connect to: a list of pairs, the first and the last one. */
#define VHOST_VSOCK_ATTR_PORTS			2
/* Users who may connect to the guest: a list. */
#define VHOST_VSOCK_ATTR_USERS			3
/* How fast packets may go to the guest, and from it: struct vhost_vsock_attr_rate. */
#define VHOST_VSOCK_ATTR_RATE_TO_GUEST		4
#define VHOST_VSOCK_ATTR_RATE_FROM_GUEST	5
/* __u32, 1: nobody allows anything more from now on. */
#define VHOST_VSOCK_ATTR_LOCKED			7

struct vhost_vsock_attr_list {
	__u32 only;		/* 0: everybody, and there are no entries */
	__u32 count;		/* at most 64 */
	__u32 entries[];
};

struct vhost_vsock_attr_rate {
	__aligned_u64 bytes;	/* in a second, with 44 for the header of each packet; 0: any number */
	__aligned_u64 packets;	/* in a second; 0: any number */
	__u32 burst;		/* microseconds, at most 10000000 */
	__u32 reserved;		/* 0 */
};

#endif
