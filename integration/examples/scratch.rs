//! scratch
use kagero_integration::l1::L1;
use std::time::Duration;
fn main() -> anyhow::Result<()> {
    let script = std::env::args().nth(1).unwrap();
    let secs: u64 = std::env::args().nth(2).unwrap().parse()?;
    let mut b = L1::builder()
        .program("target/release/kagero")
        .file("/usr/share/seabios/bios-256k.bin", "/usr/share/seabios/bios-256k.bin")
        .file("/vmlinux", "target/lab/kernel/vmlinux");
    for f in std::env::args().skip(3) {
        let (at, from) = f.split_once('=').unwrap();
        b = b.file(at, from);
    }
    let l1 = b.disk("/tmp/scratch.img").start()?;
    eprintln!("ready in {:?}", l1.ready_in());
    let said = l1.run(&script, Duration::from_secs(secs))?;
    println!("{}\n{}\ncode {}", said.stdout, said.stderr, said.code);
    let _ = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("mkdir -p /tmp/out; cp -a {}/* /tmp/out/", l1.share().display()))
        .status();
    Ok(())
}
