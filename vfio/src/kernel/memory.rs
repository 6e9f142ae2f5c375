//! Guest memory in the functions' address space. It is pinned there: it stays where it is, in RAM.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::iommu::Iommu;
use super::region::Translation;
use super::uapi;
use crate::Error;

/// A part of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ram {
    /// The guest physical address of its first byte.
    pub gpa: u64,
    /// Where that is in this process.
    pub host: u64,
    /// Bytes.
    pub length: u64,
}

/// What the kernel keeps the address space in.
#[derive(Debug)]
pub(super) enum Space {
    /// A container.
    Container {
        /// `/dev/vfio/vfio`, opened.
        file: File,
    },
    /// An I/O address space of an iommufd.
    Iommufd {
        /// `/dev/iommu`, opened.
        file: File,
        /// Its number.
        ioas: u32,
    },
}

impl Space {
    fn translation(&self) -> io::Result<Translation> {
        match self {
            Space::Container { file } => Ok(Translation::parse(&uapi::container_info(file)?)),
            Space::Iommufd { file, ioas } => {
                let (ranges, alignment) = uapi::ioas_ranges(file, *ioas)?;
                Ok(Translation { ranges: Some(ranges), alignment })
            }
        }
    }

    /// # Safety
    /// As with [`Iommu::map`].
    unsafe fn map(&self, Ram { gpa, host, length }: Ram) -> io::Result<()> {
        match self {
            // SAFETY: as the caller promises.
            Space::Container { file } => unsafe { uapi::container_map(file, gpa, host, length) },
            // SAFETY: as the caller promises.
            Space::Iommufd { file, ioas } => unsafe { uapi::ioas_map(file, *ioas, (gpa, host, length)) },
        }
    }

    fn unmap(&self, Ram { gpa, host: _, length }: Ram) -> io::Result<()> {
        match self {
            Space::Container { file } => uapi::container_unmap(file, gpa, length),
            Space::Iommufd { file, ioas } => uapi::ioas_unmap(file, *ioas, gpa, length),
        }
    }
}

impl Iommu {
    /// Lets functions reach guest memory, at the addresses that the guest knows. The memory can't be swapped out from then on. When it
    /// fails, nothing is mapped. Without functions there is no IOMMU in a container yet: [open](Self::open) them first.
    ///
    /// # Errors
    /// When the IOMMU doesn't translate these addresses, or this process may not lock as much memory.
    ///
    /// # Safety
    /// Each part must be memory that is mapped in this process and that a guest may change at any time, until [`unmap`](Self::unmap)
    /// returns or this value is dropped.
    pub unsafe fn map(&self, ram: &[Ram]) -> Result<(), Error> {
        let kernel = |doing, source| Error::Kernel { device: "guest memory".to_owned(), doing, source };
        let translation =
            self.space.translation().map_err(|e| kernel("asking what the IOMMU translates", e))?;
        reachable(&translation, ram)?;
        let needed = ram.iter().map(|part| part.length).sum();
        allow_locking(needed)?;
        for &part in ram {
            // SAFETY: as the caller promises.
            match unsafe { self.space.map(part) } {
                Ok(()) => self.state().mapped.push(part),
                Err(source) => {
                    self.unmap();
                    // The kernel says so too when the limit is too low: to root of a user namespace, for example.
                    return Err(match source.raw_os_error().map(Errno::from_raw_os_error) {
                        Some(Errno::NOMEM) => {
                            Error::LockedMemory { needed, allowed: limit().current.unwrap_or(u64::MAX) }
                        }
                        _ => kernel("mapping it for the functions", source),
                    });
                }
            }
        }
        Ok(())
    }

    /// Functions reach no memory any more.
    pub fn unmap(&self) {
        for part in self.state().mapped.drain(..).rev() {
            // What fails here ends with the file.
            let _ = self.space.unmap(part);
        }
    }
}

impl Drop for Iommu {
    fn drop(&mut self) {
        self.unmap();
        if let Space::Iommufd { file, ioas } = &self.space {
            let _ = uapi::destroy(file, *ioas);
        }
    }
}

/// Whether the IOMMU translates all of the guest's addresses.
fn reachable(translation: &Translation, ram: &[Ram]) -> Result<(), Error> {
    for &Ram { gpa, host, length } in ram {
        let last = gpa.saturating_add(length.saturating_sub(1));
        let aligned = (gpa | host | length).is_multiple_of(translation.alignment.max(1));
        let inside = |&(from, to): &(u64, u64)| from <= gpa && last <= to;
        let translated = translation.ranges.as_ref().is_none_or(|ranges| ranges.iter().any(inside));
        if !aligned {
            let source = io::Error::other(format!(
                "the IOMMU has pages of {} bytes, and memory at {gpa:#x} lies across them",
                translation.alignment
            ));
            return Err(Error::Kernel {
                device: "guest memory".to_owned(),
                doing: "mapping it for the functions",
                source,
            });
        }
        if !translated {
            return Err(Error::Unreachable { first: gpa, last });
        }
    }
    Ok(())
}

fn limit() -> Rlimit {
    getrlimit(Resource::Memlock)
}

/// Makes sure that this process may lock so many bytes: the soft limit is ours to raise, the hard one not.
fn allow_locking(needed: u64) -> Result<(), Error> {
    let exempt = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let Rlimit { current, maximum } = limit();
    let suffices = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if exempt || suffices(current) {
        return Ok(());
    }
    if suffices(maximum) && setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum }).is_ok() {
        return Ok(());
    }
    Err(Error::LockedMemory { needed, allowed: maximum.unwrap_or(u64::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: [Ram; 2] = [
        Ram { gpa: 0, host: 0x7000_0000_0000, length: 0xa_0000 },
        Ram { gpa: 0x1_0000_0000, host: 0x7100_0000_0000, length: 0x4000_0000 },
    ];

    #[test]
    fn guest_memory_outside_the_ranges_is_named() {
        let translation = |ranges| Translation { ranges, alignment: 4096 };
        assert!(reachable(&translation(None), &RAM).is_ok());
        assert!(reachable(&translation(Some(vec![(0, 0xfedf_ffff), (0xfef0_0000, u64::MAX)])), &RAM).is_ok());
        let error = reachable(&translation(Some(vec![(0, 0x1_1fff_ffff)])), &RAM).unwrap_err();
        assert!(error.to_string().contains("0x100000000 to 0x13fffffff"), "{error}");
        let odd = Ram { gpa: 0x1000, host: 0x1000, length: 0x1234 };
        assert!(
            reachable(&translation(None), &[odd]).unwrap_err().to_string().contains("pages of 4096 bytes")
        );
        let wraps = Ram { gpa: u64::MAX - 0xfff, host: 0, length: 0x2000 };
        assert!(reachable(&translation(Some(vec![(0, 0xffff)])), &[wraps]).is_err());
    }
}
