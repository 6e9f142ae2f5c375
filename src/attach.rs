//! Before the guest: opens links, starts the built-in target for image files, and finds every disk's target.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context, anyhow};
use kagero_aoe::initiator::{Config, Event, Initiator, OnLoss};
use kagero_aoe::link::Link;
use kagero_aoe::wire::{Address, MacAddress};
use kagero_link::{AnyLink, MemoryLink, memory};
use kagero_target::{Access, Image, Running, Server};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock;
use crate::config::{Disk, Faults, RunConfig, Source, TargetLoss, numbered};
use crate::error::{Error, UserError};
use crate::memory::GuestRam;
use crate::progress::Waiting;
use crate::stop::Stop;
use crate::storage::Attachment;

/// The shelf of images that the built-in target serves; their slot is the disk's position. Nobody else sees it.
const BUILT_IN_SHELF: u16 = 0;

/// Everything between the controller and the disks.
pub(crate) struct Attached {
    pub(crate) disks: Vec<Attachment>,
    pub(crate) links: Vec<AnyLink>,
    /// The built-in target, while it is needed. Ends when dropped.
    pub(crate) target: Option<Running>,
}

/// The same, with links and images open, before anything was sent.
pub(crate) struct Opened {
    disks: Vec<Attachment>,
    links: Vec<AnyLink>,
    server: Server,
    /// The built-in target's end of the link in memory.
    built_in: Option<AnyLink>,
}

/// Opens links and images. No file is made and no frame sent: whatever can't be used is refused here.
pub(crate) fn open(config: &RunConfig) -> Result<Opened, Error> {
    let mut links = Vec::new();
    let mut disks = Vec::new();
    let mut by_interface = BTreeMap::new();
    let server = Server::new();
    let mut built_in = None;
    for disk in &config.disks {
        let (link, target) = match &disk.source {
            Source::File(path) => {
                let access = if disk.read_only { Access::ReadOnly } else { Access::ReadWrite };
                let address = Address { shelf: BUILT_IN_SHELF, slot: disk.position };
                server.export_image(address, Image::open_as(path, access, disk.format)?)?;
                if built_in.is_none() {
                    let (ours, theirs) =
                        MemoryLink::pair(memory::Options::default()).context("a link in memory")?;
                    links.push(AnyLink::from(ours));
                    built_in = Some((links.len() - 1, AnyLink::from(theirs)));
                }
                (built_in.as_ref().map_or(0, |(link, _)| *link), address)
            }
            Source::Aoe { address, interface } => {
                let link = match by_interface.get(interface) {
                    Some(link) => *link,
                    None => {
                        links.push(kagero_link::open(interface)?);
                        by_interface.insert(interface.clone(), links.len() - 1);
                        links.len() - 1
                    }
                };
                (link, *address)
            }
        };
        let initiator = initiator(config, disk, &links[link], target)?;
        disks.push(Attachment::new(disk.source.to_string(), initiator, link));
    }
    Ok(Opened { disks, links, server, built_in: built_in.map(|(_, link)| link) })
}

impl Opened {
    /// Finds every disk's target; `None` when the run was stopped meanwhile. A capture begins here, so that it shows what was asked
    /// also when nobody answers.
    pub(crate) fn attach(
        self,
        config: &RunConfig,
        ram: &GuestRam,
        stop: &Stop,
    ) -> Result<Option<Attached>, Error> {
        let Opened { disks, mut links, server, built_in } = self;
        if let Some(path) = &config.pcap {
            links = links
                .into_iter()
                .enumerate()
                .map(|(index, link)| link.captured(&numbered(path, index)))
                .collect::<Result<_, _>>()?;
        }
        if !config.faults.is_none() {
            let Faults { network, seed, .. } = &config.faults;
            links = (*seed..)
                .zip(links)
                .map(|(seed, link)| link.with_faults(network, seed))
                .collect::<Result<_, _>>()
                .context("the faults' timer")?;
        }
        // Without it the guest would wait for its disk for ever.
        let ended = stop.clone();
        let ended = move |why: &std::io::Error| ended.fail(anyhow!("the built-in target ended: {why}"));
        let target = built_in.map(|link| Running::start_watched(server, vec![link], ended)).transpose();
        let mut attached = Attached { disks, links, target: target.context("the built-in target")? };
        let _waiting = Waiting::new(format!("waiting for {}", names(&attached.disks)));
        let found = find(&mut attached, ram, stop, config.attach_timeout)?;
        Ok(found.then_some(attached))
    }
}

fn initiator(config: &RunConfig, disk: &Disk, link: &AnyLink, target: Address) -> Result<Initiator, Error> {
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).context("random numbers")?;
    Ok(Initiator::new(Config {
        disk: disk.position,
        seed: u64::from_ne_bytes(seed),
        on_loss: match config.on_target_loss {
            TargetLoss::Hold => OnLoss::Hold,
            TargetLoss::FailAfter(after) => OnLoss::FailAfter(after),
        },
        ..Config::new(MacAddress(link.mac()), target, link.mtu())
    }))
}

/// Lets the initiators find their targets; false when the run was stopped meanwhile.
fn find(attached: &mut Attached, ram: &GuestRam, stop: &Stop, patience: Duration) -> Result<bool, Error> {
    let Attached { disks, links, .. } = attached;
    let deadline = clock::now() + patience;
    while !stop.is_requested() {
        let now = clock::now();
        for disk in &mut *disks {
            while links[disk.link].transmit(|frame| disk.initiator.poll_transmit(now, &mut (), ram, frame)) {}
            while let Some(event) = disk.initiator.poll() {
                if let Event::Unusable(why) = event {
                    return Err(UserError::new(&disk.source, why, "serve a disk there").into());
                }
            }
        }
        if disks.iter().all(|disk| disk.initiator.disk().is_some()) {
            return Ok(true);
        }
        if now >= deadline {
            return Err(no_answer(disks, patience));
        }
        let next = disks.iter().filter_map(|disk| disk.initiator.poll_timeout()).min();
        wait(links, stop, next.unwrap_or(deadline).min(deadline).saturating_since(now));
        let now = clock::now();
        for (index, link) in links.iter_mut().enumerate() {
            while link.receive(|frame| {
                for disk in disks.iter_mut().filter(|disk| disk.link == index) {
                    disk.initiator.handle_frame(now, frame, &mut (), ram);
                }
            }) {}
        }
    }
    Ok(false)
}

/// Waits for a frame, the end of the run, or the time.
fn wait(links: &[AnyLink], stop: &Stop, limit: Duration) {
    let fds = links.iter().map(AsFd::as_fd).chain([stop.fd()]);
    let mut polled: Vec<PollFd<'_>> =
        fds.map(|fd: BorrowedFd<'_>| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    // An interrupted wait is begun again by the caller.
    let _ = poll(&mut polled, Timespec::try_from(limit).ok().as_ref());
}

fn no_answer(disks: &[Attachment], patience: Duration) -> Error {
    let missing: Vec<_> = disks.iter().filter(|disk| disk.initiator.disk().is_none()).collect();
    UserError::new(
        names(missing),
        format!("no answer from the target in {} s", patience.as_secs_f64()),
        "start `kagero serve` for it, look with `kagero discover`, or wait longer with --attach-timeout",
    )
    .into()
}

fn names<'a>(disks: impl IntoIterator<Item = &'a Attachment>) -> String {
    disks.into_iter().map(|disk| disk.source.as_str()).collect::<Vec<_>>().join(", ")
}
