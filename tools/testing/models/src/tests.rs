// SPDX-License-Identifier: GPL-2.0

//! The models: what holds, and the mistakes that are found.

use crate::{
    variants::real::scenarios::{
        self as models,
        How, //
    },
    world::Fault, //
};
use vsock_proto::{
    conn::State,
    header::Op, //
};

/// All orders.
const ALL: How = How {
    preemptions: None,
    fault: Fault::None,
};

/// For two threads that have too many orders for every day. With `MODELS=all` all are tried:
/// `end_by_rst` has 178,974, which takes a minute; others were not done after five.
fn many() -> How {
    let all = std::env::var("MODELS").is_ok_and(|how| how == "all");
    How {
        preemptions: (!all).then_some(5),
        ..ALL
    }
}

/// For more threads, or longer ones.
const SOME: How = How {
    preemptions: Some(3),
    fault: Fault::None,
};

/// For three threads of which each has much to do.
const FEW: How = How {
    preemptions: Some(2),
    fault: Fault::None,
};

macro_rules! holds {
    ($($name:ident: $run:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let start = std::time::Instant::now();
                println!("{}: {:?} in {:?}", stringify!($name), $run, start.elapsed());
            }
        )*
    };
}

macro_rules! finds {
    ($($variant:ident: $model:ident($($argument:expr),*), $what:literal;)*) => {
        $(
            #[test]
            #[should_panic(expected = $what)]
            fn $variant() {
                use crate::variants::$variant::scenarios::{
                    self as models,
                    How, //
                };
                #[allow(dead_code)]
                const ALL: How = How { preemptions: None, fault: Fault::None };
                #[allow(dead_code)]
                const FEW: How = How { preemptions: Some(2), fault: Fault::None };
                #[allow(dead_code)]
                const SOME: How = How { preemptions: Some(3), fault: Fault::None };
                models::$model($($argument),*);
            }
        )*
    };
}

holds! {
    rst_while_owned: models::end_while_owned(ALL, &[Op::Rst]);
    shutdown_while_owned: models::end_while_owned(ALL, &[Op::Shutdown]);
    news_of_two: models::news_of_two(SOME);
    moves: models::moves(ALL);
    bytes: models::stream(ALL, 0, &[2], None, 9);
    end_by_shutdown: models::stream(many(), 1, &[2], Some(Op::Shutdown), 9);
    end_by_rst: models::stream(many(), 1, &[2], Some(Op::Rst), 9);
    stream_and_shutdown: models::stream(SOME, 0, &[3, 2], Some(Op::Shutdown), 2);
    stream_and_rst: models::stream(SOME, 0, &[3, 2], Some(Op::Rst), 4);
    segments: models::stream(ALL, 1, &[100, 300], None, 4096);
    direct: models::direct(FEW, State::Established, &[b"ab", b"c", b"d"]);
    direct_behind: models::direct(FEW, State::Connecting, &[b"ab", b"c"]);
    direct_close: models::direct_close(many(), b"");
    direct_close_unread: models::direct_close(many(), b"ab");
    direct_connect: models::direct_connect(many());
    peek: models::peek(ALL);
    close_and_bytes: models::close(ALL, &[]);
    close_and_shutdown: models::close(ALL, &[Op::Shutdown]);
    close_and_rst: models::close(ALL, &[Op::Rst]);
    connect_and_response: models::connect(ALL, Op::Response);
    connect_and_rst: models::connect(ALL, Op::Rst);
    connect_and_signal: models::connect_and_signal(many());
    connect_and_close: models::connect_and_close(ALL, Op::Response);
    connect_and_close_refused: models::connect_and_close(ALL, Op::Rst);
    late_response: models::late_answer(many(), Op::Response);
    late_rst: models::late_answer(many(), Op::Rst);
    late_nonsense: models::late_answer(many(), Op::Rw);
    connect_again: models::connect_again(ALL);
    listen_and_close: models::listen_and_close(ALL);
    listen: models::listen(ALL, 1, 3, 0);
    listen_stuck: models::listen_stuck(ALL, 6, 1);
    listen_two: models::listen(SOME, 2, 1, 0);
    connect_and_unplug: models::connect_and_unplug(ALL);
    read_and_unplug: models::read_and_unplug(many());
    deliver_and_unplug: models::deliver_and_unplug(ALL);
    close_and_unplug: models::close_and_unplug(ALL);
    writer: models::writer(ALL, Op::CreditUpdate, 3, true);
    writer_without_memory: models::writer(ALL, Op::Rw, 3, false);
    writer_of_another_cid: models::writer(ALL, Op::CreditUpdate, 5, true);
}

/// The models take the way over the backlog, and the one without.
#[test]
fn both_ways() {
    let tried = models::end_while_owned(ALL, &[Op::Rst]);
    assert!(0 < tried.tokens && tried.tokens < tried.orders, "{tried:?}");
    let tried = models::listen_and_close(ALL);
    assert!(0 < tried.tokens && tried.tokens < tried.orders, "{tried:?}");
}

