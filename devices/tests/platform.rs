//! The platform's devices as firmware and operating systems use them, and as no one should.

use std::cell::RefCell;
use std::time::Duration;

use kagero_devices::memory::{DmaFault, DmaMemory};
use kagero_devices::pci::{ConfigMechanism, Selected};
use kagero_devices::platform::{
    Apm, DebugPort, FwCfg, HostBridge, I8042, IsaBridge, IsaDma, MemoryKind, MemoryRange, Power,
    ResetControl, Rtc, SystemControlA,
};
use kagero_devices::register::Fault;
use kagero_devices::time::Instant;
use proptest::prelude::*;

/// 64 KiB of guest memory from address 0 on.
struct Memory(RefCell<Vec<u8>>);

impl Memory {
    fn new() -> Self {
        Memory(RefCell::new(vec![0xaa; 0x1_0000]))
    }

    fn bytes(&self, gpa: usize, len: usize) -> Vec<u8> {
        self.0.borrow()[gpa..gpa + len].to_vec()
    }

    fn put(&self, gpa: usize, bytes: &[u8]) {
        self.0.borrow_mut()[gpa..gpa + bytes.len()].copy_from_slice(bytes);
    }
}

impl DmaMemory for Memory {
    fn read(&self, gpa: u64, out: &mut [u8]) -> Result<(), DmaFault> {
        let memory = self.0.borrow();
        let range = usize::try_from(gpa).ok().and_then(|gpa| memory.get(gpa..gpa.checked_add(out.len())?));
        out.copy_from_slice(range.ok_or(DmaFault { gpa })?);
        Ok(())
    }

    fn write(&self, gpa: u64, data: &[u8]) -> Result<(), DmaFault> {
        let mut memory = self.0.borrow_mut();
        let range =
            usize::try_from(gpa).ok().and_then(|gpa| memory.get_mut(gpa..gpa.checked_add(data.len())?));
        range.ok_or(DmaFault { gpa })?.copy_from_slice(data);
        Ok(())
    }
}

mod fw_cfg {
    use super::*;

    const ERROR: u32 = 1;
    const READ: u32 = 2;
    const SKIP: u32 = 4;
    const SELECT: u32 = 8;
    const WRITE: u32 = 16;

    fn device() -> FwCfg {
        FwCfg::builder()
            .ram_size(0x1_2345_6000)
            .cpus(3)
            .boot_menu(None)
            .boot_fail_wait(None)
            .e820(&[MemoryRange { base: 0, len: 0x8000_0000, kind: MemoryKind::Ram }])
            .boot_order(&["/first", "/second"])
            .serial_console(0x3f8)
            .writable_file("etc/scratch", vec![0; 8])
            .file("etc/acpi/rsdp", *b"RSD PTR ")
            .build()
    }

    /// Reads through the data port.
    fn item(device: &mut FwCfg, key: u16, len: usize) -> Vec<u8> {
        device.write(0x510, &key.to_le_bytes(), &Memory::new()).unwrap();
        (0..len)
            .map(|_| {
                let mut byte = [0];
                device.read(0x511, &mut byte).unwrap();
                byte[0]
            })
            .collect()
    }

    /// Names, keys and sizes.
    fn directory(device: &mut FwCfg) -> Vec<(String, u16, u32)> {
        let count = u32::from_be_bytes(item(device, 0x19, 4).try_into().unwrap()) as usize;
        let bytes = item(device, 0x19, 4 + 64 * count);
        let entries = bytes[4..].chunks_exact(64).map(|entry| {
            let name = entry[8..].split(|byte| *byte == 0).next().unwrap();
            (
                String::from_utf8(name.to_vec()).unwrap(),
                u16::from_be_bytes([entry[4], entry[5]]),
                u32::from_be_bytes(entry[..4].try_into().unwrap()),
            )
        });
        entries.collect()
    }

    fn key(device: &mut FwCfg, name: &str) -> u16 {
        directory(device).iter().find(|file| file.0 == name).unwrap().1
    }

    /// Carries out a DMA request whose descriptor lies at 100h, and returns its control word.
    fn dma(device: &mut FwCfg, memory: &Memory, control: u32, length: u32, address: u64) -> u32 {
        let request = [&control.to_be_bytes()[..], &length.to_be_bytes(), &address.to_be_bytes()].concat();
        memory.put(0x100, &request);
        device.write(0x514, &0u32.to_be_bytes(), memory).unwrap();
        device.write(0x518, &0x100u32.to_be_bytes(), memory).unwrap();
        u32::from_be_bytes(memory.bytes(0x100, 4).try_into().unwrap())
    }

    #[test]
    fn well_known_items() {
        let mut device = device();
        assert_eq!(item(&mut device, 0, 6), b"QEMU\0\0");
        assert_eq!(item(&mut device, 1, 4), [3, 0, 0, 0]);
        assert_eq!(item(&mut device, 3, 8), 0x1_2345_6000u64.to_le_bytes());
        assert_eq!((item(&mut device, 5, 2), item(&mut device, 15, 2)), (vec![3, 0], vec![3, 0]));
        assert_eq!(item(&mut device, 0x8002, 1), [1]);
        assert_eq!(item(&mut device, 0x8000, 4), [0; 4], "no such item");
        let mut signature = [0; 8];
        device.read(0x514, &mut signature).unwrap();
        assert_eq!(&signature, b"QEMU CFG");
    }

