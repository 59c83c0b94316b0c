/* SPDX-License-Identifier: GPL-2.0 */
#include <linux/export.h>

/* The type does not matter: only the address is exported. */
#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)
