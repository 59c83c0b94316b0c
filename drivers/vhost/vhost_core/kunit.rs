// SPDX-License-Identifier: GPL-2.0

//! KUnit suite: the pure crate `vring` as it runs in a kernel, on memory of the kernel.

use kernel::prelude::*;

#[kunit_tests(vring)]
mod tests {
    use super::*;
    use core::cell::RefCell;
    use vring::{
        Config,
        Endian,
        Gpa,
        Malformed,
        Region,
        Regions,
        RingAddr,
        RingError,
        RingMemory,
        RingSize,
        Segment,
        SliceSegments,
        SplitRing,
        TranslateError,
        UserAddr, //
    };

    const SIZE: u16 = 8;
    const DESC: u64 = 0;
    const AVAIL: u64 = 256;
    const USED: u64 = 512;
    /// Where the guest's memory begins, for the guest.
    const GUEST: u64 = 0x1_0000;
    const MEMORY: u64 = 0x1_0000;
    const NEXT: u16 = 1;
    const WRITE: u16 = 2;

    const NOWHERE: Segment = Segment {
        addr: UserAddr(0),
        len: 0,
    };

    type Error = RingError<Fault, TranslateError>;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Fault;

    impl From<Fault> for kernel::error::Error {
        fn from(_: Fault) -> Self {
            EFAULT
        }
    }

    /// The memory of a guest, and the driver in it.
    struct Driver {
        memory: RefCell<KVec<u8>>,
        avail: u16,
    }

    impl Driver {
        fn new() -> Result<Self> {
            let mut memory = KVec::new();
            memory.resize(MEMORY as usize, 0, GFP_KERNEL)?;
            let memory = RefCell::new(memory);
            Ok(Self { memory, avail: 0 })
        }

        fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Fault> {
            let (memory, at) = (self.memory.borrow(), at as usize);
            let bytes = memory.get(at..at + out.len()).ok_or(Fault)?;
            out.copy_from_slice(bytes);
            Ok(())
        }

        fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Fault> {
            let (mut memory, at) = (self.memory.borrow_mut(), at as usize);
            let place = memory.get_mut(at..at + bytes.len()).ok_or(Fault)?;
            place.copy_from_slice(bytes);
            Ok(())
        }

        fn desc(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) -> Result {
            let at = DESC + 16 * u64::from(index);
            self.write(at, &addr.to_le_bytes())?;
            self.write(at + 8, &len.to_le_bytes())?;
            self.write(at + 12, &flags.to_le_bytes())?;
            self.write(at + 14, &next.to_le_bytes())?;
            Ok(())
        }

        fn make_available(&mut self, head: u16) -> Result {
            let slot = u64::from(self.avail % SIZE);
            self.write(AVAIL + 4 + 2 * slot, &head.to_le_bytes())?;
            self.avail = self.avail.wrapping_add(1);
            self.write(AVAIL + 2, &self.avail.to_le_bytes())?;
            Ok(())
        }

        fn used(&self, slot: u64) -> Result<(u32, u32)> {
            let (mut id, mut len) = ([0; 4], [0; 4]);
            self.read(USED + 4 + 8 * slot, &mut id)?;
            self.read(USED + 8 + 8 * slot, &mut len)?;
            Ok((u32::from_le_bytes(id), u32::from_le_bytes(len)))
        }

        fn used_idx(&self) -> Result<u16> {
            let mut idx = [0; 2];
            self.read(USED + 2, &mut idx)?;
            Ok(u16::from_le_bytes(idx))
        }
    }

    impl RingMemory for Driver {
        type Error = Fault;

        fn read_u16(&self, at: RingAddr) -> Result<u16, Fault> {
            let mut bytes = [0; 2];
            self.read(at.0, &mut bytes)?;
            Ok(u16::from_ne_bytes(bytes))
        }

        fn write_u16(&self, at: RingAddr, value: u16) -> Result<(), Fault> {
            self.write(at.0, &value.to_ne_bytes())
        }

        fn read_ring(&self, at: RingAddr, out: &mut [u8]) -> Result<(), Fault> {
            self.read(at.0, out)
        }

        fn read_bytes(&self, at: UserAddr, out: &mut [u8]) -> Result<(), Fault> {
            self.read(at.0, out)
        }

        fn write_used(&self, at: RingAddr, elem: [u8; 8]) -> Result<(), Fault> {
            self.write(at.0, &elem)
        }

        fn read_barrier(&self) {}

        fn write_barrier(&self) {}

        fn full_barrier(&self) {}
    }

