// SPDX-License-Identifier: GPL-2.0

//! The models of the direction to the guest, and the mistakes that are found.

use crate::ring::variants::real::device::{
    run,
    Plan, //
};

/// One sender, and the worker.
const PLAN: Plan = Plan {
    preemptions: Some(2),
    sends: &[&[1, 1]],
    before: 0,
    meanwhile: 2,
    stops: false,
    copies: false,
};

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
                run(Plan {
                    preemptions: Some(2),
                    stops: false,
                    copies: $copies,
                    $($field: $value),*
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
}
