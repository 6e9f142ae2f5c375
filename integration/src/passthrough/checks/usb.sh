. /checks/common
xhci=$(device 1b36 000d)
said=$(verify $(disk_of $xhci) 8 $1)
interrupts $xhci
echo "$said"
