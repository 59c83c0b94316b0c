// SPDX-License-Identifier: GPL-2.0

//! A table of connections by their addresses, for lookups without a lock.
//!
//! The table of the AF_VSOCK core has one lock for all, and puts the connections of one peer to one
//! port into one bucket. A lookup here costs the same whatever is in the table, and a search for
//! the connections of a peer does not meet those of others, nor those of a peer with that CID in
//! another namespace.
//!
//! The table has a reference to each connection in it and to its socket. A reader gets both without
//! touching a count, for as long as it is in its RCU read section.
//!
//! What the table has for a connection is 64 bytes. A bucket is therefore a list with one link for
//! each node: who leaves it looks for its place there, as who joins looks for its like.
//!
//! C headers: [`include/linux/rculist.h`](srctree/include/linux/rculist.h),
//! [`include/linux/jhash.h`](srctree/include/linux/jhash.h).

use crate::{
    bindings,
    lock::SpinLockBh,
    net::Net,
    new_spinlock_bh,
    peek::Peek,
    sock::{
        SockAddr,
        VsockSock, //
    }, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    rbtree::{
        Entry,
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        rcu,
        Arc,
        ArcBorrow, //
    }, //
};

/// Buckets by connection: about one connection each for ten thousand of them.
const TUPLE_BUCKETS: usize = 8192;

/// How many connections [`Members`] takes out of the table at a time.
const BATCH: usize = 32;

/// What a connection is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// CID of the peer.
    pub remote_cid: u32,
    /// Port of the peer.
    pub remote_port: u32,
    /// Port of this side.
    pub local_port: u32,
}

impl Key {
    /// The key of a connection between two addresses. The CID of this side is not a part of it.
    #[inline]
    pub fn new(remote: SockAddr, local: SockAddr) -> Self {
        Self {
            remote_cid: remote.cid,
            remote_port: remote.port,
            local_port: local.port,
        }
    }
}

/// Peers with which connections are mixed up unless their namespace is told apart, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope(usize);

impl Scope {
    /// Where `net` belongs to: namespaces in global mode belong together, others are for
    /// themselves.
    ///
    /// The mode of a namespace never changes.
    pub fn of(net: &Net) -> Self {
        // The address is a name only, as long as a socket of the namespace is in the table.
        Self(if net.is_global() {
            0
        } else {
            net.as_raw() as usize
        })
    }
}

/// A link of a list, which leads to that of the next node, or nowhere. The head of a bucket is one.
///
/// Written with the lock of the table held, read without.
#[repr(transparent)]
struct Link(Atomic<*mut Link>);

impl Link {
    /// That of the next node. Acquire: pairs with the release in [`set`](Self::set).
    #[inline]
    fn next(&self) -> *mut Link {
        self.0.load(Acquire)
    }

    /// Leads elsewhere from now on. Release: who finds a node there sees what it is.
    #[inline]
    fn set(&self, next: *mut Link) {
        self.0.store(next, Release);
    }
}

/// The second link of a [`Node`], and what it is freed by.
///
/// Only who has the lock of the table walks the lists of peers: when a node left its list, nobody
/// looks at the link any more, in contrast to that of the buckets.
#[repr(C)]
union PeerLink {
    by_peer: bindings::hlist_node,
    /// From when the node was unlinked.
    rcu: bindings::callback_head,
}

/// A member of the table.
///
/// # Invariants
///
/// `peer` is `by_peer` until the node was unlinked. The node is freed when it was unlinked and a
/// grace period has passed.
#[repr(C)]
struct Node<T> {
    by_tuple: Link,
    peer: PeerLink,
    /// The larger, the later it joined.
    number: u64,
    member: Member<T>,
}

/// What a [`Node`] says, which never changes but for `retired`.
struct Member<T> {
    key: Key,
    /// See [`Membership::retire`].
    retired: Atomic<bool>,
    sock: ARef<VsockSock>,
    conn: Arc<T>,
}

// There is one for each connection.
const _: () = assert!(size_of::<Node<()>>() <= 64);

/// The connections with one peer, the latest first.
///
/// # Invariants
///
/// A list of linked [`Node`]s, which changes only under the lock of the table.
struct Peer {
    list: UnsafeCell<bindings::hlist_head>,
    /// How many there are.
    count: u32,
}

impl Peer {
    fn new() -> Self {
        // INVARIANT: Zeroes are an empty list.
        Self {
            list: UnsafeCell::new(pin_init::zeroed()),
            count: 0,
        }
    }

