/* SPDX-License-Identifier: GPL-2.0 */
/* What C has no tracepoints for. Documentation/debugfs.rst says what they tell. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vsock
/* C's header has the same system, and a variable of that name. */
#undef TRACE_SYSTEM_VAR
#define TRACE_SYSTEM_VAR vsock_rust

#if !defined(_TRACE_VSOCK_RUST_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_VSOCK_RUST_H

#include <linux/tracepoint.h>

#define show_drop_reason(val) \
	__print_symbolic(val, \
			 { 1, "NOBODY" }, \
			 { 2, "MALFORMED" }, \
			 { 3, "MISADDRESSED" }, \
			 { 4, "PORT_DENIED" }, \
			 { 5, "TOO_MANY" }, \
			 { 6, "USER_DENIED" })

TRACE_EVENT(vsock_drop,
	TP_PROTO(__u32 reason, __u32 src_cid, __u32 src_port, __u32 dst_cid, __u32 dst_port),
	TP_ARGS(reason, src_cid, src_port, dst_cid, dst_port),
	TP_STRUCT__entry(
		__field(__u32, reason)
		__field(__u32, src_cid)
		__field(__u32, src_port)
		__field(__u32, dst_cid)
		__field(__u32, dst_port)
	),
	TP_fast_assign(
		__entry->reason = reason;
		__entry->src_cid = src_cid;
		__entry->src_port = src_port;
		__entry->dst_cid = dst_cid;
		__entry->dst_port = dst_port;
	),
	TP_printk("%u:%u -> %u:%u reason=%s",
		  __entry->src_cid, __entry->src_port,
		  __entry->dst_cid, __entry->dst_port,
		  show_drop_reason(__entry->reason))
);

TRACE_EVENT(vsock_credit_wait,
	TP_PROTO(__u32 src_cid, __u32 src_port, __u32 dst_cid, __u32 dst_port, __u32 window, __u64 ms),
	TP_ARGS(src_cid, src_port, dst_cid, dst_port, window, ms),
	TP_STRUCT__entry(
		__field(__u32, src_cid)
		__field(__u32, src_port)
		__field(__u32, dst_cid)
		__field(__u32, dst_port)
		__field(__u32, window)
		__field(__u64, ms)
	),
	TP_fast_assign(
		__entry->src_cid = src_cid;
		__entry->src_port = src_port;
		__entry->dst_cid = dst_cid;
		__entry->dst_port = dst_port;
		__entry->window = window;
		__entry->ms = ms;
	),
	TP_printk("%u:%u -> %u:%u window=%u ms=%llu",
		  __entry->src_cid, __entry->src_port,
		  __entry->dst_cid, __entry->dst_port,
		  __entry->window, __entry->ms)
);

#define show_sock_state(val) \
	__print_symbolic(val, \
			 { 1, "ESTABLISHED" }, \
			 { 2, "CONNECTING" }, \
			 { 7, "CLOSED" }, \
			 { 10, "LISTENING" }, \
			 { 11, "CLOSING" })

TRACE_EVENT(vsock_conn,
	TP_PROTO(__u32 local_cid, __u32 local_port, __u32 peer_cid, __u32 peer_port, __u32 old, __u32 new),
	TP_ARGS(local_cid, local_port, peer_cid, peer_port, old, new),
	TP_STRUCT__entry(
		__field(__u32, local_cid)
		__field(__u32, local_port)
		__field(__u32, peer_cid)
		__field(__u32, peer_port)
		__field(__u32, old)
		__field(__u32, new)
	),
	TP_fast_assign(
		__entry->local_cid = local_cid;
		__entry->local_port = local_port;
		__entry->peer_cid = peer_cid;
		__entry->peer_port = peer_port;
		__entry->old = old;
		__entry->new = new;
	),
	TP_printk("%u:%u %u:%u %s -> %s",
		  __entry->local_cid, __entry->local_port,
		  __entry->peer_cid, __entry->peer_port,
		  show_sock_state(__entry->old), show_sock_state(__entry->new))
);

TRACE_EVENT(vhost_vsock_run,
	TP_PROTO(__u32 cid, bool to_guest, bool inlined, __u64 packets, __u64 bytes),
	TP_ARGS(cid, to_guest, inlined, packets, bytes),
	TP_STRUCT__entry(
		__field(__u32, cid)
		__field(bool, to_guest)
		__field(bool, inlined)
		__field(__u64, packets)
		__field(__u64, bytes)
	),
	TP_fast_assign(
		__entry->cid = cid;
		__entry->to_guest = to_guest;
		__entry->inlined = inlined;
		__entry->packets = packets;
		__entry->bytes = bytes;
	),
	TP_printk("cid=%u %s by=%s packets=%llu bytes=%llu",
		  __entry->cid,
		  __entry->to_guest ? "to_guest" : "from_guest",
		  __entry->inlined ? "kick" : "worker",
		  __entry->packets, __entry->bytes)
);

#endif /* _TRACE_VSOCK_RUST_H */

#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE vsock_rust

/* This part must be outside protection. */
#include <trace/define_trace.h>
