# SPDX-License-Identifier: GPL-2.0
"""The lab: build root, kernels, images and VMs for the vsock modules."""
