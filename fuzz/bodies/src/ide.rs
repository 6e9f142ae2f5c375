//! The IDE controller between a hostile guest and an initiator that ends commands as it likes.

use kagero_devices::ide::{Channel, Ide, Port};
use kagero_devices::register::Fault;
use kagero_devices::storage::{Command, Controller, Disk, Operation, Outcome, Request, SECTOR, Tag};

use crate::device::{Device, Surroundings, exercise};
use crate::input::Input;

const CHANNELS: [Channel; 2] = [Channel::Primary, Channel::Secondary];

/// The first byte of `data` chooses the disks; the rest says what guest and initiator do.
pub fn ide(data: &[u8]) {
    let mut input = Input::new(data);
    let machine = Machine::new(input.byte());
    exercise(machine, input);
}

#[derive(Clone)]
struct Machine {
    ide: Ide,
    /// Sectors of the disks.
    sizes: [Option<u64>; 4],
    /// What the initiator believes to be under way, by channel.
    under_way: [Option<Command>; 2],
    /// The latest tag of each channel.
    latest: [Option<Tag>; 2],
}

impl Machine {
    fn new(choice: u8) -> Self {
        let sizes = match choice % 6 {
            0 => [Some(300), None, Some(64), Some(1)],
            1 => [Some(1 << 48), Some((1 << 48) - 1), None, Some(100)],
            2 => [None, Some(1000), None, None],
            3 => [Some(u64::MAX), Some(0), Some(1 << 28), Some((1 << 28) - 1)],
            4 => [Some(200_000), None, Some(200_000), None],
            _ => [Some(16 * 63), Some(8_000), Some(65_536), Some(65_537)],
        };
        let disk = |sectors| Disk { sectors, serial: "S".into(), model: "M".into(), trim: choice < 200 };
        let mut ide = Ide::new(sizes.map(|size| size.map(disk)));
        assert_eq!(ide.write_config(4, &[5, 0]).count(), 0, "I/O and bus master, without a base");
        Machine { ide, sizes, under_way: [None; 2], latest: [None; 2] }
    }

    /// Takes what the controller asks for.
    fn take_requests(&mut self) {
        while let Some(request) = self.ide.poll_request() {
            match request {
                Request::Start(command) => {
                    let channel = usize::from(command.disk / 2);
                    self.check_command(command);
                    assert_eq!(self.under_way[channel].replace(command), None, "one command on a channel");
                    let earlier = self.latest[channel].replace(command.tag);
                    assert!(earlier.is_none_or(|earlier| earlier < command.tag), "a tag of its own");
                }
                Request::Cancel(tag) => {
                    let cancelled =
                        |slot: &&mut Option<Command>| slot.is_some_and(|command| command.tag == tag);
                    let slot = self.under_way.iter_mut().find(cancelled);
                    *slot.expect("only what is under way is cancelled") = None;
                }
            }
        }
    }

    /// It is something that the disk can do.
    fn check_command(&self, command: Command) {
        let size = self.sizes[usize::from(command.disk)].expect("a disk that is there");
        match command.operation {
            Operation::Read { lba, sectors }
            | Operation::Write { lba, sectors, .. }
            | Operation::Verify { lba, sectors } => {
                assert!((1..=65_536).contains(&sectors), "{command:?}");
                assert!(lba.checked_add(sectors.into()).is_some_and(|end| end <= size), "{command:?}");
            }
            Operation::Flush => {}
            Operation::Trim { blocks } => assert!((1..=65_535).contains(&blocks), "{command:?}"),
        }
    }

    /// A command under way, or one that is not.
    fn tag(&self, input: &mut Input<'_>) -> Tag {
        let choice = input.byte();
        let command = self.under_way[usize::from(choice & 1)].or(self.under_way[usize::from(choice & 1 ^ 1)]);
        match command {
            Some(command) if choice < 240 => command.tag,
            _ => Tag(input.u32()),
        }
    }

    /// Part of a command's payload, mostly: where it begins, and how long it is.
    fn part(&self, tag: Tag, input: &mut Input<'_>) -> (u32, usize) {
        let command = self.under_way.iter().flatten().find(|command| command.tag == tag);
        let bytes = command.map_or(0, |command| command.operation.bytes_in() + command.operation.bytes_out());
        let at = match input.below(8) {
            0 => input.u32(),
            1 => 0,
            _ => u32::from(input.u16()).checked_rem(bytes / SECTOR).unwrap_or(0) * SECTOR,
        };
        let length =
            if input.rarely(4) { usize::from(input.u16()) } else { SECTOR as usize * input.below(18) };
        (at, length)
    }

    /// Parameters, a command and perhaps the bus master: random writes alone hardly get so far.
    fn issue(&mut self, input: &mut Input<'_>, around: &Surroundings) {
        const CODES: [u8; 32] = [
            0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0x3d, 0xc4, 0xc5, 0xc8, 0xca, 0xce, 0x06, 0x40,
            0x42, 0xe7, 0xea, 0xec, 0xef, 0xc6, 0x90, 0x91, 0xb0, 0xf8, 0x27, 0xe0, 0xe5, 0x70, 0x10, 0xf5,
        ];
        let channel = input.one_of(&CHANNELS);
        let code = input.one_of(&CODES);
        let wild = input.rarely(8);
        let mask = if wild { [0xff; 5] } else { [0x01, 0x0f, 0x3f, 0x00, 0x00] };
        let values = input.bytes(5);
        for (offset, (value, mask)) in (1..).zip(values.iter().zip(mask)) {
            self.out(Port::Command(channel, offset), value & mask, around);
        }
        self.out(Port::Command(channel, 6), input.byte() & 0x50 | 0xa0, around);
        self.out(Port::Command(channel, 7), code, around);
        let start = input.byte();
        if start & 1 != 0 {
            let base = 8 * channel as u8;
            self.out(Port::BusMaster(base), 0, around);
            self.out(Port::BusMaster(base + 5), start & 0xf0, around);
            self.out(Port::BusMaster(base), start & 8 | 1, around);
        }
    }

