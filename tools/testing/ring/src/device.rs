// SPDX-License-Identifier: GPL-2.0

//! A device: the descriptor, guest memory, two rings, and eventfds.

use crate::{
    abi::{self, feature, Message, Region, RingAddr},
    packet::{self, Header, Packet, HEADER_LEN},
    ring::{Desc, Queue, Used, WRITE},
    rng::Rng,
    sys::{self, memory::Mapping, process},
    Try,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::fd::AsRawFd,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc,
    },
};

/// The queue to the guest, and the one from it.
pub const RX: usize = 0;
pub const TX: usize = 1;

/// Where packets of the guest are.
pub const DATA: u64 = 0x40_0000;
/// Where a large packet of the guest is.
pub const LARGE: u64 = 0x60_0000;
/// Where an indirect table has room.
pub const TABLE: u64 = 0x64_0000;
/// Where the buffers for packets of the host are.
pub const BUFFERS: u64 = 0x80_0000;
/// The usual amount of memory.
pub const MEMORY: usize = 16 << 20;

/// Number of the next device of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A CID for a device that does not care, which no device had a moment ago: connections outlive
/// their device for some seconds. A case gets the same ones in each run.
pub fn fresh_cid() -> u64 {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let place = Rng::new(process::family(), "cid").below(1 << 20);
    0x100_0000 + place * 128 + number % 128
}

/// How a device is to be set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Entries of either ring.
    pub num: u16,
    pub features: u64,
    pub memory: usize,
    /// Buffers for the host that are there from the beginning, and how large they are.
    pub buffers: u16,
    pub buffer_len: u32,
    pub running: bool,
    /// The index to begin with.
    pub base: u16,
    /// Other memory than all of it at 0.
    pub regions: Option<fn(u64) -> Vec<Region>>,
    pub cid: Option<u64>,
    /// Flags for the addresses of the rings.
    pub ring_flags: u32,
    /// The worker is a thread of the kernel, and not of the owner.
    pub kernel_thread: bool,
    /// Rings are big-endian, which the device is not told here.
    pub big: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            num: 128,
            features: feature::USUAL,
            memory: MEMORY,
            buffers: 64,
            buffer_len: 4096,
            running: true,
            base: 0,
            regions: None,
            cid: None,
            ring_flags: 0,
            kernel_thread: false,
            big: false,
        }
    }
}

impl Setup {
    /// As usual, with other buffers for the host.
    pub fn buffers(count: u16) -> Self {
        Self {
            buffers: count,
            ..Self::default()
        }
    }

    /// As usual, with rings of another size.
    pub fn num(num: u16) -> Self {
        Self {
            num,
            buffers: num.min(64),
            ..Self::default()
        }
    }

    /// Opens the device and sets it up in memory of its own.
    pub fn open(self) -> Try<Device> {
        let mem = Arc::new(Mapping::shared(self.memory)?);
        self.open_in(mem)
    }

    /// Opens the device and sets it up in memory that is there.
    pub fn open_in(self, mem: Arc<Mapping>) -> Try<Device> {
        self.open_on(open_file()?, mem)
    }

    /// Sets up a device that is open.
    pub fn open_on(self, file: File, mem: Arc<Mapping>) -> Try<Device> {
        let mut dev = Device::on(file, mem, self)?;
        if dev.setup.kernel_thread {
            dev.io(abi::SET_FORK_FROM_OWNER, &mut abi::arg(&[&[0]]))?;
        }
        dev.io(abi::SET_OWNER, &mut abi::arg(&[]))?;
        dev.set_features(dev.setup.features)?;
        if dev.has_iotlb() {
            dev.map_all()?;
        }
        let regions = dev.regions();
        dev.set_memory(&regions)?;
        dev.set_cid(dev.cid)?;
        for q in [RX, TX] {
            dev.configure(q)?;
        }
        if dev.setup.running {
            dev.run(true)?;
        }
        for n in 0..dev.setup.buffers {
            dev.post(n, dev.setup.buffer_len);
        }
        if dev.setup.buffers > 0 {
            dev.kick(RX);
        }
        Ok(dev)
    }
}

/// A device, opened.
pub struct Device {
    file: File,
    pub mem: Arc<Mapping>,
    pub q: [Queue; 2],
    pub kick: [File; 2],
    pub call: [File; 2],
    pub err: [File; 2],
    pub cid: u64,
    pub setup: Setup,
    /// The descriptor for the next packet of the guest.
    next_tx: u16,
    /// How large the buffer at each descriptor of `RX` is, and where.
    posted: Vec<Desc>,
}

