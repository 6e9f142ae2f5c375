. /checks/common
edu=$(device 1234 11e8)
bar=$(head -n 1 $edu/resource | cut -d ' ' -f 1)
echo 1 >$edu/enable
# Memory and bus master.
printf '\006' | dd of=$edu/config bs=1 seek=4 conv=notrunc 2>/dev/null
# Copies 8 bytes; the device's own buffer is at 40000h. The command's bit 0 starts and is clear at the end, bit 1: to memory.
copy() {
    devmem $((bar + 0x80)) 64 $1
    devmem $((bar + 0x88)) 64 $2
    devmem $((bar + 0x90)) 64 8
    devmem $((bar + 0x98)) 64 $3
    tries=0
    until [ $(($(devmem $((bar + 0x98)) 32) & 1)) = 0 ]; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || { echo "the copy does not end"; exit 1; }
        usleep 50000
    done
}
# With mem=511M on its command line the kernel leaves the guest's last megabyte alone.
from=0x1ff00000
to=0x1ff80000
devmem $from 32 0x4b616765
devmem $to 32 0
copy $from 0x40000 1
copy 0x40000 $to 3
[ "$(devmem $to 32)" = 0x4B616765 ] || { echo "nothing was copied: $(devmem $to 32)"; exit 1; }
copy 0x40000 0x60000000 3
[ $(($(devmem $bar 32) & 0xff)) = $((0xed)) ] || { echo "the device no longer answers"; exit 1; }
echo "copied inside and out"
