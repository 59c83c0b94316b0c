// SPDX-License-Identifier: GPL-2.0
/*
 * Non-trivial C macros and inlined C functions cannot be called from Rust: these
 * functions wrap them. The prefix differs from the kernel's `rust_helper_`
 * because both sets are exported.
 *
 * Sorted alphabetically.
 */

#include <linux/compiler_types.h>

#ifdef __BINDGEN__
/* Omit `inline` for bindgen as it ignores inline functions. */
#define __rust_helper
#else
#define __rust_helper __always_inline
#endif

#include "kthread.c"
#include "module.c"
#include "net.c"
#include "skbuff.c"
#include "sock.c"
#include "sock_table.c"
#include "spinlock.c"
#include "uaccess.c"
#include "vhost.c"
#include "vsock.c"
#include "virtio.c"
#include "window.c"
#include "work.c"
