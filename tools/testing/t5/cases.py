# SPDX-License-Identifier: GPL-2.0
"""All cases of T5, in the order in which they run."""

import packets          # noqa: F401 (each registers its cases)
import rings            # noqa: F401
import bounds           # noqa: F401
import events           # noqa: F401
import fuzz             # noqa: F401
import waiting          # noqa: F401
import turns            # noqa: F401
import life             # noqa: F401 (its last one leaves the guest without the driver)

# Of HH-26 in `make test`; ROUNDS= asks for another number.
ROUNDS = 5000
