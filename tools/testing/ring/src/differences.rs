// SPDX-License-Identifier: GPL-2.0

//! The list of differences from the C modules that are intended.

use crate::{Failure, Try};
use std::collections::BTreeMap;

/// What C does, and why ours does not.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    pub outcome: String,
    pub reason: String,
}

/// Differences by the name of a case.
#[derive(Debug, Default)]
pub struct Differences(BTreeMap<String, Difference>);

impl Differences {
    /// The list of this program: reasons, each followed by lines `CASE: OUTCOME OF C`, which begin
    /// with a tab.
    pub fn intended() -> Try<Self> {
        Self::parse(include_str!("../differences"))
    }

    fn parse(text: &str) -> Try<Self> {
        let mut entries = BTreeMap::new();
        let mut reason = None;
        for (number, line) in text.lines().enumerate() {
            let wrong = |what| Failure(format!("differences, line {}: {what}", number + 1));
            if line.is_empty() || line.starts_with('#') {
                reason = None;
                continue;
            }
            let Some(entry) = line.strip_prefix('\t') else {
                reason = Some(line);
                continue;
            };
            let reason = reason
                .ok_or_else(|| wrong("there is no reason for it"))?
                .to_owned();
            let (name, outcome) = entry
                .split_once(": ")
                .ok_or_else(|| wrong("not `CASE: OUTCOME OF C`"))?;
            let outcome = outcome.to_owned();
            if entries
                .insert(name.to_owned(), Difference { outcome, reason })
                .is_some()
            {
                return Err(wrong("the case is there twice"));
            }
        }
        Ok(Self(entries))
    }

    /// The intended difference of a case.
    pub fn get(&self, name: &str) -> Option<&Difference> {
        self.0.get(name)
    }

    /// All cases that have one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read() {
        let list = Differences::parse("# x\n\nso: it is\n\tT02/a: STALL\n\tT03: A: B\n");
        let list = list.expect("a list");
        let entry = list.get("T02/a").expect("an entry");
        assert_eq!((&*entry.outcome, &*entry.reason), ("STALL", "so: it is"));
        assert_eq!(list.get("T03").expect("an entry").outcome, "A: B");
        assert!(list.get("T02").is_none());
        assert_eq!(list.names().count(), 2);
    }

    #[test]
    fn the_list_of_this_program_is_one() {
        let list = Differences::intended().expect("a list");
        let unknown: Vec<_> = list
            .names()
            .filter(|name| {
                let mut cases = crate::cases::all().chain(crate::cases::waiting());
                !cases.any(|case| case.name == *name)
            })
            .collect();
        assert!(unknown.is_empty(), "no such case: {unknown:?}");
    }

    #[test]
    fn a_reason_is_needed() {
        assert!(Differences::parse("\tT02/a: STALL\n").is_err());
        assert!(Differences::parse("why\n\n\tT02/a: STALL\n").is_err());
        assert!(Differences::parse("why\n\tT02/a STALL\n").is_err());
        assert!(Differences::parse("why\n\tT02/a: A\n\tT02/a: A\n").is_err());
    }
}
