//! What changes while a server serves: sizes, and what clients set, which survives the server.

mod client;

use std::fs::{self, File};
use std::path::PathBuf;

use client::Client;
use kagero_aoe::link::Link;
use kagero_aoe::target::Settings;
use kagero_aoe::wire::{
    self, Address, Command, Config, ConfigCommand, DirectiveCommand, Frame, Header, MacAddress, MaskCommand,
    MaskDirective, MaskError, MaskList, ReserveCommand, ReserveList,
};
use kagero_devices::storage::{Operation, Outcome};
use kagero_link::{MemoryLink, memory};
use kagero_target::{Access, Image, Overlays, Running, Server};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const DISK: Address = Address { shelf: 7, slot: 1 };
const SECTORS: u64 = 2_048;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        place.set_size(SECTORS);
        fs::create_dir(place.path("state")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What `truncate -s` does.
    fn set_size(&self, sectors: u64) {
        let file = File::options().create(true).truncate(false).write(true).open(self.path("a.img"));
        file.unwrap().set_len(sectors * 512).unwrap();
    }

    fn sectors(&self) -> u64 {
        fs::metadata(self.path("a.img")).unwrap().len() / 512
    }

    /// A server of the image that keeps settings in the folder `state`.
    fn server(&self, state: &str) -> Server {
        let mut server = Server::new();
        server.keep_settings(&self.path(state)).unwrap();
        server.export(DISK, &self.path("a.img"), Access::ReadOnly).unwrap();
        server
    }
}

fn started(server: Server) -> (Running, MemoryLink) {
    let (here, there) = MemoryLink::pair(memory::Options::default()).unwrap();
    (Running::start(server, vec![there]).unwrap(), here)
}

/// The first answer with this tag, the argument of it.
fn ask(
    link: &mut MemoryLink,
    tag: u32,
    command: Command,
    fill: impl FnOnce(&mut [u8]) -> Option<usize>,
) -> Vec<u8> {
    send(link, tag, command, fill);
    let mut answer = None;
    while answer.is_none() {
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert!(poll(&mut [PollFd::new(&*link, PollFlags::IN)], Some(&patience)).unwrap() > 0, "no answer");
        while link.receive(|frame| {
            let Frame { header, argument } = Frame::parse(frame).unwrap();
            if header.response && header.tag == tag {
                assert_eq!(header.error, None);
                answer = Some(argument.to_vec());
            }
        }) {}
    }
    answer.unwrap()
}

fn send(link: &mut MemoryLink, tag: u32, command: Command, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
    let header = Header::request(MacAddress(link.mac()), MacAddress::BROADCAST, DISK, command, tag);
    assert!(link.transmit(|out| wire::encode(out, &header, fill)));
}

fn config(command: ConfigCommand, string: &[u8]) -> impl FnOnce(&mut [u8]) -> Option<usize> {
    move |out| Config { command, string, ..Config::query() }.encode(out)
}

#[test]
fn what_was_answered_as_set_survives() {
    let place = Place::new();
    let (running, mut link) = started(place.server("state"));
    let mac = MacAddress(link.mac());
    ask(&mut link, 1, Command::Config, config(ConfigCommand::Set, b"rack 7"));
    let add = [MaskDirective { command: DirectiveCommand::Add, mac }];
    ask(&mut link, 2, Command::Mask, |out| {
        MaskList::encode(out, MaskCommand::Edit, MaskError::None, add.into_iter())
    });
    ask(&mut link, 3, Command::Reserve, |out| {
        ReserveList::encode(out, ReserveCommand::Set, [mac].into_iter())
    });

    // What another server finds if this one is killed now.
    fs::create_dir(place.path("later")).unwrap();
    fs::copy(place.path("state/7.1.json"), place.path("later/7.1.json")).unwrap();
    let set = Settings { config: b"rack 7".into(), mask: vec![mac], reserved: vec![mac] };
    assert_eq!(place.server("later").exports()[0].settings, set);

    // And when the disk is taken away and comes back.
    running.server().remove(DISK).unwrap();
    running.server().export(DISK, &place.path("a.img"), Access::ReadOnly).unwrap();
    assert_eq!(running.server().exports()[0].settings, set);
    running.server().forget_settings(DISK).unwrap();
    let argument = ask(&mut link, 4, Command::Config, config(ConfigCommand::Read, b""));
    assert_eq!(Config::parse(&argument).unwrap().string, b"rack 7");
    running.server().remove(DISK).unwrap();
    running.server().forget_settings(DISK).unwrap();
    running.server().export(DISK, &place.path("a.img"), Access::ReadOnly).unwrap();
    assert_eq!(running.server().exports()[0].settings, Settings::default());
}

