//! One life of the guest's machine: from power-on or reset to the next reset or the end.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use kagero_devices::platform::{FwCfg, MemoryKind, MemoryRange, Rtc};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::board;
use crate::boot;
use crate::boot::acpi::Tables;
use crate::boot::firmware::Firmware;
use crate::boot::kernel::{Kernel, cache_memory};
use crate::boot::resources;
use crate::bus::Bus;
use crate::chipset::{Chipset, Facts};
use crate::clock;
use crate::console::Console;
use crate::control::{Control, Ending};
use crate::error::{Error, UserError};
use crate::events;
use crate::functions::Functions;
use crate::irq::Lines;
use crate::kvm::{self, Backplane, Vm};
use crate::memory::{GuestRam, PCI_HOLE};
use crate::report::Recorder;
use crate::stop::Stop;
use crate::storage::Storage;
use crate::trace::Trace;
use crate::vcpu::{self, Exits};

/// What the guest's CPU 0 begins with.
pub(crate) enum Boot {
    Firmware(Firmware),
    Kernel(Kernel),
}

impl Boot {
    /// Says what is wrong with a kernel, by loading it; each start of the machine loads it anew.
    pub(crate) fn check(&self, facts: &boot::Machine, ram: &GuestRam) -> Result<(), UserError> {
        match self {
            Boot::Firmware(_) => Ok(()),
            Boot::Kernel(kernel) => kernel.load(ram, facts).map(drop),
        }
    }
}

/// What stays over resets.
pub(crate) struct Plan {
    pub(crate) ram: GuestRam,
    pub(crate) facts: boot::Machine,
    pub(crate) boot: Boot,
    pub(crate) storage: Arc<Storage>,
    pub(crate) functions: Arc<Functions>,
    /// What the functions have of the machine.
    pub(crate) backplane: Arc<Backplane>,
    pub(crate) console: Console,
    pub(crate) trace: Trace,
    pub(crate) recorder: Recorder,
    pub(crate) firmware_log: Option<File>,
}

/// A running machine. Its threads end with it.
pub(crate) struct Machine {
    bus: Arc<Bus>,
    exits: Arc<Exits>,
    control: Arc<Control>,
    cpus: Vec<JoinHandle<()>>,
    functions: Arc<Functions>,
    /// Until the functions were reset.
    backplane: Option<Arc<Backplane>>,
    // It owns the mappings that the CPUs' threads run on: they are ended before it goes.
    _vm: Vm,
}

impl Machine {
    /// Makes the machine and lets its CPUs go. After a reset it keeps its `rtc`.
    pub(crate) fn start(plan: &Plan, rtc: Option<Rtc>) -> Result<Self, Error> {
        Self::make(plan, rtc).inspect_err(|_| take_back(&plan.functions, &plan.backplane))
    }

