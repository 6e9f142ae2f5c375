//! `kagero image`, as its users see it.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use kagero_target::{Access, Backend, Identity, Image, Overlay};

const SIZE: usize = 1 << 20;
const CLUSTER: usize = 64 << 10;
const CLIENT: &str = "02:00:00:00:00:01.overlay";

/// A folder with a base and the overlay of one client, who wrote to two clusters and trimmed one.
struct Place {
    folder: tempfile::TempDir,
    /// What the client sees.
    disk: Vec<u8>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut place = Place { folder, disk: vec![b'b'; SIZE] };
        fs::write(place.path("golden.img"), &place.disk).unwrap();
        let overlay = place.overlay(CLIENT);
        for (at, byte) in [(512, 1), (3 * CLUSTER, 2)] {
            overlay.write(at as u64, &[byte; 1024], false).unwrap();
            place.disk[at..at + 1024].fill(byte);
        }
        let range = kagero_aoe::target::Range { offset: 8 * CLUSTER as u64, length: CLUSTER as u64 };
        overlay.trim(range).unwrap();
        place.disk[8 * CLUSTER..9 * CLUSTER].fill(0);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn base(&self, name: &str) -> Arc<Image> {
        Arc::new(Image::open(&self.path(name), Access::ReadOnly).unwrap())
    }

    /// An overlay over golden.img.
    fn overlay(&self, name: &str) -> Overlay {
        let base = self.base("golden.img");
        let identity = Identity::of(&base).unwrap();
        Overlay::create(&self.path(name), base, &identity).unwrap()
    }

    fn seen_over(&self, base: &str) -> Vec<u8> {
        let base = self.base(base);
        let identity = Identity::of(&base).unwrap();
        let mut disk = vec![0; SIZE];
        Overlay::open(&self.path(CLIENT), base, &identity).unwrap().read(0, &mut disk).unwrap();
        disk
    }

    fn kagero(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kagero"))
            .arg("image")
            .args(arguments.split(' '))
            .current_dir(self.folder.path())
            .env_remove("KAGERO_LOG")
            .output()
            .unwrap()
    }

    /// What the command says, with the folder as `@`.
    #[track_caller]
    fn says(&self, arguments: &str) -> String {
        let output = self.kagero(arguments);
        assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""));
        let real = self.folder.path().canonicalize().unwrap();
        String::from_utf8(output.stdout).unwrap().replace(real.to_str().unwrap(), "@")
    }

    /// Asserts exit code 2, nothing on standard output, one line on standard error, and an overlay that is as it was.
    #[track_caller]
    fn refused(&self, arguments: &str, line: &str) {
        let before = fs::read(self.path("golden.img")).unwrap();
        let output = self.kagero(arguments);
        let real = self.folder.path().canonicalize().unwrap();
        let said = String::from_utf8(output.stderr).unwrap().replace(real.to_str().unwrap(), "@");
        assert_eq!((&*said, &*output.stdout), (&*format!("kagero: {line}\n"), &b""[..]));
        assert_eq!(output.status.code(), Some(2));
        assert!(before == fs::read(self.path("golden.img")).unwrap());
    }
}

fn used(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512
}

/// As the commands print numbers.
fn grouped(number: u64) -> String {
    kagero::config::grouped(number)
}

