//! IOMMU groups and drivers, as sysfs shows them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Neighbour};

/// A function's folder in sysfs.
pub(super) struct Sysfs {
    folder: PathBuf,
    name: String,
}

impl Sysfs {
    /// The function of this name: `0000:03:00.0`.
    pub(super) fn find(devices: &Path, name: &str) -> Result<Self, Error> {
        let folder = devices.join(name);
        let is_name = !name.contains('/') && name.contains(':');
        if !is_name || !folder.is_dir() {
            return Err(Error::NoDevice { device: name.to_owned() });
        }
        Ok(Sysfs { folder, name: name.to_owned() })
    }

    /// The function's driver.
    fn driver(&self) -> Option<String> {
        last_part(&self.folder.join("driver"))
    }

    /// The number of its IOMMU group, when a VFIO driver has it and nobody else in the group is in the way.
    pub(super) fn viable_group(&self) -> Result<u32, Error> {
        let device = || self.name.clone();
        let group = last_part(&self.folder.join("iommu_group"))
            .and_then(|group| group.parse().ok())
            // The kernel makes such groups up for functions without an IOMMU when it was told to (enable_unsafe_noiommu_mode).
            .filter(|_| !self.group_name().starts_with("vfio-noiommu"))
            .ok_or_else(|| Error::NoIommu { device: device() })?;
        let driver = self.driver();
        if !driver.as_deref().is_some_and(is_vfio) {
            return Err(Error::NotBound { device: device(), driver });
        }
        let others = self.in_the_way();
        if others.is_empty() { Ok(group) } else { Err(Error::NotViable { device: device(), group, others }) }
    }

    fn group_name(&self) -> String {
        fs::read_to_string(self.folder.join("iommu_group/name")).unwrap_or_default()
    }

    /// Who else in the group is in use by the host.
    fn in_the_way(&self) -> Vec<Neighbour> {
        let members = fs::read_dir(self.folder.join("iommu_group/devices"));
        let mut others: Vec<_> = members
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|member| {
                let name = member.file_name().to_string_lossy().into_owned();
                let driver = last_part(&member.path().join("driver"))?;
                (!is_harmless(&driver)).then_some(Neighbour { name, driver })
            })
            .collect();
        others.sort_by(|a, b| a.name.cmp(&b.name));
        others
    }

    /// The device node below `/dev/vfio/devices` that it has: `vfio3`.
    pub(super) fn node(&self) -> Option<String> {
        fs::read_dir(self.folder.join("vfio-dev"))
            .ok()?
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .find(|name| name.starts_with("vfio"))
    }
}

/// Whether this driver is `vfio-pci`, or one of its kind for one maker's devices: `mlx5_vfio_pci`.
#[must_use]
pub fn is_vfio(driver: &str) -> bool {
    driver == "vfio-pci" || driver.ends_with("_vfio_pci") || driver.ends_with("-vfio-pci")
}

/// Whether a function with this driver leaves VFIO the others of its group: these two leave DMA to others (`driver_managed_dma` in the
/// kernel), or do nothing.
#[must_use]
pub fn is_harmless(driver: &str) -> bool {
    is_vfio(driver) || driver == "pcieport" || driver == "pci-stub"
}

/// What a symbolic link leads to, less its folders.
fn last_part(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A sysfs with these functions in group 7, and their drivers.
    fn sysfs(functions: &[(&str, Option<&str>)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let members = root.path().join("groups/7/devices");
        fs::create_dir_all(&members).unwrap();
        for (name, driver) in functions {
            let folder = root.path().join(name);
            fs::create_dir(&folder).unwrap();
            symlink("../groups/7", folder.join("iommu_group")).unwrap();
            symlink(format!("../../../{name}"), members.join(name)).unwrap();
            if let Some(driver) = driver {
                symlink(format!("../bus/pci/drivers/{driver}"), folder.join("driver")).unwrap();
            }
        }
        root
    }

    fn group(root: &tempfile::TempDir, name: &str) -> Result<u32, String> {
        Sysfs::find(root.path(), name).and_then(|found| found.viable_group()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_group_is_viable_without_drivers_that_use_dma() {
        let root = sysfs(&[
            ("0000:03:00.0", Some("vfio-pci")),
            ("0000:03:00.1", None),
            ("0000:03:00.2", Some("mlx5_vfio_pci")),
            ("0000:00:1c.0", Some("pcieport")),
        ]);
        assert_eq!(group(&root, "0000:03:00.0"), Ok(7));
        assert_eq!(group(&root, "0000:03:00.2"), Ok(7));
    }

    #[test]
    fn who_is_in_the_way_is_named() {
        let root = sysfs(&[
            ("0000:03:00.0", Some("vfio-pci")),
            ("0000:03:00.2", Some("xhci_hcd")),
            ("0000:03:00.1", Some("snd_hda_intel")),
        ]);
        let line = group(&root, "0000:03:00.0").unwrap_err();
        assert!(line.contains(
            "group 7 is in use by 0000:03:00.1 (driver snd_hda_intel), 0000:03:00.2 (driver xhci_hcd)"
        ));
        let line = group(&root, "0000:03:00.1").unwrap_err();
        assert!(line.contains("driver snd_hda_intel has it, not vfio-pci"), "{line}");
        let line = group(&root, "0000:04:00.0").unwrap_err();
        assert!(line.contains("no such PCI function"), "{line}");
        assert!(Sysfs::find(root.path(), "../../etc").is_err());
    }

    #[test]
    fn without_a_group_there_is_no_iommu() {
        let root = sysfs(&[("0000:03:00.0", Some("vfio-pci"))]);
        fs::remove_file(root.path().join("0000:03:00.0/iommu_group")).unwrap();
        assert!(group(&root, "0000:03:00.0").unwrap_err().contains("no IOMMU"));
    }
}