    fn out(&mut self, port: Port, value: u8, around: &Surroundings) {
        // A channel that is switched off does not answer.
        let _either = self.ide.write(&around.mem, port, &[value]);
        self.take_requests();
    }

    /// A string instruction on the data port.
    fn string(&mut self, input: &mut Input<'_>) {
        let (channel, width) = (input.one_of(&CHANNELS), input.one_of(&[2, 4, 2, 3]));
        let length = if input.rarely(4) { usize::from(input.u16()) } else { 512 * input.below(33) };
        if input.rarely(2) {
            let _either = self.ide.write_data(channel, width, &vec![0x5a; length]);
        } else {
            let mut twin = self.ide.clone();
            let (mut out, mut other) = (vec![0x55; length], vec![0xaa; length]);
            let result = self.ide.read_data(channel, width, &mut out);
            assert_eq!(result, twin.read_data(channel, width, &mut other));
            assert!(result.is_err() || out == other, "a read leaves bytes unset");
        }
    }

    /// What an initiator does.
    fn carry_on(&mut self, input: &mut Input<'_>, around: &Surroundings) {
        let tag = self.tag(input);
        match input.below(8) {
            0..3 => {
                let (at, length) = self.part(tag, input);
                self.ide.data_in(&around.mem, tag, at, &vec![0xa5; length]);
            }
            3..5 => {
                let (at, length) = self.part(tag, input);
                let mut twin = self.ide.clone();
                let (mut out, mut other) = (vec![0x55; length], vec![0xaa; length]);
                let result = self.ide.data_out(&around.mem, tag, at, &mut out);
                assert_eq!(result, twin.data_out(&around.mem, tag, at, &mut other));
                assert!(result.is_err() || out == other, "payload with bytes unset");
            }
            _ => {
                let outcome = match input.below(8) {
                    0 => Outcome::DmaFault,
                    1..3 => Outcome::Failed { error: input.byte(), done: input.number() as u32 },
                    _ => Outcome::Done,
                };
                self.ide.complete(&around.mem, tag, outcome);
                for slot in &mut self.under_way {
                    slot.take_if(|command| command.tag == tag);
                }
            }
        }
    }
}

impl Device for Machine {
    type Port = Port;

    fn port(&self, input: &mut Input<'_>) -> Port {
        let offset = if input.rarely(16) { input.byte() } else { input.below(16) as u8 };
        match input.below(8) {
            0..4 => Port::Command(input.one_of(&CHANNELS), offset & 7),
            4 => Port::Command(input.one_of(&CHANNELS), offset),
            5 => Port::Control(input.one_of(&CHANNELS)),
            _ => Port::BusMaster(offset),
        }
    }

    fn read(&mut self, port: Port, out: &mut [u8], _: &Surroundings) -> Result<(), Fault> {
        let result = self.ide.read(port, out);
        self.take_requests();
        result
    }

    fn write(&mut self, port: Port, data: &[u8], around: &Surroundings) -> Result<(), Fault> {
        let result = self.ide.write(&around.mem, port, data);
        self.take_requests();
        result
    }

    fn reset(&mut self) {
        let base = self.ide.bus_master_base();
        assert_eq!(self.ide.reset().count(), usize::from(base.is_some()), "without a base after a reset");
        self.take_requests();
        assert_eq!(self.under_way, [None; 2], "all that was under way is cancelled");
        assert_eq!(self.ide.write_config(4, &[5, 0]).count(), 0);
    }

    fn other(&mut self, input: &mut Input<'_>, around: &Surroundings) {
        match input.below(16) {
            0..5 => self.issue(input, around),
            5..9 => self.string(input),
            9 => {
                let before = self.ide.bus_master_base();
                let offset = if input.rarely(2) {
                    input.one_of(&[0x04, 0x20, 0x21, 0x41, 0x43])
                } else {
                    input.byte()
                };
                let changes = self.ide.write_config(offset, input.bytes(4)).count();
                assert_eq!(changes, usize::from(before != self.ide.bus_master_base()));
            }
            _ => self.carry_on(input, around),
        }
        self.take_requests();
    }

    fn check(&mut self, _: &Surroundings) {
        assert_eq!(self.ide.irq() & !3, 0, "there are two interrupts");
        let mut decode = [0; 4];
        self.ide.read_config(0x40, &mut decode);
        for (channel, port) in CHANNELS.into_iter().enumerate() {
            let mut status = [0];
            let result = self.ide.read(Port::Control(port), &mut status);
            let decoded = decode[2 * channel + 1] & 0x80 != 0;
            assert_eq!(result.is_ok(), decoded, "a channel answers as long as it is switched on");
            // Busy, an error, data, or nothing to do; 0 for an absent device 1, 7Fh for an empty cable.
            assert!(!decoded || [0x80, 0x51, 0x58, 0x50, 0, 0x7f].contains(&status[0]), "status {status:x?}");
            if decoded && self.under_way[channel].is_some() {
                assert_eq!(status[0], 0x80, "busy while a command is under way");
            }
        }
    }
}
