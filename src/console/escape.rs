//! Ctrl-A on the terminal: the one key that is not the guest's.

const CTRL_A: u8 = 0x01;

/// Printed for ctrl-A h.
pub const HELP: &str = "\n\
    ctrl-A x       end Kagero, as if the guest's power failed\n\
    ctrl-A ctrl-A  send ctrl-A to the guest\n\
    ctrl-A h       this help\n";

/// What a typed byte means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A byte for the guest.
    Guest(u8),
    /// End the run.
    Quit,
    /// Print [`HELP`].
    Help,
}

/// Tells our keys from the guest's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Escape {
    begun: bool,
}

impl Escape {
    /// Takes the next byte; `None` when it is, or belongs to, the beginning of an escape.
    ///
    /// An unknown key after ctrl-A is swallowed with it, as with QEMU.
    pub fn push(&mut self, byte: u8) -> Option<Key> {
        if !std::mem::take(&mut self.begun) {
            self.begun = byte == CTRL_A;
            return (!self.begun).then_some(Key::Guest(byte));
        }
        match byte {
            CTRL_A => Some(Key::Guest(CTRL_A)),
            b'x' | b'X' => Some(Key::Quit),
            b'h' | b'H' | b'?' => Some(Key::Help),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut escape = Escape::default();
        bytes.iter().filter_map(|&byte| escape.push(byte)).collect()
    }

    #[test]
    fn ctrl_a_is_ours_and_the_rest_the_guests() {
        assert_eq!(keys(b"ax\x03"), [Key::Guest(b'a'), Key::Guest(b'x'), Key::Guest(3)]);
        assert_eq!(keys(b"\x01x"), [Key::Quit]);
        assert_eq!(keys(b"\x01h"), [Key::Help]);
        assert_eq!(keys(b"\x01\x01x"), [Key::Guest(1), Key::Guest(b'x')]);
        assert_eq!(keys(b"\x01zx"), [Key::Guest(b'x')]);
    }
}
