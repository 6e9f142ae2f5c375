//! What `kagero image` is to work on.

use std::path::PathBuf;
use std::str::FromStr;

use kagero_target::Format;

use super::units;
use crate::error::BadValue;

/// A disk image by name, written `debian.img` or `debian.qcow2,format=qcow2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedImage {
    /// Where it is.
    pub path: PathBuf,
    /// Its format; without it, one that looks like no other is raw.
    pub format: Option<Format>,
}

impl FromStr for NamedImage {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let (path, format) = match text.rsplit_once(",format=") {
            Some((path, format)) => (path, Some(units::format(format)?)),
            None => (text, None),
        };
        if path.is_empty() {
            return Err(BadValue::not(text, "an image", "give the path of a disk image"));
        }
        Ok(Self { path: path.into(), format })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_their_formats() {
        let image = |text: &str| text.parse::<NamedImage>().map_err(|error| error.to_string());
        assert_eq!(image("a,b.img"), Ok(NamedImage { path: "a,b.img".into(), format: None }));
        assert_eq!(
            image("a.qcow2,format=qcow2"),
            Ok(NamedImage { path: "a.qcow2".into(), format: Some(Format::Qcow2) })
        );
        assert_eq!(image(""), Err("\"\" is not an image: give the path of a disk image".into()));
        assert!(image("a,format=vmdk").unwrap_err().starts_with("\"vmdk\" is not an image format: "));
    }
}
