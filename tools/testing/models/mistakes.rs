// SPDX-License-Identifier: GPL-2.0

/// What the models must find, see the tests.
const MISTAKES: &[Mistake] = &[
    (
        "token_is_left",
        "close",
        "    drop(left);\n    sock.flush_backlog();\n",
        "    drop(left);\n    let _ = sock;\n",
    ),
    (
        "stays_attached",
        "close",
        "    gate.link.release();\n    gate.attached = false;\n",
        "",
    ),
    (
        "gate_is_open",
        "close",
        "        match sock.lock_or_defer(&mut token, usize::MAX) {\n            Ok(Some(mut locked)) => {\n                // It is still attached: this is the connection of the socket.\n                tell_behind::<C>(&mut locked, conn, gate);\n",
        "        drop(gate);\n        match sock.lock_or_defer(&mut token, usize::MAX) {\n            Ok(Some(mut locked)) => {\n                tell::<C>(&mut locked);\n",
    ),
    (
        "gate_is_open",
        "close",
        "                gate.deferred = true;\n                return;\n            }\n            Err(_) => drop(gate),\n",
        "                conn.gate().deferred = true;\n                return;\n            }\n            Err(_) => (),\n",
    ),
    (
        "token_ends_late",
        "close",
        "                conn.gate().deferred = false;\n            }\n            tell::<C>(sock);\n",
        "                let conn: Arc<Conn> = conn.into();\n                tell::<C>(sock);\n                conn.gate().deferred = false;\n            }\n",
    ),
    (
        "token_ends_early",
        "close",
        "    let news = gate.link.take_news();\n",
        "    gate.deferred = false;\n    let news = gate.link.take_news();\n",
    ),
    (
        "end_hides_bytes",
        "close",
        "    if conn.unread() == 0 {\n        sock.set_state(SockState::Closing);\n",
        "    {\n        sock.set_state(SockState::Closing);\n",
    ),
    (
        "close_swallows_the_answer",
        "close",
        "                give_up::<C>(sock, &conn, State::Closed);\n            }\n        }\n",
        "            }\n        }\n",
    ),
    (
        "rst_to_the_next",
        "recv",
        "Step::Reset(gate.queue_control(Control::Rst), reply)",
        "Step::Reset(None, { drop(gate); let _ = control::send::<C>(sock, conn, Control::Rst, reply); gate = conn.gate(); reply })",
    ),
    (
        "peers_are_one",
        "tables",
        "    ends.peer.port.get() == src.port\n",
        "    ends.local_port.get() == dst.port || ends.peer.port.get() == src.port\n",
    ),
    (
        "keeps_bytes_of_the_last",
        "conn",
        "        let old = gate.queue.purge();\n        let size",
        "        let old = std::vec::Vec::<u8>::new();\n        let size",
    ),
    (
        "keeps_credit_of_the_last",
        "conn",
        "        (gate.tx, gate.rx) = (TxCredit::new(size), RxCredit::new(size));\n",
        "        let _ = size;\n",
    ),
    (
        "replaced_by_itself",
        "tables",
        "!core::ptr::eq(&*found.conn, conn)",
        "core::ptr::eq(&*found.conn, conn) || !core::ptr::eq(&*found.conn, conn)",
    ),
    (
        "parts_have_no_credit",
        "recv",
        "        let _ = self.rx.accept(left.saturating_sub(wire_len(payload)));\n",
        "        if ret.is_ok() {\n            let _ = self.rx.accept(header.len());\n        }\n",
    ),
    (
        "writer_sleeps_on",
        "recv",
        "            Why::Packet(wake) | Why::Wake(wake) => wake,\n",
        "            Why::Packet(_) | Why::Wake(_) => Wake::default(),\n",
    ),
    (
        "reader_sleeps_on",
        "recv",
        "    if wake.readers && !wake.noted && sock.wake_readers() {\n",
        "    if wake.readers && !wake.noted {\n",
    ),
    (
        "joins_late",
        "ops",
        "        let ret = tables::join::<C>(sock, &conn)\n            .and_then(|had_rst| control::send_request::<C>(sock, &conn, had_rst));\n",
        "        let ret = control::send_request::<C>(sock, &conn, false)\n            .and_then(|()| tables::join::<C>(sock, &conn).map(drop));\n",
    ),
    (
        "closed_keeps_bytes",
        "conn",
        "        self.discard = true;\n",
        "",
    ),
    (
        "queues_unasked",
        "accept",
        "    if check(listener).is_err() {\n",
        "    if listener.accept_queue_is_full() {\n",
    ),
    (
        "forgets_the_rst",
        "ops",
        "control::send_request::<C>(sock, &conn, had_rst)",
        "control::send_request::<C>(sock, &conn, had_rst && !had_rst)",
    ),
    (
        "makes_any_number",
        "accept",
        "    if listener.backlog_is_full(most_deferred(listener)) {\n",
        "    if listener.backlog_is_full(usize::MAX) {\n",
    ),
    (
        "queues_any_number",
        "accept",
        "    listener.max_accept_queue().saturating_add(1)\n",
        "    let _ = listener;\n    usize::MAX\n",
    ),
    (
        "stays_in_the_table",
        "accept",
        "    close::abandon::<C>(&mut child.lock());\n",
        "    drop((child, close::abandon::<C>));\n",
    ),
    (
        "overtakes",
        "conn",
        "        if gate.behind > 0 || self.is_cut() {\n",
        "        if gate.behind > 9 {\n",
    ),
    (
        "keeps_the_news",
        "close",
        "    conn.gate().deferred = has_token;\n",
        "    let _ = has_token;\n",
    ),
    (
        "wakes_before",
        "recv",
        "    conn.gate().woken_later = false;\n    let wake = Wake {\n        readers: true,\n        ..Wake::default()\n    };\n    if let Err(Why::Wake(wake)) = wake_now(sock, wake) {\n        after::<C>(sock, conn, wake);\n    }\n",
        "    let wake = Wake {\n        readers: true,\n        ..Wake::default()\n    };\n    if let Err(Why::Wake(wake)) = wake_now(sock, wake) {\n        after::<C>(sock, conn, wake);\n    }\n    conn.gate().woken_later = false;\n",
    ),
    (
        "device_ends_late",
        "ends",
        "    lines().lock().unwrap().gone = true;\n    close::reset_connections::<Wire>(Peers::All, |_| true);\n",
        "    close::reset_connections::<Wire>(Peers::All, |_| true);\n    lines().lock().unwrap().gone = true;\n",
    ),
];

