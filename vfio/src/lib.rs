//! Passthrough of one PCI function with VFIO.