impl Device {
    /// Opens the device, and does nothing else with it.
    pub fn bare(mem: Arc<Mapping>, setup: Setup) -> Try<Self> {
        Self::on(open_file()?, mem, setup)
    }

    /// A device that is open, with which nothing is done.
    pub fn on(file: File, mem: Arc<Mapping>, setup: Setup) -> Try<Self> {
        let mut q = [RX, TX].map(|n| Queue::new(&mem, n, setup.num));
        for queue in &mut q {
            queue.avail_idx = setup.base;
            queue.big = setup.big;
        }
        Ok(Self {
            file,
            cid: setup.cid.unwrap_or_else(fresh_cid),
            kick: [sys::eventfd()?, sys::eventfd()?],
            call: [sys::eventfd()?, sys::eventfd()?],
            err: [sys::eventfd()?, sys::eventfd()?],
            next_tx: 0,
            posted: vec![Desc::default(); usize::from(setup.num)],
            q,
            mem,
            setup,
        })
    }

    /// Another descriptor of the same device, for what is not done with its rings.
    pub fn again(&self) -> Try<Self> {
        let file = |file: &File| file.try_clone();
        Ok(Self {
            file: file(&self.file)?,
            mem: self.mem.clone(),
            q: [RX, TX].map(|q| Queue::new(&self.mem, q, self.setup.num)),
            kick: [file(&self.kick[0])?, file(&self.kick[1])?],
            call: [file(&self.call[0])?, file(&self.call[1])?],
            err: [file(&self.err[0])?, file(&self.err[1])?],
            cid: self.cid,
            setup: self.setup.clone(),
            next_tx: 0,
            posted: Vec::new(),
        })
    }

    /// The descriptor of the device.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// An ioctl with a buffer.
    pub fn io(&self, cmd: u32, arg: &mut [u8]) -> io::Result<i32> {
        sys::ioctl(&self.file, cmd, arg)
    }

    pub fn set_features(&self, features: u64) -> io::Result<()> {
        self.io(abi::SET_FEATURES, &mut abi::arg(&[&features.to_ne_bytes()]))?;
        Ok(())
    }

    /// The memory of the guest as the setup says.
    pub fn regions(&self) -> Vec<Region> {
        let all = Region {
            guest: 0,
            size: self.mem.len() as u64,
            user: self.mem.addr(),
        };
        self.setup
            .regions
            .map_or_else(|| vec![all], |f| f(self.mem.addr()))
    }

    pub fn set_memory(&self, regions: &[Region]) -> io::Result<()> {
        let count = regions.len() as u32;
        self.io(
            abi::SET_MEM_TABLE,
            &mut abi::memory_table(regions, count, 0),
        )?;
        Ok(())
    }

    pub fn set_cid(&self, cid: u64) -> io::Result<()> {
        self.io(abi::SET_GUEST_CID, &mut abi::arg(&[&cid.to_ne_bytes()]))?;
        Ok(())
    }

    pub fn run(&self, on: bool) -> io::Result<()> {
        self.io(
            abi::SET_RUNNING,
            &mut abi::arg(&[&i32::from(on).to_ne_bytes()]),
        )?;
        Ok(())
    }

    /// Writes a message for the IOTLB.
    pub fn tell(&self, message: &Message) -> io::Result<()> {
        (&self.file).write_all(&message.bytes())?;
        Ok(())
    }

    /// Maps the memory of the guest, each MiB by itself: what is taken back in a mapping takes all
    /// of it.
    pub fn map_all(&self) -> io::Result<()> {
        const STEP: u64 = 1 << 20;
        for at in (0..self.mem.len() as u64).step_by(STEP as usize) {
            self.tell(&Message::update(at, STEP, self.mem.addr() + at))?;
        }
        Ok(())
    }

