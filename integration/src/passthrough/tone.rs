//! A tone, and whether a recording has it.

use anyhow::{Context, Result, ensure};
use std::f64::consts::TAU;
use std::fs;
use std::path::Path;

/// Hertz.
pub const TONE: f64 = 440.0;

/// `/dev/dsp` of the kernel's OSS emulation takes this unless told otherwise: 8 bits without sign, one channel.
const RATE: f64 = 8000.0;

/// Seconds of [`TONE`] as `/dev/dsp` takes it.
pub(super) fn samples(seconds: u32) -> Vec<u8> {
    let sample = |n| (f64::from(n) * TONE * TAU / RATE).sin().mul_add(100.0, 128.0) as u8;
    (0..seconds * RATE as u32).map(sample).collect()
}

/// How much of a WAV file (16 bits with sign) is the tone of `hertz`: the seconds in which most of the sound's energy lies there.
///
/// # Errors
/// It is no such file.
pub fn has_tone(wav: &Path, hertz: f64) -> Result<f64> {
    let bytes = fs::read(wav).with_context(|| format!("{}", wav.display()))?;
    let field = |at: usize| bytes.get(at..at + 2).map(|two| u16::from_le_bytes([two[0], two[1]]));
    // The plain header: RIFF, "fmt " of 16 bytes, "data"; QEMU writes no other.
    let header = bytes.starts_with(b"RIFF") && bytes.get(36..40) == Some(b"data");
    ensure!(header && field(34) == Some(16), "{}: no plain WAV file of 16 bits", wav.display());
    let (channels, rate) = (field(22).unwrap_or(1).max(1), field(24).unwrap_or(1).max(1));
    let frame = 2 * usize::from(channels);
    let first = |frame: &[u8]| f64::from(i16::from_le_bytes([frame[0], frame[1]]));
    let sound: Vec<f64> = bytes[44..].chunks_exact(frame).map(first).collect();
    // Windows of a tenth of a second: short enough to leave gaps out, and a multiple of both periods.
    let window = usize::from(rate) / 10;
    let with_tone = sound.chunks_exact(window).filter(|part| share(part, hertz / f64::from(rate)) > 0.5);
    Ok(with_tone.count() as f64 / 10.0)
}

/// Which part of the energy lies at one frequency, in periods a sample (Goertzel's algorithm). Silence has none.
fn share(part: &[f64], frequency: f64) -> f64 {
    let turn = 2.0 * (TAU * frequency).cos();
    let (one, two) = part.iter().fold((0.0, 0.0), |(one, two), sample| (sample + turn * one - two, one));
    let power = one * one + two * two - turn * one * two;
    let energy: f64 = part.iter().map(|sample| sample * sample).sum();
    // A pure sine has power n/2 times its energy. Below a ten-thousandth of full scale nobody plays anything.
    let length = part.len() as f64;
    if energy < length * 10.0 { 0.0 } else { power / (energy * length / 2.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(samples: impl Iterator<Item = f64>) -> tempfile::NamedTempFile {
        let mut bytes = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x02\0".to_vec();
        bytes.extend(44100u32.to_le_bytes());
        bytes.extend([0, 0, 0, 0, 4, 0, 16, 0]);
        bytes.extend(b"data\0\0\0\0");
        for sample in samples {
            bytes.extend((sample as i16).to_le_bytes().repeat(2));
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn a_tone_is_found_and_another_is_not() {
        let tone =
            |hertz: f64| (0..44100).map(move |n| 9000.0 * (f64::from(n) * hertz * TAU / 44100.0).sin());
        let file = wav((0..44100).map(|_| 0.0).chain(tone(TONE)));
        assert_eq!(has_tone(file.path(), TONE).unwrap(), 1.0);
        assert_eq!(has_tone(file.path(), 660.0).unwrap(), 0.0);
        assert_eq!(has_tone(wav(tone(450.0)).path(), TONE).unwrap(), 0.0);
        assert!(has_tone(Path::new("/dev/null"), TONE).is_err());
        assert_eq!(samples(2).len(), 16000);
    }
}