finds! {
    token_is_left: moves(SOME), "on our transport no more";
    stays_attached: moves(SOME), "nothing is told to a socket that left";
    gate_is_open: end_while_owned(ALL, &[Op::Shutdown, Op::Rst]), "the socket was told of everything";
    token_ends_late: news_of_two(SOME), "the socket was told of everything";
    token_ends_early: moves(SOME), "one token in a backlog";
    end_hides_bytes: stream(SOME, 1, &[2], Some(Op::Rst), 9), "what came before the end is read";
    close_swallows_the_answer: connect_and_close(ALL, Op::Response), "a peer that answered is told";
    rst_to_the_next: late_answer(SOME, Op::Rw), "the one is not refused for the other";
    peers_are_one: late_answer(SOME, Op::Response), "one peer does not answer for another";
    keeps_bytes_of_the_last: connect_and_signal(SOME), "nothing of the first is read from the next";
    keeps_credit_of_the_last: connect_and_signal(SOME), "the peer gets its credit back";
    replaced_by_itself: close(ALL, &[Op::Shutdown]), "the peer is told";
    parts_have_no_credit: stream(ALL, 1, &[100, 300], None, 4096), "the peer gets its credit back";
    writer_sleeps_on: writer(ALL, Op::Rw, 3, false), "deadlock";
    reader_sleeps_on: stream(ALL, 0, &[2], None, 9), "deadlock";
    joins_late: connect(ALL, Op::Response), "deadlock";
    closed_keeps_bytes: close(ALL, &[]), "a closed socket keeps nothing";
    queues_unasked: listen_and_close(ALL), "nobody is left in the table";
    forgets_the_rst: connect_again(ALL), "the peer is told first";
    makes_any_number: listen_stuck(ALL, 6, 1), "no more are made than may wait";
    queues_any_number: listen(ALL, 1, 3, 0), "no more children are in a backlog";
    stays_in_the_table: listen_and_close(ALL), "nobody is left in the table";
    overtakes: direct(FEW, State::Connecting, &[b"ab", b"c"]), "bytes come in the order";
    // The worker asks for ever whether there is work.
    keeps_the_news: direct_close(SOME, b"ab"), "the socket was told of everything";
    wakes_before: direct(FEW, State::Established, &[b"ab", b"c", b"d"]), "maximum number of branches";
    device_ends_late: connect_and_unplug(ALL), "nobody waits for a device that is gone";
}

#[test]
#[should_panic(expected = "a token comes to our function")]
fn function_goes_early() {
    let fault = Fault::RestoresEarly;
    models::listen(How { fault, ..ALL }, 1, 2, 1);
}

#[test]
#[should_panic(expected = "the socket layer has its own function back")]
fn function_stays() {
    let fault = Fault::NeverRestores;
    models::end_while_owned(How { fault, ..ALL }, &[Op::Rst]);
}

/// Kicks: see `src/kick/guest.rs`.
mod kicks {
    macro_rules! holds {
        ($($name:ident: $model:ident($($argument:expr),*);)*) => {
            $(
                #[test]
                fn $name() {
                    use crate::variants::kicks::guest::{self, Then::*};
                    let _ = (Goes, Ends, Stands);
                    println!("{}: {:?}", stringify!($name), guest::$model($($argument),*));
                }
            )*
        };
    }

    macro_rules! finds {
        ($($variant:ident: $($argument:expr),*;)*) => {
            $(
                #[test]
                #[should_panic(expected = "no chain stays in the ring")]
                fn $variant() {
                    use crate::variants::$variant::guest::{self, Then::*};
                    let _ = (Goes, Ends, Stands);
                    guest::no_kick_is_lost($($argument),*);
                }
            )*
        };
    }

    holds! {
        one_thread: no_kick_is_lost(Some(3), &[(2, Goes)], 9);
        one_thread_with_much_to_say: no_kick_is_lost(Some(3), &[(3, Goes)], 0);
        two_threads: no_kick_is_lost(Some(2), &[(1, Goes), (2, Goes)], 9);
        two_threads_and_little_time: no_kick_is_lost(Some(2), &[(1, Goes), (1, Goes)], 0);
        who_ends: no_kick_is_lost(Some(2), &[(2, Ends), (1, Goes)], 9);
        who_does_not_come_back: no_kick_is_lost(Some(2), &[(1, Stands), (2, Goes)], 9);
        closed: close(Some(3), 2);
    }

    finds! {
        leaves_it: Some(2), &[(1, Goes)], 0;
        relies_on_another: Some(2), &[(1, Stands), (1, Goes)], 9;
        busy_is_done: Some(2), &[(1, Goes), (1, Goes)], 9;
        ends_with_the_thread: Some(2), &[(1, Ends)], 9;
    }
}
