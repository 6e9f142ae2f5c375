. /checks/common
nvme=$(device 1b36 0010)
wait_for $nvme/nvme
said=$(verify /dev/$(ls $nvme/nvme)n1 16 $1)
interrupts $nvme
echo "$said"