    fn head(&self) -> *mut bindings::hlist_head {
        self.list.get()
    }

    fn is_empty(&self) -> bool {
        // SAFETY: The pointer is valid; who has a `&Peer` has the lock of the table.
        unsafe { (*self.head()).first }.is_null()
    }
}

/// What the lock of the table protects.
struct Peers {
    by_cid: RBTree<(u32, Scope), Peer>,
    /// The number of the next one to join.
    next: u64,
}

/// The table.
///
/// Readers ([`find`](Self::find)) are in an RCU read section and take no lock. Writers take the
/// table's lock, a spinlock that comes after the socket lock.
///
/// # Invariants
///
/// The buckets are lists of linked [`Node`]s; they change only under `peers`' lock, which has a
/// [`Peer`] for each CID that there is a connection with.
#[pin_data(PinnedDrop)]
pub struct SockTable<T: Send + Sync + 'static> {
    #[pin]
    peers: SpinLockBh<Peers>,
    seed: u32,
    tuples: Buckets<TUPLE_BUCKETS>,
    _t: PhantomData<Arc<T>>,
}

/// Heads of lists, changed by writers while readers look at them.
struct Buckets<const N: usize>(KVBox<[Link; N]>);

impl<const N: usize> Buckets<N> {
    const N_IS_POWER_OF_TWO: () = assert!(N.is_power_of_two());

    fn new() -> Result<Self> {
        let () = Self::N_IS_POWER_OF_TWO;
        let empty = pin_init::init_array_from_fn(|_| Link(Atomic::new(core::ptr::null_mut())));
        Ok(Self(KVBox::init(empty, GFP_KERNEL)?))
    }

    /// The bucket for a hash.
    fn get(&self, hash: u32) -> &Link {
        // BOUNDS: The mask keeps the index below `N`.
        &self.0[hash as usize & (N - 1)]
    }
}

// SAFETY: The nodes are allocated, and may be unlinked by any thread.
unsafe impl<T: Send + Sync + 'static> Send for SockTable<T> {}
// SAFETY: By the type invariants, changes are serialized; readers follow RCU.
unsafe impl<T: Send + Sync + 'static> Sync for SockTable<T> {}

/// The nodes of a bucket.
///
/// # Safety
///
/// `head` is a bucket of a [`SockTable<T>`], and the caller is in an RCU read section, or has the
/// table's lock, for all of the iteration.
unsafe fn nodes<T>(head: &Link) -> impl Iterator<Item = *const Node<T>> {
    let mut next = head.next();
    core::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        let link = next.cast_const();
        // SAFETY: A linked node is not freed before the end of the read section.
        next = unsafe { &*link }.next();
        // SAFETY: The link is that of a `Node<T>` for its bucket.
        Some(unsafe { link.byte_sub(core::mem::offset_of!(Node<T>, by_tuple)) }.cast())
    })
}

/// The nodes of a peer.
///
/// # Safety
///
/// `head` is the list of a [`Peer`] of a [`SockTable<T>`], and the caller has the table's lock for
/// all of the iteration.
unsafe fn nodes_of_peer<T>(
    head: *const bindings::hlist_head,
) -> impl Iterator<Item = *const Node<T>> {
    // SAFETY: The head is valid by the safety requirements.
    let mut next = unsafe { (*head).first };
    core::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        let link = next.cast_const();
        // SAFETY: The lock keeps the node linked.
        next = unsafe { (*link).next };
        // SAFETY: The link is that of a `Node<T>` for its peer.
        Some(unsafe { link.byte_sub(core::mem::offset_of!(Node<T>, peer)) }.cast())
    })
}