#[test]
fn info_tells_what_a_file_is() {
    let place = Place::new();
    let base_used = grouped(used(&place.path("golden.img")));
    assert_eq!(
        place.says("info golden.img"),
        format!(
            "image     golden.img\nformat    raw\ndisk      1,048,576 bytes\nused      {base_used} bytes\n"
        )
    );
    let overlay_used = grouped(used(&place.path(CLIENT)));
    let expected = |base: &str, closed: &str| {
        format!(
            "image     {CLIENT}\nformat    overlay\ndisk      1,048,576 bytes\nused      {overlay_used} bytes\n\
             base      @/golden.img ({base})\nclient    02:00:00:00:00:01\n\
             clusters  2 of 16, 64 KiB each, and 1 of zeros\nclosed    {closed}\n"
        )
    };
    assert_eq!(place.says(&format!("info {CLIENT}")), expected("raw", "cleanly"));

    let json: serde_json::Value =
        serde_json::from_str(&place.says(&format!("info {CLIENT} --json"))).unwrap();
    assert_eq!(
        (&json["format"], &json["disk_bytes"], &json["chain"][0]["path"]),
        (&"overlay".into(), &SIZE.into(), &"@/golden.img".into())
    );
    let overlay = &json["overlay"];
    assert_eq!(
        (&overlay["client"], &overlay["clusters"], &overlay["zero_clusters"], &overlay["closed"]),
        (&"02:00:00:00:00:01".into(), &2.into(), &1.into(), &true.into())
    );

    let open = {
        let base = place.base("golden.img");
        let identity = Identity::of(&base).unwrap();
        Overlay::open(&place.path(CLIENT), base, &identity).unwrap()
    };
    let text = place.says(&format!("info {CLIENT}"));
    let holder = format!("open      in process {} (", std::process::id());
    assert!(text.contains("closed    not yet\n") && text.contains(&holder), "{text}");
    drop(open);

    File::options()
        .write(true)
        .open(place.path("golden.img"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    let changed = "changed since (when it was written differs)";
    assert_eq!(place.says(&format!("info {CLIENT}")), expected(changed, "cleanly"));
    fs::rename(place.path("golden.img"), place.path("g.img")).unwrap();
    assert_eq!(place.says(&format!("info {CLIENT}")), expected("not there", "cleanly"));
}

#[test]
fn a_commit_makes_the_base_what_the_client_saw() {
    let place = Place::new();
    drop(place.overlay("02:00:00:00:00:02.overlay"));
    let base = place.path("golden.img");
    place.refused(
        &format!("commit {CLIENT} --base golden.img"),
        &format!(
            "overlay {CLIENT} is not the only one over this base: 02:00:00:00:00:02.overlay would mean nothing afterwards; \
             commit into a copy (`cp -p`) and rebase the others onto it, or add --force"
        ),
    );
    assert_eq!(
        place.says(&format!("commit {CLIENT} --base golden.img --force")),
        format!("3 clusters of 64 KiB are in golden.img now; {CLIENT} is gone\n")
    );
    assert!(fs::read(&base).unwrap() == place.disk);
    assert!(!place.path(CLIENT).exists());
    // The zeros are a hole.
    assert!(used(&base) < SIZE as u64, "{}", used(&base));
}

#[test]
fn a_killed_commit_is_finished_by_the_next() {
    const CLUSTERS: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let (base, path) = (folder.path().join("base.img"), folder.path().join(CLIENT));
    let (old, new) = (vec![1; CLUSTERS * CLUSTER], vec![2; CLUSTERS * CLUSTER]);
    let kagero = [env!("CARGO_BIN_EXE_kagero"), "image", "commit", CLIENT, "--base", "base.img"];
    let run = |words: &[&str]| {
        Command::new(words[0]).args(&words[1..]).current_dir(folder.path()).output().unwrap()
    };
    for first in [1, 77, CLUSTERS - 1] {
        fs::write(&base, &old).unwrap();
        let image = Arc::new(Image::open(&base, Access::ReadOnly).unwrap());
        let identity = Identity::of(&image).unwrap();
        Overlay::create(&path, image, &identity).unwrap().write(0, &new, false).unwrap();

        // SIGXFSZ ends it at this cluster.
        let limit = format!("--fsize={}", first * CLUSTER);
        let killed = run(&[&["prlimit", "--core=0", &limit][..], &kagero].concat());
        assert_eq!(
            killed.status.signal(),
            Some(libc::SIGXFSZ),
            "{}",
            String::from_utf8_lossy(&killed.stderr)
        );
        let half = fs::read(&base).unwrap();
        assert!(
            half[..first * CLUSTER] == new[..first * CLUSTER]
                && half[first * CLUSTER..] == old[first * CLUSTER..]
        );
        let info = run(&[kagero[0], "image", "info", CLIENT]);
        let line = "closed    no, a commit did not end: run `kagero image commit` again\n";
        assert!(String::from_utf8(info.stdout).unwrap().contains(line));

        let said = String::from_utf8(run(&kagero).stdout).unwrap();
        assert!(said.contains(" are in base.img now, which an earlier commit had begun; "), "{said}");
        assert!(fs::read(&base).unwrap() == new);
        assert!(!path.exists());
    }
}

#[test]
fn the_others_can_follow_a_commit() {
    let place = Place::new();
    let other = place.overlay("02:00:00:00:00:02.overlay");
    other.write(0, &[7; 512], false).unwrap();
    drop(other);
    let copy =
        Command::new("cp").args(["-p", "golden.img", "new.img"]).current_dir(place.folder.path()).status();
    assert!(copy.unwrap().success());
    place.says("commit 02:00:00:00:00:02.overlay --base new.img --force");
    assert_eq!(
        place.says(&format!("rebase {CLIENT} --base new.img")),
        format!("{CLIENT} is over new.img now: 0 clusters of 64 KiB copied into it, 0 dropped\n")
    );
    assert!(place.seen_over("new.img") == place.disk);
}

#[test]
fn a_rebase_copies_and_drops() {
    let place = Place::new();
    // Like the client's disk at the beginning, and like nothing in cluster 5.
    let mut new = fs::read(place.path("golden.img")).unwrap();
    new[..CLUSTER].copy_from_slice(&place.disk[..CLUSTER]);
    new[5 * CLUSTER..6 * CLUSTER].fill(9);
    fs::write(place.path("new.img"), &new).unwrap();
    assert_eq!(
        place.says(&format!("rebase {CLIENT} --base new.img --from golden.img")),
        format!("{CLIENT} is over new.img now: 1 clusters of 64 KiB copied into it, 1 dropped\n")
    );
    assert!(place.seen_over("new.img") == place.disk);
    assert!(place.says(&format!("info {CLIENT}")).contains("base      @/new.img (raw)\n"));
    // Again there is nothing to do.
    assert!(
        place
            .says(&format!("rebase {CLIENT} --base new.img"))
            .ends_with(": 0 clusters of 64 KiB copied into it, 0 dropped\n")
    );
}

#[test]
fn a_base_that_only_moved() {
    let place = Place::new();
    fs::copy(place.path("golden.img"), place.path("moved.img")).unwrap();
    fs::remove_file(place.path("golden.img")).unwrap();
    let output = place.kagero(&format!("rebase {CLIENT} --base moved.img"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("the base that it was made over is not there (/") && said.lines().count() == 1,
        "{said}"
    );
    place.says(&format!("rebase {CLIENT} --base moved.img --unsafe"));
    assert!(place.seen_over("moved.img") == place.disk);
}

#[test]
fn mistakes() {
    let place = Place::new();
    fs::write(place.path("small.img"), [0; 1024]).unwrap();
    fs::write(place.path("short"), b"KAGEROVL").unwrap();
    let mut qcow2 = b"QFI\xfb\0\0\0\x03".to_vec();
    qcow2.resize(1024, 0);
    fs::write(place.path("disk.qcow2"), qcow2).unwrap();
    let damaged = "its header is not as it was written";
    let mut bad = fs::read(place.path(CLIENT)).unwrap();
    bad[20] ^= 1;
    fs::write(place.path("bad"), bad).unwrap();
    for (arguments, line) in [
        ("info no.img", "no disk image no.img: check the path"),
        ("info .", "disk image . is a directory: name a file or a block device"),
        ("info /dev/null", "disk image /dev/null is neither: name a file or a block device"),
        ("commit O --base /dev/null", "disk image /dev/null is neither: name a file or a block device"),
        (
            "info short",
            "overlay short is damaged: it is too short; take it away, and the client begins anew from the base",
        ),
        (
            "info bad",
            &format!(
                "overlay bad is damaged: {damaged}; take it away, and the client begins anew from the base"
            ),
        ),
        (
            "commit golden.img --base golden.img",
            "golden.img: no overlay, but a disk image (raw): name a file that `kagero serve` made with overlay=DIRECTORY",
        ),
        ("commit O", "--base: is needed here: see `kagero --help` for examples"),
        ("commit O --base no.img", "no disk image no.img: check the path"),
        (
            "commit O --base small.img",
            "overlay O was made over another state of small.img (its size differs): bring that back, or take the overlay away",
        ),
        (
            "commit O --base disk.qcow2",
            "disk image disk.qcow2 is no raw image (qcow2), and a commit can write to no other: \
             convert it with `qemu-img convert -O raw`, and rebase the overlay onto that",
        ),
        (
            "rebase O --base small.img",
            "overlay O is of a disk with 1048576 bytes, and small.img has 1024: name a base of the same size",
        ),
        (
            "rebase O --base golden.img --from golden.img --unsafe",
            "--from: can't be used with --unsafe: leave out one of them",
        ),
        ("resize O", "resize: unknown command: did you mean rebase?"),
    ] {
        place.refused(
            &arguments.replace(" O", &format!(" {CLIENT}")),
            &line.replace("lay O ", &format!("lay {CLIENT} ")),
        );
    }
    // In use by us.
    let overlay = place.overlay("02:00:00:00:00:03.overlay");
    let output = place.kagero("commit 02:00:00:00:00:03.overlay --base golden.img");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(" is in use by process ") && said.lines().count() == 1, "{said}");
    drop(overlay);
}

#[test]
fn a_first_sector_that_looks_like_a_format_is_no_accident() {
    let place = Place::new();
    {
        let base = place.base("golden.img");
        let identity = Identity::of(&base).unwrap();
        let overlay = Overlay::open(&place.path(CLIENT), base, &identity).unwrap();
        let mut sector = [0; 512];
        sector[..4].copy_from_slice(b"QFI\xfb");
        overlay.write(0, &sector, false).unwrap();
    }
    place.refused(
        &format!("commit {CLIENT} --base golden.img"),
        &format!(
            "the disk of overlay {CLIENT} begins like a qcow2 image, and its base would, too: \
             add format=raw to the base's name if that is meant"
        ),
    );
    place.says(&format!("commit {CLIENT} --base golden.img,format=raw"));
    assert!(fs::read(place.path("golden.img")).unwrap().starts_with(b"QFI\xfb"));
}
