// SPDX-License-Identifier: GPL-2.0

//! A guest that runs beside the application, in a thread of its own.

use crate::guest::{self, Behaviour, Guest, Shared};
use measure::Counters;
use ring::{
    abi,
    device::{signal, Setup, RX, TX},
    sys::{self, memory::Mapping},
    Try,
};
use std::{
    fs::File,
    os::fd::AsRawFd,
    sync::{atomic::Ordering, Arc},
    thread::JoinHandle,
};

/// The port at which the guest serves.
pub const PORT: u32 = 1000;

/// A guest, which is gone with this.
pub struct Machine {
    cid: u32,
    call: File,
    pub shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    /// Starts a guest with rings of `num` entries.
    pub fn start(how: Behaviour, num: u16) -> Try<Self> {
        let setup = Setup {
            num,
            buffers: 0,
            running: false,
            ..Setup::default()
        };
        let dev = setup.open_in(Arc::new(Mapping::of_guest(guest::memory(num))?))?;
        let call = dev.call[RX].try_clone()?;
        sys::set_nonblocking(&call, false)?;
        dev.io(
            abi::SET_VRING_CALL,
            &mut abi::ring_file(TX as u32, call.as_raw_fd()),
        )?;
        dev.run(true)?;
        let (cid, shared) = (dev.cid as u32, Arc::new(Shared::default()));
        let mut guest = Guest::new(dev, how, shared.clone());
        let thread = std::thread::spawn(move || {
            if let Err(e) = guest.run() {
                println!("not ok the guest: {e}");
                std::process::exit(1);
            }
        });
        Ok(Self {
            cid,
            call,
            shared,
            thread: Some(thread),
        })
    }

    pub fn cid(&self) -> u32 {
        self.cid
    }

    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// Has the guest look at what is shared with it.
    pub fn wake(&self) {
        signal(&self.call);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