    /// Reads a message of the device; nothing if there is none.
    pub fn ask(&self) -> io::Result<Option<[u8; abi::MESSAGE_LEN]>> {
        sys::set_nonblocking(&self.file, true)?;
        let mut bytes = [0xaa; abi::MESSAGE_LEN];
        match (&self.file).read(&mut bytes) {
            Ok(n) if n == bytes.len() => Ok(Some(bytes)),
            Ok(n) => Err(io::Error::other(format!("{n} bytes"))),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The index that the device would continue with.
    pub fn base(&self, q: usize) -> io::Result<u16> {
        let mut arg = abi::ring_state(q as u32, 0);
        self.io(abi::GET_VRING_BASE, &mut arg)?;
        Ok(u32::from_ne_bytes(arg[4..8].try_into().expect("4 bytes")) as u16)
    }

    pub fn set_base(&self, q: usize, base: u32) -> io::Result<()> {
        self.io(abi::SET_VRING_BASE, &mut abi::ring_state(q as u32, base))?;
        Ok(())
    }

    /// Whether there is an IOTLB.
    fn has_iotlb(&self) -> bool {
        self.setup.features & feature::ACCESS_PLATFORM != 0
    }

    /// Where a ring is, for `SET_VRING_ADDR`: in the memory of the owner or, with an IOTLB, where
    /// it is for the guest.
    pub fn ring_addr(&self, q: usize) -> RingAddr {
        let base = if self.has_iotlb() { 0 } else { self.mem.addr() };
        let queue = &self.q[q];
        RingAddr {
            index: q as u32,
            flags: self.setup.ring_flags,
            desc: base + queue.desc as u64,
            used: base + queue.used as u64,
            avail: base + queue.avail as u64,
            log: queue.used as u64,
        }
    }

    /// Says how large a ring is, where it is, where it begins, and its eventfds.
    pub fn configure(&self, q: usize) -> io::Result<()> {
        let index = q as u32;
        let num = u32::from(self.q[q].num);
        self.io(abi::SET_VRING_NUM, &mut abi::ring_state(index, num))?;
        self.set_base(q, u32::from(self.q[q].avail_idx))?;
        self.q[q].publish();
        self.io(abi::SET_VRING_ADDR, &mut self.ring_addr(q).bytes())?;
        for (cmd, file) in [
            (abi::SET_VRING_KICK, &self.kick[q]),
            (abi::SET_VRING_CALL, &self.call[q]),
            (abi::SET_VRING_ERR, &self.err[q]),
        ] {
            self.io(cmd, &mut abi::ring_file(index, file.as_raw_fd()))?;
        }
        Ok(())
    }

    /// Signals the device.
    pub fn kick(&self, q: usize) {
        signal(&self.kick[q]);
    }

    /// How often the device said that a ring is wrong, since the last time.
    pub fn errors(&self, q: usize) -> u64 {
        signals(&self.err[q])
    }

    /// How often the device said that it used something, since the last time.
    pub fn calls(&self, q: usize) -> u64 {
        signals(&self.call[q])
    }

    /// Waits until the worker has done all that was asked of it, including what comes of that.
    ///
    /// Only an ioctl that is for the owner waits for the worker; this one changes nothing.
    pub fn settle(&self) -> io::Result<()> {
        loop {
            let before = self.position()?;
            for _ in 0..2 {
                self.flush()?;
            }
            if self.position()? == before {
                return Ok(());
            }
        }
    }

    /// Waits until the worker has done what was queued before.
    pub fn flush(&self) -> io::Result<()> {
        let mut none = abi::arg(&[&(-1i32).to_ne_bytes()]);
        self.io(abi::SET_LOG_FD, &mut none)?;
        Ok(())
    }

    fn position(&self) -> io::Result<[u16; 2]> {
        Ok([self.base(RX)?, self.base(TX)?])
    }

    /// Offers a buffer of `len` bytes to the host, in a place of its own.
    pub fn post(&mut self, index: u16, len: u32) {
        let room = self.mem.len() as u64 - BUFFERS;
        let stride = u64::from(len.max(1)).next_multiple_of(4096);
        let at = BUFFERS + u64::from(index) % (room / stride) * stride;
        self.post_desc(index, Desc::new(at, len).flags(WRITE));
    }

    /// Offers any descriptor to the host.
    pub fn post_desc(&mut self, index: u16, desc: Desc) {
        self.q[RX].set(index, desc);
        self.posted[usize::from(index)] = desc;
        self.q[RX].offer(index);
    }

    /// A header from the guest to the host with what is mostly in it.
    pub fn header(&self, op: u16, src_port: u32, dst_port: u32) -> Header {
        Header {
            src_cid: self.cid,
            dst_cid: packet::HOST,
            src_port,
            dst_port,
            ty: packet::STREAM,
            op,
            buf_alloc: 65536,
            ..Header::default()
        }
    }

    /// Writes bytes to where the packet of a descriptor is, and returns the address.
    pub fn place(&self, index: u16, bytes: &[u8]) -> u64 {
        let at = if bytes.len() <= 0x2000 {
            DATA + u64::from(index % 256) * 0x2000
        } else {
            LARGE
        };
        self.mem.write(at as usize, bytes);
        at
    }

    /// Offers a packet of the guest, without a kick.
    pub fn put(&mut self, header: Header, payload: &[u8]) {
        let index = self.next_tx % self.q[TX].num;
        self.next_tx = self.next_tx.wrapping_add(1);
        let bytes = [&header.bytes(), payload].concat();
        let at = self.place(index, &bytes);
        self.q[TX].set(index, Desc::new(at, bytes.len() as u32));
        self.q[TX].offer(index);
    }

    /// Sends a packet of the guest, and waits until the host has done what it does.
    pub fn send(&mut self, header: Header, payload: &[u8]) -> io::Result<()> {
        self.put(header, payload);
        self.kick(TX);
        self.settle()
    }

    /// Sends a packet of the guest with a payload of which the header tells the right length.
    pub fn send_rw(&mut self, header: Header, payload: &[u8]) -> io::Result<()> {
        let header = header.with(|h| h.len = payload.len() as u32);
        self.send(header, payload)
    }

    /// The next packet of the host, without its buffer being offered again.
    pub fn take(&mut self) -> Option<(Used, Packet)> {
        let used = self.q[RX].take()?;
        let desc = self
            .posted
            .get(used.id as usize)
            .copied()
            .unwrap_or_default();
        let len = used.len.min(desc.len) as usize;
        let bytes = self.mem.read(desc.addr as usize, len);
        let header = Header::parse(&bytes).unwrap_or_default();
        let payload = bytes.get(HEADER_LEN..).unwrap_or_default().to_vec();
        Some((used, Packet { header, payload }))
    }

    /// The next packet of the host; its buffer is offered again.
    pub fn recv(&mut self) -> Option<Packet> {
        let (used, packet) = self.take()?;
        let index = used.id as u16;
        let desc = self.posted[usize::from(index)];
        self.post_desc(index, desc);
        self.kick(RX);
        Some(packet)
    }

    /// All packets of the host that are there, after it is done.
    pub fn recv_all(&mut self) -> io::Result<Vec<Packet>> {
        self.settle()?;
        let mut packets = Vec::new();
        while let Some(packet) = self.recv() {
            packets.push(packet);
            if self.q[RX].device_used_idx() == self.q[RX].used_idx {
                self.settle()?;
            }
        }
        Ok(packets)
    }

    /// The next packet of the host, which must be there.
    pub fn expect(&mut self, op: u16) -> Try<Packet> {
        self.settle()?;
        match self.recv() {
            Some(packet) if packet.header.op == op => Ok(packet),
            Some(packet) => {
                Err(format!("{} came and not {}", packet.name(), packet::name(op)).into())
            }
            None => Err(format!("no {} came", packet::name(op)).into()),
        }
    }

    /// The lines of fdinfo that begin so, without that beginning. Only our device has any.
    pub fn info(&self, key: &str) -> Vec<String> {
        fdinfo(&self.file, key)
    }

    /// Whether the device says that a queue is broken, or that one error was signalled if it says
    /// nothing of itself.
    pub fn broken(&self, q: usize) -> &'static str {
        match self.info(&format!("queue{q}")).first() {
            Some(state) if state.starts_with("broken") => "BROKEN",
            Some(_) => "an error, not broken",
            None => "an error",
        }
    }

    /// Stops both rings, and starts them where they were, without what was offered to the host and
    /// not consumed in `TX`.
    pub fn restart(&mut self) -> Try<()> {
        self.run(false)?;
        for q in [RX, TX] {
            let base = self.base(q)?;
            if q == TX {
                self.q[q].set_avail_idx(base);
            }
            self.set_base(q, u32::from(base))?;
            self.q[q].used_idx = self.q[q].device_used_idx();
        }
        self.run(true)?;
        Ok(())
    }
}

/// Opens `/dev/vhost-vsock`.
pub fn open_file() -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/vhost-vsock")
}

/// The lines of fdinfo of a file that begin so, without that beginning.
pub fn fdinfo(file: &File, key: &str) -> Vec<String> {
    let path = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"))
        .map(str::to_owned)
        .collect()
}

/// Adds one to an eventfd.
pub fn signal(mut file: &File) {
    // It fails only if somebody never reads: then there is a signal.
    let _ = file.write(&1u64.to_ne_bytes());
}

/// Takes what is in an eventfd.
pub fn signals(mut file: &File) -> u64 {
    let mut bytes = [0; 8];
    match file.read(&mut bytes) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => 0,
    }
}
