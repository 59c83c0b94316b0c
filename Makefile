# SPDX-License-Identifier: GPL-2.0
# Front end for people; kbuild itself reads Kbuild (it has precedence).
#
#   make demo               see it work
#   make KDIR=/path         build for a kernel tree that has Rust metadata
#   make help               everything else

LAB := $(CURDIR)/tools/lab/lab

ifneq ($(KDIR),)
.DEFAULT_GOAL := modules
else
.DEFAULT_GOAL := help
endif

help:
	@echo 'make demo              files between a host VM and its guest through our modules'
	@echo 'make stock             modules for Debian'"'"'s stock kernel: build/stock/*.ko'
	@echo '                       (CLIPPY=1: lint them into build/clippy; W=e: warnings are errors)'
	@echo 'make deb               Debian packages of the modules and the tools: build/deb/*.deb'
	@echo 'make install           those for the kernel that runs here, installed'
	@echo '                       (stock, deb: FLAVOUR=cloud-amd64|amd64|rt-amd64, KERNEL=7.3)'
	@echo 'make test              all tests; TIERS="T0 T2 T3 T4" and TESTS=glob select'
	@echo '                       PARAMS="vhost_core.max_mem_regions=100 ...": our modules get these'
	@echo '                       parameters, in host and guest; also for test-debug, bench and bench-check'
	@echo 'make debug             modules for the debug kernel (built once, 15-40 min): build/debug/*.ko'
	@echo 'make lean              modules for the lean kernel (built once, about 15 min): build/lean/*.ko'
	@echo 'make test-debug        tests on it; TIERS="T1 T2 T3 T4", GUEST=stock|debug, TESTS=glob select'
	@echo 'make fuzz              the ring driver at its full length: hostile guests on /dev/vhost-vsock for a'
	@echo '                       quarter of an hour; RING_SEED=N repeats a run'
	@echo 'make bench             ours and C side by side, in instructions; ROWS="glob..." RIGS="host loopback'
	@echo '                       guest" KERNELS="stock lean" BOOTS=3 select, PROFILE=row tells where they go'
	@echo '                       WALL=1: nanoseconds instead, on a machine with KVM'
	@echo 'make bench-check       the same against the committed table (TABLE=file: against that one);'
	@echo '                       fails where a row got worse'
	@echo 'make bench-scale       what a message costs with 10,000 connections, ours and C, in instructions'
	@echo 'make lab-shell         a shell in the host VM, modules loaded, a guest running'
	@echo 'make fmt fmt-check clippy rust-analyzer'
	@echo '                       style and editor support, with the lab'"'"'s tools'
	@echo 'make KDIR=/path [modules modules_install]'
	@echo '                       modules for a kernel tree that has Rust metadata'
	@echo 'make clean             remove build/ and the objects'
	@echo 'make distclean         the lab'"'"'s cache too ($$VSOCK_LAB_CACHE or ~/.cache/vsock-rust-lab)'
	@echo 'make help              this text'
	@echo
	@echo 'The lab needs Debian 12 or 13, root, and 6 GB of disk for its cache (12 with all kernels);'
	@echo 'tools/lab/README tells more.'

# --- with a kernel tree of the user's own ------------------------------------
ifneq ($(KDIR),)
kdir-check:
	@test -e '$(KDIR)/Makefile' || { \
		echo '$(KDIR) is not a kernel build tree: give KDIR=/path of one, or run `make stock`, which builds with the lab'"'"'s.' >&2; exit 1; }
	@test -e '$(KDIR)/rust/libkernel.rmeta' || { \
		echo '$(KDIR) has no Rust metadata (rust/libkernel.rmeta is missing): run `make prepare` in that kernel tree with CONFIG_RUST=y, or run `make stock` here, which builds with the lab'"'"'s.' >&2; exit 1; }

modules modules_install rust-analyzer: kdir-check
	$(MAKE) -C $(KDIR) M=$(CURDIR) $@

clean:
	$(MAKE) -C $(KDIR) M=$(CURDIR) $@
else
modules modules_install:
	@echo 'give the kernel tree: make KDIR=/path $@; or run `make stock`, which builds for the lab'"'"'s kernel.' >&2; exit 1

rust-analyzer clean:
	@$(LAB) $@
endif

# --- the lab -----------------------------------------------------------------
export CLIPPY W V KCFLAGS TIERS TESTS GUEST KCOV RING_SEED BOOTS SEED ROUNDS LONG \
	ROWS RIGS KERNELS PROFILE UPDATE PARAMS TABLE FLAVOUR KERNEL

stock deb install lean debug test-debug fuzz bench bench-check bench-scale demo test fmt fmt-check clippy prepare distclean:
	@$(LAB) $@

lab-shell shell:
	@$(LAB) shell

.PHONY: help kdir-check modules modules_install rust-analyzer clean stock deb install demo \
	lean debug test-debug fuzz bench bench-check bench-scale test fmt fmt-check clippy prepare distclean lab-shell shell
