. /checks/common
card=$(device 8086 2668)
wait_for /dev/dsp
cat /checks/tone >/dev/dsp
interrupts $card
echo "played"
