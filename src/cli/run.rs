//! `kagero run`

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use crate::config::{
    Boot, ConsoleSink, Disk, DiskOption, Faults, MAX_DISKS, Period, RunConfig, Size, Source, SourceOption,
    TargetLoss, TraceConfig, TraceSink, default_firmware,
};
use crate::error::{Error, UserError};
use crate::passthrough::Choice;
use crate::stop::Exit;

pub(super) const EXAMPLES: &str = "\
Examples:
  kagero run --disk debian.img
  kagero run --disk aoe:7.1 --interface eth1 --memory 2G --cpus 2
  kagero run --disk debian.img --console boot.log --expect 'login:' --timeout 120s --report run.json
  kagero run --kernel vmlinuz --initrd initrd.img --append 'console=ttyS0' --disk debian.img,read-only
  kagero run --disk aoe:7.1 --interface eth1 --passthrough 03:00.0 --bind
  kagero run --config vm.toml --memory 4G

On a terminal the guest gets every key but ctrl-A: ctrl-A x ends Kagero, ctrl-A h helps.

Exit codes: 0 the guest switched itself off, or the expected text came; 1 something failed, or the guest ended before
the expected text came; 2 what was asked for can't be done; 124 time-out; 130 ctrl-C; 143 SIGTERM.";

/// What flags and configuration files say of a run; what neither says is none.
///
/// One struct for both, so that a file can say all that flags say.
#[derive(Args, Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunOptions {
    /// Read options from a TOML file whose keys are the names of these flags; flags win
    ///
    /// Relative paths in the file start at the file's folder.
    #[arg(long, value_name = "FILE", help_heading = "General")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// A disk: an image on this host, or an AoE target as aoe:SHELF.SLOT; up to four
    ///
    /// Options follow after commas: `read-only` refuses the guest's writes to an image, `format=qcow2` or `vhdx` says
    /// that it is none of plain sectors, `position=0` to `3` puts the disk there (primary
    /// master and slave, secondary master and slave), `interface=NAME` reaches a target in another way than --interface says.
    #[arg(long = "disk", value_name = "DISK", help_heading = "Machine")]
    #[serde(deserialize_with = "one_or_more")]
    pub disk: Vec<DiskOption>,
    /// The network interface through which AoE targets are reached
    #[arg(long, value_name = "NAME", help_heading = "Machine")]
    pub interface: Option<String>,
    /// The guest's memory, as 512M or 2G [default: 1G]
    #[arg(long, value_name = "SIZE", help_heading = "Machine")]
    pub memory: Option<Size>,
    /// Virtual CPUs, 1 to 16 [default: 1]
    #[arg(long, value_name = "COUNT", value_parser = cpus, help_heading = "Machine")]
    #[serde(deserialize_with = "cpus_in_file")]
    pub cpus: Option<u8>,
    /// The BIOS image [default: SeaBIOS from the package seabios]
    #[arg(long, value_name = "FILE", help_heading = "Machine")]
    pub firmware: Option<PathBuf>,
    /// Boot this kernel directly, without firmware: a bzImage or a PVH ELF file
    #[arg(long, value_name = "FILE", help_heading = "Machine")]
    pub kernel: Option<PathBuf>,
    /// The kernel's initial RAM disk
    #[arg(long, value_name = "FILE", help_heading = "Machine")]
    pub initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = "Machine")]
    pub append: Option<String>,
    /// A PCI function of this host for the guest, as 0000:03:00.0 or 03:00.0; may be given more than once
    ///
    /// `all` stands for every one that can go; those that stay are listed, with the reason. `kagero devices` says what is here.
    #[arg(long = "passthrough", value_name = "DEVICE", help_heading = "Machine")]
    #[serde(deserialize_with = "one_or_more")]
    pub passthrough: Vec<Choice>,
    /// Give the functions of --passthrough to vfio-pci first, and back at the end
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Machine")]
    pub bind: Option<bool>,
    /// End when the guest resets its machine, instead of starting it again
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", help_heading = "Machine")]
    pub no_reboot: Option<bool>,

    /// Where the serial port leads: stdio, none, or a file for its output [default: stdio]
    #[arg(long, value_name = "WHERE", help_heading = "Console and end")]
    pub console: Option<ConsoleSink>,
    /// End with exit code 0 once the guest has written this to its serial port
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = "Console and end")]
    pub expect: Option<String>,
    /// End with exit code 124 after so long
    #[arg(long, value_name = "TIME", help_heading = "Console and end")]
    pub timeout: Option<Period>,

    /// How long to wait for the targets at the start [default: 10s]
    #[arg(long, value_name = "TIME", help_heading = "Network")]
    pub attach_timeout: Option<Period>,
    /// What the guest sees while a target does not answer: hold (it waits) or fail-after=30s [default: hold]
    #[arg(long, value_name = "POLICY", help_heading = "Network")]
    pub on_target_loss: Option<TargetLoss>,

    /// Write what the run was like as JSON
    #[arg(long, value_name = "FILE", help_heading = "For developers")]
    pub report: Option<PathBuf>,
    /// Write down every register access, to a file or else to standard error
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", help_heading = "For developers")]
    pub trace: Option<TraceSink>,
    /// Write down only this device's accesses; may be given more than once
    #[arg(
        long = "trace-device",
        value_name = "DEVICE",
        value_delimiter = ',',
        help_heading = "For developers"
    )]
    #[serde(deserialize_with = "one_or_more")]
    pub trace_device: Vec<String>,
    /// Write the AoE traffic as a pcap file
    #[arg(long, value_name = "FILE", help_heading = "For developers")]
    pub pcap: Option<PathBuf>,
    /// Write the firmware's messages (debug port 402h) to a file
    #[arg(long, value_name = "FILE", help_heading = "For developers")]
    pub firmware_log: Option<PathBuf>,
    /// Let the links to the targets lose frames and more: loss=5%,duplicate=1%,reorder=2%,delay=1ms,seed=7
    ///
    /// Also corrupt=1% (damage that the checksum finds), jitter=200us, outage=30s+10s (all is lost for 10 s, 30 s after the
    /// first frame), and garble=1% (damage that reaches the guest's data).
    #[arg(long, value_name = "FAULTS", help_heading = "For developers")]
    pub fault: Option<Faults>,

    #[arg(skip)]
    verbose: Option<u8>,
    #[arg(skip)]
    quiet: Option<bool>,
}

