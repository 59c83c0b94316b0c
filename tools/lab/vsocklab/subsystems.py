# SPDX-License-Identifier: GPL-2.0
"""Which part of the kernel a function belongs to, as the tables of costs tell it.

A function is judged by its module, then by its name: the first pattern that matches wins. The
same name is the same part for C and for ours, so that a difference is one.
"""

import re

TRANSPORT = {"vhost", "vhost_iotlb", "vhost_core", "vhost_vsock", "vsock_loopback",
             "vmw_vsock_virtio_transport", "vmw_vsock_virtio_transport_common"}
HELPERS = "rust_vsock_helper_* calls (ours)"
CRATE = "rust helpers/kernel crate (out of line)"
OTHER = "other"

# Of the kernel itself.
NAMES = [
    (CRATE, r"rust_helper_|_R[NIYX]|rust_"),
    ("usercopy-check", r"__check_object_size|__check_heap_object|check_stack_object|"
                       r"__virt_addr_valid|usercopy_|.*_(user|kernel)_range_ok|is_vmalloc"),
    ("copy", r"_?_?copy_(to|from)_|raw_copy_|.*_copy_(to|from)_iter|rep_movs|memcpy|__memcpy|memmove|"
             r"__memmove|_copy_|copyout|copyin|copy_user|copy_mc|skb_copy_|simple_copy_|skb_datagram_|"
             r"__skb_datagram|csum_|iov_iter|import_(iovec|ubuf|single)|__import_iovec|copy_iovec|"
             r"copy_msghdr|iterate_|__get_user|__put_user|get_user_|put_user_"),
    ("zero/memset", r"memset|__memset|clear_page|clear_user|__clear_user|rep_stos|kernel_init_pages|"
                    r"clear_highpage|init_on"),
    ("skb", r"_?_?_?(skb_|alloc_skb|napi_skb|kfree_skb|consume_skb|pskb|build_skb|dev_kfree_skb|sk_skb)|"
            r"sock_alloc_send_p?skb|sock_(w|r|e|o)free|sock_def_|skb|sk_(forced_)?mem_|__sk_mem|"
            r"__kfree_skb|__alloc_skb|kmalloc_reserve|__finalize_skb|__build_skb|sock_kmalloc"),
    ("slab/page alloc", r"_?_?k[mzv]?[mz]?alloc|kv?free|__k?v?free|kmem_|__kmem|__?slab|slab_|___slab|"
                        r"slub|__slub|get_page|__get_free|alloc_pages|__alloc_|alloc_frag|free_pages|"
                        r"__free_|free_unref|free_page|free_frozen|get_random_(u32|u64)|page_frag|"
                        r"rmqueue|___free|__folio|folio_|put_page|__put_page|memcg_|__memcg|"
                        r"mod_(node|zone|memcg|lruvec)|obj_cgroup|alloc_frozen|prep_new|prep_compound|"
                        r"get_partial|put_cpu_partial|deactivate_slab|new_slab|krealloc|free_to_pcs|"
                        r"(alloc|free)_from_pcs|__pcs|barn_|refill_|post_alloc|__refill|mempolicy|"
                        r"get_(any|from)_|free_one|get_pfnblock|__(inc|dec|mod)_.*(state|event)|"
                        r"zone_|.*_to_freelist|free_deferred|kasan_|setup_object|split_page|"
                        r"clear_shadow|should_fail_alloc|cache_from_obj|get_obj|virt_to_"),
    ("locks/bh", r"_raw_(spin|read|write)|_?_?(mutex|rwsem|down|up)_|mutex_|down_|up_|__local_bh|"
                 r"local_bh|lock_sock|release_sock|__lock_sock|__release_sock|native_queued|queued_|"
                 r"__mutex|__pv_|pv_|rwsem_|__rwsem|osq_|preempt_(count|schedule)|__rcu_read|rcu_read|"
                 r"refcount_|percpu_ref|percpu_down|percpu_up|srcu|__srcu|rt_spin|mutex|do_softirq|"
                 r"__do_softirq|handle_softirqs|lock_is_held|ww_mutex|_raw_"),
    ("vsock core", r"vsock_"),
    ("sched/wake/idle", r"_?_?schedul|__schedule|sched|try_to_wake|ttwu|wake|__wake|default_wake|"
                        r"autoremove_wake|woken_wake|pollwake|ep_poll_callback|ep_autoremove|"
                        r"_?_?(en|de)queue_|enqueue|dequeue|pick_|__pick|update_(curr|rq|load|min|se|"
                        r"cfs|entity|process|group|dl|sd|irq|blocked)|__update_|select_(task|idle)|"
                        r"(set|put|get)_next|put_prev|switch_|__switch|finish_task|prepare_task|"
                        r"task_|context_switch|native_load_tls|(prepare|finish|init)_(to_)?(s?wait|swait)|"
                        r"prepare_to_|finish_(s)?wait|add_wait|remove_wait|init_wait|wait_woken|swake|"
                        r"do_idle|cpu_?idle|cpuidle|default_idle|arch_cpu_idle|native_safe_halt|"
                        r"acpi_(idle|processor|safe)|menu_|tick_|ktime_|timekeeping|hrtimer|__hrtimer|"
                        r"clockevents|lapic|native_(apic|x2apic)|x2apic|apic|read_tsc|native_sched|"
                        r"kvm_(clock|sched|guest)|pvclock|sugov|cpufreq|psi_|cpuacct|cgroup_rstat|"
                        r"acct_|account_|vtime|cputime|irqtime|__irq|irq_(enter|exit|work)|sysvec|asm_sysvec|"
                        r"(__)?sysvec|timer|__timer|run_timer|get_next|get_nohz|nohz|rcu_|__rcu|call_rcu|"
                        r"invoke_rcu|note_gp|resched|check_preempt|wakeup|yield|set_task|activate|"
                        r"deactivate|place_entity|avg_|attach_|detach_|reweight|min_vruntime|vruntime|"
                        r"entity|propagate|__calc|calc_|decay|accumulate|pelt|cpu_(util|startup|load)|"
                        r"effective_cpu|llist_|flush_smp|__flush_smp|call_function|generic_exec|smp_|"
                        r"perf_|mm_(cid|update)|sched_mm|enter_lazy|leave_mm|load_new_mm|membarrier|"
                        r"__enqueue|__dequeue|rb_(next|insert|erase|prev|first|add)|__rb_|timerqueue|"
                        r"kthread|worker_|process_one|__queue_work|queue_work|insert_work|pwq_|wq_|"
                        r"move_linked|workqueue|vhost_task|rseq|__rseq|fpu|fpregs|restore_fpregs|"
                        r"save_fpregs|os_xsave|x86_task|ret_from_fork|hypercall|lru_gen|"
                        r"local_clock|sched_clock|local_touch|idle|cpu_(in_idle)?|ct_|context_tracking|"
                        r"__ct|user_(enter|exit)|list_lru|wait_|__wait|do_wait|bit_wait|complete|"
                        r"schedule_|io_schedule|tasklet|raise_softirq|__raise_softirq|wakeup_softirqd|"
                        r"__note|force_qs|dyntick|dl_|rt_|fair_|cfs_|se_|vlag|eligible|__sched|"
                        r"proxy_|find_proxy|swq|requeue_delayed|_*task_rq|migrate_disable|kick_pool|"
                        r"record_times|hrtick|clear_delayed|assign_work|arch_scale|xfd_|mm_needs|"
                        r"__(rd|wr)gsbase|__resched|clear_pending_if|scx_|tmigr_|damon_|kdamond"),
    ("syscall/vfs/eventfd", r"entry_|asm_|do_syscall|syscall_|x64_sys|__x64_|__x86|__do_sys|__se_sys|"
                            r"do_sys|ksys_|vfs_|__vfs|new_sync|do_iter|do_(read|write)v|rw_verify|fd|"
                            r"__fd|fget|__fget|fput|__fput|eventfd|eventpoll|ep_|do_epoll|do_poll|"
                            r"do_sys_poll|poll_|__poll|sock_(read|write|poll|send|recv|ioctl|alloc|"
                            r"recvmsg|sendmsg|show|close|release)|sock_|__sock|__sys_|___sys|sys_|"
                            r"security_|common_file_perm|hook_|apparmor|aa_|cap_|landlock|selinux|tomoyo|bpf_lsm|"
                            r"fsnotify|__fsnotify|file_|do_fcntl|anon_inode|select_estimate|"
                            r"inet_|move_addr|kern_select|core_sys_select|ioctl|do_vfs_ioctl|"
                            r"exit_to_user|__audit|audit|seccomp|restore_|syscall|ret_from|"
                            r"error_(entry|return)|native_irq|irqentry|srso|retbleed|clear_bhb|"
                            r"sockfd|simple_|pipe_|pick_file|close_|filp|task_work"),
]
PATTERNS = [(part, re.compile(pattern)) for part, pattern in NAMES]


def of(name, module):
    """The part that `name` (as the kernel says it) of `module` ('': the kernel itself) is of."""
    if name.startswith("(user"):
        return "user"
    if name.startswith("rust_vsock_helper_"):
        return HELPERS
    if module in TRANSPORT:
        return "transport+vhost modules"
    if module.startswith("vsock"):
        return "vsock core"
    for part, pattern in PATTERNS:
        if pattern.match(name):
            return part
    return OTHER
