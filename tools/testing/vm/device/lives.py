#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Devices that are opened, used and closed, as often as the argument says."""

import sys

import vhost
from cases_worker import fork_owner, new_worker

for number in range(int(sys.argv[1])):
    # Every other one with a thread of the kernel.
    task = number % 2
    with vhost.Guest(400 + number % 3, setup=lambda device: fork_owner(device, task)) as guest:
        guest.start()
        guest.give(8)
        guest.alive()
        if task:
            guest.device.state(vhost.ATTACH_VRING_WORKER, vhost.RX, new_worker(guest.device))
        # Something waits when the device is closed.
        guest.rings[vhost.TX].set_flags(1)
        guest.send(vhost.OP_REQUEST, 7, 9999)
        vhost.connect(guest.cid, 1, 0.001)
