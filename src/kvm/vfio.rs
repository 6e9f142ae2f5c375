//! KVM's VFIO device: through it KVM learns which of the machine's devices are real, and whether their DMA leaves caches alone.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

use kvm_bindings::{
    KVM_DEV_VFIO_GROUP, KVM_DEV_VFIO_GROUP_ADD, kvm_create_device, kvm_device_attr, kvm_device_type_KVM_DEV_TYPE_VFIO,
};
use kvm_ioctls::{DeviceFd, VmFd};

/// Makes the device and adds these files. They are let go of when the device is closed.
pub(super) fn add(vm: &VmFd, files: &[OwnedFd]) -> Result<DeviceFd, kvm_ioctls::Error> {
    let mut device = kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_VFIO, fd: 0, flags: 0 };
    let device = vm.create_device(&mut device)?;
    for file in files {
        let fd = file.as_raw_fd();
        let attribute = kvm_device_attr {
            group: KVM_DEV_VFIO_GROUP,
            // The same number as KVM_DEV_VFIO_FILE_ADD, which takes files of functions too (Linux 6.6).
            attr: KVM_DEV_VFIO_GROUP_ADD.into(),
            addr: &raw const fd as u64,
            flags: 0,
        };
        device.set_device_attr(&attribute)?;
    }
    Ok(device)
}
