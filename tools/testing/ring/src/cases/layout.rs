// SPDX-License-Identifier: GPL-2.0

//! Rings: sizes, positions, and the order of their bytes.

use super::{case, round_trips, skip, Case};
use crate::{
    abi::{self, feature},
    device::{Device, Setup, RX, TX},
    host::verdict,
    Try,
};

pub const CASES: &[Case] = &[
    case("N27/sizes-and-positions", "answers, 20 taken", |_| sizes()).seconds(60),
    case("N28/legacy-byte-order", "answers", |_| {
        let mut dev = Setup {
            features: 0,
            ..Setup::default()
        }
        .open()?;
        round_trips(&mut dev, 20)?;
        Ok("answers".to_owned())
    }),
    case(
        "N29/byte-order-of-choice",
        "neither: EINVAL; set: 1, the other one: 0; answers; running: EBUSY",
        |_| chosen(),
    ),
];

/// Rings from the smallest to the largest, and indexes that wrap.
fn sizes() -> Try<String> {
    for num in [1, 2, 64, 1024, 32768] {
        for base in [0, 65535, 65530u16] {
            let setup = Setup {
                base,
                ..Setup::num(num)
            };
            let mut dev = setup.open()?;
            round_trips(&mut dev, 20).map_err(|e| format!("{num} from {base}: {e}"))?;
            dev.run(false)?;
            let taken = dev.base(TX)?.wrapping_sub(base);
            if taken != 20 {
                return Ok(format!("{num} from {base}: {taken} taken"));
            }
        }
    }
    Ok("answers, 20 taken".to_owned())
}

fn set_endian(dev: &Device, q: usize, big: u32) -> String {
    let mut arg = abi::ring_state(q as u32, big);
    verdict(dev.io(abi::SET_VRING_ENDIAN, &mut arg))
}

fn endian(dev: &Device, q: usize) -> Try<u32> {
    let mut arg = abi::ring_state(q as u32, 7);
    dev.io(abi::GET_VRING_ENDIAN, &mut arg)?;
    Ok(u32::from_ne_bytes(arg[4..8].try_into().expect("4 bytes")))
}

/// Whether the kernel lets a program choose the byte order of a ring.
pub fn has_byte_order(dev: &Device) -> bool {
    let got = dev.io(abi::GET_VRING_ENDIAN, &mut abi::ring_state(0, 0));
    !matches!(got, Err(e) if e.raw_os_error() == Some(libc::ENOTTY))
}

/// The order is chosen for a driver without `VERSION_1`.
fn chosen() -> Try<String> {
    let stopped = Setup {
        running: false,
        ..Setup::default()
    };
    let dev = stopped.clone().open()?;
    if !has_byte_order(&dev) {
        return skip("this kernel has no CONFIG_VHOST_CROSS_ENDIAN_LEGACY");
    }
    let ret = set_endian(&dev, RX, 1);
    if ret != "ok" {
        return Ok(format!("set: {ret}"));
    }
    let neither = set_endian(&dev, RX, 2);
    let (set, other) = (endian(&dev, RX)?, endian(&dev, TX)?);
    let mut running = String::new();
    for (features, big) in [(0, true), (0, false), (feature::VERSION_1, false)] {
        let mut dev = Setup {
            features,
            big,
            ..stopped.clone()
        }
        .open()?;
        for q in [RX, TX] {
            // Of no effect with VERSION_1.
            let ret = set_endian(&dev, q, u32::from(big || features != 0));
            if ret != "ok" {
                return Ok(format!("SET_VRING_ENDIAN: {ret}"));
            }
        }
        dev.run(true)?;
        dev.kick(RX);
        round_trips(&mut dev, 20)?;
        running = set_endian(&dev, RX, 0);
    }
    Ok(format!(
        "neither: {neither}; set: {set}, the other one: {other}; answers; running: {running}"
    ))
}
