//! Looking at disk images, and moving what overlays hold: `kagero image`.

use std::fmt::Write as _;
use std::path::Path;

use kagero_target::{Access, Below, Image, Info, Left, OldBase, OverlayInfo, Why};
use serde::Serialize;

use crate::config::{NamedImage, grouped};
use crate::error::{Error, UserError};
use crate::progress::Progress;

/// An image file, described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Where it is.
    pub path: String,
    /// Its format; "overlay" for one of ours.
    pub format: String,
    /// The disk's size; none when the format is unknown.
    pub disk_bytes: Option<u64>,
    /// What the file takes on its file system.
    pub used_bytes: u64,
    /// Who has it open, as far as we may know.
    pub open_in: Option<String>,
    /// What lies below it, from the top down.
    pub chain: Vec<Layer>,
    /// What more there is to an overlay.
    pub overlay: Option<OverlayDescription>,
}

/// A file that an image is based on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Where it should be.
    pub path: String,
    /// Its format, unless there is a problem.
    pub format: Option<String>,
    /// Why it can't be used.
    pub problem: Option<String>,
}

/// What there is to say of an overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OverlayDescription {
    /// Whose it is, by its name.
    pub client: Option<String>,
    /// Clusters of 64 KiB that it holds.
    pub clusters: u64,
    /// Clusters that were trimmed and take no room.
    pub zero_clusters: u64,
    /// Clusters of the disk.
    pub clusters_of: u64,
    /// Whether whoever had it open last closed it.
    pub closed: bool,
    /// Clusters that only the journal knows of; nothing is lost with those.
    pub journal_clusters: usize,
    /// Whether the machine has stopped while it was open, so that what was not flushed may be lost.
    pub machine_stopped: bool,
    /// A commit was begun and not finished.
    pub committing: bool,
}

/// Looks at an image file.
///
/// # Errors
/// When there is none, it can't be read, or it is damaged.
pub fn describe(path: &Path) -> Result<Description, Error> {
    let Info { path, format, size, used, below, overlay, open_in } = kagero_target::info(path)?;
    Ok(Description {
        path: path.display().to_string(),
        format,
        disk_bytes: size,
        used_bytes: used,
        open_in,
        chain: below.into_iter().map(layer).collect(),
        overlay: overlay.map(|overlay| OverlayDescription {
            client: overlay.client.map(|client| client.to_string()),
            clusters: overlay.clusters,
            zero_clusters: overlay.zeros,
            clusters_of: overlay.of,
            closed: overlay.left == Left::Closed,
            journal_clusters: match overlay.left {
                Left::Open { journal } => journal,
                Left::Closed | Left::MachineStopped => 0,
            },
            machine_stopped: overlay.left == Left::MachineStopped,
            committing: overlay.committing,
        }),
    })
}

fn layer(below: Below) -> Layer {
    let (format, problem) = match below.format {
        Ok(format) => (Some(format), None),
        Err(why) => (None, Some(why)),
    };
    let problem = problem.map(|why| match why {
        Why::NotThere => "not there".into(),
        Why::Unreadable => "can't be read".into(),
        Why::Loop => "a loop in the chain".into(),
        Why::Changed(what) => format!("changed since ({what} differs)"),
    });
    Layer { path: below.path.display().to_string(), format, problem }
}

impl Description {
    /// As a JSON document.
    #[must_use]
    pub fn json(&self) -> String {
        // Strings and numbers alone can't fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: &str| {
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            let _ = writeln!(out, "{name:<9} {value}");
        };
        let bytes = |bytes: u64| format!("{} bytes", grouped(bytes));
        line("image", &self.path);
        line("format", &self.format);
        line("disk", &self.disk_bytes.map_or("unknown".into(), bytes));
        line("used", &bytes(self.used_bytes));
        for (i, Layer { path, format, problem }) in self.chain.iter().enumerate() {
            let state = problem.as_ref().or(format.as_ref()).map_or("", |state| state);
            line(if i == 0 { "base" } else { "" }, &format!("{path} ({state})"));
        }
        if let Some(overlay) = &self.overlay {
            if self.chain.is_empty() {
                line("base", "not noted");
            }
            line("client", overlay.client.as_deref().unwrap_or("none, by its name"));
            let zeros = match overlay.zero_clusters {
                0 => String::new(),
                count => format!(", and {} of zeros", grouped(count)),
            };
            let (held, of) = (grouped(overlay.clusters), grouped(overlay.clusters_of));
            line("clusters", &format!("{held} of {of}, 64 KiB each{zeros}"));
            line("closed", &overlay.closing(self.open_in.is_some()));
        }
        if let Some(holder) = &self.open_in {
            line("open", &format!("in {holder}"));
        }
        out
    }
}

