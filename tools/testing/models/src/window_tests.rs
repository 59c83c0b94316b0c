// SPDX-License-Identifier: GPL-2.0

//! The models of windows: what holds, and the mistakes that are found.

use crate::windows::{
    self,
    real::model, //
};

macro_rules! holds {
    ($($name:ident($in_order:expr): $model:ident;)*) => {
        $(
            #[test]
            fn $name() {
                let start = std::time::Instant::now();
                let (orders, found) = model::$model($in_order);
                println!(
                    "{}: {orders} orders, a window in {found}, in {:?}",
                    stringify!($name),
                    start.elapsed()
                );
            }
        )*
    };
}

holds! {
    reader_and_filler(false): reader_and_filler;
    reader_and_filler_of_a_large_window(true): reader_and_filler;
    reader_that_fills(false): reader_that_fills;
    reader_that_fills_a_large_window(true): reader_that_fills;
    two_changes(false): two_changes;
    two_changes_of_a_large_window(true): two_changes;
}

macro_rules! finds {
    ($($mistake:ident: $model:ident($in_order:expr);)*) => {
        $(
            #[test]
            #[should_panic(expected = "a window of a page that is gone")]
            fn $mistake() {
                windows::$mistake::model::$model($in_order);
            }
        )*
    };
}

finds! {
    no_second_look: reader_and_filler(false);
    look_before_the_lock: reader_and_filler(false);
    begins_late: reader_and_filler(false);
    does_not_tell: reader_that_fills(false);
    tells_without_the_lock: reader_that_fills(false);
    keeps_large_ones: reader_and_filler(true);
    keeps_all: reader_and_filler(false);
}
