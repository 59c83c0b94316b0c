// SPDX-License-Identifier: GPL-2.0

//! How much memory the kernel has in use.

use crate::{host::Socket, is_debug_kernel, sys, Try};
use std::{collections::BTreeMap, fs, thread, time::Duration};

/// A reading.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// kB in slabs that cannot be given back.
    pub slab: i64,
    /// Objects in use, in all slab caches.
    pub objects: i64,
    /// kB that are neither free, nor a cache of files, nor a process's.
    pub kernel: i64,
}

/// kB of a page.
const PAGE_KB: i64 = 4;

fn meminfo(text: &str, key: &str) -> i64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Gives back what the caches keep without need, so that what is left is in use.
fn shrink() -> Try<()> {
    for entry in fs::read_dir("/sys/kernel/slab")? {
        let entry = entry?;
        // Names of merged caches are links to the same one.
        if entry.file_type()?.is_dir() {
            let _ = fs::write(entry.path().join("shrink"), "1");
        }
    }
    Ok(())
}

/// The trackers of references to a namespace that a debug kernel keeps after their end, to name a
/// second put (`preinit_net()` in `net/core/net_namespace.c`).
const DEAD_TRACKERS: usize = 128;

/// Ends as many references to the namespace as a debug kernel remembers. Without that each socket
/// and device of a test leaves a tracker behind, until there are so many.
fn fill_trackers() -> Try<()> {
    for _ in 0..DEAD_TRACKERS {
        Socket::stream()?;
    }
    Ok(())
}

/// Takes a reading, after everything that was to be freed is freed.
///
/// Some of it is freed by works, or a grace period later: the reading is taken when two in a row
/// are the same, or after some seconds.
pub fn read() -> Try<Reading> {
    if is_debug_kernel() {
        fill_trackers()?;
    }
    let mut last = read_now()?;
    for _ in 0..50 {
        let now = read_now()?;
        if now.objects + 20 >= last.objects && now.objects <= last.objects + 20 {
            break;
        }
        last = now;
    }
    shrink()?;
    read_now()
}

fn read_now() -> Try<Reading> {
    for _ in 0..2 {
        sys::rcu_barrier();
        thread::sleep(Duration::from_millis(30));
    }
    // Each CPU has counts of its own, which it adds to those of all now and then. A debug kernel
    // may say that one of them was negative for a moment.
    let _ = fs::write("/proc/sys/vm/stat_refresh", "1");
    let info = fs::read_to_string("/proc/meminfo")?;
    let of = |key| meminfo(&info, key);
    let users = ["MemFree", "Buffers", "Cached", "SwapCached", "AnonPages"]
        .iter()
        .map(|key| of(key))
        .sum::<i64>();
    let objects = caches()?.values().sum();
    Ok(Reading {
        slab: of("SUnreclaim"),
        objects,
        kernel: of("MemTotal") - users - of("SReclaimable") - free_on_cpus()?,
    })
}

/// kB that each CPU keeps at hand, to be allocated next: `MemFree` is without them.
fn free_on_cpus() -> Try<i64> {
    let zones = fs::read_to_string("/proc/zoneinfo")?;
    let pages = on_cpus(&zones).ok_or("no page sets in /proc/zoneinfo")?;
    Ok(pages * PAGE_KB)
}

/// The pages that the CPUs have in all zones; `None` if the text tells of none.
fn on_cpus(zones: &str) -> Option<i64> {
    let counts = zones.lines().filter_map(|line| {
        line.trim_start()
            .strip_prefix("count:")?
            .trim()
            .parse()
            .ok()
    });
    counts.reduce(|all: i64, count| all + count)
}

/// Objects in use of each slab cache.
fn caches() -> Try<BTreeMap<String, i64>> {
    let text = fs::read_to_string("/proc/slabinfo")?;
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("slabinfo"));
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        Some((name, words.next()?.parse().ok()?))
    };
    Ok(lines.filter_map(of_line).collect())
}

/// What is in use of all that somebody may forget to give back.
pub struct InUse {
    all: Reading,
    caches: BTreeMap<String, i64>,
    /// Open files, of all processes.
    files: i64,
}

impl InUse {
    /// Takes a reading, as [`read`] does.
    pub fn read() -> Try<Self> {
        let text = fs::read_to_string("/proc/sys/fs/file-nr")?;
        let files = text.split_whitespace().next().unwrap_or_default();
        Ok(Self {
            all: read()?,
            caches: caches()?,
            files: files.parse().map_err(|_| text.as_str())?,
        })
    }

    /// What grew since `before` by an object for each of so many things or more, or by pages.
    pub fn grown(&self, before: &Self, count: u32) -> Vec<String> {
        let count = i64::from(count);
        let mut grown = Vec::new();
        for (name, now) in &self.caches {
            let more = now - before.caches.get(name).unwrap_or(&0);
            if more >= count {
                grown.push(format!("{more} objects of {name}"));
            }
        }
        let limits = [
            ("files", self.files - before.files, count),
            ("kB of slabs", self.all.slab - before.all.slab, 128),
            ("kB of memory", self.all.kernel - before.all.kernel, 1024),
        ];
        for (what, more, limit) in limits {
            if more >= limit {
                grown.push(format!("{more} {what}"));
            }
        }
        grown
    }
}

