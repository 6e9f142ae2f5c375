. /checks/common
ahci=$(device 8086 2922)
drive=$(disk_of $ahci)
wait_for $drive
mount -t iso9660 -o ro $drive /mnt
cd /mnt
sha256sum -c /checks/cd.sha256 >/tmp/sums || { cat /tmp/sums; exit 1; }
interrupts $ahci
echo "$(grep -c OK /tmp/sums) files as they should be"
