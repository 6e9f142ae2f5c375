use super::*;

#[test]
fn all_is_what_the_host_can_spare() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(&ordinary(&folder), "all", "eth1");
    assert_eq!(
        goes(&plan),
        ["0000:00:14.0 3.0", "0000:00:19.0 4.0", "0000:01:00.0 5.0", "0000:01:00.1 5.1", "0000:03:00.0 6.0"]
    );
    assert_eq!(
        plan.functions.iter().map(|one| one.multifunction).collect::<Vec<_>>(),
        [false, false, true, true, false]
    );
    assert_eq!(plan.bind, plan.functions.iter().map(|one| one.host).collect::<Vec<_>>());
    assert_eq!(plan.along, []);
    assert_eq!(
        stays(&plan),
        [
            "0000:00:00.0 host bridge",
            "0000:00:01.0 PCI bridge",
            "0000:00:1c.0 PCI bridge",
            "0000:00:1c.4 PCI bridge",
            "0000:00:1f.0 ISA bridge",
            "0000:00:1f.2 carries / (sda1)",
            "0000:00:1f.3 shares IOMMU group 8 with 0000:00:1f.0 (ISA bridge), 0000:00:1f.2 (carries / (sda1))",
            "0000:04:00.0 carries AoE (eth1)",
        ]
    );
}

#[test]
fn all_without_bind_is_what_vfio_has() {
    let folder = tempfile::tempdir().unwrap();
    let host = ordinary(&folder);
    host.function("0000:00:1c.5/0000:05:00.0", 0x02_0000, "vfio-pci", Some(9));
    let plan = prepare(&seen(&host), &config("all", false, "eth1"), None).unwrap();
    assert_eq!((goes(&plan), plan.bind.len()), (vec!["0000:05:00.0 3.0".to_owned()], 0));
    assert!(stays(&plan).contains(&"0000:03:00.0 has the driver nvme, not vfio-pci".into()));
}

#[test]
fn the_run_s_network_card_is_found_below_what_is_stacked_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let host = ordinary(&folder);
    host.interface("virtual/net/bond0", true).over("bond0", "eth1");
    host.interface("virtual/net/bond0.7", true).over("bond0.7", "bond0");
    host.interface("virtual/net/br0", true).over("br0", "eth0");
    host.interface("virtual/net/tap0", true).over("br0", "tap0");
    for (interface, card) in [
        ("eth0", "0000:00:19.0"),
        ("bond0.7", "0000:04:00.0"),
        ("br0", "0000:00:19.0"),
        ("tap:tap0", "0000:00:19.0"),
    ] {
        let plan = plan(&host, "all", interface);
        let aoe: Vec<_> = stays(&plan).into_iter().filter(|line| line.contains("AoE")).collect();
        let name = if card.starts_with("0000:00") { "eth0" } else { "eth1" };
        assert_eq!(aoe, [format!("{card} carries AoE ({name})")], "{interface}");
    }
    // A tap that no bridge has is nobody's.
    host.interface("virtual/net/tap1", true);
    assert!(!stays(&plan(&host, "all", "tap:tap1")).iter().any(|line| line.contains("AoE")));
}

#[test]
fn the_root_disk_is_found_below_dm_crypt_and_lvm() {
    let folder = tempfile::tempdir().unwrap();
    let host = ordinary(&folder);
    let drive = "pci0000:00/0000:00:1c.0/0000:03:00.0/nvme/nvme0/nvme0n1";
    host.block(&format!("{drive}/nvme0n1p2"), "259:2")
        .block("virtual/block/dm-0", "253:0")
        .block("virtual/block/dm-1", "253:1")
        .on("dm-0", "nvme0n1p2")
        .on("dm-1", "dm-0")
        .mount("253:1", "/srv/with\\040space", "xfs", "/dev/mapper/vg-srv");
    assert!(
        stays(&plan(&host, "all", "eth1")).contains(&"0000:03:00.0 carries /srv/with space (dm-1)".into())
    );
    assert_eq!(
        refusal(&host, "03:00.0", true),
        "0000:03:00.0: carries /srv/with space (dm-1): unmount it first"
    );
}

