// SPDX-License-Identifier: GPL-2.0
/*
 * Exports the Rust symbols of the library crates of one module, and the helpers
 * it carries, to the other modules of this tree.
 */

#include <rust_exports.h>

#include "exports_common_generated.h"
