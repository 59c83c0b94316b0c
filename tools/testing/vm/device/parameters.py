#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""With vhost_core loaded as max_mem_regions=100 max_iotlb_entries=0 fork_from_owner_default=0."""

import errno

import vhost
from cases_abi import same, table

with vhost.Device() as device:
    same(device.call(vhost.GET_FORK_FROM_OWNER, bytes(1)) or device.out[0], 0, "worker")
    device.must(vhost.SET_OWNER)
    same(table(device, 101), errno.E2BIG, "101 regions")
    # C has no table either if it may have no entries of an IOTLB.
    same(table(device, 100), errno.EINVAL, "100 regions")
