//! What clients have set for a disk, kept over a restart: a small JSON file for each disk, in a folder that is one server's alone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kagero_aoe::target::Settings;
use kagero_aoe::wire::{Address, MAX_CONFIG_STRING, MacAddress, ParseAddressError};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Much more than the longest settings need.
const LARGEST: u64 = 64 << 10;

/// Files that may be written at once before the pauses begin.
const BURST: u32 = 16;

/// Each pause of this length allows one more. A station that changes settings as fast as it can must not wear out the disk below, nor take much
/// of a serving thread's time.
const PAUSE: Duration = Duration::from_millis(100);

/// [`Settings`] as JSON has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSettings {
    /// The configuration string.
    pub config: ConfigString,
    /// Stations on the mask list, as `02:00:00:00:00:01`.
    pub mask: Vec<String>,
    /// Stations that have reserved the disk.
    pub reserved: Vec<String>,
}

/// A configuration string: text where it is, else a list of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ConfigString {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl Default for ConfigString {
    fn default() -> Self {
        ConfigString::Text(String::new())
    }
}

impl From<&Settings> for StoredSettings {
    fn from(settings: &Settings) -> Self {
        let Settings { config, mask, reserved } = settings;
        let texts = |stations: &[MacAddress]| stations.iter().map(ToString::to_string).collect();
        let config = match std::str::from_utf8(config) {
            Ok(text) => ConfigString::Text(text.into()),
            Err(_) => ConfigString::Bytes(config.clone()),
        };
        StoredSettings { config, mask: texts(mask), reserved: texts(reserved) }
    }
}

impl TryFrom<StoredSettings> for Settings {
    /// What is wrong.
    type Error = String;

    fn try_from(stored: StoredSettings) -> Result<Self, String> {
        let StoredSettings { config, mask, reserved } = stored;
        let config = match config {
            ConfigString::Text(text) => text.into_bytes(),
            ConfigString::Bytes(bytes) => bytes,
        };
        if config.len() > MAX_CONFIG_STRING {
            return Err(format!("a configuration string has at most {MAX_CONFIG_STRING} bytes"));
        }
        let stations = |texts: Vec<String>| {
            if texts.len() > Settings::MAX_STATIONS {
                return Err(format!("a list has at most {} stations", Settings::MAX_STATIONS));
            }
            let parsed: Result<Vec<MacAddress>, ParseAddressError> =
                texts.iter().map(|text| text.parse()).collect();
            parsed.map_err(|error| error.to_string())
        };
        Ok(Settings { config, mask: stations(mask)?, reserved: stations(reserved)? })
    }
}

/// A folder with the settings of disks, locked.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Keeps the lock, and makes new names in it durable.
    handle: File,
}

impl Folder {
    fn open(path: &Path) -> Result<Self, Error> {
        let handle = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NoStateFolder(path.into()),
            _ => Error::Kernel { path: path.into(), doing: "open the folder for settings", source: error },
        })?;
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(Error::StateFolderInUse(path.into())),
            Err(error) => {
                tracing::warn!(folder = %path.display(), %error, "cannot lock the folder for settings: another server would go unnoticed");
            }
        }
        if !handle.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            return Err(Error::NoStateFolder(path.into()));
        }
        Ok(Folder { path: path.into(), handle })
    }

    fn file(&self, address: Address) -> PathBuf {
        self.path.join(format!("{address}.json"))
    }

    /// What was kept for a disk.
    fn load(&self, address: Address) -> Result<Settings, Error> {
        let path = self.file(address);
        let mut text = Vec::new();
        match File::open(&path).and_then(|file| file.take(LARGEST).read_to_end(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Settings::default()),
            Err(source) => {
                return Err(Error::Kernel { path, doing: "read the settings of clients", source });
            }
        }
        let stored = serde_json::from_slice::<StoredSettings>(&text).map_err(|error| error.to_string());
        stored.and_then(Settings::try_from).map_err(|why| Error::SettingsDamaged { path, why })
    }

    /// The old file or the new one is there, whatever happens meanwhile; the new one for good when this returns.
    fn save(&self, address: Address, settings: &Settings) -> io::Result<()> {
        let path = self.file(address);
        let new = path.with_extension("json.new");
        let mut text = serde_json::to_vec_pretty(&StoredSettings::from(settings))?;
        text.push(b'\n');
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        self.handle.sync_all()
    }
}

/// Keeps the settings of every disk, as far as there is a folder for them.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    folder: Option<Folder>,
    /// As they are in the folder.
    kept: BTreeMap<Address, Settings>,
    budget: Budget,
    /// It was said that there is no folder.
    warned: bool,
}