/// Objects that come and go on a debug kernel.
pub const DEBUG_NOISE: i64 = 1500;

/// How memory grew.
#[derive(Debug)]
pub struct Growth {
    /// Until the budget was reached, in kB.
    pub first: i64,
    /// In each round after that.
    pub rounds: Vec<Reading>,
}

impl Growth {
    /// Measures `flood`, which reaches the budget when it is done once, and then is done for as
    /// many rounds.
    pub fn measure(rounds: u32, mut flood: impl FnMut() -> Try<()>) -> Try<Self> {
        let mut last = read()?;
        flood()?;
        let mut now = read()?;
        let first = (now.kernel - last.kernel).max(now.slab - last.slab);
        let mut growth = Vec::new();
        for _ in 0..rounds {
            last = now;
            flood()?;
            now = read()?;
            growth.push(Reading {
                slab: now.slab - last.slab,
                objects: now.objects - last.objects,
                kernel: now.kernel - last.kernel,
            });
        }
        Ok(Self {
            first,
            rounds: growth,
        })
    }

    /// Says whether memory grows with the number of packets, of which there were so many in a
    /// round.
    ///
    /// The rest of the kernel allocates as well; what grows with each packet grows in each round. A
    /// packet that stays takes an object at least.
    pub fn is_zero(&self, packets: u32) -> bool {
        self.is_noise(packets, is_debug_kernel())
    }

    /// The records that a debug kernel has of objects are objects too, and those that were freed
    /// stay for a while: some hundred in a round, whatever happens in it. What is lost there is
    /// found by kmemleak.
    fn is_noise(&self, packets: u32, debug: bool) -> bool {
        if debug {
            self.is_below(DEBUG_NOISE, 512, 4096)
        } else {
            let noise = i64::from(packets / 100).max(100);
            self.is_below(noise, 64, 1024)
        }
    }

    /// Says whether there is a round that took less than these objects, and one that took less than
    /// these kB of slabs, and of all memory.
    pub fn is_below(&self, objects: i64, slab: i64, kernel: i64) -> bool {
        let least = |f: fn(&Reading) -> i64| self.rounds.iter().map(f).min().unwrap_or(0);
        least(|r| r.objects) < objects && least(|r| r.slab) < slab && least(|r| r.kernel) < kernel
    }

    /// For people.
    pub fn describe(&self, what: &str) -> String {
        let rounds: Vec<_> = self
            .rounds
            .iter()
            .map(|r| {
                format!(
                    "slab {:+} kB, {:+} objects, kernel {:+} kB",
                    r.slab, r.objects, r.kernel
                )
            })
            .collect();
        format!(
            "{what}: {:+} kB for the budget; then per round: {}",
            self.first,
            rounds.join("; ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(rounds: &[(i64, i64, i64)]) -> Growth {
        let rounds = rounds
            .iter()
            .map(|&(slab, objects, kernel)| Reading {
                slab,
                objects,
                kernel,
            })
            .collect();
        Growth { first: 0, rounds }
    }

    #[test]
    fn what_grows_in_each_round_is_growth() {
        assert!(growth(&[(0, 0, 0), (400, 900, 0), (8, 3, 0)]).is_noise(10_000, false));
        assert!(!growth(&[(400, 900, 0), (400, 900, 0), (390, 880, 0)]).is_noise(10_000, false));
        // Pages that are no slabs.
        assert!(!growth(&[(0, 0, 5000), (0, 0, 5000), (0, 0, 5000)]).is_noise(10_000, false));
    }

    #[test]
    fn an_object_for_each_packet_is_growth_in_a_debug_kernel_too() {
        assert!(growth(&[(64, 331, -4)]).is_noise(2500, true));
        assert!(!growth(&[(400, 2500, 0)]).is_noise(2500, true));
        assert!(!growth(&[(0, 0, 5000)]).is_noise(2500, true));
    }

    #[test]
    fn an_object_for_each_is_growth_of_its_cache() {
        let all = Reading {
            slab: 0,
            objects: 0,
            kernel: 0,
        };
        let in_use = |a, files| InUse {
            all,
            caches: [("a".to_owned(), a), ("b".to_owned(), 7)].into(),
            files,
        };
        assert!(in_use(49, 20).grown(&in_use(10, 0), 40).is_empty());
        let grown = in_use(50, 40).grown(&in_use(10, 0), 40);
        assert_eq!(grown, ["40 objects of a", "40 files"]);
    }

    #[test]
    fn pages_of_cpus_are_read() {
        let zone =
            "Node 0, zone    DMA\n  pages free     3840\n      nr_free_pages 3840\n  pagesets\n";
        assert_eq!(on_cpus(zone), None);
        let cpu = |n: i64| {
            format!("    cpu: 0\n              count:    {n}\n              high:     9\n")
        };
        assert_eq!(
            on_cpus(&[zone, &cpu(0), &cpu(17), zone, &cpu(346)].concat()),
            Some(363)
        );
    }

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:  100 kB\nSlab: 7 kB\nSUnreclaim:    5 kB\n";
        assert_eq!(meminfo(text, "SUnreclaim"), 5);
        assert_eq!(meminfo(text, "Slab"), 7);
        assert_eq!(meminfo(text, "None"), 0);
    }
}