impl<T: Send + Sync + 'static> SockTable<T> {
    /// Makes an empty table.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Arc<Self>> {
        // SAFETY: FFI call without preconditions.
        let seed = unsafe { bindings::random_u32() };
        Arc::pin_init(
            try_pin_init!(Self {
                peers <- new_spinlock_bh!(
                    Peers { by_cid: RBTree::new(), next: 0 },
                    "kernel_ext::SockTable::peers"
                ),
                seed,
                tuples: Buckets::new()?,
                _t: PhantomData,
            }),
            GFP_KERNEL,
        )
    }

    fn tuple_bucket(&self, key: Key) -> &Link {
        // SAFETY: FFI call without preconditions.
        let hash = unsafe {
            bindings::jhash_3words(key.remote_cid, key.remote_port, key.local_port, self.seed)
        };
        self.tuples.get(hash)
    }

    /// Takes the node with that link out of its bucket. Readers that are at it go on from there.
    ///
    /// The caller has the lock of the table, and the node is linked.
    fn unlink(&self, key: Key, left: *const Link) {
        let mut at = self.tuple_bucket(key);
        loop {
            let next = at.next();
            if next.is_null() {
                return;
            }
            // SAFETY: The lock keeps the node linked.
            let link = unsafe { &*next };
            if core::ptr::eq(next, left) {
                at.set(link.next());
                return;
            }
            at = link;
        }
    }

    /// Looks for a connection of a socket that `net` reaches.
    ///
    /// Context: any but interrupts.
    #[inline]
    pub fn find<'g>(
        &'g self,
        key: Key,
        net: Option<&Net>,
        _guard: &'g rcu::Guard,
    ) -> Option<Found<'g, T>> {
        // SAFETY: `_guard` is the read section.
        for node in unsafe { nodes::<T>(self.tuple_bucket(key)) } {
            // SAFETY: A node that is found is not freed before the end of the read section. What
            // changes of it are the links, of which this makes no use.
            let member = unsafe { &(*node).member };
            let is_found = member.key == key && !member.retired.peek();
            if is_found && Net::reachable(Some(member.sock.net()), net) {
                return Some(Found {
                    sock: &member.sock,
                    conn: member.conn.as_arc_borrow(),
                });
            }
        }
        None
    }

    /// The connections with `peer`, or with anybody: those that are there now, and do not leave
    /// before they are met.
    ///
    /// Needs no memory. The connections may leave the table meanwhile.
    pub fn members(self: &Arc<Self>, peer: Option<(u32, Scope)>) -> Members<T> {
        let limit = self.peers.lock().next;
        Members {
            table: self.clone(),
            peer,
            limit,
            at: Some((peer.unwrap_or((0, Scope(0))), limit)),
            batch: [const { None }; BATCH],
        }
    }

    /// Puts a connection into the table, until the membership is dropped.
    ///
    /// `is_live` says of a connection with the same key, also of one that is
    /// [retired](Membership::retire), whether a user would lose it: packets find the latest one
    /// only.
    ///
    /// Context: may sleep; `is_live` does not, and is called with the lock of the table held.
    ///
    /// # Errors
    ///
    /// `EADDRINUSE` if there is a live one, `EDQUOT` if there are `most` connections with the peer,
    /// `ENOMEM`.
    pub fn insert(
        self: &Arc<Self>,
        sock: ARef<VsockSock>,
        conn: Arc<T>,
        key: Key,
        most: u32,
        mut is_live: impl FnMut(&T) -> bool,
    ) -> Result<Membership<T>> {
        let peer = (key.remote_cid, Scope::of(sock.net()));
        let node = KBox::new(
            Node {
                by_tuple: Link(Atomic::new(core::ptr::null_mut())),
                peer: PeerLink {
                    by_peer: pin_init::zeroed(),
                },
                number: 0,
                member: Member {
                    key,
                    retired: Atomic::new(false),
                    sock,
                    conn,
                },
            },
            GFP_KERNEL,
        )?;
        let mut room = None;
        let (mut peers, head) = loop {
            let mut peers = self.peers.lock();
            let head = match peers.by_cid.entry(peer) {
                Entry::Occupied(peer) => Some(peer.get().head()),
                Entry::Vacant(place) => room
                    .take()
                    .map(|room| place.insert(Peer::new(), room).head()),
            };
            if let Some(head) = head {
                break (peers, head);
            }
            drop(peers);
            room = Some(RBTreeNodeReservation::new(GFP_KERNEL)?);
        };
        let bucket = self.tuple_bucket(key);
        // SAFETY: The lock is held.
        for other in unsafe { nodes::<T>(bucket) } {
            // SAFETY: The lock keeps the node linked, and this never changes.
            let other = unsafe { &(*other).member };
            let nets = (Some(other.sock.net()), Some(node.member.sock.net()));
            if other.key == key && Net::reachable(nets.0, nets.1) && is_live(&other.conn) {
                // There was a list for this peer before, or it is the other one's.
                drop(peers);
                return Err(EADDRINUSE);
            }
        }
        let count = peers.by_cid.get(&peer).map_or(0, |peer| peer.count);
        if count > 0 && count >= most {
            // There is a list for this peer, which is not empty.
            drop(peers);
            return Err(EDQUOT);
        }
        let node = NonNull::from(KBox::leak(node));
        let raw = node.as_ptr();
        // SAFETY: The node is valid, and nobody else knows it yet.
        unsafe { (*raw).number = peers.next };
        peers.next = peers.next.wrapping_add(1);
        if let Some(peer) = peers.by_cid.get_mut(&peer) {
            peer.count = peer.count.saturating_add(1);
        }
        // SAFETY: The node is valid and in no list; the lock is held.
        unsafe { bindings::hlist_add_head_rcu(&raw mut (*raw).peer.by_peer, head) };
        // SAFETY: The node is valid, and nothing of it but the links changes from now on.
        let link = unsafe { &raw mut (*raw).by_tuple };
        // SAFETY: As above.
        unsafe { &*link }.set(bucket.next());
        bucket.set(link);
        drop(peers);
        // INVARIANT: Just linked.
        Ok(Membership {
            table: self.clone(),
            node,
        })
    }
}