impl RunOptions {
    /// Does what `kagero run` does; gives the exit code.
    pub(super) fn execute(self, verbose: u8, quiet: bool) -> Result<u8, Error> {
        let options = self.with_file()?;
        crate::log::start(
            verbose.max(options.verbose.unwrap_or(0)),
            quiet || options.quiet.unwrap_or(false),
        )?;
        let config = options.into_config()?;
        config.check()?;
        let exit = crate::run::run(&config)?;
        if let Some(line) = shortfall(exit, &config) {
            crate::log::say(format_args!("kagero: {line}\n"));
        }
        Ok(exit.code(config.expect.is_some()))
    }

    /// Adds what the configuration file says, where flags say nothing.
    ///
    /// # Errors
    /// When the file can't be read or understood.
    pub fn with_file(self) -> Result<Self, UserError> {
        let Some(path) = &self.config else { return Ok(self) };
        let mut file: Self = super::load(path, "run")?;
        if let Some(folder) = path.parent() {
            file.start_paths_at(folder);
        }
        Ok(self.over(file))
    }

    /// These options, and those of `under` for what these leave open. A list is taken whole from one of the two.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        Self {
            config: self.config.or(under.config),
            disk: if self.disk.is_empty() { under.disk } else { self.disk },
            interface: self.interface.or(under.interface),
            memory: self.memory.or(under.memory),
            cpus: self.cpus.or(under.cpus),
            firmware: self.firmware.or(under.firmware),
            kernel: self.kernel.or(under.kernel),
            initrd: self.initrd.or(under.initrd),
            append: self.append.or(under.append),
            passthrough: if self.passthrough.is_empty() { under.passthrough } else { self.passthrough },
            bind: self.bind.or(under.bind),
            no_reboot: self.no_reboot.or(under.no_reboot),
            console: self.console.or(under.console),
            expect: self.expect.or(under.expect),
            timeout: self.timeout.or(under.timeout),
            attach_timeout: self.attach_timeout.or(under.attach_timeout),
            on_target_loss: self.on_target_loss.or(under.on_target_loss),
            report: self.report.or(under.report),
            trace: self.trace.or(under.trace),
            trace_device: if self.trace_device.is_empty() { under.trace_device } else { self.trace_device },
            pcap: self.pcap.or(under.pcap),
            firmware_log: self.firmware_log.or(under.firmware_log),
            fault: self.fault.or(under.fault),
            verbose: self.verbose.or(under.verbose),
            quiet: self.quiet.or(under.quiet),
        }
    }

    /// Makes relative paths begin at `folder`.
    fn start_paths_at(&mut self, folder: &Path) {
        let disks = self.disk.iter_mut().filter_map(|disk| match &mut disk.source {
            SourceOption::File(path) => Some(path),
            SourceOption::Aoe(_) => None,
        });
        let console = match &mut self.console {
            Some(ConsoleSink::File(path)) => Some(path),
            Some(ConsoleSink::Stdio | ConsoleSink::None) | None => None,
        };
        let trace = match &mut self.trace {
            Some(TraceSink::File(path)) => Some(path),
            Some(TraceSink::Stderr) | None => None,
        };
        let plain = [
            &mut self.firmware,
            &mut self.kernel,
            &mut self.initrd,
            &mut self.report,
            &mut self.pcap,
            &mut self.firmware_log,
        ];
        for path in disks.chain(console).chain(trace).chain(plain.into_iter().flatten()) {
            *path = folder.join(&path);
        }
    }

    /// Fills in what was left open.
    ///
    /// # Errors
    /// When options contradict or lack each other, or there is no firmware.
    pub fn into_config(self) -> Result<RunConfig, UserError> {
        let default = RunConfig::default();
        let Self { kernel, initrd, append, firmware, trace, trace_device, .. } = self;
        let boot = boot(kernel, initrd, append, firmware)?;
        let trace = match trace {
            Some(sink) => Some(TraceConfig { sink, devices: trace_device }),
            None if trace_device.is_empty() => None,
            None => Some(TraceConfig { sink: TraceSink::Stderr, devices: trace_device }),
        };
        Ok(RunConfig {
            disks: disks(self.disk, self.interface.as_deref())?,
            memory: self.memory.unwrap_or(default.memory),
            cpus: self.cpus.unwrap_or(default.cpus),
            boot,
            console: self.console.unwrap_or(default.console),
            expect: self.expect,
            timeout: self.timeout.map(|time| time.0),
            report: self.report,
            trace,
            pcap: self.pcap,
            faults: self.fault.unwrap_or_default(),
            on_target_loss: self.on_target_loss.unwrap_or_default(),
            attach_timeout: self.attach_timeout.map_or(default.attach_timeout, |time| time.0),
            reboot: !self.no_reboot.unwrap_or(false),
            firmware_log: self.firmware_log,
            passthrough: self.passthrough,
            bind: self.bind.unwrap_or(false),
        })
    }
}

