//! The 82441FX host bridge (PMC), function 00.0.

use crate::pci::{ConfigSpace, Identity, command};

/// The host bridge: an identity, and storage for what would steer memory on the board.
///
/// Firmware knows the machine by vendor, device and subsystem, and turns to fw_cfg for the rest. RAM always answers at C0000h to
/// FFFFFh, whatever PAM (59h to 5Fh) and SMRAM (72h) say: whoever resets the machine puts the BIOS there.
#[derive(Clone, Debug)]
pub struct HostBridge {
    config: ConfigSpace,
}

impl HostBridge {
    /// As after power-on.
    #[must_use]
    pub fn new() -> Self {
        let config =
            ConfigSpace::new(Identity { vendor: 0x8086, device: 0x1237, class: 0x06_00_00, revision: 2 })
                .with_subsystem(0x1af4, 0x1100)
                // I/O is not its to switch; memory and mastering are always on (82441FX, 3.2.3).
                .with_value(0x04, &(command::MEMORY | command::MASTER).to_le_bytes())
                .with_writable(0x04, &command::SERR.to_le_bytes())
                .with_value(0x06, &[0x80, 0x02])
                .with_writable(0x50, &[0xff; 4]) // PMCCFG, DETURBO, DBC
                .with_writable(0x57, &[0xff; 2]) // DRAMC, DRAMT
                .with_writable(0x59, &[0xff; 7]) // PAM0 to PAM6
                .with_writable(0x60, &[0xff; 8]) // DRB0 to DRB7
                .with_value(0x72, &[0x02])
                .with_writable(0x72, &[0x7f]); // SMRAM
        Self { config }
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        let Self { config } = self;
        let _no_bars = config.reset();
    }

    /// The configuration space, to read.
    #[must_use]
    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    /// A guest's write to the configuration space.
    pub fn write_config(&mut self, offset: u8, data: &[u8]) {
        let _no_bars = self.config.write(offset, data);
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}
