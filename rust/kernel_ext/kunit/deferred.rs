// SPDX-License-Identifier: GPL-2.0

//! Suite of [`crate::deferred`]: work on a socket that somebody else has locked.

use kernel::prelude::*;

#[kunit_tests(kernel_ext_deferred)]
mod tests {
    use super::*;
    use crate::{
        deferred::Token,
        kunit::KernelSock,
        sock::{
            LockedSock,
            NewChild,
            SockType, //
        }, //
    };

    /// What the socket layer set to take packets from the backlog.
    fn backlog_rcv(sock: &KernelSock) -> usize {
        // SAFETY: The socket is alive, and the field valid.
        let rcv = unsafe { (*sock.sock().as_sock()).sk_backlog_rcv };
        rcv.map_or(0, |rcv| rcv as usize)
    }

    /// Adds one to what the test sees.
    fn count(sock: &mut LockedSock, child: Option<NewChild>) {
        assert!(child.is_none());
        sock.set_buffer_size(sock.buffer_size() + 1);
    }

    fn seen(sock: &KernelSock) -> u64 {
        sock.sock().lock().buffer_size()
    }

    #[test]
    fn free_socket_is_locked_at_once() -> Result {
        let sock = KernelSock::new(SockType::Stream)?;
        let mut token = Some(Token::new(count)?);
        let locked = sock.sock().lock_or_defer(&mut token, usize::MAX)?;
        assert!(locked.is_some());
        assert!(token.is_some());
        drop(locked);
        // Nothing was left behind.
        let before = seen(&sock);
        assert_eq!(seen(&sock), before);
        Ok(())
    }

    #[test]
    fn owner_does_what_waits() -> Result {
        let sock = KernelSock::new(SockType::Stream)?;
        let (before, rcv) = (seen(&sock), backlog_rcv(&sock));
        let owner = sock.sock().lock();
        assert_eq!(
            sock.sock().lock_or_defer(&mut None, usize::MAX).err(),
            Some(ENOBUFS)
        );
        for _ in 0..3 {
            let mut token = Some(Token::new(count)?);
            assert!(sock.sock().lock_or_defer(&mut token, usize::MAX)?.is_none());
            assert!(token.is_none());
        }
        assert_eq!(owner.buffer_size(), before);
        assert!(backlog_rcv(&sock) != rcv);
        drop(owner);
        assert_eq!(seen(&sock), before + 3);
        // Ours may be unloaded from here on.
        assert_eq!(backlog_rcv(&sock), rcv);
        Ok(())
    }

    #[test]
    fn no_more_than_the_limit() -> Result {
        let sock = KernelSock::new(SockType::Stream)?;
        let before = seen(&sock);
        let owner = sock.sock().lock();
        let mut left = 0;
        for _ in 0..5 {
            let mut token = Some(Token::new(count)?);
            let queued = sock.sock().lock_or_defer(&mut token, 2);
            left += u64::from(queued.is_err());
            assert_eq!(queued.is_err(), token.is_some());
        }
        assert_eq!(left, 3);
        drop(owner);
        assert_eq!(seen(&sock), before + 5 - left);
        Ok(())
    }

    #[test]
    fn flush_does_it_now() -> Result {
        let sock = KernelSock::new(SockType::Stream)?;
        let rcv = backlog_rcv(&sock);
        let mut owner = sock.sock().lock();
        let before = owner.buffer_size();
        let mut token = Some(Token::new(count)?);
        assert!(sock.sock().lock_or_defer(&mut token, usize::MAX)?.is_none());
        owner.flush_backlog();
        assert_eq!(owner.buffer_size(), before + 1);
        drop(owner);
        assert_eq!(backlog_rcv(&sock), rcv);
        Ok(())
    }

    /// A child that waits goes with the token.
    #[test]
    fn child_is_freed_with_its_token() -> Result {
        let sock = KernelSock::new(SockType::Stream)?;
        let child = NewChild::new(sock.sock())?;
        let token = Token::with_child(count, child).map_err(|(e, _)| e)?;
        drop(token);
        Ok(())
    }
}