#[test]
fn swap_and_btrfs_are_found_by_their_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let host = ordinary(&folder);
    host.block("pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb", "8:16")
        .block("virtual/block/dm-0", "253:0")
        .on("dm-0", "nvme0n1");
    host.link("dev/mapper/swap", "dev/dm-0");
    host.line("proc/swaps", "/dev/mapper/swap partition 1 0 -2");
    host.line("proc/swaps", "/swap/file file 1 0 -3");
    host.mount("0:41", "/data", "btrfs", "/dev/sda1");
    for device in ["sda1", "sdb"] {
        host.link(&format!("sys/fs/btrfs/6dc0/devices/{device}"), &format!("sys/class/block/{device}"));
    }
    let lines = stays(&plan(&host, "all", "eth1"));
    assert!(lines.contains(&"0000:03:00.0 carries swap (dm-0)".into()), "{lines:?}");
    // The second device of a file system that names only its first.
    assert!(lines.contains(&"0000:00:14.0 carries /data (sdb)".into()), "{lines:?}");
}

#[test]
fn a_root_disk_on_usb_keeps_its_controller() {
    let folder = tempfile::tempdir().unwrap();
    let host = ordinary(&folder);
    host.block("pci0000:00/0000:00:14.0/usb2/2-3/2-3:1.0/host6/target6:0:0/6:0:0:0/block/sdb/sdb1", "8:17")
        .mount("8:17", "/", "ext4", "/dev/sdb1");
    assert_eq!(
        refusal(&host, "00:14.0", true),
        "0000:00:14.0: carries / (sdb1): the host runs from it; it can't be the guest's"
    );
}

#[test]
fn a_drive_with_two_ports_is_seen_through_its_subsystem() {
    let folder = tempfile::tempdir().unwrap();
    let host = ordinary(&folder);
    host.function("0000:00:1d.0/0000:06:00.0", 0x01_0802, "nvme", Some(12));
    host.block("virtual/nvme-subsystem/nvme-subsys1/nvme1n1", "259:4").mount(
        "259:4",
        "/db",
        "xfs",
        "/dev/nvme1n1",
    );
    let controller = "sys/devices/pci0000:00/0000:00:1d.0/0000:06:00.0/nvme/nvme1";
    host.file(&format!("{controller}/model"), "two ports");
    host.link("sys/devices/virtual/nvme-subsystem/nvme-subsys1/nvme1", controller);
    assert!(stays(&plan(&host, "all", "eth1")).contains(&"0000:06:00.0 carries /db (nvme1n1)".into()));
}

#[test]
fn virtual_functions_go_and_their_physical_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let host = ordinary(&folder);
    host.function("0000:00:1d.0/0000:07:00.0", 0x02_0000, "ixgbe", Some(13));
    for (address, group) in [("0000:07:10.0", 14), ("0000:07:10.2", 15), ("0000:07:11.4", 16)] {
        host.function(&format!("0000:00:1d.0/{address}"), 0x02_0000, "ixgbevf", Some(group));
        host.link(
            &format!("sys/devices/pci0000:00/0000:00:1d.0/{address}/physfn"),
            "sys/bus/pci/devices/0000:07:00.0",
        );
    }
    host.file("sys/devices/pci0000:00/0000:00:1d.0/0000:07:00.0/sriov_numvfs", "3\n");
    let plan = plan(&host, "all", "eth1");
    assert!(stays(&plan).contains(&"0000:07:00.0 has 3 virtual functions".into()));
    let goes = goes(&plan);
    // The last of them was alone in its slot, and no guest finds a function 4 without a function 0.
    assert_eq!(goes[5..], ["0000:07:10.0 7.0", "0000:07:10.2 7.2", "0000:07:11.4 8.0"]);
    assert_eq!(
        refusal(&host, "07:00.0", true),
        "0000:07:00.0: has 3 virtual functions: \
         name those, or `echo 0 > /sys/bus/pci/devices/0000:07:00.0/sriov_numvfs` first"
    );
}