impl OverlayDescription {
    fn closing(&self, open: bool) -> String {
        match self {
            Self { committing: true, .. } => {
                "no, a commit did not end: run `kagero image commit` again".into()
            }
            Self { closed: true, .. } => "cleanly".into(),
            Self { machine_stopped: true, .. } => {
                "no, the machine stopped before: what was not flushed may be lost".into()
            }
            _ if open => "not yet".into(),
            _ => "no, but the machine has run ever since: nothing is lost".into(),
        }
    }
}

/// Writes what an overlay holds into its base, and removes it; gives what there is to say about it.
///
/// # Errors
/// When one of the files is not as it has to be.
pub fn commit(path: &Path, base: &NamedImage, force: bool) -> Result<String, Error> {
    check_overlay(path)?;
    let mut progress = Progress::new(format!("writing into {}", base.path.display()));
    let report = &mut |done, of| progress.at(done, of);
    let done = kagero_target::commit(path, &base.path, base.format, force, report)?;
    let again = if done.resumed { ", which an earlier commit had begun" } else { "" };
    let (clusters, base) = (grouped(done.clusters), base.path.display());
    Ok(format!("{clusters} clusters of 64 KiB are in {base} now{again}; {} is gone\n", path.display()))
}

/// Puts an overlay over another base; gives what there is to say about it. The base before is `from`, otherwise the one that the overlay
/// notes; with `same` it is the user's word that the disk in it is the same.
///
/// # Errors
/// When one of the files is not as it has to be.
pub fn rebase(
    path: &Path,
    base: &NamedImage,
    from: Option<&NamedImage>,
    same: bool,
) -> Result<String, Error> {
    let overlay = check_overlay(path)?;
    let new = open(base)?;
    // It may be over the new one already, but for what an interrupted rebase left to do.
    let old = if same || overlay.difference(&new)?.is_none() {
        OldBase::Same
    } else {
        OldBase::Image(match from {
            Some(from) => old_base(path, &overlay, open(from)?)?,
            None => old_base(path, &overlay, open(&noted_base(path, &overlay)?)?)?,
        })
    };
    let mut progress = Progress::new(format!("comparing with {}", base.path.display()));
    let done = kagero_target::rebase(path, new, old, &mut |done, of| progress.at(done, of))?;
    let (copied, dropped) = (grouped(done.copied), grouped(done.dropped));
    Ok(format!(
        "{} is over {} now: {copied} clusters of 64 KiB copied into it, {dropped} dropped\n",
        path.display(),
        base.path.display()
    ))
}

const OTHER_BASE: &str = "name that base with --from, or add --unsafe if the disk in the new one is the same";

fn open(image: &NamedImage) -> Result<Image, Error> {
    Ok(Image::open_as(&image.path, Access::ReadOnly, image.format)?)
}

/// Where the overlay says that its base was.
fn noted_base(path: &Path, overlay: &OverlayInfo) -> Result<NamedImage, UserError> {
    let known = overlay.base.as_deref();
    match known.filter(|base| base.exists()) {
        Some(base) => Ok(NamedImage { path: base.into(), format: None }),
        None => {
            let known = known.map_or("not noted".into(), |base| base.display().to_string());
            let problem = format!("the base that it was made over is not there ({known})");
            Err(UserError::new(path.display(), problem, OTHER_BASE))
        }
    }
}

fn old_base(path: &Path, overlay: &OverlayInfo, old: Image) -> Result<Image, Error> {
    match overlay.difference(&old)? {
        Some(what) if !overlay.committing => Err(UserError::new(
            path.display(),
            format!("it was made over another state of {} ({what} differs)", old.path().display()),
            OTHER_BASE,
        )
        .into()),
        _ => Ok(old),
    }
}

fn check_overlay(path: &Path) -> Result<OverlayInfo, Error> {
    let info = kagero_target::info(path)?;
    info.overlay.ok_or_else(|| {
        UserError::new(
            path.display(),
            format!("no overlay, but a disk image ({})", info.format),
            "name a file that `kagero serve` made with overlay=DIRECTORY",
        )
        .into()
    })
}