    fn ring(driver: &Driver) -> Result<SplitRing> {
        let config = Config {
            size: RingSize::new(u32::from(SIZE)).ok_or(EINVAL)?,
            desc: RingAddr(DESC),
            avail: RingAddr(AVAIL),
            used: RingAddr(USED),
            base: 0,
            event_idx: false,
            notify_on_empty: false,
            endian: Endian::Little,
        };
        SplitRing::new(config, driver).map_err(|_| EFAULT)
    }

    /// What the next chain is: head, readable and writable bytes, and where the first segment is.
    fn pop(ring: &mut SplitRing, driver: &Driver) -> Result<Option<(u16, u32, u32, u64)>, Error> {
        let mut table = [Region {
            gpa_start: Gpa(GUEST),
            size: MEMORY,
            user_addr: UserAddr(0),
            writable: true,
        }];
        let regions = Regions::new_check(&mut table).map_err(|_| RingError::Memory(Fault))?;
        let mut slots = [NOWHERE; 8];
        let mut segments = SliceSegments::new(&mut slots);
        let Some(chain) = ring.pop(driver, &regions, &mut segments)? else {
            return Ok(None);
        };
        let first = segments.as_slice().first().map_or(0, |s| s.addr.0);
        let seen = (
            chain.head(),
            chain.readable_len(),
            chain.writable_len(),
            first,
        );
        ring.complete(driver, chain, 5).map_err(RingError::widen)?;
        Ok(Some(seen))
    }

    #[test]
    fn chains_come_and_go() -> Result {
        let mut driver = Driver::new()?;
        let mut ring = ring(&driver)?;
        assert_eq!(pop(&mut ring, &driver), Ok(None));
        for round in 0..3 * SIZE {
            let head = round % SIZE;
            let next = (head + 1) % SIZE;
            driver.desc(head, GUEST + 0x1000, 44, NEXT, next)?;
            driver.desc(next, GUEST + 0x2000, 100, WRITE, 0)?;
            driver.make_available(head)?;
            assert_eq!(pop(&mut ring, &driver), Ok(Some((head, 44, 100, 0x1000))));
            assert_eq!(driver.used_idx(), Ok(round + 1));
            assert_eq!(driver.used(u64::from(head)), Ok((u32::from(head), 5)));
        }
        assert_eq!(ring.is_empty(&driver), Ok(true));
        Ok(())
    }

    #[test]
    fn driver_that_lies() -> Result {
        let mut driver = Driver::new()?;
        let mut ring = ring(&driver)?;
        let malformed = |kind| Err(RingError::Malformed(kind));

        driver.desc(0, GUEST, 8, NEXT, 1)?;
        driver.desc(1, GUEST, 8, NEXT, 0)?;
        driver.make_available(0)?;
        assert_eq!(pop(&mut ring, &driver), malformed(Malformed::TooLong));
        driver.desc(1, GUEST, 8, NEXT, SIZE)?;
        assert_eq!(pop(&mut ring, &driver), malformed(Malformed::Next));
        driver.desc(0, GUEST, 8, NEXT | WRITE, 1)?;
        driver.desc(1, GUEST, 8, 0, 0)?;
        assert_eq!(pop(&mut ring, &driver), malformed(Malformed::Order));
        driver.desc(0, GUEST + MEMORY - 4, 8, 0, 0)?;
        assert!(matches!(
            pop(&mut ring, &driver),
            Err(RingError::Translate(_))
        ));
        driver.desc(0, u64::MAX, 8, 0, 0)?;
        assert!(pop(&mut ring, &driver).is_err());
        driver.write(AVAIL + 4, &SIZE.to_le_bytes())?;
        assert_eq!(pop(&mut ring, &driver), malformed(Malformed::Head));
        let mut ring = self::ring(&driver)?;
        driver.write(AVAIL + 2, &(SIZE + 1).to_le_bytes())?;
        assert_eq!(pop(&mut ring, &driver), malformed(Malformed::AvailIndex));
        assert_eq!(driver.used_idx(), Ok(0));
        Ok(())
    }

    #[test]
    fn notifications() -> Result {
        let mut driver = Driver::new()?;
        let mut ring = ring(&driver)?;
        assert!(ring.is_notify_enabled());
        assert_eq!(ring.disable_notify(&driver), Ok(()));
        driver.desc(0, GUEST, 8, 0, 0)?;
        driver.make_available(0)?;
        // Something came before the driver knew.
        assert_eq!(ring.enable_notify(&driver), Ok(true));
        assert!(matches!(pop(&mut ring, &driver), Ok(Some(_))));
        assert_eq!(ring.enable_notify(&driver), Ok(false));
        assert_eq!(ring.should_signal(&driver), Ok(true));
        driver.write(AVAIL, &[1, 0])?;
        assert_eq!(ring.should_signal(&driver), Ok(false));
        Ok(())
    }
}
