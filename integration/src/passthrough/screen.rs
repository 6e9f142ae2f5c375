//! What L1's displays show.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A connection to the control port of L1's QEMU.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    dump: PathBuf,
}

/// A screen's pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    /// Red, green, blue; row by row from the top.
    pixels: Vec<[u8; 3]>,
}

impl Qmp {
    pub(super) fn connect(path: &Path) -> Result<Qmp> {
        let stream = UnixStream::connect(path).with_context(|| format!("{}", path.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut this = Qmp { stream: BufReader::new(stream), dump: path.with_extension("ppm") };
        this.execute("qmp_capabilities", &json!({}))?;
        Ok(this)
    }

    /// Executes a command; what happens meanwhile is passed over.
    ///
    /// # Errors
    /// What QEMU says, or it is gone.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).context("QMP")?;
        loop {
            let mut answer = String::new();
            ensure!(self.stream.read_line(&mut answer).context("QMP")? > 0, "QEMU is gone");
            let mut answer: Value = serde_json::from_str(&answer).context("QMP")?;
            if let Some(error) = answer.get("error") {
                bail!("{command}: {error}");
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// What a display shows now.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn picture(&mut self, device: &str) -> Result<Picture> {
        self.execute("screendump", &json!({ "filename": self.dump, "device": device }))?;
        Picture::parse(&fs::read(&self.dump)?).context("screen dump")
    }

    /// Waits until a display shows these colours as bands of equal height, from top to bottom.
    ///
    /// # Errors
    /// It doesn't within `patience`; the error says what it shows.
    pub fn wait_for_bands(&mut self, device: &str, colours: &[[u8; 3]], patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let picture = self.picture(device)?;
            let bands = picture.bands(colours.len());
            if bands.iter().eq(colours.iter().map(|&colour| Some(colour)).collect::<Vec<_>>().iter()) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{device} shows {bands:?} on {}x{}, not {colours:?}",
                picture.width,
                picture.height
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Picture {
    /// A binary PPM of 8 bits, as QEMU writes it.
    fn parse(ppm: &[u8]) -> Option<Picture> {
        let mut parts = ppm.splitn(4, |&byte| byte == b'\n');
        let (magic, size, most) = (parts.next()?, parts.next()?, parts.next()?);
        let (width, height) = std::str::from_utf8(size).ok()?.split_once(' ')?;
        let (width, height) = (width.parse().ok()?, height.parse().ok()?);
        let pixels: Vec<[u8; 3]> =
            parts.next()?.chunks_exact(3).filter_map(|rgb| rgb.try_into().ok()).collect();
        let whole = magic == b"P6" && most == b"255" && pixels.len() == usize::checked_mul(width, height)?;
        whole.then_some(Picture { width, height, pixels })
    }

    /// The colour of each of `count` bands, if it has one: that of the whole row in its middle.
    fn bands(&self, count: usize) -> Vec<Option<[u8; 3]>> {
        let middle = |band: usize| {
            let row = (2 * band + 1) * self.height / (2 * count);
            let row = self.pixels.get(row * self.width..(row + 1) * self.width)?;
            row.iter().all(|pixel| Some(pixel) == row.first()).then(|| row.first().copied()).flatten()
        };
        (0..count).map(middle).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_have_one_colour_or_none() {
        let mut ppm = b"P6\n2 4\n255\n".to_vec();
        ppm.extend([[1, 2, 3]; 4].concat());
        ppm.extend([[9, 9, 9], [9, 9, 9], [9, 9, 9], [8, 9, 9]].concat());
        let picture = Picture::parse(&ppm).unwrap();
        assert_eq!(picture.bands(2), [Some([1, 2, 3]), None]);
        assert_eq!(picture.bands(4), [Some([1, 2, 3]), Some([1, 2, 3]), Some([9, 9, 9]), None]);
        assert_eq!(Picture::parse(&ppm[..30]), None);
        assert_eq!(Picture::parse(b"P6\n"), None);
    }
}
