// SPDX-License-Identifier: GPL-2.0

//! What the device did with what the guest offered, in a few words.
//!
//! | word       | meaning                                                                        |
//! |------------|--------------------------------------------------------------------------------|
//! | `RST`...   | the chain was returned, and that packet came                                   |
//! | `RET0`     | the chain was returned with length 0, and nothing came                         |
//! | `BROKEN`   | one error was signalled, and nothing more happens until the rings are started again, which works |
//! | `STALL`    | an error is signalled for each kick                                            |
//! | `LEAKHEAD` | the chain was taken and never returned                                         |
//! | `nothing`  | none of that                                                                   |

use crate::{
    device::{Device, TX},
    packet, Try,
};

/// The names of the packets that the guest gets now, or `none` if there are none.
pub fn received(dev: &mut Device, none: &str) -> Try<String> {
    let packets = dev.recv_all()?;
    let names: Vec<_> = packets.iter().map(|p| p.name()).collect();
    Ok(if names.is_empty() {
        none.to_owned()
    } else {
        names.join(" ")
    })
}

/// What came of the chains that were offered in `TX` since the last time.
pub fn observe(dev: &mut Device) -> Try<String> {
    dev.settle()?;
    let used = dev.q[TX].take_all();
    let replies: Vec<_> = dev.recv_all()?.iter().map(|p| p.name()).collect();
    let errors = dev.errors(TX);
    let begin = dev.setup.base;
    let taken = dev.base(TX)?.wrapping_sub(begin);

    dev.kick(TX);
    dev.settle()?;
    let again = dev.errors(TX);

    if !used.is_empty() {
        let mut words = replies;
        if words.is_empty() {
            words.extend(used.iter().map(|used| match used.len {
                0 => "RET0",
                _ => "RET with a length",
            }));
        }
        if errors > 0 {
            words.push("and an error");
        }
        return Ok(words.join(" "));
    }
    if again > 0 {
        return Ok("STALL".to_owned());
    }
    if taken > 0 {
        return Ok("LEAKHEAD".to_owned());
    }
    match errors {
        0 => Ok("nothing".to_owned()),
        1 => match dev.broken(TX) {
            "BROKEN" => recovery(dev),
            other => Ok(other.to_owned()),
        },
        n => Ok(format!("BROKEN with {n} errors")),
    }
}

/// A queue that is broken works again after it was stopped and started.
fn recovery(dev: &mut Device) -> Try<String> {
    if dev.restart().is_err() {
        return Ok("BROKEN, cannot be started again".to_owned());
    }
    Ok(if answers(dev)? {
        "BROKEN".to_owned()
    } else {
        "BROKEN for good".to_owned()
    })
}

/// A port that nobody listens on.
pub const NOBODY: u32 = 99_999;

/// Whether a valid packet gets its answer.
pub fn answers(dev: &mut Device) -> Try<bool> {
    let port = 0x5eed;
    let request = dev.header(packet::REQUEST, port, NOBODY);
    // A place where the cases put nothing.
    let at = dev.place(255, &request.bytes());
    let index = dev.q[TX].num - 1;
    dev.q[TX].set(index, crate::ring::Desc::new(at, 44));
    dev.q[TX].offer(index);
    dev.kick(TX);
    let answered = dev
        .recv_all()?
        .iter()
        .any(|p| p.header.op == packet::RST && p.header.dst_port == port);
    dev.q[TX].take_all();
    Ok(answered)
}
