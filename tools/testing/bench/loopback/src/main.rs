// SPDX-License-Identifier: GPL-2.0

//! The loopback rig: both ends are sockets of this program, on one CPU.

use measure::{
    app::{blocking, End, Rows},
    counters::Counters,
    service::{self, Service},
    Bench,
};
use ring::{sys::socket, Failure, Try};
use std::{
    os::fd::{AsFd, OwnedFd},
    thread,
};

/// VMADDR_CID_LOCAL
const LOCAL: u32 = 1;
const PORT: u32 = 9000;

/// Accepts connections and serves one at a time, as the application uses them.
fn serve(listener: &OwnedFd) -> Try<()> {
    loop {
        let fd = accept(listener)?;
        let mut message = [0; service::LEN];
        let n = socket::recv(fd.as_fd(), &mut message, 0)?;
        let Some(service) = Service::parse(&message[..n]) else {
            // It was closed at once.
            continue;
        };
        let mut end = End::of(fd);
        end.send(1)?;
        // It ends when the application closes.
        let _ = play(&mut end, service);
    }
}

fn accept(listener: &OwnedFd) -> Try<OwnedFd> {
    let fd = socket::accept(listener.as_fd())?;
    ring::sys::set_nonblocking(&fd, false)?;
    Ok(fd)
}

fn play(end: &mut End, service: Service) -> Try<()> {
    loop {
        match service {
            Service::Echo { size } => {
                end.receive(size as usize)?;
                end.send(size as usize)?;
            }
            Service::Sink { total } => {
                end.drain(total)?;
                end.send(1)?;
            }
            Service::Source { size, count } => {
                end.receive(1)?;
                (0..count).try_for_each(|_| end.send(size as usize))?;
            }
        }
    }
}

fn listen(kind: i32, port: u32) -> Try<()> {
    let fd = blocking(kind)?;
    socket::bind(fd.as_fd(), socket::CID_ANY, port)?;
    socket::listen(fd.as_fd(), 128)?;
    thread::spawn(move || {
        if let Err(e) = serve(&fd) {
            println!("# the peer: {e}");
        }
    });
    Ok(())
}

fn run() -> Result<(), Failure> {
    let bench = Bench::new("loopback/", std::env::args().skip(1).collect());
    listen(libc::SOCK_STREAM, PORT)?;
    listen(libc::SOCK_SEQPACKET, PORT + 1)?;
    let rows = Rows {
        bench: &bench,
        cid: LOCAL,
        port: PORT,
        count: || Ok(Counters::default()),
    };
    rows.all("stream", "reverse");
    Ok(())
}

fn main() {
    if let Err(e) = run() {
        println!("not ok {e}");
        std::process::exit(1);
    }
}
