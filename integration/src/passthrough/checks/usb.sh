. /checks/common
xhci=$(device 1b36 000d)
said=$(verify $(disk_of $xhci) 8)
interrupts $xhci
echo "$said"