    #[test]
    fn files_are_listed_by_name() {
        let mut device = device();
        let files = directory(&mut device);
        let names: Vec<_> = files.iter().map(|file| file.0.as_str()).collect();
        assert_eq!(
            names,
            [
                "bootorder",
                "etc/acpi/rsdp",
                "etc/boot-fail-wait",
                "etc/e820",
                "etc/scratch",
                "etc/sercon-port"
            ]
        );
        let contents: Vec<_> = files.iter().map(|file| item(&mut device, file.1, file.2 as usize)).collect();
        assert_eq!(contents[0], b"/first\n/second\0");
        assert_eq!(contents[2], [0xff; 4]);
        assert_eq!(contents[3].len(), 20);
        assert_eq!(
            (&contents[3][8..16], &contents[3][16..]),
            (&0x8000_0000u64.to_le_bytes()[..], &[1, 0, 0, 0][..])
        );
        assert_eq!(contents[5], [0xf8, 0x03]);
    }

    #[test]
    fn dma_selects_skips_and_reads() {
        let (mut device, memory) = (device(), Memory::new());
        let rsdp = u32::from(key(&mut device, "etc/acpi/rsdp")) << 16;
        assert_eq!(dma(&mut device, &memory, rsdp | SELECT | READ, 3, 0x1000), 0);
        assert_eq!(dma(&mut device, &memory, SKIP, 1, 0), 0);
        assert_eq!(dma(&mut device, &memory, READ, 8, 0x1003), 0);
        assert_eq!(memory.bytes(0x1000, 12), b"RSDPTR \0\0\0\0\xaa", "zeros past the end");
        assert_eq!(dma(&mut device, &memory, rsdp | SELECT, 0, 0), 0);
        let mut byte = [0];
        device.read(0x511, &mut byte).unwrap();
        assert_eq!(byte, *b"R");
    }

    #[test]
    fn dma_writes_what_may_be_written() {
        let (mut device, memory) = (device(), Memory::new());
        let scratch = u32::from(key(&mut device, "etc/scratch")) << 16;
        memory.put(0x2000, b"12345678");
        assert_eq!(dma(&mut device, &memory, scratch | SELECT | SKIP, 2, 0), 0);
        assert_eq!(dma(&mut device, &memory, WRITE, 3, 0x2000), 0);
        assert_eq!(device.file("etc/scratch"), Some(&b"\0\x00123\0\0\0"[..]));
        assert_eq!(dma(&mut device, &memory, WRITE, 4, 0x2000), ERROR, "past the end");
        let rsdp = u32::from(key(&mut device, "etc/acpi/rsdp")) << 16;
        assert_eq!(dma(&mut device, &memory, rsdp | SELECT | WRITE, 1, 0x2000), ERROR);
        assert_eq!(device.file("etc/acpi/rsdp"), Some(&b"RSD PTR "[..]));
        assert_eq!(device.file("etc/none"), None);
    }

    #[test]
    fn dma_to_nowhere_is_an_error() {
        let (mut device, memory) = (device(), Memory::new());
        for (length, address) in [(8, 0xfff9), (8, u64::MAX), (u32::MAX, 0), (u32::MAX, u64::MAX - 5)] {
            assert_eq!(dma(&mut device, &memory, SELECT | READ, length, address), ERROR);
            assert_eq!(dma(&mut device, &memory, SELECT | WRITE, length, address), ERROR);
        }
        assert_eq!(dma(&mut device, &memory, SELECT | READ, 4, 0x3000), 0);
        // The request itself is nowhere, by halves and at once.
        device.write(0x514, &1u32.to_be_bytes(), &memory).unwrap();
        device.write(0x518, &0x100u32.to_be_bytes(), &memory).unwrap();
        device.write(0x514, &u64::MAX.to_be_bytes(), &memory).unwrap();
        assert_eq!(dma(&mut device, &memory, SELECT | READ, 4, 0x3000), 0, "the high half is used once");
        assert_eq!(memory.bytes(0x3000, 4), b"QEMU");
    }

    #[test]
    fn bad_accesses() {
        let (mut device, memory) = (device(), Memory::new());
        assert_eq!(device.read(0x510, &mut [0; 2]), Err(Fault::NoRegister));
        assert_eq!(device.read(0x511, &mut [0; 2]), Err(Fault::Width));
        assert_eq!(device.write(0x510, &[0], &memory), Err(Fault::Width));
        assert_eq!(device.write(0x512, &[0], &memory), Err(Fault::NoRegister));
        assert_eq!(device.write(0x518, &[0; 8], &memory), Err(Fault::Width));
    }
}