/// What was missing from a run that nobody ended and nothing failed in: the line for its exit code.
fn shortfall(exit: Exit, config: &RunConfig) -> Option<String> {
    let before = |what: &str| config.expect.as_ref().map(|text| format!("{what} before it wrote {text:?}"));
    match exit {
        Exit::PowerOff => before("the guest switched its machine off"),
        Exit::Reset => before("the guest reset its machine"),
        Exit::TimedOut => {
            let limit = Period(config.timeout.unwrap_or_default());
            Some(match &config.expect {
                Some(text) => format!("time-out: the guest did not write {text:?} within {limit}"),
                None => format!("time-out after {limit}"),
            })
        }
        Exit::Expected | Exit::Signal { .. } | Exit::Quit => None,
    }
}

fn boot(
    kernel: Option<PathBuf>,
    initrd: Option<PathBuf>,
    append: Option<String>,
    firmware: Option<PathBuf>,
) -> Result<Boot, UserError> {
    let Some(image) = kernel else {
        for (option, given) in [("--initrd", initrd.is_some()), ("--append", append.is_some())] {
            if given {
                let problem = "there is no kernel that it is for";
                return Err(UserError::new(
                    option,
                    problem,
                    "add --kernel, or leave it out to boot from the disk",
                ));
            }
        }
        return firmware.map_or_else(default_firmware, Ok).map(Boot::Firmware);
    };
    if firmware.is_some() {
        return Err(UserError::new(
            "--firmware",
            "a kernel that is booted directly runs without firmware",
            "leave out --firmware or --kernel",
        ));
    }
    Ok(Boot::Kernel { image, initrd, command_line: append.unwrap_or_default() })
}

