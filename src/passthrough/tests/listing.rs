use super::*;

#[test]
fn the_table_tells_all() {
    let folder = tempfile::tempdir().unwrap();
    let host = ordinary(&folder);
    std::fs::remove_file(host.path("sys/bus/pci/devices/0000:01:00.1/reset_method")).unwrap();
    assert_eq!(
        list(&seen(&host), vec!["eth1".into()]).table(),
        "\
address       what                 id         driver         group  reset  goes to a guest?
0000:00:00.0  host bridge          1234:5678  -              0      flr    no: host bridge
0000:00:01.0  PCI bridge           1234:5678  pcieport       1      flr    no: PCI bridge
0000:00:14.0  USB controller       1234:5678  xhci_hcd       2      flr    yes
0000:00:19.0  Ethernet controller  1234:5678  e1000e         3      flr    yes; carries eth0, which is up
0000:00:1c.0  PCI bridge           1234:5678  pcieport       4      flr    no: PCI bridge
0000:00:1c.4  PCI bridge           1234:5678  pcieport       6      flr    no: PCI bridge
0000:00:1f.0  ISA bridge           1234:5678  lpc_ich        8      flr    no: ISA bridge
0000:00:1f.2  SATA controller      1234:5678  ahci           8      flr    no: carries / (sda1)
0000:00:1f.3  SMBus controller     1234:5678  i801_smbus     8      flr    no: shares IOMMU group 8 with 0000:00:1f.0 (ISA bridge), 0000:00:1f.2 (carries / (sda1))
0000:01:00.0  VGA display          1234:5678  nouveau        1      flr    yes; the host's console is on it
0000:01:00.1  HD audio device      1234:5678  snd_hda_intel  1      -      yes
0000:03:00.0  NVMe controller      1234:5678  nvme           5      flr    yes
0000:04:00.0  Ethernet controller  1234:5678  igb            7      flr    no: carries AoE (eth1)
"
    );
}

#[test]
fn the_document_tells_it_to_programs() {
    let folder = tempfile::tempdir().unwrap();
    let host = ordinary(&folder);
    std::fs::remove_dir_all(host.path("sys/bus/pci/drivers/vfio-pci")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&list(&seen(&host), Vec::new()).json()).unwrap();
    assert_eq!(json["missing"], "vfio-pci: the kernel's driver is not loaded: `modprobe vfio-pci`");
    assert_eq!(
        json["devices"][7],
        serde_json::json!({
            "address": "0000:00:1f.2",
            "what": "SATA controller",
            "class": "010601",
            "id": "1234:5678",
            "driver": "ahci",
            "group": 8,
            "resets": ["flr", "bus"],
            "console": false,
            "physical_function": null,
            "carries": [{ "kind": "file-system", "mount": "/", "device": "sda1" }],
            "goes": false,
            "stays": "carries / (sda1)",
        })
    );
    assert_eq!(
        (json["devices"][12]["goes"].as_bool(), json["devices"][12]["stays"].is_null()),
        (Some(true), true)
    );
}

#[test]
fn a_host_without_pci_has_an_empty_list() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        list(&seen(&MadeUp::new(folder.path())), Vec::new()).table(),
        "this host has no PCI functions\n"
    );
}

/// Whatever this machine has, looking at it is harmless.
#[test]
fn this_host_can_be_looked_at() {
    let listing = list(&Host::here(), Vec::new());
    assert!(listing.devices.iter().all(|device| device.goes == device.stays.is_none()));
    assert!(listing.table().lines().count() > listing.devices.len() || listing.devices.is_empty());
}