impl<T: Send + Sync + 'static> SockTable<T> {
    /// Calls `f` with the first connection at `place`, or behind it, and returns what that says and
    /// the place to go on at; nothing if there is none.
    ///
    /// Who goes on so meets each connection once that is there all the time. Nothing is locked.
    ///
    /// Context: any but interrupts. `f` runs in an RCU read section.
    pub fn look<R>(
        &self,
        mut place: Place,
        f: impl FnOnce(Found<'_, T>) -> R,
    ) -> Option<(R, Place)> {
        let _guard = rcu::read_lock();
        while place.bucket < TUPLE_BUCKETS as u32 {
            // SAFETY: `_guard` is the read section.
            for node in unsafe { nodes::<T>(self.tuples.get(place.bucket)) } {
                // SAFETY: A node that is found is not freed before the end of the read section, and
                // has its number since before it was linked.
                let number = unsafe { (*node).number };
                // The later one joined, the earlier it is met.
                if number >= place.below {
                    continue;
                }
                place.below = number;
                // SAFETY: As in `find()`.
                let member = unsafe { &(*node).member };
                let found = Found {
                    sock: &member.sock,
                    conn: member.conn.as_arc_borrow(),
                };
                return Some((f(found), place));
            }
            place = Place {
                bucket: place.bucket.saturating_add(1),
                ..Place::default()
            };
        }
        None
    }

    /// How many connections there are with a peer, retired ones included.
    pub fn count(&self, peer: (u32, Scope)) -> u32 {
        self.peers.lock().by_cid.get(&peer).map_or(0, |p| p.count)
    }
}

/// Where somebody is who [looks](SockTable::look) at all connections; the default is the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    bucket: u32,
    /// Those of the bucket with smaller numbers were not met yet.
    below: u64,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            bucket: 0,
            below: u64::MAX,
        }
    }
}

/// A connection that was found, for as long as the read section lasts.
pub struct Found<'g, T> {
    /// Its socket.
    pub sock: &'g VsockSock,
    /// The connection.
    pub conn: ArcBorrow<'g, T>,
}

#[pinned_drop]
impl<T: Send + Sync + 'static> PinnedDrop for SockTable<T> {
    fn drop(self: Pin<&mut Self>) {
        // The nodes that left are freed by our code, which may be about to be unloaded.
        // SAFETY: FFI call without preconditions; the table is dropped where one may sleep.
        unsafe { bindings::rcu_barrier() };
    }
}

#[cfg(CONFIG_KUNIT = "y")]
impl<T: Send + Sync + 'static> SockTable<T> {
    /// How many connections the fullest bucket has.
    pub(crate) fn longest_bucket(&self) -> usize {
        let _guard = self.peers.lock();
        let count = |bucket| {
            // SAFETY: The lock is held.
            unsafe { nodes::<T>(self.tuples.get(bucket)) }.count()
        };
        (0..TUPLE_BUCKETS as u32).map(count).max().unwrap_or(0)
    }
}

/// Connections of a table, see [`SockTable::members`], as counted references.
pub struct Members<T: Send + Sync + 'static> {
    table: Arc<SockTable<T>>,
    /// Only those with a connection to this one.
    peer: Option<(u32, Scope)>,
    /// Only those with a smaller number, which joined before.
    limit: u64,
    /// Where to go on: at the sockets of this peer with smaller numbers, and then at the next peer.
    at: Option<((u32, Scope), u64)>,
    batch: [Option<(ARef<VsockSock>, Arc<T>)>; BATCH],
}

