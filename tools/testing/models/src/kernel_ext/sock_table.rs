// SPDX-License-Identifier: GPL-2.0

//! The table of connections. A reader holds nothing while it uses what it found, as in an RCU read
//! section; that the node lives for so long is `kernel_ext`'s to see to, and here a count.

use super::{
    net::Net,
    sock::{
        SockAddr,
        VsockSock, //
    }, //
};
use crate::{
    kernel::{
        prelude::*,
        sync::ArcBorrow, //
    },
    world, //
};
use core::{
    any::{
        Any,
        TypeId, //
    },
    marker::PhantomData, //
};
use std::sync::{
    atomic::{
        AtomicBool,
        Ordering::Relaxed, //
    },
    Arc as StdArc, //
};

/// What a connection is found by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    remote: SockAddr,
    local_port: u32,
}

impl Key {
    /// See `kernel_ext::sock_table`.
    pub fn new(remote: SockAddr, local: SockAddr) -> Self {
        let local_port = local.port;
        Self { remote, local_port }
    }
}

/// There is one namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Scope;

impl Scope {
    /// That of a namespace.
    pub fn of(_net: &Net) -> Self {
        Self
    }
}

/// What was found.
pub struct Found<'g, T> {
    /// Its socket.
    pub sock: &'g VsockSock,
    /// The connection.
    pub conn: ArcBorrow<'g, T>,
}

struct Node {
    number: u64,
    transport: TypeId,
    key: Key,
    sock: VsockSock,
    conn: StdArc<dyn Any + Send + Sync>,
    retired: StdArc<AtomicBool>,
}

#[derive(Default)]
struct Inner {
    nodes: Vec<Node>,
    next: u64,
}

/// All connections of all transports.
#[derive(Default)]
pub struct Table(loom::sync::Mutex<Inner>);

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().nodes.len()
    }

    pub(crate) fn insert<T: Any + Send + Sync>(
        &self,
        transport: TypeId,
        key: Key,
        sock: VsockSock,
        conn: StdArc<T>,
        mut is_live: impl FnMut(&T) -> bool,
    ) -> Result<Membership<T>> {
        let mut inner = self.0.lock().unwrap();
        for node in &inner.nodes {
            let is_other = node.transport == transport && node.key == key;
            let other = node.conn.clone().downcast::<T>();
            if other.is_ok_and(|other| is_other && is_live(&other)) {
                return Err(EADDRINUSE);
            }
        }
        let number = inner.next;
        inner.next += 1;
        let retired = StdArc::<AtomicBool>::default();
        inner.nodes.push(Node {
            number,
            transport,
            key,
            sock,
            conn,
            retired: retired.clone(),
        });
        Ok(Membership {
            number,
            retired,
            _p: PhantomData,
        })
    }

    /// The latest one with that key, which is what a bucket has first.
    pub(crate) fn find<T: Any + Send + Sync>(
        &self,
        transport: TypeId,
        key: Key,
    ) -> Option<(VsockSock, StdArc<T>)> {
        let inner = self.0.lock().unwrap();
        let mut nodes = inner.nodes.iter().rev();
        let node = nodes.find(|node| {
            node.transport == transport && node.key == key && !node.retired.load(Relaxed)
        })?;
        Some((node.sock.clone(), node.conn.clone().downcast().ok()?))
    }

    /// What is there now; the table of the kernel takes up to 32 under one hold of its lock.
    pub(crate) fn members<T: Any + Send + Sync>(
        &self,
        transport: TypeId,
        peer: Option<u32>,
    ) -> Vec<(VsockSock, StdArc<T>)> {
        let inner = self.0.lock().unwrap();
        let of_peer = |node: &&Node| {
            node.transport == transport && peer.is_none_or(|cid| cid == node.key.remote.cid)
        };
        let pair = |node: &Node| Some((node.sock.clone(), node.conn.clone().downcast().ok()?));
        inner
            .nodes
            .iter()
            .rev()
            .filter(of_peer)
            .filter_map(pair)
            .collect()
    }
}

/// A membership; dropping it ends that, once.
pub struct Membership<T> {
    number: u64,
    retired: StdArc<AtomicBool>,
    _p: PhantomData<fn() -> T>,
}

impl<T> Membership<T> {
    /// See `kernel_ext::sock_table`.
    pub fn retire(&self) {
        self.retired.store(true, Relaxed);
    }

    /// As above.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }
}

impl<T> Drop for Membership<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let table = world::the::<Table>();
        let mut inner = table.0.lock().unwrap();
        let at = inner
            .nodes
            .iter()
            .position(|node| node.number == self.number);
        let node = at.map(|at| inner.nodes.remove(at));
        drop(inner);
        // With the lock open, as after a grace period: it may have the last reference to the
        // socket.
        world::check(node.is_some(), "a member leaves the table once");
    }
}