impl Keeper {
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        Ok(Keeper { folder: Some(Folder::open(folder)?), ..Self::default() })
    }

    /// Begins with a disk; what its clients have set before.
    pub(crate) fn begin(&mut self, address: Address) -> Result<Settings, Error> {
        let settings = self.folder.as_ref().map_or_else(|| Ok(Settings::default()), |f| f.load(address))?;
        self.kept.insert(address, settings.clone());
        Ok(settings)
    }

    /// A disk is served no longer. Its file stays: it is there when the disk is served again.
    pub(crate) fn end(&mut self, address: Address, settings: &Settings) {
        self.write(address, settings);
        self.kept.remove(&address);
    }

    /// Keeps the settings of a disk if they are new. False when that can't be done, or not now, so that nobody may be told that they are kept.
    pub(crate) fn keep(&mut self, address: Address, settings: &Settings) -> bool {
        if self.is_kept(address, settings) {
            return true;
        }
        if self.folder.is_some() && !self.budget.take(Instant::now()) {
            tracing::debug!(disk = %address, "settings change too often: a change waits for the client to ask again");
            return false;
        }
        self.write(address, settings)
    }

    /// Forgets what was kept for a disk that is not served.
    pub(crate) fn forget(&mut self, address: Address) -> Result<(), Error> {
        let Some(path) = self.folder.as_ref().map(|folder| folder.file(address)) else { return Ok(()) };
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Kernel { path, doing: "take away the settings of clients", source })
            }
            _ => Ok(()),
        }
    }

    fn is_kept(&self, address: Address, settings: &Settings) -> bool {
        self.kept.get(&address).unwrap_or(&Settings::default()) == settings
    }

    /// As [`keep`](Self::keep), however often.
    pub(crate) fn write(&mut self, address: Address, settings: &Settings) -> bool {
        if self.is_kept(address, settings) {
            return true;
        }
        let Some(folder) = &self.folder else {
            if !std::mem::replace(&mut self.warned, true) {
                tracing::warn!(disk = %address, "what clients set will not survive a restart: there is no folder to keep it in");
            }
            return true;
        };
        match folder.save(address, settings) {
            Ok(()) => {
                self.kept.insert(address, settings.clone());
                true
            }
            Err(error) => {
                tracing::warn!(disk = %address, folder = %folder.path.display(), %error, "can't keep what a client has set: it gets no answer");
                false
            }
        }
    }
}

/// How many files may be written now.
#[derive(Debug)]
struct Budget {
    left: u32,
    /// Up to when pauses were counted.
    since: Option<Instant>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { left: BURST, since: None }
    }
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let pauses = (now.saturating_duration_since(since).as_millis() / PAUSE.as_millis()).min(BURST.into());
        let pauses = u32::try_from(pauses).unwrap_or(BURST);
        if pauses > 0 {
            self.left = BURST.min(self.left + pauses);
            self.since = Some(now);
        }
        let any = self.left > 0;
        self.left -= u32::from(any);
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Address = Address { shelf: 7, slot: 1 };

    fn settings(config: &[u8]) -> Settings {
        Settings {
            config: config.into(),
            mask: vec![MacAddress([2, 0, 0, 0, 0, 1])],
            reserved: vec![MacAddress([2; 6]); 2],
        }
    }

    #[test]
    fn what_is_kept_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        for config in [&b"rack 7"[..], b"\xff\0", b"", &[b'"'; MAX_CONFIG_STRING]] {
            let mut keeper = Keeper::open(folder.path()).unwrap();
            keeper.begin(DISK).unwrap();
            assert!(keeper.keep(DISK, &settings(config)));
            drop(keeper);
            assert_eq!(Keeper::open(folder.path()).unwrap().begin(DISK).unwrap(), settings(config));
        }
        let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["7.1.json"]);
    }

    #[test]
    fn only_changes_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::open(folder.path()).unwrap();
        keeper.begin(DISK).unwrap();
        assert!(keeper.keep(DISK, &Settings::default()));
        assert!(!folder.path().join("7.1.json").exists());
        for _ in 0..2 * BURST {
            assert!(keeper.keep(DISK, &settings(b"the same")));
        }
        assert!(BURST - keeper.budget.left <= 1);
    }

    #[test]
    fn changes_without_end_wait() {
        let mut budget = Budget::default();
        let start = Instant::now();
        assert_eq!((0..1000).filter(|_| budget.take(start)).count(), BURST as usize);
        assert_eq!((0..1000).filter(|_| budget.take(start + PAUSE)).count(), 1);
        assert_eq!((0..1000u32).filter(|i| budget.take(start + PAUSE + PAUSE * *i / 10)).count(), 99);
        assert_eq!((0..1000).filter(|_| budget.take(start + PAUSE * 10_000)).count(), BURST as usize);
    }

    #[test]
    fn what_can_not_be_kept_is_not_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::open(folder.path()).unwrap();
        keeper.begin(DISK).unwrap();
        fs::remove_dir(folder.path()).unwrap();
        assert!(!keeper.keep(DISK, &settings(b"lost")));
        fs::create_dir(folder.path()).unwrap();
        assert!(keeper.keep(DISK, &settings(b"lost")));
        // Nobody wanted it to be.
        assert!(Keeper::default().keep(DISK, &settings(b"lost")));
    }

    #[test]
    fn one_folder_has_one_server() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper::open(folder.path()).unwrap();
        let line = Keeper::open(folder.path()).unwrap_err().to_string();
        assert!(line.ends_with("is another server's: give each its own with --state"), "{line}");
        drop(keeper);
        Keeper::open(folder.path()).unwrap();
    }

    #[test]
    fn damage_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::open(folder.path()).unwrap();
        let path = folder.path().join("7.1.json");
        for (text, why) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            (r#"{"config": "a", "mask": []"#, "EOF while parsing an object at line 1 column 26"),
            (
                r#"{"config": "", "mask": ["02:00"], "reserved": []}"#,
                "not an Ethernet address: write six pairs such as 02:00:00:00:00:01",
            ),
            (
                &format!(r#"{{"config": "{}", "mask": [], "reserved": []}}"#, "a".repeat(1025)),
                "a configuration string has at most 1024 bytes",
            ),
            (&"[".repeat(1 << 20), "recursion limit exceeded at line 1 column 128"),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(
                keeper.begin(DISK).unwrap_err().to_string(),
                format!(
                    "settings of clients in {} are damaged: {why}; mend the file, or take it away to begin without any",
                    path.display()
                )
            );
        }
    }
}
