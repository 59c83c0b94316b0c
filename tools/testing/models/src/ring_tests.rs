// SPDX-License-Identifier: GPL-2.0

//! The models of the direction to the guest, and the mistakes that are found.

use crate::ring::{
    variants::real::device::{
        run,
        Plan, //
    },
    Inline, //
};

/// One sender, and the worker.
const PLAN: Plan = Plan {
    preemptions: Some(2),
    sends: &[&[1, 1]],
    before: 0,
    meanwhile: 2,
    stops: false,
    copies: false,
    is_bulk: false,
    inline: None,
};

/// An inline run that does all that there is to do.
const ALL: Option<Inline> = Some(Inline {
    budget: u64::MAX,
    good: u32::MAX,
});

/// One that fills a buffer.
const ONE: Option<Inline> = Some(Inline {
    budget: 1,
    good: u32::MAX,
});

/// For three threads and more. With `MODELS=all` there are more orders, which take a minute.
fn few() -> Option<usize> {
    let all = std::env::var("MODELS").is_ok_and(|how| how == "all");
    Some(if all { 2 } else { 1 })
}

#[test]
fn one_sender() {
    run(PLAN);
}

#[test]
fn too_few_buffers() {
    run(Plan {
        before: 1,
        meanwhile: 1,
        sends: &[&[2, 1]],
        ..PLAN
    });
}

#[test]
fn two_senders() {
    run(Plan {
        before: 1,
        meanwhile: 2,
        sends: &[&[1, 1], &[1]],
        preemptions: few(),
        ..PLAN
    });
}

#[test]
fn two_senders_of_pieces() {
    run(Plan {
        before: 2,
        meanwhile: 1,
        sends: &[&[3], &[1]],
        preemptions: few(),
        ..PLAN
    });
}

#[test]
fn copies() {
    run(Plan {
        before: 1,
        meanwhile: 1,
        sends: &[&[2, 1]],
        copies: true,
        ..PLAN
    });
}

#[test]
fn copies_of_two() {
    run(Plan {
        before: 1,
        meanwhile: 1,
        sends: &[&[1, 1], &[1]],
        preemptions: few(),
        copies: true,
        ..PLAN
    });
}

#[test]
fn stop_and_start() {
    run(Plan {
        before: 1,
        meanwhile: 1,
        sends: &[&[1, 1], &[1]],
        stops: true,
        preemptions: few(),
        ..PLAN
    });
}

#[test]
fn signal_of_the_worker() {
    run(Plan {
        before: 1,
        meanwhile: 1,
        copies: true,
        is_bulk: true,
        ..PLAN
    });
}

#[test]
fn inline() {
    run(Plan {
        inline: ALL,
        ..PLAN
    });
}

#[test]
fn inline_beside_two_senders() {
    run(Plan {
        before: 1,
        sends: &[&[1, 1], &[1]],
        preemptions: few(),
        inline: ALL,
        ..PLAN
    });
}

#[test]
fn inline_beside_pieces() {
    run(Plan {
        before: 1,
        sends: &[&[3], &[1]],
        preemptions: few(),
        inline: ALL,
        ..PLAN
    });
}

#[test]
fn inline_with_a_budget() {
    run(Plan {
        sends: &[&[2, 1]],
        meanwhile: 3,
        inline: ONE,
        ..PLAN
    });
}

#[test]
fn inline_without_memory() {
    for good in [0, 1] {
        run(Plan {
            sends: &[&[2, 1]],
            meanwhile: 3,
            inline: Some(Inline {
                budget: u64::MAX,
                good,
            }),
            ..PLAN
        });
    }
}

#[test]
fn inline_beside_copies() {
    for is_bulk in [false, true] {
        run(Plan {
            before: 1,
            sends: &[&[1, 1], &[1]],
            preemptions: few(),
            copies: true,
            is_bulk,
            inline: ALL,
            ..PLAN
        });
    }
}

#[test]
fn inline_beside_stop_and_start() {
    run(Plan {
        sends: &[&[1, 1]],
        stops: true,
        preemptions: few(),
        inline: ALL,
        ..PLAN
    });
}

macro_rules! finds {
    ($($variant:ident($copies:literal): $what:literal, $($field:ident: $value:expr),*;)*) => {
        $(
            #[test]
            #[should_panic(expected = $what)]
            fn $variant() {
                use crate::ring::variants::$variant::device::{
                    run,
                    Plan, //
                };
                let plan = Plan {
                    preemptions: Some(2),
                    sends: &[],
                    before: 0,
                    meanwhile: 0,
                    stops: false,
                    copies: $copies,
                    is_bulk: false,
                    inline: None,
                };
                run(Plan {
                    $($field: $value,)*
                    ..plan
                });
            }
        )*
    };
}

finds! {
    overtakes(false): "packets come in the order",
        before: 0, meanwhile: 1, sends: &[&[1, 1]];
    rest_comes_last(false): "a packet comes as a whole",
        before: 1, meanwhile: 0, sends: &[&[2], &[1]];
    nobody_is_told(false): "no packet is left behind",
        before: 22, meanwhile: 0, sends: &[&[22]];
    kick_comes_first(false): "no packet is left behind",
        before: 0, meanwhile: 1, sends: &[&[1]];
    copy_overtakes(true): "packets come in the order",
        before: 0, meanwhile: 1, sends: &[&[1, 1]];
    worker_lets_go(false): "what has no buffer waits",
        before: 0, meanwhile: 1, sends: &[&[1, 1]];
    nobody_signals(true): "the guest is told",
        before: 1, is_bulk: true, sends: &[&[1]];
    forgets_to_signal(true): "the guest is told",
        before: 1, is_bulk: true, sends: &[&[1]];
    signals_what_it_used(true): "the guest is told",
        before: 1, is_bulk: true, sends: &[&[1]];
    leaves_a_ring(false): "no packet is left behind",
        meanwhile: 2, sends: &[&[1, 1]], inline: ALL;
    leaves_the_rest(false): "no packet is left behind",
        meanwhile: 2, sends: &[&[1, 1]], inline: ONE;
    inline_lets_go(false): "what has no buffer waits",
        meanwhile: 1, sends: &[&[1, 1]], inline: ALL;
}
