//! SMART (7.53): a disk that is somewhere else has no attributes of its own to report, and says that it is well.

use super::{Answer, Settings, SmartFunction, TaskFile};

/// LBA Mid and LBA High of every SMART command; RETURN STATUS leaves them so while no threshold is exceeded.
const KEY: [u8; 2] = [0x4f, 0xc2];

/// Carries out a SMART command: what it sends, if anything; `Err` for ABRT.
pub(super) fn execute(settings: &mut Settings, file: &TaskFile) -> Result<Option<Answer>, ()> {
    let function = SmartFunction::decode(file.features()).ok_or(())?;
    if file.cylinder() != KEY || (!settings.smart && function != SmartFunction::Enable) {
        return Err(());
    }
    Ok(match function {
        SmartFunction::ReadData => Some(Answer::SmartData),
        SmartFunction::ReadThresholds => Some(Answer::SmartThresholds),
        SmartFunction::Autosave if !matches!(file.count(), 0x00 | 0xf1) => return Err(()),
        // RETURN STATUS leaves the key in LBA Mid and High: no threshold is exceeded.
        SmartFunction::Autosave | SmartFunction::ReturnStatus => None,
        SmartFunction::Enable => {
            settings.smart = true;
            None
        }
        SmartFunction::Disable => {
            settings.smart = false;
            None
        }
    })
}

/// READ DATA: no attributes, no self-test, no off-line collection.
pub(super) fn data() -> [u8; 512] {
    let mut data = [0; 512];
    data[0] = 0x10; // revision of the attribute structure
    data[368] = 0x03; // saves attributes before a power-saving mode, and autosave can be set
    sealed(data)
}

/// READ THRESHOLDS: none.
pub(super) fn thresholds() -> [u8; 512] {
    let mut data = [0; 512];
    data[0] = 0x10;
    sealed(data)
}

/// With the last byte such that all add up to zero.
fn sealed(mut data: [u8; 512]) -> [u8; 512] {
    data[511] = data[..511].iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    data
}