    fn make(plan: &Plan, rtc: Option<Rtc>) -> Result<Self, Error> {
        let vm = Vm::new(&plan.ram).map_err(refused)?;
        let lines = Arc::new(Lines::new(Arc::clone(vm.fd())));
        let control = Arc::new(Control::new().context("the machine's event")?);
        let log =
            plan.firmware_log.as_ref().map(File::try_clone).transpose().context("the firmware's log")?;
        plan.backplane.plug(&vm);
        let cpus = plan.facts.cpus;
        let facts = Facts { cpus, fw_cfg: fw_cfg(plan), log, rtc };
        let chipset = Chipset::new(facts, &plan.ram, &lines, &plan.console, clock::now());
        let bus = Arc::new(Bus::new(
            chipset.context("the chipset's timer")?,
            Arc::clone(&plan.storage),
            Arc::clone(&plan.functions),
            Arc::clone(&control),
            plan.trace.clone(),
            plan.recorder.clone(),
        ));
        plan.storage.power_on(lines);
        board::COALESCED
            .into_iter()
            .try_for_each(|(first, count)| vm.coalesce(first, count))
            .map_err(refused)?;

        let cpus: Vec<VcpuFd> =
            (0..cpus).map(|id| vm.create_cpu(id, cpus)).collect::<Result<_, _>>().map_err(refused)?;
        match &plan.boot {
            Boot::Firmware(firmware) => {
                let rom = firmware.rom().map_err(|why| anyhow!("the firmware's memory: {why}"))?;
                vm.map_rom(rom).map_err(refused)?;
                firmware.shadow(&plan.ram).map_err(|why| anyhow!("the firmware's shadow: {why}"))?;
            }
            Boot::Kernel(kernel) => {
                let entry = kernel.load(&plan.ram, &plan.facts)?;
                bus.initialize_chipset();
                vm.trigger_by_level(&plan.facts.pirqs).map_err(refused)?;
                resources::assign(&plan.functions, &plan.facts.windows, plan.facts.pirqs);
                cpus.iter().try_for_each(cache_memory).map_err(|why| anyhow!("the CPUs' MTRRs: {why}"))?;
                entry.apply(&plan.ram, &cpus[0]).map_err(|why| anyhow!("CPU 0's registers: {why}"))?;
            }
        }
        // Does nothing but end KVM_RUN.
        extern "C" fn wake(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
        register_signal_handler(SIGRTMIN(), wake).map_err(|e| anyhow!("the signal for CPUs: {e}"))?;

        let exits = Arc::new(Exits::default());
        let (functions, backplane) = (Arc::clone(&plan.functions), Some(Arc::clone(&plan.backplane)));
        let mut machine = Machine { bus, exits, control, cpus: Vec::new(), functions, backplane, _vm: vm };
        for (id, cpu) in (0..).zip(cpus) {
            let (bus, exits) = (Arc::clone(&machine.bus), Arc::clone(&machine.exits));
            let control = Arc::clone(&machine.control);
            let thread = std::thread::Builder::new().name(format!("cpu-{id}")).spawn(move || {
                let _guard = PanicEndsTheRun(&control);
                vcpu::run(id, cpu, &bus, &control, &exits);
            });
            machine.cpus.push(thread.context("a CPU's thread")?);
        }
        Ok(machine)
    }

    /// Looks after clock interrupts and typed keys until the machine ends by itself or the run is to stop.
    pub(crate) fn wait(&self, console: &Console, stop: &Stop) -> io::Result<Ending> {
        let timer = self.bus.chipset().timer()?;
        // What was typed before a reset still waits, but no longer wakes anyone.
        self.bus.chipset().wake(clock::now());
        let mut fds = vec![self.control.as_fd(), stop.fd(), console.input().fd(), timer.as_fd()];
        fds.extend(self.functions.signs());
        let going_on = || self.control.ending().is_none() && !stop.is_requested();
        events::serve(&fds, going_on, |event| {
            self.functions.heed(event);
            if let Some(why) = self.functions.lost() {
                self.control.end(Ending::Failed(why.to_owned()));
            }
            self.bus.chipset().wake(clock::now());
        })?;
        Ok(self.control.ending().unwrap_or(Ending::Asked))
    }

    /// Ends the CPUs' threads; returns what they counted.
    pub(crate) fn stop(mut self) -> (Arc<Bus>, Arc<Exits>) {
        self.halt();
        (Arc::clone(&self.bus), Arc::clone(&self.exits))
    }

    fn halt(&mut self) {
        self.control.end(Ending::Asked);
        for cpu in self.cpus.drain(..) {
            // A signal that comes between a CPU's look at `stopping` and KVM_RUN is lost: so it is sent until the thread is gone.
            while !cpu.is_finished() {
                // Fails only when the thread is gone.
                let _ = cpu.kill(SIGRTMIN());
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = cpu.join();
        }
        if let Some(backplane) = self.backplane.take() {
            take_back(&self.functions, &backplane);
        }
    }
}

/// What functions still do, they do no more; then they have nothing of a machine.
fn take_back(functions: &Functions, backplane: &Backplane) {
    functions.reset();
    backplane.unplug();
}

/// No CPU runs on without its machine's memory, whatever way the machine goes.
impl Drop for Machine {
    fn drop(&mut self) {
        self.halt();
    }
}

struct PanicEndsTheRun<'a>(&'a Control);

impl Drop for PanicEndsTheRun<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(Ending::Failed("a CPU's thread panicked: this is a bug, please report it".into()));
        }
    }
}

/// What is wrong with the host's KVM is for its user to mend; a failing call is not.
fn refused(error: kvm::Error) -> Error {
    match error {
        kvm::Error::Call(..) | kvm::Error::Io(..) => anyhow!(error).into(),
        other => other.to_user_error().into(),
    }
}

/// What the ACPI and MP tables say of the machine. `address_bits` are those of its CPUs' physical addresses.
///
/// A window above 4 GiB is only for passed-through functions: without, nothing would be there, and some old guests don't start with one.
pub(crate) fn facts(cpus: u8, ram: &GuestRam, address_bits: u8, passthrough: bool) -> boot::Machine {
    let mut windows = boot::Windows::new(ram.low_end(), ram.end(), address_bits);
    windows.memory64 = windows.memory64.filter(|_| passthrough);
    boot::Machine {
        cpus,
        pm_base: board::PM_BASE,
        pirqs: board::PIRQS,
        windows,
        uarts: vec![boot::Uart { port: board::COM1, irq: board::UART_IRQ }],
        vga: false,
    }
}

fn fw_cfg(plan: &Plan) -> FwCfg {
    let mut e820 = vec![
        MemoryRange { base: 0, len: plan.ram.low_end(), kind: MemoryKind::Ram },
        // KVM's own pages, and the firmware's flash.
        MemoryRange {
            base: kvm::RESERVED.start,
            len: kvm::RESERVED.end - kvm::RESERVED.start,
            kind: MemoryKind::Reserved,
        },
    ];
    if plan.ram.above_4g() > 0 {
        e820.push(MemoryRange { base: PCI_HOLE.end, len: plan.ram.above_4g(), kind: MemoryKind::Ram });
    }
    let builder = FwCfg::builder()
        .ram_size(plan.ram.size())
        .cpus(plan.facts.cpus.into())
        .boot_menu(None)
        .serial_console(board::COM1)
        .e820(&e820);
    let files = Tables::new(&plan.facts).files();
    files.into_iter().fold(builder, |builder, (name, bytes)| builder.file(name, bytes)).build()
}