/// What the models of windows must find; one replacement each.
const WINDOW_MISTAKES: &[Mistake] = &[
    (
        "no_second_look",
        "shared",
        "            if self.is_current(&seen) {\n",
        "            let _ = &seen;\n            {\n",
    ),
    (
        "look_before_the_lock",
        "shared",
        "            let mut table = shared.table.lock();\n            if self.is_current(&seen) {\n",
        "            let current = self.is_current(&seen);\n            let mut table = shared.table.lock();\n            if current {\n",
    ),
    (
        "begins_late",
        "shared",
        "            let mut table = shared.table.lock();\n            if self.is_current(&seen) {\n",
        "            let _ = seen;\n            let seen = self.begin();\n            let mut table = shared.table.lock();\n            if self.is_current(&seen) {\n",
    ),
    ("does_not_tell", "shared", "        set();\n", "        let _ = set;\n"),
    (
        "tells_without_the_lock",
        "shared",
        "        set();\n        table.remove(*range.start(), *range.end());\n",
        "        table.remove(*range.start(), *range.end());\n        drop(table);\n        set();\n",
    ),
    (
        "keeps_large_ones",
        "table",
        "                for place in [page, page / PAGES] {\n",
        "                for place in [page] {\n",
    ),
    (
        "keeps_all",
        "table",
        "                window.key = 0;\n",
        "",
    ),
];

