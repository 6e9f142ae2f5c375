. /checks/common
drivers="e1000e nvme xhci_pci ahci snd_pcm_oss snd_hda_intel"
for round in 1 2 3; do
    for driver in $drivers; do
        rmmod $driver
    done
    modprobe -a $drivers
done
echo "drivers loaded anew three times"
