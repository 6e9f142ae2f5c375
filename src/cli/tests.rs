//! Flags and files together; every error line as its reader sees it.

use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use super::*;
use crate::config::{
    Boot, ConsoleSink, RunConfig, ServeConfig, Size, Source, TargetLoss, TraceConfig, TraceSink,
};
use crate::error::UserError;

/// A folder with an image, a kernel, and whatever a test adds.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.file("debian.img", &[0; 1024]);
        folder.file("vmlinuz", b"kernel");
        folder.file("initrd.img", b"initrd");
        folder.file("bios.bin", b"bios");
        folder
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The configuration from flags, where `@` stands for the folder.
    fn run(&self, flags: &str) -> Result<RunConfig, UserError> {
        let config = run_options(&self.named(flags)).with_file()?.into_config()?;
        config.check().map(|()| config)
    }

    /// The one-line error for flags, with the folder as `@` again.
    fn run_error(&self, flags: &str) -> String {
        self.short(&self.run(&format!("--firmware @/bios.bin {flags}")).unwrap_err())
    }

    fn serve(&self, arguments: &str) -> Result<ServeConfig, UserError> {
        let cli = Cli::try_parse_from(
            ["kagero", "serve"].into_iter().chain(self.named(arguments).split_whitespace()),
        );
        let Command::Serve(options) = cli.unwrap().command else { panic!("not serve") };
        let config = options.with_file()?.into_config()?;
        config.check().map(|()| config)
    }

    fn serve_error(&self, arguments: &str) -> String {
        self.short(&self.serve(arguments).unwrap_err())
    }

    fn named(&self, text: &str) -> String {
        text.replace('@', self.0.path().to_str().unwrap())
    }

    fn short(&self, error: &UserError) -> String {
        error.to_string().replace(self.0.path().to_str().unwrap(), "@")
    }
}

fn run_options(flags: &str) -> RunOptions {
    match Cli::try_parse_from(["kagero", "run"].into_iter().chain(flags.split_whitespace())).unwrap().command
    {
        Command::Run(options) => *options,
        _ => panic!("not run"),
    }
}

/// Every key of a run, with a value unlike the default.
const EVERYTHING: &str = r#"
disk = ["debian.img,read-only", "aoe:7.1", { source = "aoe:7.2", interface = "eth2", position = 2 }]
interface = "eth1"
memory = "2G"
cpus = 2
kernel = "vmlinuz"
initrd = "initrd.img"
append = "console=ttyS0"
passthrough = ["0000:03:00.0", "04:00.1"]
bind = true
no-reboot = true
console = "boot.log"
expect = "login:"
timeout = "120s"
attach-timeout = "5s"
on-target-loss = "fail-after=30s"
report = "run.json"
trace = "trace.txt"
trace-device = ["ide", "pci"]
pcap = "run.pcap"
firmware-log = "bios.log"
fault = { loss = "5%", delay = "1ms", seed = 7 }
verbose = 1
quiet = false
"#;