#[test]
fn others_of_the_group_are_taken_along_unless_they_are_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let host = ordinary(&folder);
    let graphics = plan(&host, "01:00.0", "eth1");
    assert_eq!(goes(&graphics), ["0000:01:00.0 3.0"]);
    assert!(!graphics.functions[0].multifunction);
    assert_eq!(graphics.bind, [address("01:00.0"), address("01:00.1")]);
    assert_eq!(graphics.along, [(address("01:00.1"), 1)]);

    // An interface that is up may be somebody's way in; one that is down is not.
    for (up, line) in [(true, "carries eth2, which is up"), (false, "")] {
        let folder = tempfile::tempdir().unwrap();
        let host = ordinary(&folder);
        host.function("0000:00:1d.0/0000:08:00.0", 0x0c_0330, "xhci_hcd", Some(20))
            .function("0000:00:1d.0/0000:09:00.0", 0x02_0000, "r8169", Some(20))
            .interface("pci0000:00/0000:00:1d.0/0000:09:00.0/net/eth2", up);
        if up {
            assert_eq!(
                refusal(&host, "08:00.0", true),
                format!(
                    "0000:08:00.0: shares IOMMU group 20 with 0000:09:00.0 ({line}): \
                     the whole group has to go: free those too, or put the card into another slot"
                )
            );
            // Named, it is to go.
            assert_eq!(
                goes(&plan(&host, "09:00.0 08:00.0", "eth1")),
                ["0000:08:00.0 3.0", "0000:09:00.0 4.0"]
            );
        } else {
            assert_eq!(plan(&host, "08:00.0", "eth1").along, [(address("09:00.0"), 20)]);
        }
    }
}

#[test]
fn the_guest_s_bus_has_29_slots() {
    let folder = tempfile::tempdir().unwrap();
    let host = MadeUp::new(folder.path());
    for bus in 1..=31u32 {
        host.function(&format!("0000:{bus:02x}:00.0"), 0x02_0000, "e1000e", Some(bus));
    }
    let plan = plan(&host, "all", "eth1");
    assert_eq!((plan.functions.len(), plan.functions[28].slot), (29, 31));
    assert_eq!(
        stays(&plan),
        [
            "0000:1e:00.0 finds no free slot on the guest's bus",
            "0000:1f:00.0 finds no free slot on the guest's bus"
        ]
    );
    assert_eq!(plan.bind.len(), 29);
}

#[test]
fn virtio_goes_only_where_the_iommu_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let host = ordinary(&folder);
    for (slot, digit) in [("02", '0'), ("03", '1')] {
        let folder = format!("sys/devices/pci0000:00/0000:00:{slot}.0");
        host.function(&format!("0000:00:{slot}.0"), 0x02_0000, "virtio-pci", Some(slot.parse().unwrap()));
        host.file(&format!("{folder}/vendor"), "0x1af4\n");
        host.file(
            &format!("{folder}/virtio0/features"),
            &format!("{}{digit}{}\n", "1".repeat(33), "0".repeat(30)),
        );
    }
    let plan = plan(&host, "all", "eth1");
    assert!(stays(&plan).contains(&"0000:00:02.0 is a virtio device whose DMA goes past the IOMMU".into()));
    assert_eq!(goes(&plan)[0], "0000:00:03.0 3.0");

    host.function("0000:00:02.1", 0x02_0000, "virtio-pci", Some(2));
    host.file("sys/devices/pci0000:00/0000:00:02.1/vendor", "0x1af4\n");
    host.file("sys/devices/pci0000:00/0000:00:02.1/virtio1/features", &"0".repeat(64));
    assert_eq!(
        refusal(&host, "00:02.0", true),
        "0000:00:02.0: shares IOMMU group 2 with 0000:00:02.1 (is a virtio device whose DMA goes past the IOMMU): \
         the whole group has to go: free those too, or put the card into another slot"
    );
}