#[test]
fn what_can_not_be_kept_is_not_answered() {
    let place = Place::new();
    let (_running, mut link) = started(place.server("state"));
    fs::remove_dir(place.path("state")).unwrap();
    send(&mut link, 1, Command::Config, config(ConfigCommand::Set, b"rack 7"));
    // Others are; had the first been, its answer would have come before.
    let read = |link: &mut MemoryLink, tag| ask(link, tag, Command::Config, config(ConfigCommand::Read, b""));
    let mut before = 0;
    send(&mut link, 2, Command::Config, config(ConfigCommand::Read, b""));
    while before != 2 {
        poll(&mut [PollFd::new(&link, PollFlags::IN)], None).unwrap();
        while link.receive(|frame| {
            let header = Frame::parse(frame).unwrap().header;
            assert_ne!(header.tag, 1);
            before = header.tag;
        }) {}
    }
    // The client asks again, and now there is a place for it.
    fs::create_dir(place.path("state")).unwrap();
    ask(&mut link, 3, Command::Config, config(ConfigCommand::Set, b"rack 7"));
    assert!(fs::read_to_string(place.path("state/7.1.json")).unwrap().contains("rack 7"));
    assert_eq!(Config::parse(&read(&mut link, 4)).unwrap().string, b"rack 7");
}

#[test]
fn damaged_settings_and_a_taken_address_leave_nothing_half_served() {
    let place = Place::new();
    fs::write(place.path("state/7.2.json"), "{").unwrap();
    let server = place.server("state");
    let other = Address { shelf: 7, slot: 2 };
    let export = |address| server.export(address, &place.path("a.img"), Access::ReadOnly);
    assert!(export(other).unwrap_err().to_string().contains("7.2.json are damaged: EOF while"));
    assert_eq!(server.exports().len(), 1);
    assert_eq!(
        export(DISK).unwrap_err().to_string(),
        "two disks have the address 7.1: give each its own shelf.slot"
    );
    fs::remove_file(place.path("state/7.2.json")).unwrap();
    export(other).unwrap();
}

