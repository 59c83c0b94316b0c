# SPDX-License-Identifier: GPL-2.0
# C was asked for, for this boot; then ours again, and away with the packages.
stage=30-c
. ./lib.sh

modprobe vhost_vsock
same c-runs c "$(runs vhost_vsock)"
same use-rust 'the rust modules are used from now on' "$(vsockctl use rust)"
same rust-runs rust "$(runs vhost_vsock)"

package=$(dpkg-query -W -f '${Package}\n' 'vsock-rust-modules-*' | grep -v dbgsym)
check remove dpkg -r "$package-dbgsym" "$package"
same c-runs-again c "$(runs vhost_vsock)"
same c-is-taken c "$(taken vhost_vsock)"
check c-loopback loopback
check purge dpkg -P vsock-rust-tools "$package"
same nothing-left '' "$(find /etc /usr /var/lib -name '*vsock-rust*' -not -path '*/dpkg/*' -not -path '*/apt/*' 2>/dev/null)"