impl<T: Send + Sync + 'static> Members<T> {
    /// Fills the batch, which is empty, and says whether there was anything to look at.
    ///
    /// Each time it goes on behind those that it met before, whether they left the table or not.
    fn fill(&mut self) -> bool {
        let Some((first, below_at_first)) = self.at.take() else {
            return false;
        };
        let mut room = self.batch.iter_mut();
        let mut peers = self.table.peers.lock();
        let mut cursor = peers.by_cid.cursor_lower_bound_mut(&first);
        while let Some(here) = cursor {
            let (&who, peer) = here.current();
            if self.peer.is_some_and(|only| only != who) {
                break;
            }
            let below = if who == first {
                below_at_first
            } else {
                self.limit
            };
            // SAFETY: The lock is held.
            for node in unsafe { nodes_of_peer::<T>(peer.head()) } {
                // SAFETY: The lock keeps the node linked.
                let number = unsafe { (*node).number };
                if number >= below {
                    continue;
                }
                // SAFETY: As above.
                let Member { sock, conn, .. } = unsafe { &(*node).member };
                // There is room, see below.
                if let Some(place) = room.next() {
                    *place = Some((sock.clone(), conn.clone()));
                }
                if room.len() == 0 {
                    self.at = Some((who, number));
                    return true;
                }
            }
            cursor = here.move_next();
        }
        true
    }
}

impl<T: Send + Sync + 'static> Iterator for Members<T> {
    type Item = (ARef<VsockSock>, Arc<T>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(sock) = self.batch.iter_mut().find_map(Option::take) {
                return Some(sock);
            }
            if !self.fill() {
                return None;
            }
        }
    }
}

/// The membership of a connection in a [`SockTable`]; dropping it ends that.
///
/// If it is forgotten, the connection and its socket stay for ever, and are found.
///
/// # Invariants
///
/// `node` is linked in `table`.
pub struct Membership<T: Send + Sync + 'static> {
    table: Arc<SockTable<T>>,
    node: NonNull<Node<T>>,
}

// SAFETY: The node is unlinked under the lock of the table, by whatever thread.
unsafe impl<T: Send + Sync + 'static> Send for Membership<T> {}
// SAFETY: The methods on `&Membership` read what does not change, and an atomic.
unsafe impl<T: Send + Sync + 'static> Sync for Membership<T> {}

impl<T: Send + Sync + 'static> Membership<T> {
    #[inline]
    fn member(&self) -> &Member<T> {
        // SAFETY: By the type invariants, the node is linked, thus not freed; nobody has a mutable
        // reference to this part of it.
        unsafe { &(*self.node.as_ptr()).member }
    }

    /// Packets do not find the connection any more. It still counts for who
    /// [joins](SockTable::insert) with the same key.
    ///
    /// Context: any.
    pub fn retire(&self) {
        self.member().retired.store(true, Relaxed);
    }

    /// Whether it was [retired](Self::retire).
    #[inline]
    pub fn is_retired(&self) -> bool {
        self.member().retired.peek()
    }
}

impl<T: Send + Sync + 'static> Drop for Membership<T> {
    fn drop(&mut self) {
        let node = self.node.as_ptr();
        let member = self.member();
        let peer = (member.key.remote_cid, Scope::of(member.sock.net()));
        let mut peers = self.table.peers.lock();
        // SAFETY: By the type invariants, the node is linked, thus valid.
        let link = unsafe { &raw const (*node).by_tuple };
        self.table.unlink(member.key, link);
        // SAFETY: By the type invariants, the node is linked; the lock is held.
        unsafe { bindings::hlist_del_rcu(&raw mut (*node).peer.by_peer) };
        let mut unused = None;
        if let Some(mut peer) = peers.by_cid.find_mut(&peer) {
            peer.get_mut().count = peer.get().count.saturating_sub(1);
            if peer.get().is_empty() {
                unused = Some(peer.remove_node());
            }
        }
        drop(peers);
        drop(unused);
        // SAFETY: The node is not linked any more. The link to others of the peer is not looked at
        // any more, since that took the lock.
        unsafe { bindings::call_rcu(&raw mut (*node).peer.rcu, Some(free::<T>)) };
    }
}

/// # Safety
///
/// `head` is the `rcu` of a [`Node<T>`] that came from a `KBox` and was unlinked before a grace
/// period.
unsafe extern "C" fn free<T>(head: *mut bindings::callback_head) {
    let offset = core::mem::offset_of!(Node<T>, peer);
    // SAFETY: By the safety requirements.
    let node = unsafe { head.byte_sub(offset) }.cast::<Node<T>>();
    // SAFETY: By the safety requirements, nobody refers to it any more.
    drop(unsafe { KBox::from_raw(node) });
}