/// What the models must find of the direction to the guest.
const RING_MISTAKES: &[Mistake] = &[
    (
        "overtakes",
        "direct",
        "        if !self.queue.is_empty() {\n            return Now::Stuck;\n        }\n",
        "",
    ),
    (
        "copy_overtakes",
        "direct",
        "        if !self.queue.is_empty() || out.is_cut() {\n",
        "        if out.is_cut() {\n",
    ),
    (
        "rest_comes_last",
        "direct",
        "            self.queue.push_front(packet);\n            return Ok(());\n",
        "",
    ),
    (
        "nobody_is_told",
        "direct",
        "Sent::Queued => self.rx.queue_work_under(&guard).is_ok(),",
        "Sent::Queued => true,",
    ),
    (
        "kick_comes_first",
        "direct",
        "                self.stats.no_buffer.add(1);\n                true\n",
        "                self.stats.no_buffer.add(1);\n                false\n",
    ),
    (
        "kick_comes_first",
        "direct",
        "            (Now::Waits, _) => Sent::Waits,\n",
        "            (Now::Waits, Some(packet)) => {\n                let _ = self.put_first(packet);\n                Sent::Waits\n            }\n            (Now::Waits, None) => Sent::Waits,\n",
    ),
    (
        "worker_lets_go",
        "to_guest",
        "        self.queue.put_back(packets);\n        done\n",
        "        if done.is_err() {\n            self.queue.put_back(packets);\n        }\n        done\n",
    ),
    (
        "nobody_signals",
        "direct",
        "            Ok(Ok(true)) => {\n",
        "            Ok(Ok(true)) if self.rx.has_worker(&guard) => (),\n            Ok(Ok(true)) => {\n",
    ),
    (
        "forgets_to_signal",
        "chain",
        "            *self.parts.unsignalled |= self.used;\n",
        "",
    ),
    (
        "signals_what_it_used",
        "chain",
        "        let waits = self.deferred || !(self.used || M::MAY_SLEEP);\n",
        "        let waits = self.deferred || !self.used;\n",
    ),
    (
        "leaves_a_ring",
        "to_guest",
        "            Err(left) => Inlined::Left(left),\n",
        "            Err(_) => Inlined::Drained,\n",
    ),
    (
        "leaves_the_rest",
        "to_guest",
        "            Ok(true) => Inlined::Budget,\n",
        "            Ok(true) => Inlined::Drained,\n",
    ),
    (
        "inline_lets_go",
        "to_guest",
        "        self.queue.put_back(packets);\n        done\n",
        "        if !rx.is_inline() {\n            self.queue.put_back(packets);\n        }\n        done\n",
    ),
];

/// The same for kicks.
const KICK_MISTAKES: &[Mistake] = &[
    (
        "leaves_it",
        "kick_work",
        "        if !ended.is_done() {\n            this.pass();\n        }\n",
        "        let _ = ended.is_done();\n",
    ),
    (
        "relies_on_another",
        "kick_work",
        "ReturnWork::hand_to_current(this) == Handed::Current",
        "ReturnWork::hand_to_current(this) != Handed::Nobody",
    ),
    (
        "busy_is_done",
        "inline",
        "        matches!(self, Self::Drained | Self::Unanswered | Self::Bulk)\n",
        "        matches!(self, Self::Drained | Self::Unanswered | Self::Bulk | Self::Left(Left::Busy))\n",
    ),
    (
        "ends_with_the_thread",
        "kick_work",
        "        let ended = ended.unwrap_or(Inlined::Left(Left::Unready));\n",
        "        let ended = ended.unwrap_or(Inlined::Drained);\n",
    ),
];

const WATCH_MISTAKES: &[Mistake] = &[
    (
        "no_last_look",
        "armed",
        "        if !busy && *idle {\n            return false;\n        }\n",
        "        if !busy {\n            self.0.store(false, Relaxed);\n            return false;\n        }\n",
    ),
    (
        "ends_armed",
        "armed",
        "        self.0.store(busy, Relaxed);\n",
        "",
    ),
    (
        "waits_unordered",
        "armed",
        "        smp_mb(Full);\n        if self.0.peek()",
        "        if self.0.peek()",
    ),
    (
        "clears_unordered",
        "armed",
        "        smp_mb(Full);\n        true\n    }\n}",
        "        true\n    }\n}",
    ),
];
