. /checks/common
ahci=$(device 8086 2922)
drive=$(disk_of $ahci)
wait_for $drive
mount -t iso9660 -o ro $drive /mnt
cd /mnt
sha256sum -c /checks/cd.sha256 >$1/sums || { cat $1/sums; exit 1; }
interrupts $ahci
echo "$(grep -c OK $1/sums) files as they should be"
