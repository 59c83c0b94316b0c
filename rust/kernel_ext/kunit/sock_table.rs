// SPDX-License-Identifier: GPL-2.0

//! Suite of [`crate::sock_table`].

use kernel::prelude::*;

#[kunit_tests(kernel_ext_sock_table)]
mod tests {
    use super::*;
    use crate::{
        kunit::KernelSock,
        net::Net,
        sock::SockType,
        sock_table::{
            Key,
            Membership,
            Place,
            Scope,
            SockTable, //
        }, //
    };
    use core::mem::ManuallyDrop;
    use kernel::sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        rcu,
        Arc, //
    };

    const KEY: Key = Key {
        remote_cid: 3,
        remote_port: 1000,
        local_port: 2000,
    };

    /// What a connection is here: it says whether it is there.
    type Table = SockTable<Counted>;

    /// Whether a value is alive.
    struct Counted(Option<Arc<Atomic<usize>>>, u32);

    impl Drop for Counted {
        fn drop(&mut self) {
            if let Some(count) = &self.0 {
                count.fetch_add(1, Relaxed);
            }
        }
    }

    fn join(table: &Arc<Table>, sock: &KernelSock, key: Key) -> Result<Membership<Counted>> {
        let conn = Arc::new(Counted(None, 0), GFP_KERNEL)?;
        table.insert(sock.sock().into(), conn, key, u32::MAX, |_| false)
    }

    /// Whether the table has that socket for the key, and nothing if `None`.
    fn finds(table: &Table, key: Key, sock: Option<&KernelSock>) -> bool {
        let guard = rcu::read_lock();
        let found = table.find(key, None, &guard);
        found.map(|found| found.sock.as_raw()) == sock.map(|sock| sock.sock().as_raw())
    }

    fn members(table: &Arc<Table>, peer: Option<u32>) -> usize {
        let scope = Scope::of(&Net::of_current());
        table.members(peer.map(|cid| (cid, scope))).count()
    }

    #[test]
    fn a_peer_has_no_more_than_it_may() -> Result {
        let table = Table::new()?;
        let sock = KernelSock::new(SockType::Stream)?;
        let join = |remote_cid, local_port| {
            let conn = Arc::new(Counted(None, 0), GFP_KERNEL)?;
            let key = Key {
                remote_cid,
                local_port,
                ..KEY
            };
            table.insert(sock.sock().into(), conn, key, 2, |_| false)
        };
        let first = join(3, 1)?;
        let _second = join(3, 2)?;
        assert_eq!(join(3, 3).err(), Some(EDQUOT));
        let _other = join(4, 3)?;
        drop(first);
        let _third = join(3, 3)?;
        assert_eq!(join(3, 4).err(), Some(EDQUOT));
        Ok(())
    }

    /// How often each of the first `N` local ports is met by who looks at all of the table.
    fn met<const N: usize>(table: &Arc<Table>, mut between: impl FnMut(usize)) -> [u32; N] {
        let (mut place, mut met, mut steps) = (Place::default(), [0; N], 0);
        while let Some((port, next)) = table.look(place, |found| found.conn.1) {
            if let Some(count) = met.get_mut(port as usize) {
                *count += 1;
            }
            place = next;
            steps += 1;
            between(steps);
        }
        met
    }

    #[test]
    fn each_is_met_once_whoever_comes_and_goes() -> Result {
        const COUNT: usize = 64;
        let table = Table::new()?;
        let sock = KernelSock::new(SockType::Stream)?;
        let join = |port: usize| {
            let conn = Arc::new(Counted(None, port as u32), GFP_KERNEL)?;
            let key = Key {
                // Of one bucket: the hash of the key is the same.
                local_port: 0,
                ..KEY
            };
            table.insert(sock.sock().into(), conn, key, u32::MAX, |_| false)
        };
        assert_eq!(met::<1>(&table, |_| ()), [0]);
        let mut members = KVec::new();
        for port in 0..COUNT {
            members.push(Some(join(port)?), GFP_KERNEL)?;
        }
        assert_eq!(met::<COUNT>(&table, |_| ()), [1; COUNT]);
        let peer = (KEY.remote_cid, Scope::of(&Net::of_current()));
        assert_eq!(table.count(peer), COUNT as u32);
        // One that was met goes and one comes, at each step.
        let mut new = KVec::new();
        let met = met::<{ 2 * COUNT }>(&table, |steps| {
            if let Ok(member) = join(COUNT + steps) {
                let _ = new.push(member, GFP_KERNEL);
            }
            if steps <= COUNT / 2 {
                members[COUNT - steps] = None;
            }
        });
        assert_eq!(met[..COUNT], [1; COUNT]);
        assert_eq!(table.count(peer), COUNT as u32 / 2 + new.len() as u32);
        drop(members);
        drop(new);
        assert_eq!(table.count(peer), 0);
        Ok(())
    }

    #[test]
    fn found_by_the_whole_key_only() -> Result {
        let table = Table::new()?;
        let sock = KernelSock::new(SockType::Stream)?;
        assert!(finds(&table, KEY, None));
        let member = join(&table, &sock, KEY)?;
        assert!(finds(&table, KEY, Some(&sock)));
        assert!(finds(
            &table,
            Key {
                remote_cid: 4,
                ..KEY
            },
            None
        ));
        assert!(finds(
            &table,
            Key {
                remote_port: 4,
                ..KEY
            },
            None
        ));
        assert!(finds(
            &table,
            Key {
                local_port: 4,
                ..KEY
            },
            None
        ));
        drop(member);
        assert!(finds(&table, KEY, None));
        Ok(())
    }

    #[test]
    fn found_from_its_namespace() -> Result {
        let table = Table::new()?;
        let sock = KernelSock::new(SockType::Stream)?;
        let _member = join(&table, &sock, KEY)?;
        let net = sock.sock().net();
        let guard = rcu::read_lock();
        assert!(table.find(KEY, Some(net), &guard).is_some());
        Ok(())
    }

    #[test]
    fn members_by_peer() -> Result {
        let table = Table::new()?;
        let sock = KernelSock::new(SockType::Stream)?;
        assert_eq!(members(&table, None), 0);
        let mut joined = KVec::new();
        for remote_cid in [3, 4, 4, 5, 5, 5, 5 + 256] {
            let key = Key { remote_cid, ..KEY };
            joined.push(join(&table, &sock, key)?, GFP_KERNEL)?;
        }
        for (cid, count) in [(3, 1), (4, 2), (5, 3), (5 + 256, 1), (6, 0)] {
            assert_eq!(members(&table, Some(cid)), count);
        }
        assert_eq!(members(&table, None), 7);

        drop(joined.pop());
        assert_eq!(members(&table, Some(5 + 256)), 0);
        assert_eq!(members(&table, Some(5)), 3);
        drop(joined);
        assert_eq!(members(&table, None), 0);
        Ok(())
    }

    /// Whether they leave or stay when they are met, and whoever joins meanwhile.
    #[test]
    fn each_member_is_met_once() -> Result {
        let sock = KernelSock::new(SockType::Stream)?;
        for leave in [true, false] {
            let table = Table::new()?;
            let mut joined = KVec::new();
            for n in 0..1000 {
                let key = Key {
                    remote_cid: 3 + n % 7,
                    ..KEY
                };
                joined.push(join(&table, &sock, key)?, GFP_KERNEL)?;
            }
            let mut met = 0;
            let mut late = KVec::new();
            for _ in table.members(None) {
                met += 1;
                late.push(join(&table, &sock, KEY)?, GFP_KERNEL)?;
                if leave {
                    drop(joined.pop());
                }
            }
            // Who left before is not met.
            assert!(met == 1000 || leave && met < 1000);
            assert_eq!(members(&table, None), joined.len() + late.len());
        }
        Ok(())
    }

    /// What is found stays until the read section ends, whoever leaves the table meanwhile and
    /// drops what it has; and a membership that is forgotten leaves nothing behind that is freed.
    #[test]
    fn found_outlives_the_membership() -> Result {
        let gone = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        let table = Table::new()?;
        let sock = KernelSock::new(SockType::Stream)?;
        let conn = Arc::new(Counted(Some(gone.clone()), 0), GFP_KERNEL)?;
        let member = table.insert(sock.sock().into(), conn, KEY, u32::MAX, |_| false)?;
        // The member has the last reference to it.
        drop(sock);
        {
            let guard = rcu::read_lock();
            let found = table.find(KEY, None, &guard).ok_or(ENOENT)?;
            drop(member);
            assert!(finds(&table, KEY, None));
            assert_eq!(gone.load(Relaxed), 0);
            assert!(found.conn.0.is_some());
            assert_eq!(found.sock.ty(), SockType::Stream);
        }
        // Waits for what is freed after a grace period.
        drop(table);
        assert_eq!(gone.load(Relaxed), 1);

        let sock = KernelSock::new(SockType::Stream)?;
        let table = Table::new()?;
        let conn = Arc::new(Counted(Some(gone.clone()), 0), GFP_KERNEL)?;
        let forgotten =
            ManuallyDrop::new(table.insert(sock.sock().into(), conn, KEY, u32::MAX, |_| false)?);
        drop(sock);
        {
            let guard = rcu::read_lock();
            let found = table.find(KEY, None, &guard).ok_or(ENOENT)?;
            assert_eq!(found.sock.ty(), SockType::Stream);
            assert_eq!(gone.load(Relaxed), 1);
        }
        drop(ManuallyDrop::into_inner(forgotten));
        Ok(())
    }

    #[test]
    fn live_connection_is_not_hidden() -> Result {
        let table = Table::new()?;
        let sock = KernelSock::new(SockType::Stream)?;
        let first = join(&table, &sock, KEY)?;
        let again = |live: bool| {
            let conn = Arc::new(Counted(None, 0), GFP_KERNEL)?;
            table.insert(sock.sock().into(), conn, KEY, u32::MAX, |_| live)
        };
        assert_eq!(again(true).err(), Some(EADDRINUSE));
        assert_eq!(members(&table, None), 1);
        drop(again(false)?);
        drop(first);
        drop(again(true)?);
        assert_eq!(members(&table, None), 0);
        Ok(())
    }

    #[test]
    fn two_sockets_with_one_key() -> Result {
        let table = Table::new()?;
        let (old, new) = (
            KernelSock::new(SockType::Stream)?,
            KernelSock::new(SockType::SeqPacket)?,
        );
        let gone = join(&table, &old, KEY)?;
        let _stays = join(&table, &new, KEY)?;
        assert!(finds(&table, KEY, Some(&new)));
        drop(gone);
        assert!(finds(&table, KEY, Some(&new)));
        Ok(())
    }

    /// Ten thousand connections of one guest with one port, as a server has them.
    #[test]
    fn ten_thousand_with_one_listener() -> Result {
        let table = Table::new()?;
        let sock = KernelSock::new(SockType::Stream)?;
        let mut joined = KVVec::with_capacity(10_000, GFP_KERNEL)?;
        for remote_port in 0..10_000 {
            let member = join(&table, &sock, Key { remote_port, ..KEY })?;
            joined.push_within_capacity(member).map_err(|_| ENOMEM)?;
        }
        for remote_port in 0..10_000 {
            assert!(finds(&table, Key { remote_port, ..KEY }, Some(&sock)));
        }
        // A bucket of a good hash has one or two.
        assert!(table.longest_bucket() < 16);
        assert_eq!(members(&table, Some(KEY.remote_cid)), 10_000);
        while let Some(member) = joined.pop() {
            drop(member);
        }
        assert_eq!(members(&table, None), 0);
        assert_eq!(table.longest_bucket(), 0);
        Ok(())
    }
}