#[test]
fn a_file_says_all_that_flags_say() {
    let folder = Folder::new();
    folder.file("vm.toml", EVERYTHING.as_bytes());
    let file = folder.run("--config @/vm.toml").unwrap();
    let flags = folder
        .run(
            "--disk @/debian.img,read-only --disk aoe:7.1 --disk aoe:7.2,interface=eth2,position=2 --interface eth1 \
             --memory 2G --cpus 2 --kernel @/vmlinuz --initrd @/initrd.img --append console=ttyS0 --no-reboot \
             --passthrough 03:00.0 --passthrough 0000:04:00.1 --bind \
             --console @/boot.log --expect login: --timeout 120s --attach-timeout 5s --on-target-loss fail-after=30s \
             --report @/run.json --trace @/trace.txt --trace-device ide,pci --pcap @/run.pcap \
             --firmware-log @/bios.log --fault loss=5%,delay=1ms,seed=7",
        )
        .unwrap();
    assert_eq!(file, flags);

    assert_eq!(file.disks.iter().map(|disk| disk.position).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(
        file.disks[2].source,
        Source::Aoe { address: "7.2".parse().unwrap(), interface: "eth2".into() }
    );
    assert!(file.disks[0].read_only);
    assert_eq!(
        file.boot,
        Boot::Kernel {
            image: folder.path("vmlinuz"),
            initrd: Some(folder.path("initrd.img")),
            command_line: "console=ttyS0".into(),
        }
    );
    assert_eq!((file.memory, file.cpus, file.reboot), (Size::mib(2048), 2, false));
    assert_eq!(file.console, ConsoleSink::File(folder.path("boot.log")));
    assert_eq!((file.timeout, file.attach_timeout), (Some(Duration::from_secs(120)), Duration::from_secs(5)));
    assert_eq!(file.on_target_loss, TargetLoss::FailAfter(Duration::from_secs(30)));
    let trace = TraceConfig {
        sink: TraceSink::File(folder.path("trace.txt")),
        devices: vec!["ide".into(), "pci".into()],
    };
    assert_eq!(file.trace, Some(trace));
}

/// The table above has every key, so that a new flag does not escape it.
#[test]
fn every_flag_is_tried_from_a_file() {
    let table: toml::Table = EVERYTHING.parse().unwrap();
    let mut missing = known_keys("run");
    missing.retain(|key| !table.contains_key(key));
    assert_eq!(missing, ["firmware"], "which excludes a kernel");
    let known = known_keys("run");
    assert!(table.keys().all(|key| known.contains(key)));
}

#[test]
fn flags_win_over_the_file() {
    let folder = Folder::new();
    folder.file("vm.toml", EVERYTHING.as_bytes());
    let config = folder
        .run("--config @/vm.toml --memory 4G --disk @/debian.img --no-reboot=false --console none --on-target-loss hold")
        .unwrap();
    assert_eq!(config.memory, Size::mib(4096));
    assert_eq!(config.disks.len(), 1, "a list is taken whole");
    assert!(config.reboot);
    assert_eq!(config.console, ConsoleSink::None);
    assert_eq!(config.on_target_loss, TargetLoss::Hold);
    assert_eq!(config.cpus, 2, "the file's, where flags say nothing");
}

#[test]
fn what_nobody_says_has_a_default() {
    let folder = Folder::new();
    let config = folder.run("--disk @/debian.img --firmware @/bios.bin").unwrap();
    assert_eq!(
        config,
        RunConfig {
            disks: vec![crate::config::Disk {
                source: Source::File(folder.path("debian.img")),
                read_only: false,
                format: None,
                position: 0
            }],
            boot: Boot::Firmware(folder.path("bios.bin")),
            ..RunConfig::default()
        }
    );
    assert_eq!(
        (config.memory, config.cpus, config.attach_timeout),
        (Size::mib(1024), 1, Duration::from_secs(10))
    );
}

#[test]
fn disks_fill_the_free_positions() {
    let folder = Folder::new();
    let config = folder
        .run("--firmware @/bios.bin --interface eth1 --disk aoe:7.1 --disk aoe:7.2,position=0 --disk aoe:7.3")
        .unwrap();
    let disks: Vec<_> = config.disks.iter().map(|disk| (disk.position, disk.source.to_string())).collect();
    assert_eq!(disks, [(0, "aoe:7.2".into()), (1, "aoe:7.1".into()), (2, "aoe:7.3".into())]);
}

#[test]
fn a_run_that_can_not_be_is_refused_in_one_line() {
    let folder = Folder::new();
    folder.file("odd.img", &vec![0; 1_000_001]);
    folder.file("empty.img", b"");
    fs::hard_link(folder.path("debian.img"), folder.path("same.img")).unwrap();
    let mut lines = String::new();
    for flags in [
        "--disk @/none.img",
        "--disk @/vmlinuz/none.img",
        "--disk @",
        "--disk @/odd.img",
        "--disk @/empty.img",
        "--disk /dev/null",
        "--disk @/debian.img --disk @/same.img",
        "--disk @/debian.img,interface=eth1",
        "--disk aoe:7.1",
        "--interface eth1 --disk aoe:7.1 --disk aoe:7.1,interface=eth2",
        "--interface eth1 --disk aoe:7.1,position=1 --disk @/debian.img,position=1",
        "--interface eth1 --disk aoe:7.1,read-only",
        "--interface eth1/x --disk aoe:7.1",
        "--interface eth1 --disk aoe:7.1 --disk aoe:7.2 --disk aoe:7.3 --disk aoe:7.4 --disk aoe:7.5",
        "",
        "--disk @/debian.img --cpus 0",
        "--disk @/debian.img --cpus 17",
        "--disk @/debian.img --memory 8M",
        "--disk @/debian.img --memory 2T",
        "--disk @/debian.img --memory 65537K",
        "--disk @/debian.img --initrd @/initrd.img",
        "--disk @/debian.img --append quiet",
        "--disk @/debian.img --kernel @/vmlinuz",
        "--disk @/debian.img --report @",
        "--disk @/debian.img --report @/none/run.json",
        "--disk @/debian.img --console @/none/console.log",
        "--disk @/debian.img --bind",
        "--disk @/debian.img --passthrough 03:00.0 --passthrough 0000:03:00.0",
        "--disk @/debian.img --passthrough all --passthrough 03:00.0",
        "--config @/none.toml",
    ] {
        writeln!(lines, "{flags}\n  {}", folder.run_error(flags)).unwrap();
    }
    for flags in [
        "--firmware @/none.bin --disk @/debian.img",
        "--firmware @/empty.img --disk @/debian.img",
        "--kernel @/none",
        "--kernel @/vmlinuz --initrd @/none",
    ] {
        writeln!(lines, "{flags}\n  {}", folder.short(&folder.run(flags).unwrap_err())).unwrap();
    }
    expect_text(&lines, "src/cli/run_errors.txt");
}

#[test]
fn a_file_that_is_wrong_is_refused_with_its_line() {
    let folder = Folder::new();
    let mut lines = String::new();
    for text in [
        "memroy = \"2G\"",
        "cpus = 2\n\ngraphics = true",
        "config = \"other.toml\"",
        "cpus = 2\nmemory = \"2X\"",
        "cpus = 2\nmemory = 2048",
        "cpus = \"two\"",
        "cpus = 300",
        "cpus = 2\ncpus = 3",
        "disk = [\n  \"a.img\",\n  \"aoe:7\",\n]",
        "[[disk]]\nsource = \"a.img\"\nread_only = true",
        "[[disk]]\nread-only = true",
        "[[disk]]\nsource = \"a.img\"\nread-only = \"yes\"",
        "disk = 7",
        "fault = \"lost=5%\"",
        "\n[fault]\nloss = 5",
        "timeout = \"120\"",
        "on-target-loss = \"fail\"",
        "passthrough = [\n  \"03:00.0\",\n  \"03:00\",\n]",
        "cpus = ",
        "[machine]\ncpus = 2",
    ] {
        folder.file("vm.toml", text.as_bytes());
        let error = folder.run_error("--config @/vm.toml");
        writeln!(lines, "{}\n  {error}", text.replace('\n', "\\n")).unwrap();
    }
    expect_text(&lines, "src/cli/file_errors.txt");
}

#[test]
fn a_server_from_arguments_and_from_a_file() {
    let folder = Folder::new();
    folder.file("other.img", &[0; 512]);
    let arguments = folder
        .serve(
            "--interface eth1 7.1=@/debian.img 8.1=@/other.img,read-only --pcap @/x.pcap --state @/settings \
             --control none --metrics 127.0.0.1:9100",
        )
        .unwrap();
    folder.file(
        "serve.toml",
        b"interface = \"eth1\"\npcap = \"x.pcap\"\nstate = \"settings\"\ncontrol = \"none\"\n\
          metrics = \"127.0.0.1:9100\"\nexport = [\"7.1=debian.img\",\n\
          {address = \"8.1\", image = \"other.img\", read-only = true}]",
    );
    assert_eq!(folder.serve("--config @/serve.toml").unwrap(), arguments);
    assert_eq!(folder.serve("--config @/serve.toml --interface eth2").unwrap().interfaces, ["eth2"]);

    assert_eq!(
        folder.serve_error("--interface eth1"),
        "serve: there is nothing to serve: name an export, as 7.1=debian.img"
    );
    assert_eq!(
        folder.serve_error("7.1=@/debian.img"),
        "--interface: `kagero serve` needs to know the network: \
         add --interface NAME; `ip -brief link` lists the interfaces"
    );
    assert_eq!(
        folder.serve_error("--interface eth1 7.1=@/debian.img 7.1=@/other.img"),
        "7.1: two exports have this address: give each export an address of its own"
    );
    assert_eq!(
        folder.serve_error("--interface eth1 7.1=@/debian.img 7.2=@/debian.img,read-only"),
        "@/debian.img: two exports are this image: give each export an image of its own, or make both read-only"
    );
    assert!(folder.serve("--interface eth1 7.1=@/debian.img,read-only 7.2=@/debian.img,read-only").is_ok());

    let arguments = folder.serve("--interface eth1 --threads 3 7.1=@/debian.img").unwrap();
    assert_eq!(arguments.threads.map(NonZeroUsize::get), Some(3));
    folder.file("serve.toml", b"interface = \"eth1\"\nthreads = 3\nexport = \"7.1=debian.img\"");
    assert_eq!(folder.serve("--config @/serve.toml").unwrap(), arguments);
    assert_eq!(
        folder.serve_error("--interface eth1 --threads 65 7.1=@/debian.img"),
        "--threads: 65 threads are more than any machine's interfaces can use: give 64 or less, or leave it out"
    );
    assert_eq!(
        folder.serve_error("--config @/serve.toml --pcap @/x.pcap"),
        "--pcap: a capture has its frames in order only from one thread: leave out --threads, or the capture"
    );

    let arguments = folder.serve("--interface eth1 7.1=nbd+unix:///a?socket=@/x.sock 7.2=nbd://a/b").unwrap();
    folder.file(
        "serve.toml",
        b"interface = \"eth1\"\nexport = [\"7.1=nbd+unix:///a?socket=x.sock\",\n\
          {address = \"7.2\", image = \"nbd://a/b\"}]",
    );
    assert_eq!(folder.serve("--config @/serve.toml").unwrap(), arguments);
    assert_eq!(
        folder.serve_error("--interface eth1 7.1=nbd://a/b 7.2=nbd://a:10809/b,read-only"),
        "nbd://a/b: two exports are this image: give each export an image of its own, or make both read-only"
    );
    folder.file("serve.toml", b"interface = \"eth1\"\nexport = \"7.1=nbd:\"");
    assert_eq!(
        folder.serve_error("--config @/serve.toml"),
        "@/serve.toml:2: \"nbd:\" is not an NBD export: it lacks the host: write nbd://HOST:PORT/NAME"
    );

    assert_eq!(folder.serve("--interface eth1 --control @/c.sock").unwrap().exports, [], "for later");
    folder.file("serve.toml", b"metrics = \"9100\"");
    assert_eq!(
        folder.serve_error("--config @/serve.toml"),
        "@/serve.toml:1: \"9100\" is not an address to listen on: write ADDRESS:PORT, as 127.0.0.1:9100"
    );
    let arguments = folder.serve(
        "--interface eth1 --interface eth2 --user kagero --seccomp log 7.1=@/debian.img,interface=eth2,allow=02:00:00:00:00:01+02:00:00:00:00:02",
    );
    folder.file(
        "serve.toml",
        b"interface = [\"eth1\", \"eth2\"]\nuser = \"kagero\"\nseccomp = \"log\"\n[[export]]\naddress = \"7.1\"\n\
          image = \"debian.img\"\ninterface = \"eth2\"\nallow = [\"02:00:00:00:00:01\", \"02-00-00-00-00-02\"]",
    );
    assert_eq!(folder.serve("--config @/serve.toml").unwrap(), arguments.unwrap());
    folder.file("serve.toml", b"interfaces = \"eth1\"");
    assert_eq!(
        folder.serve_error("--config @/serve.toml"),
        "@/serve.toml:1: \"interfaces\" is an unknown key: did you mean \"interface\"?"
    );
}

#[test]
fn the_definitions_of_the_flags_are_sound() {
    Cli::command().debug_assert();
}

/// Compares with a file of this crate; with `UPDATE_EXPECTED` set writes it anew, to be read before it is committed.
fn expect_text(text: &str, file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected.lines().collect::<Vec<_>>());
}

