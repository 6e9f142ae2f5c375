. /checks/common
nvme=$(device 1b36 0010)
said=$(verify $(disk_of $nvme) 16)
interrupts $nvme
echo "$said"