/// Finds each disk its position and its interface.
fn disks(options: Vec<DiskOption>, interface: Option<&str>) -> Result<Vec<Disk>, UserError> {
    let taken: Vec<u8> = options.iter().filter_map(|disk| disk.position).collect();
    // A disk too many gets the position 4 and more; the check of the whole says so.
    let mut free = (0..=u8::MAX).filter(|at| !taken.contains(at));
    let mut disks = options
        .into_iter()
        .take(MAX_DISKS + 1 + taken.len())
        .map(|disk| {
            let position = disk.position.or_else(|| free.next()).unwrap_or(u8::MAX);
            let source = match disk.source {
                SourceOption::File(path) => {
                    if disk.interface.is_some() {
                        return Err(UserError::new(
                            path.display(),
                            "an image on this host has no interface",
                            "leave out interface=, or name a target as aoe:7.1",
                        ));
                    }
                    Source::File(path)
                }
                SourceOption::Aoe(address) => {
                    let named = format!("aoe:{address}");
                    if disk.read_only {
                        return Err(UserError::new(
                            named,
                            "whether a target can be written is the target's to say",
                            "leave out read-only here; serve it as `kagero serve ... ADDRESS=IMAGE,read-only`",
                        ));
                    }
                    let interface = disk.interface.as_deref().or(interface).ok_or_else(|| {
                        UserError::new(
                            named,
                            "no interface to reach it through",
                            "add --interface NAME; `ip -brief link` lists the interfaces",
                        )
                    })?;
                    Source::Aoe { address, interface: interface.to_owned() }
                }
            };
            Ok(Disk { source, read_only: disk.read_only, format: disk.format, position })
        })
        .collect::<Result<Vec<_>, UserError>>()?;
    disks.sort_by_key(|disk| disk.position);
    Ok(disks)
}

fn cpus(text: &str) -> Result<u8, crate::error::BadValue> {
    text.parse().map_err(|_| crate::error::BadValue::not(text, "a number of CPUs", "give 1 to 16"))
}

fn cpus_in_file<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    crate::config::keyed::scalar(deserializer, cpus).map(Some)
}

/// `key = "one"` as well as `key = ["one", "two"]`.
pub(super) fn one_or_more<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer};
    use serde::de::{Error, MapAccess, SeqAccess, Visitor};

    struct OneOrMore<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMore<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string, a table, or a list of them")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
            T::deserialize(StrDeserializer::new(text)).map(|one| vec![one])
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(|one| vec![one])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<T>, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(list))
        }
    }

    deserializer.deserialize_any(OneOrMore(std::marker::PhantomData))
}
