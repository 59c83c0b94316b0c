// SPDX-License-Identifier: GPL-2.0

//! The rows of the catalogue of hostile guests about the buffers in which it receives.

use crate::driver::*;
use vring::{
    layout,
    Gpa,
    Region,
    RingAddr,
    RingError,
    TranslateError,
    UserAddr, //
};

#[test]
fn r01_receive_buffer() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), 4096, WRITE)]);
    assert_eq!(driver.taken(), (0, 4096, vec![segment(0, 4096)]));
}

#[test]
fn r02_r03_not_a_receive_buffer() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), 4096, 0)]);
    assert_eq!(driver.taken(), (4096, 0, vec![segment(0, 4096)]));
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), 43, WRITE)]);
    assert_eq!(driver.taken().1, 43);
}

#[test]
fn r04_receive_buffer_unmapped() {
    let mut driver = Driver::new(128);
    driver.chain(&[(0, 4096, WRITE)]);
    driver.unmapped();
}

#[test]
fn r05_receive_buffer_read_only() {
    let mut driver = Driver::new(128);
    driver.regions.push(Region {
        gpa_start: Gpa(GPA + MEMORY),
        size: 4096,
        user_addr: UserAddr(USER),
        writable: false,
    });
    driver.chain(&[(GPA + MEMORY, 4096, WRITE)]);
    driver.refused(RingError::Translate(TranslateError::Denied));
    driver.desc(0, Desc::new(GPA + MEMORY, 4096, 0, 0));
    assert_eq!(driver.taken().0, 4096);
}

#[test]
fn r09_used_ring_unmapped() {
    let mut driver = Driver::with(128, true, 0);
    // The used ring gets a mapping of its own.
    let used = USER + MEMORY;
    driver.space.map(used, 4096);
    driver.config.used = RingAddr(used);
    driver.chain(&[(buffer(0), HEADER, 0)]);
    driver.offer(0);
    driver.offer(0);
    let mut ring = driver.ring();
    assert_eq!(ring.enable_notify(&driver.space), Ok(true));
    assert_eq!(ring.disable_notify(&driver.space), Ok(()));

    let fault = RingError::Memory(Fault);
    let first = driver.pop(&mut ring).unwrap().unwrap();
    let second = driver.pop(&mut ring).unwrap().unwrap();
    let third = driver.pop(&mut ring).unwrap().unwrap();
    driver.space.protect(used, false, false);
    let used_idx = ring.last_used_idx();
    assert_eq!(ring.complete(&driver.space, first, 0), Err(fault));
    assert_eq!(
        ring.complete_many(&driver.space, [(second, 0), (third, 0)]),
        Err(fault)
    );
    assert_eq!(ring.enable_notify(&driver.space), Err(fault));
    assert_eq!(ring.last_used_idx(), used_idx);
    let error = vring::SplitRing::new(driver.config, &driver.space).map(|_| ());
    assert_eq!(error, Err(fault));
}

#[test]
fn r09_ring_unmapped() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), HEADER, 0)]);
    let mut ring = driver.ring();
    driver.space.protect(USER, false, true);
    let fault = RingError::Memory(Fault);
    assert_eq!(driver.pop(&mut ring), Err(RingError::Memory(Fault)));
    assert_eq!(ring.is_empty(&driver.space), Err(fault));
    assert_eq!(ring.should_signal(&driver.space), Err(fault));
    driver.space.protect(USER, true, false);
    let chain = driver.pop(&mut ring).unwrap().unwrap();
    assert_eq!(ring.disable_notify(&driver.space), Err(fault));
    assert_eq!(ring.complete(&driver.space, chain, 0), Err(fault));
}

#[test]
fn r10_no_receive_buffers() {
    let mut driver = Driver::new(128);
    let mut ring = driver.ring();
    ring.disable_notify(&driver.space).unwrap();
    assert_eq!(driver.used_flags(), layout::USED_F_NO_NOTIFY);
    assert_eq!(driver.pop(&mut ring), Ok(None));
    assert_eq!(ring.enable_notify(&driver.space), Ok(false));
    assert_eq!(driver.used_flags(), 0);
    assert_eq!(ring.is_empty(&driver.space), Ok(true));
}

#[test]
fn r11_indirect_receive_buffers() {
    let mut driver = Driver::new(128);
    driver.table(
        0,
        &[
            Desc::new(buffer(0), 44, WRITE | NEXT, 1),
            Desc::new(buffer(100), 100, WRITE | NEXT, 2),
            Desc::new(buffer(300), 4096, WRITE, 0),
        ],
    );
    driver.chain(&[(table(0), 48, INDIRECT)]);
    let expected = vec![segment(0, 44), segment(100, 100), segment(300, 4096)];
    assert_eq!(driver.taken(), (0, 4240, expected));
}

#[test]
fn r12_receive_buffers_for_the_header_only() {
    let mut driver = Driver::new(128);
    driver.chain(&[(buffer(0), HEADER, WRITE)]);
    for _ in 0..103 {
        driver.offer(0);
    }
    let mut ring = driver.ring();
    for _ in 0..104 {
        let chain = driver.pop(&mut ring).unwrap().unwrap();
        assert_eq!(chain.writable_len(), HEADER);
        // Returned without a frame; not more than the chain has can be claimed.
        ring.complete(&driver.space, chain, 0).unwrap();
    }
    assert_eq!(driver.used_idx(), 104);
    assert_eq!(driver.used(103), (0, 0));
}

/// Who cannot wait for the memory of a ring leaves it to another one, as if nothing had happened.
#[test]
fn a_ring_goes_on_after_a_fault() {
    for event_idx in [false, true] {
        let mut driver = Driver::new(8);
        let used = USER + MEMORY;
        driver.space.map(used, 4096);
        driver.config.used = RingAddr(used);
        driver.config.event_idx = event_idx;
        driver.chain(&[(buffer(0), HEADER, 0)]);
        let mut ring = driver.ring();
        let fault = RingError::Memory(Fault);

        driver.space.protect(used, true, false);
        if !event_idx {
            assert_eq!(ring.disable_notify(&driver.space), Err(fault));
        }
        let chain = driver.pop(&mut ring).unwrap().unwrap();
        assert_eq!(ring.complete(&driver.space, chain, 0), Err(fault));
        assert_eq!(ring.vring_base(), 0);

        driver.space.protect(used, true, true);
        assert_eq!(ring.disable_notify(&driver.space), Ok(()));
        if !event_idx {
            assert_eq!(driver.used_flags(), layout::USED_F_NO_NOTIFY);
        }
        let chain = driver.pop(&mut ring).unwrap().unwrap();
        assert_eq!(ring.complete(&driver.space, chain, 0), Ok(()));
        assert_eq!(driver.used_idx(), 1);

        // The driver is asked to notify by whoever is able to.
        driver.space.protect(used, true, false);
        assert_eq!(ring.enable_notify(&driver.space), Err(fault));
        driver.space.protect(used, true, true);
        assert_eq!(ring.enable_notify(&driver.space), Ok(false));
        assert_eq!(driver.used_flags(), 0);
    }
}
