// SPDX-License-Identifier: GPL-2.0

//! Random rings and packets: short in `make test`, at full length by `make fuzz`.

use super::{case, skip, Case, Ctx};
use crate::{
    device::{RX, TX},
    fuzz::{grammar, mutate::Mutators, play::Player, random, ways::Ways},
    note, observe,
    rng::Rng,
    slab::Growth,
    sys::fault::Faults,
    Try,
};

pub const CASES: &[Case] = &[
    case("N22/random-rings", "alive, no growth", random_rings)
        .parallel()
        .seconds(1200)
        .long_on_c("nothing to compare"),
    case(
        "N23/random-sequences",
        "as the model says, no growth",
        sequences,
    )
    .seconds(2400)
    .not_on_c("the model has our rules for credit"),
    case(
        "N24/random-sequences-while-the-rings-change",
        "alive, no growth",
        changing,
    )
    .parallel()
    .seconds(2400)
    .long_on_c("nothing to compare"),
    case(
        "N36/random-sequences-while-sockets-are-locked",
        "as the model says, no growth, all ways taken",
        held,
    )
    .seconds(2400)
    .not_on_c("C waits for the lock"),
];

/// Runs `f` in as many rounds as a measurement has, with the number of times in each.
fn measured(total: u32, mut f: impl FnMut(u32) -> Try<()>) -> Try<Growth> {
    const ROUNDS: u32 = 3;
    Growth::measure(ROUNDS - 1, || f(total.div_ceil(ROUNDS)))
}

fn growth(growth: &Growth, what: &str, count: u32) -> &'static str {
    note(growth.describe(what));
    // A closed socket whose peer is silent waits for 8 s: some of the last ones are there.
    let few = i64::from(count / 6).max(100);
    if growth.is_below(few, 512, 2048) {
        "no growth"
    } else {
        "grows"
    }
}

fn random_rings(ctx: &mut Ctx) -> Try<String> {
    let total = ctx.rounds(8000, 200_000);
    let mut alive = true;
    let (mut broken, mut used) = (0, 0);
    let memory = measured(total, |count| {
        let (mut dev, done) = random::run(&mut ctx.rng, count)?;
        broken += done.broken;
        used += done.used;
        alive &= fresh(&mut dev)?;
        Ok(())
    })?;
    note(format!(
        "{total} iterations, broken {broken} times, {used} signals"
    ));
    Ok(format!(
        "{}, {}",
        if alive { "alive" } else { "no answer" },
        growth(&memory, "random rings", total)
    ))
}

/// Whether a device whose rings are nonsense works with sane ones.
fn fresh(dev: &mut crate::device::Device) -> Try<bool> {
    dev.run(false)?;
    for q in [RX, TX] {
        let queue = crate::ring::Queue::new(&dev.mem, q, dev.setup.num);
        dev.q[q] = queue;
        dev.mem.store16(dev.q[q].used + 2, 0);
        dev.configure(q)?;
    }
    dev.run(true)?;
    for n in 0..8 {
        dev.post(n, 4096);
    }
    dev.kick(RX);
    dev.errors(RX);
    dev.errors(TX);
    // What programs of the host left to be sent comes first.
    dev.recv_all()?;
    observe::answers(dev)
}

/// Plays the next `count` sequences.
fn play(player: &mut Player, seed: u64, count: u32) -> Try<()> {
    (0..count).try_for_each(|_| play_one(player, seed, player.sequences + 1))
}

fn play_one(player: &mut Player, seed: u64, number: u64) -> Try<()> {
    let port = player.ports();
    let mut rng = Rng::new(seed.wrapping_add(number), "sequence");
    let steps = grammar::sequence(&mut rng, player.dev.cid, port);
    player
        .play(&steps)
        .map_err(|failure| format!("sequence {number}: {failure}").into())
}

fn sequences(ctx: &mut Ctx) -> Try<String> {
    let total = ctx.rounds(2000, 100_000);
    let seed = ctx.rng.word();
    let mut player = Player::new(&mut ctx.rng, true)?;
    let memory = measured(total, |count| play(&mut player, seed, count))?;
    note(format!(
        "{} sequences, {} packets, {} broken rings, {:?} for restarts",
        player.sequences, player.packets, player.broken, player.restarts
    ));
    Ok(format!(
        "as the model says, {}",
        growth(&memory, "random sequences", total)
    ))
}

fn held(ctx: &mut Ctx) -> Try<String> {
    if Faults::are_unknown() {
        return skip("this kernel has no userfaultfd");
    }
    let total = ctx.rounds(600, 30_000);
    let seed = ctx.rng.word();
    let mut player = Player::holding(&mut ctx.rng)?;
    let ways = Ways::watch()?;
    let memory = measured(total, |count| play(&mut player, seed, count))?;
    let counts = ways.counts()?;
    note(format!(
        "{} sequences, {} packets, {} of them while the socket was locked; {counts:?}",
        player.sequences, player.packets, player.held
    ));
    let all = [counts.fast, counts.slow, counts.backlog];
    Ok(format!(
        "as the model says, {}, {}",
        growth(&memory, "random sequences", total),
        if all.iter().all(|&count| count > u64::from(total / 30)) {
            "all ways taken"
        } else {
            "a way was hardly taken"
        }
    ))
}

fn changing(ctx: &mut Ctx) -> Try<String> {
    let total = ctx.rounds(1200, 100_000);
    let seed = ctx.rng.word();
    let mut player = Player::new(&mut ctx.rng, false)?;
    let mut writes = 0;
    let memory = measured(total, |count| {
        let mutators = Mutators::start(&player.dev, 3, &mut ctx.rng);
        play(&mut player, seed, count)?;
        writes += mutators.writes();
        Ok(())
    })?;
    note(format!(
        "{} sequences, {} packets, {} broken rings, {writes} changes",
        player.sequences, player.packets, player.broken
    ));
    let alive = fresh(&mut player.dev)?;
    Ok(format!(
        "{}, {}",
        if alive { "alive" } else { "no answer" },
        growth(&memory, "random sequences while the rings change", total)
    ))
}