/// Everything at once, for accesses at random.
#[derive(Clone)]
struct All {
    mechanism: ConfigMechanism,
    host: HostBridge,
    isa: IsaBridge,
    power: Power,
    fw_cfg: FwCfg,
    rtc: Rtc,
    i8042: I8042,
    apm: Apm,
    dma: IsaDma,
    debug: DebugPort,
    port_92: SystemControlA,
    port_cf9: ResetControl,
}

impl All {
    fn new() -> Self {
        Self {
            mechanism: ConfigMechanism::new(),
            host: HostBridge::new(),
            isa: IsaBridge::new(),
            power: Power::new(),
            fw_cfg: FwCfg::builder().writable_file("a", vec![1; 100]).file("b", vec![2; 5000]).build(),
            rtc: Rtc::new(0, Instant::ZERO),
            i8042: I8042::new(),
            apm: Apm::new(),
            dma: IsaDma::new(),
            debug: DebugPort::new(),
            port_92: SystemControlA::new(),
            port_cf9: ResetControl::new(),
        }
    }

    /// Every device gets every access: decoding is its own.
    fn write(&mut self, port: u16, data: &[u8], memory: &Memory, now: Instant) {
        match self.mechanism.select(port, data.len()) {
            Ok(Selected::Address) => {
                self.mechanism.write_address(u32::from_le_bytes(data.try_into().unwrap()));
            }
            Ok(Selected::Config(address)) => {
                assert!(address.device < 32 && address.function < 8);
                self.host.write_config(address.register, data);
                self.isa.write_config(address.register, data);
                let before = self.power.io_base();
                if let Some(change) = self.power.write_config(address.register, data) {
                    assert_eq!((change.from, change.to), (before, self.power.io_base()));
                }
            }
            Ok(Selected::Nothing) | Err(_) => {}
        }
        let _ = self.power.write(port, data, now);
        let _ = self.fw_cfg.write(port, data, memory);
        let _ = self.rtc.write(port, data, now);
        let _ = self.i8042.write(port, data);
        let _ = self.apm.write(port, data);
        let _ = self.dma.write(port, data);
        let _ = self.debug.write(data);
        let _ = self.port_92.write(data);
        let _ = self.port_cf9.write(data);
        assert!(self.debug.poll_line().is_none_or(|line| line.len() <= DebugPort::LONGEST_LINE));
    }

    fn read(&mut self, port: u16, out: &mut [u8], now: Instant) {
        let _ = self.power.read(port, out, now);
        let _ = self.fw_cfg.read(port, out);
        let _ = self.rtc.read(port, out, now);
        let _ = self.i8042.read(port, out);
        let _ = self.apm.read(port, out);
        let _ = self.dma.read(port, out);
        let _ = self.debug.read(out);
        let _ = self.port_92.read(out);
        let _ = self.port_cf9.read(out);
        self.host.config().read(port as u8, out);
    }

    /// Interrupts come no earlier than announced, unless a guest's access brings them.
    fn check_timeouts(&mut self, now: Instant) {
        let (power, rtc) = (self.power.irq(now), self.rtc.irq(now));
        for timeout in [self.power.poll_timeout(), self.rtc.poll_timeout()].into_iter().flatten() {
            assert!(timeout > now, "a time-out in the past");
            let before = Instant::from_nanos(timeout.as_nanos() - 1);
            if !power && self.power.poll_timeout().is_some_and(|next| next >= timeout) {
                assert!(!self.power.clone().irq(before));
            }
            if !rtc && self.rtc.poll_timeout().is_some_and(|next| next >= timeout) {
                assert!(!self.rtc.clone().irq(before));
            }
        }
        assert!(self.i8042.irq() < 4);
        assert!((0..=4).all(|pirq| self.isa.pirq_route(pirq).is_none_or(|irq| (3..16).contains(&irq))));
    }
}

proptest! {
    #[test]
    fn random_accesses(
        accesses in prop::collection::vec(
            (
                any::<bool>(),
                prop_oneof![
                    prop::sample::select(&[0x60, 0x64, 0x70, 0x71, 0x92, 0xb2, 0x402, 0x510, 0x511, 0xcf8, 0xcf9][..]),
                    0x514u16..=0x51b,
                    0xcf8u16..=0xcff,
                    0u16..=15,
                    any::<u16>(),
                ],
                prop_oneof![any::<u64>(), 0u64..0x100, Just(0x8000_0040)],
                prop::sample::select(&[1usize, 2, 3, 4, 8][..]),
                prop_oneof![0u64..1_000_000, 0u64..10_000_000_000, any::<u64>()],
            ),
            0..200,
        )
    ) {
        let (mut all, memory, mut now) = (All::new(), Memory::new(), Instant::ZERO);
        for (write, port, value, width, wait) in accesses {
            now = now + Duration::from_nanos(if write { wait } else { wait % 1_000_000 });
            let mut bytes = value.to_le_bytes();
            if write {
                all.write(port, &bytes[..width], &memory, now);
            } else {
                all.read(port, &mut bytes[..width], now);
            }
            if now < Instant::from_nanos(u64::MAX / 2) {
                all.check_timeouts(now);
            }
        }
        all.fw_cfg.reset();
        all.rtc.reset();
        all.power.reset();
    }
}
