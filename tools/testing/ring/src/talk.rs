// SPDX-License-Identifier: GPL-2.0

//! Two processes that talk: a case and a child of it, in lines of text.

use crate::{
    sys::process::{self, Child},
    Failure, Try,
};
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

/// What a line begins with that tells why the child could not go on.
const FAILED: char = '!';

/// One end.
pub struct Talk {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Talk {
    fn new(stream: UnixStream) -> Try<Self> {
        Ok(Self {
            reader: BufReader::new(stream.try_clone()?),
            writer: stream,
        })
    }

    /// Says a line.
    pub fn tell(&mut self, line: &str) -> Try<()> {
        Ok(writeln!(self.writer, "{line}")?)
    }

    /// Waits until the other one says something, and returns it.
    pub fn hear(&mut self) -> Try<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err("the other process ended".into());
        }
        let line = line.trim_end_matches('\n');
        match line.strip_prefix(FAILED) {
            Some(why) => Err(Failure(format!("child: {why}"))),
            None => Ok(line.to_owned()),
        }
    }
}

/// A child process, and our end.
pub struct Partner {
    pub process: Child,
    pub talk: Talk,
}

impl Partner {
    /// Waits for the end of it, which must be that of `f` without a failure.
    pub fn finish(&mut self, limit: Duration) -> Try<()> {
        match self.process.wait(limit)? {
            Some(0) => Ok(()),
            Some(_) => Err(self.talk.hear().err().unwrap_or("the child failed".into())),
            None => Err("the child does not end".into()),
        }
    }
}

/// Runs `f` in a child process, with the other end.
///
/// To be called while this process has one thread. A case has a limit of time, and no other is
/// needed for what is said.
pub fn fork(f: impl FnOnce(&mut Talk) -> Try<()>) -> Try<Partner> {
    let (ours, theirs) = UnixStream::pair()?;
    // Both ends of it go with the closure, so that we hear it when the child is gone.
    let mut theirs = Talk::new(theirs)?;
    let process = process::fork(move || match f(&mut theirs) {
        Ok(()) => 0,
        Err(failure) => {
            let _ = theirs.tell(&format!("{FAILED}{failure}"));
            1
        }
    })?;
    Ok(Partner {
        process,
        talk: Talk::new(ours)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_heard_and_so_is_a_failure() -> Try<()> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut ours = Talk::new(ours)?;
        let mut theirs = Talk::new(theirs)?;
        ours.tell("hello")?;
        assert_eq!(theirs.hear()?, "hello");
        theirs.tell("!no more")?;
        assert_eq!(ours.hear().expect_err("it failed").0, "child: no more");
        drop(theirs);
        let end = ours.hear().expect_err("the end");
        assert_eq!(end.0, "the other process ended");
        Ok(())
    }
}
