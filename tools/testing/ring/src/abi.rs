// SPDX-License-Identifier: GPL-2.0

//! Numbers and structures of the ioctls of vhost, written down from the kernel's interface and not
//! from our modules.

const fn request(direction: u32, number: u32, size: u32) -> u32 {
    (direction << 30) | (size << 16) | (0xaf << 8) | number
}

const NONE: u32 = 0;
const W: u32 = 1;
const R: u32 = 2;

pub const GET_FEATURES: u32 = request(R, 0x00, 8);
pub const SET_FEATURES: u32 = request(W, 0x00, 8);
pub const SET_OWNER: u32 = request(NONE, 0x01, 0);
pub const RESET_OWNER: u32 = request(NONE, 0x02, 0);
pub const SET_MEM_TABLE: u32 = request(W, 0x03, 8);
pub const SET_LOG_BASE: u32 = request(W, 0x04, 8);
pub const SET_LOG_FD: u32 = request(W, 0x07, 4);
pub const NEW_WORKER: u32 = request(R, 0x08, 4);
pub const FREE_WORKER: u32 = request(W, 0x09, 4);
pub const SET_VRING_NUM: u32 = request(W, 0x10, 8);
pub const SET_VRING_ADDR: u32 = request(W, 0x11, 40);
pub const SET_VRING_BASE: u32 = request(W, 0x12, 8);
pub const GET_VRING_BASE: u32 = request(R | W, 0x12, 8);
pub const SET_VRING_ENDIAN: u32 = request(W, 0x13, 8);
pub const GET_VRING_ENDIAN: u32 = request(W, 0x14, 8);
pub const ATTACH_VRING_WORKER: u32 = request(W, 0x15, 8);
pub const GET_VRING_WORKER: u32 = request(R | W, 0x16, 8);
pub const SET_VRING_KICK: u32 = request(W, 0x20, 8);
pub const SET_VRING_CALL: u32 = request(W, 0x21, 8);
pub const SET_VRING_ERR: u32 = request(W, 0x22, 8);
pub const SET_VRING_BUSYLOOP_TIMEOUT: u32 = request(W, 0x23, 8);
pub const GET_VRING_BUSYLOOP_TIMEOUT: u32 = request(W, 0x24, 8);
pub const SET_BACKEND_FEATURES: u32 = request(W, 0x25, 8);
pub const GET_BACKEND_FEATURES: u32 = request(R, 0x26, 8);
pub const SCSI_SET_ENDPOINT: u32 = request(W, 0x40, 232);
pub const SET_GUEST_CID: u32 = request(W, 0x60, 8);
pub const SET_RUNNING: u32 = request(W, 0x61, 4);
pub const GET_FEATURES_ARRAY: u32 = request(R, 0x83, 8);
pub const SET_FORK_FROM_OWNER: u32 = request(W, 0x84, 1);
pub const GET_FORK_FROM_OWNER: u32 = request(R, 0x85, 1);
pub const SET_ATTR: u32 = request(W, 0xe0, 16);
pub const GET_ATTR: u32 = request(R | W, 0xe1, 16);
/// A number that nobody has.
pub const BOGUS: u32 = request(NONE, 0x77, 0);

/// Features.
pub mod feature {
    pub const SEQPACKET: u64 = 1 << 1;
    pub const NOTIFY_ON_EMPTY: u64 = 1 << 24;
    pub const LOG_ALL: u64 = 1 << 26;
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const VERSION_1: u64 = 1 << 32;
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    pub const PACKED: u64 = 1 << 34;
    pub const IN_ORDER: u64 = 1 << 35;

    /// What an ordinary guest uses.
    pub const USUAL: u64 = VERSION_1 | EVENT_IDX | INDIRECT_DESC | SEQPACKET;
}

/// The most that a request takes or gives.
pub const ARG_LEN: usize = 304;

/// Room for an argument, with its first bytes.
pub fn arg(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.resize(bytes.len().max(ARG_LEN), 0);
    bytes
}

/// `struct vhost_vring_state`
pub fn ring_state(index: u32, num: u32) -> Vec<u8> {
    arg(&[&index.to_ne_bytes(), &num.to_ne_bytes()])
}

/// `struct vhost_vring_file`
pub fn ring_file(index: u32, fd: i32) -> Vec<u8> {
    arg(&[&index.to_ne_bytes(), &fd.to_ne_bytes()])
}

/// `struct vhost_vring_addr`
#[derive(Clone, Copy, Debug, Default)]
pub struct RingAddr {
    pub index: u32,
    pub flags: u32,
    pub desc: u64,
    pub used: u64,
    pub avail: u64,
    pub log: u64,
}

impl RingAddr {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = arg(&[&self.index.to_ne_bytes(), &self.flags.to_ne_bytes()]);
        for (n, word) in [self.desc, self.used, self.avail, self.log]
            .iter()
            .enumerate()
        {
            bytes[8 + 8 * n..16 + 8 * n].copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// `struct vhost_memory_region`
#[derive(Clone, Copy, Debug, Default)]
pub struct Region {
    pub guest: u64,
    pub size: u64,
    pub user: u64,
}

/// `struct vhost_memory`, with any count and padding.
pub fn memory_table(regions: &[Region], count: u32, padding: u32) -> Vec<u8> {
    let mut parts = Vec::new();
    parts.extend_from_slice(&count.to_ne_bytes());
    parts.extend_from_slice(&padding.to_ne_bytes());
    for region in regions {
        for word in [region.guest, region.size, region.user, 0] {
            parts.extend_from_slice(&word.to_ne_bytes());
        }
    }
    arg(&[&parts])
}

/// Length of `struct vhost_msg` and `struct vhost_msg_v2`.
pub const MESSAGE_LEN: usize = 72;

pub const MISS: u8 = 1;
pub const UPDATE: u8 = 2;
pub const INVALIDATE: u8 = 3;

/// `struct vhost_msg_v2`, with any values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// 1 or 2 for the versions that there are.
    pub version: u32,
    pub asid: u32,
    pub iova: u64,
    pub size: u64,
    pub user: u64,
    pub perm: u8,
    pub kind: u8,
}

impl Message {
    /// A mapping for reading and writing.
    pub fn update(iova: u64, size: u64, user: u64) -> Self {
        Self {
            version: 2,
            asid: 0,
            iova,
            size,
            user,
            perm: 3,
            kind: UPDATE,
        }
    }

    /// A mapping that is taken back.
    pub fn invalidate(iova: u64, size: u64) -> Self {
        Self {
            kind: INVALIDATE,
            perm: 0,
            ..Self::update(iova, size, 0)
        }
    }

    pub fn bytes(&self) -> [u8; MESSAGE_LEN] {
        let mut bytes = [0; MESSAGE_LEN];
        bytes[..4].copy_from_slice(&self.version.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.asid.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.iova.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.size.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.user.to_ne_bytes());
        bytes[32] = self.perm;
        bytes[33] = self.kind;
        bytes
    }

    pub fn parse(bytes: &[u8; MESSAGE_LEN]) -> Self {
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Self {
            version: word(0),
            asid: word(4),
            iova: long(8),
            size: long(16),
            user: long(24),
            perm: bytes[32],
            kind: bytes[33],
        }
    }
}
