//! What is looked for in the guest's console output, across all boundaries of how it arrives.

/// Finds a text in a stream of bytes (Knuth, Morris and Pratt).
#[derive(Clone, Debug)]
pub struct Matcher {
    text: Vec<u8>,
    /// For each length of a matched beginning, the length of its longest proper border.
    border: Vec<usize>,
    matched: usize,
}

impl Matcher {
    /// A search for `text`. An empty one is never found.
    #[must_use]
    pub fn new(text: impl Into<Vec<u8>>) -> Self {
        let text = text.into();
        let mut border = vec![0; text.len() + 1];
        let mut length = 0;
        for at in 1..text.len() {
            while length > 0 && text[at] != text[length] {
                length = border[length];
            }
            length += usize::from(text[at] == text[length]);
            border[at + 1] = length;
        }
        Self { text, border, matched: 0 }
    }

    /// Takes the next byte; true when the text ends with it.
    pub fn push(&mut self, byte: u8) -> bool {
        if self.text.is_empty() {
            return false;
        }
        while self.matched > 0 && (self.matched == self.text.len() || self.text[self.matched] != byte) {
            self.matched = self.border[self.matched];
        }
        self.matched += usize::from(self.text[self.matched] == byte);
        self.matched == self.text.len()
    }
}

/// What shows that a boot has come so far, in the order of a boot.
const MILESTONES: [(&str, &[&str]); 5] = [
    ("firmware", &["SeaBIOS"]),
    ("boot loader", &["GRUB", "Booting from", "Booting `", "ISOLINUX", "SYSLINUX"]),
    // With `quiet` on its command line a kernel says nothing before init does.
    ("kernel", &["Linux version ", "[    0.000000]", "Linux/x86_64"]),
    ("init", &["Run /init", "Run /sbin/init", "systemd[1]", "Loading, please wait"]),
    ("login", &["login:"]),
];

/// Recognizes the phases of a boot in the console's output.
#[derive(Clone, Debug)]
pub struct Milestones {
    /// Those not yet reached: a boot goes forward only, so that a service's message about GRUB is none of the boot loader's.
    ahead: Vec<(&'static str, Vec<Matcher>)>,
}

impl Default for Milestones {
    fn default() -> Self {
        let matchers = |texts: &[&str]| texts.iter().map(|&text| Matcher::new(text)).collect();
        Self { ahead: MILESTONES.iter().map(|&(name, texts)| (name, matchers(texts))).collect() }
    }
}

impl Milestones {
    /// Takes the next byte; the milestone's name when one is reached with it.
    pub fn push(&mut self, byte: u8) -> Option<&'static str> {
        let mut reached = None;
        for (at, (name, matchers)) in self.ahead.iter_mut().enumerate() {
            // All of them see every byte, also those after a match.
            let found = matchers.iter_mut().filter_map(|matcher| matcher.push(byte).then_some(())).count();
            if found > 0 {
                reached = Some((at, *name));
            }
        }
        reached.map(|(at, name)| {
            self.ahead.drain(..=at);
            name
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finds(text: &[u8], stream: &[u8]) -> Option<usize> {
        let mut matcher = Matcher::new(text);
        stream.iter().position(|&byte| matcher.push(byte)).map(|end| end + 1)
    }

    #[test]
    fn a_text_is_found_where_it_ends() {
        assert_eq!(finds(b"login:", b"kagero login: "), Some(13));
        assert_eq!(finds(b"login:", b"logilogin:"), Some(10));
        assert_eq!(finds(b"login:", b"login"), None);
        assert_eq!(finds(b"", b"anything"), None);
    }

    proptest! {
        /// Few letters, so that beginnings repeat; the naive search is the judge.
        #[test]
        fn as_the_naive_search(text in "[ab]{1,6}", stream in "[ab]{0,60}") {
            let naive = stream.find(&text).map(|at| at + text.len());
            prop_assert_eq!(finds(text.as_bytes(), stream.as_bytes()), naive);
        }

        #[test]
        fn every_occurrence_is_told(text in "[ab]{1,4}", stream in "[ab]{0,60}") {
            let mut matcher = Matcher::new(text.as_bytes());
            let told: Vec<usize> =
                stream.bytes().enumerate().filter(|&(_, byte)| matcher.push(byte)).map(|(at, _)| at + 1).collect();
            let naive: Vec<usize> = (0..=stream.len()).filter(|&end| stream[..end].ends_with(&text)).collect();
            prop_assert_eq!(told, naive);
        }
    }

    fn phases(output: &str) -> Vec<&'static str> {
        let mut milestones = Milestones::default();
        output.bytes().filter_map(|byte| milestones.push(byte)).collect()
    }

    #[test]
    fn a_boot_is_recognized() {
        let output = "SeaBIOS (version 1.16.2)\r\nBooting from Hard Disk...\r\nGRUB loading.\r\n\
            [    0.000000] Linux version 6.1.0\r\n[    3.1] systemd[1]: Hello\r\nDebian login: ";
        assert_eq!(phases(output), ["firmware", "boot loader", "kernel", "init", "login"]);
    }

    #[test]
    fn a_boot_goes_forward_only() {
        assert_eq!(
            phases("[    0.000000] x\nsystemd[1]: GRUB failed boot detection\nSeaBIOS\nlogin:"),
            ["kernel", "init", "login"]
        );
    }
}