/// The text of a page in docs/.
fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

#[test]
fn the_documentation_names_every_flag() {
    let page = page("command-line.md");
    let cli = Cli::command();
    let target = cli.find_subcommand("target").unwrap();
    let commands = cli.get_subcommands().chain(target.get_subcommands());
    for (command, flags) in commands.map(|command| (command.get_name(), command.get_arguments())) {
        let flags = flags.filter_map(clap::Arg::get_long);
        for flag in flags.filter(|&flag| flag != "help") {
            assert!(page.contains(&format!("--{flag}")), "--{flag} of {command}");
        }
    }
    assert!(page.contains("kagero devices restore"));
    let cli = Cli::command();
    for command in cli.find_subcommand("image").unwrap().get_subcommands() {
        assert!(page.contains(&format!("kagero image {}", command.get_name())), "{}", command.get_name());
        for flag in command.get_arguments().filter_map(clap::Arg::get_long).filter(|&flag| flag != "help") {
            assert!(page.contains(&format!("--{flag}")), "--{flag} of image {}", command.get_name());
        }
    }
}

/// The examples are complete: they differ from what is refused only in files that are not there.
#[test]
fn the_documentation_s_configuration_files_can_be_read() {
    let page = page("command-line.md");
    let mut examples = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let run: RunOptions =
        crate::config::file::parse(Path::new("vm.toml"), examples.next().unwrap(), &known_keys("run"))
            .unwrap();
    assert_eq!(run.disk.len(), 2);
    let serve: ServeOptions =
        crate::config::file::parse(Path::new("serve.toml"), examples.next().unwrap(), &known_keys("serve"))
            .unwrap();
    assert_eq!(serve.exports.len(), 3);
    assert!(examples.next().is_none());

    let page = self::page("passthrough.md");
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let run: RunOptions =
        crate::config::file::parse(Path::new("vm.toml"), example, &known_keys("run")).unwrap();
    assert_eq!((run.passthrough.len(), run.bind), (2, Some(true)));
}

#[test]
fn the_documentation_names_every_field_of_the_report() {
    use crate::report::{DiskReport, End, Phase, Report};

    fn names(value: &serde_json::Value, out: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    out.push(name.clone());
                    // The words of the configuration file have a page of their own.
                    if name != "config" {
                        names(value, out);
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| names(item, out)),
            _ => {}
        }
    }

    let report = Report {
        end: Some(End { how: String::new(), signal: None, error: None, exit_code: 0 }),
        phases: vec![Phase { name: String::new(), ms: 0, boot: 1 }],
        disks: vec![DiskReport::default()],
        ..Report::default()
    };
    let mut fields = Vec::new();
    names(&serde_json::to_value(report).unwrap(), &mut fields);
    let page = page("report.md");
    let missing: Vec<_> = fields.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty() && fields.len() > 40, "{missing:?}");
}