#[test]
fn a_disk_grows_and_shrinks() {
    let place = Place::new();
    let server = Server::new();
    server.export(DISK, &place.path("a.img"), Access::ReadWrite).unwrap();
    let (running, link) = started(server);
    let (mut client, disk) = Client::attach(link, DISK);
    assert_eq!(disk.sectors, SECTORS);
    let server = running.server();
    let bytes = |sectors: u64| Some(sectors * 512);
    let refused = |to, shrink| server.resize(DISK, to, shrink).unwrap_err().to_string();

    // By the server, then by somebody else.
    assert_eq!(server.resize(DISK, bytes(2 * SECTORS), false).unwrap(), SECTORS * 1024);
    assert_eq!(place.sectors(), 2 * SECTORS);
    place.set_size(3 * SECTORS);
    assert_eq!(server.exports()[0].disk.sectors, 2 * SECTORS);
    assert_eq!(server.resize(DISK, None, false).unwrap(), SECTORS * 512 * 3);
    let (mut grown, disk) = Client::attach(client.link, DISK);
    assert_eq!(disk.sectors, 3 * SECTORS);
    grown.write(3 * SECTORS - 8, &[7; 4096], true).unwrap();
    assert_eq!(fs::read(place.path("a.img")).unwrap()[(3 * SECTORS as usize - 8) * 512..], [7; 4096]);

    assert_eq!(
        refused(bytes(SECTORS), false),
        "disk 7.1 would shrink from 3145728 to 1048576 bytes: add --shrink if what lies behind may be lost"
    );
    // Neither is the file cut that somebody has made longer.
    place.set_size(4 * SECTORS);
    assert!(refused(bytes(3 * SECTORS + 1), false).contains("would shrink from 4194304 to 3146240"));
    assert_eq!(
        refused(Some(1000), true),
        "a disk of 1000 bytes can't be: give a multiple of 512, up to 128 PiB"
    );
    assert!(refused(Some(0), true).contains("can't be"));
    assert!(refused(Some(u64::MAX - 511), true).contains("can't be"));
    assert_eq!(server.exports()[0].disk.sectors, 3 * SECTORS);

    // The client still believes in what is gone.
    assert_eq!(server.resize(DISK, bytes(SECTORS), true).unwrap(), SECTORS * 512);
    assert_eq!(place.sectors(), SECTORS);
    assert!(matches!(grown.read(2 * SECTORS, 8), Err(Outcome::Failed { .. })));
    assert!(matches!(grown.write(SECTORS, &[1; 512], false), Err(Outcome::Failed { .. })));
    assert!(grown.carry_out(Operation::Verify { lba: 0, sectors: SECTORS as u32 + 1 }, vec![]).is_err());
    grown.write(SECTORS - 1, &[1; 512], false).unwrap();
    assert_eq!(place.sectors(), SECTORS);

    // By somebody else: it is noticed when it is said.
    place.set_size(SECTORS / 2);
    assert!(matches!(grown.read(SECTORS - 8, 8), Err(Outcome::Failed { .. })));
    assert!(refused(None, false).contains("would shrink"));
    assert_eq!(server.resize(DISK, None, true).unwrap(), SECTORS * 256);
    client = grown;
    client.read(0, SECTORS as u32 / 2).unwrap();
    running.stop().unwrap();
}

#[test]
fn requests_beyond_a_new_end_fail_in_the_image_too() {
    let place = Place::new();
    let server = Server::new();
    server.export(DISK, &place.path("a.img"), Access::ReadWrite).unwrap();
    server.remove(DISK).unwrap();
    let image = Image::open(&place.path("a.img"), Access::ReadWrite).unwrap();
    // As if the disk had been larger when they were accepted.
    assert!(image.read(SECTORS * 512, &mut [0; 512]).is_err());
    assert!(image.write(SECTORS * 512 - 512, &[0; 1024], false).is_err());
    assert!(image.write(u64::MAX - 511, &[0; 512], false).is_err());
    assert_eq!(place.sectors(), SECTORS);
}

#[test]
fn disks_that_can_not_be_resized_say_why() {
    let place = Place::new();
    let server = Server::new();
    fs::create_dir(place.path("overlays")).unwrap();
    let address = |slot| Address { shelf: 7, slot };
    let image = || Image::open(&place.path("a.img"), Access::ReadOnly).unwrap();
    server.export_image(address(1), image()).unwrap();
    server.export_overlays(address(2), Overlays::open(image(), place.path("overlays")).unwrap()).unwrap();
    let line = |slot, to| server.resize(address(slot), to, true).unwrap_err().to_string();
    assert_eq!(
        line(1, Some(1 << 30)),
        "disk 7.1 can't be resized while it is served: it is read-only; change the image's own size, then resize without a size"
    );
    assert_eq!(
        line(2, None),
        "disk 7.2 can't be resized while it is served: what clients wrote lies over a base of this size"
    );
    assert_eq!(line(3, None), "no disk 7.3 is served: `kagero target list` shows those that are");
    place.set_size(2 * SECTORS);
    assert_eq!(server.resize(address(1), None, false).unwrap(), SECTORS * 1024);
    assert_eq!(server.exports()[1].overlays, Some(place.path("overlays")));
}
