// SPDX-License-Identifier: GPL-2.0

//! `/dev/vhost-vsock`: the host's end of the vsock device of a guest.
//!
//! A VMM opens the device, gives it a CID, and hands the two rings of packets over; the third one,
//! for events, it serves itself. The parts:
//!
//! - [`device`]: the state of an open file, and its life;
//! - [`end`]: its end, or that of the guest;
//! - [`file`]: the file operations;
//! - [`table`]: which device has which CID;
//! - [`holder`]: which process, for messages to people;
//! - [`carrier`]: what the sockets of the host see;
//! - [`to_guest`], [`from_guest`]: the two directions, each a work of the device's worker;
//! - [`direct`]: to the guest without the worker;
//! - [`throttle`]: what keeps a guest from filling the host's memory with replies;
//! - [`pace`]: what holds a guest's packets to a rate;
//! - [`params`]: parameters of the module;
//! - [`policy`]: what a guest may do; [`attr`]: how that is set, and asked;
//! - [`stats`], [`info`], [`guests`]: what can be seen from outside.
//!
//! For the order of locks see [`device::VhostVsock`].

#![deny(unsafe_code)]

use kernel::{
    prelude::*,
    InPlaceModule, //
};
use kernel_ext::{
    debugfs::List,
    miscdev,
    return_work::Home, //
};
use virtio_transport_common::{
    seen,
    Aging,
    Registration,
    Watching, //
};

#[path = "vhost_vsock/attr.rs"]
mod attr;
#[path = "vhost_vsock/carrier.rs"]
mod carrier;
#[path = "vhost_vsock/device.rs"]
mod device;
#[path = "vhost_vsock/direct.rs"]
mod direct;
#[path = "vhost_vsock/end.rs"]
mod end;
#[path = "vhost_vsock/file.rs"]
mod file;
#[path = "vhost_vsock/from_guest.rs"]
mod from_guest;
#[path = "vhost_vsock/guests.rs"]
mod guests;
#[path = "vhost_vsock/holder.rs"]
mod holder;
#[path = "vhost_vsock/info.rs"]
mod info;
#[path = "vhost_vsock/pace.rs"]
mod pace;
#[path = "vhost_vsock/params.rs"]
mod params;
#[path = "vhost_vsock/policy.rs"]
mod policy;
#[path = "vhost_vsock/stats.rs"]
mod stats;
#[path = "vhost_vsock/table.rs"]
mod table;
#[path = "vhost_vsock/throttle.rs"]
mod throttle;
#[path = "vhost_vsock/to_guest.rs"]
mod to_guest;

/// The module; fields are dropped in the order in which they are declared: first nobody opens the
/// device any more, then nobody looks, then no socket comes, so no peer is watched, then the table
/// is empty and goes away, then no thread is left that did something for a device.
#[pin_data]
struct VhostVsockModule {
    #[pin]
    misc: miscdev::Registration<device::VhostVsock>,
    #[pin]
    guests: List<guests::Guests>,
    #[pin]
    registration: Registration<carrier::Host>,
    watching: Watching<carrier::Host>,
    aging: Aging,
    published: table::Published<device::VhostVsock>,
    home: Home,
}

impl InPlaceModule for VhostVsockModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            home: device::HOME.publish(module),
            published: device::publish()?,
            aging: Aging::new(&device::AGING, device::age)?,
            watching: Watching::new()?,
            registration <- Registration::<carrier::Host>::new(),
            guests <- List::new(seen::dir()?, c"guests"),
            misc <- miscdev::Registration::new(),
        })
    }
}

module! {
    type: VhostVsockModule,
    name: "vhost_vsock",
    authors: ["vsock-rust developers"],
    description: "vhost transport for vsock, in Rust",
    license: "GPL",
    alias: ["devname:vhost-vsock", "char-major-10-241"],
}

kernel_ext::module_version!();
