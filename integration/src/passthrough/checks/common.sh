# What the checks share. Each gets a folder for its notes, and ends with success or says what is wrong.
set -e -o pipefail

# The folder in sysfs of the PCI device with this vendor, device and beginning of a class.
device() {
    for folder in /sys/bus/pci/devices/*; do
        [ "$(cat $folder/vendor $folder/device | tr '\n' ' ')" = "0x$1 0x$2 " ] || continue
        case $(cat $folder/class) in 0x$3*)
            echo $folder
            return
        esac
    done
    echo "no PCI device $1:$2" >&2
    return 1
}

# How a device interrupts, on how many lines, and how often it did.
interrupts() {
    lines=$(ls $1/msi_irqs 2>/dev/null || true)
    if [ -n "$lines" ]; then
        mode=$(cat $1/msi_irqs/* | sort -u)
    else
        mode=intx
        lines=$(cat $1/irq)
    fi
    count=0
    for line in $lines; do
        count=$((count + $(awk "\$1 == \"$line:\" { print \$2 }" /proc/interrupts | grep . || echo 0)))
    done
    [ $count -gt 0 ] || { echo "no interrupt ever came"; return 1; }
    echo "$mode $(echo $lines | wc -w) lines, $count interrupts:"
}

# The whole disk behind a controller, when it is there.
disk_of() {
    tries=0
    while [ $tries -lt 600 ]; do
        for disk in /sys/block/*; do
            case $(readlink -f $disk) in *${1##*/}/*)
                echo /dev/${disk##*/}
                return
            esac
        done
        usleep 50000
        tries=$((tries + 1))
    done
    echo "no disk behind $1" >&2
    return 1
}

# Writes $2 MiB of a disk in pieces of all sizes, and reads them back; notes in the folder $3.
verify() {
    wait_for $1
    fio --name=verify --filename=$1 --rw=randwrite --bsrange=4k-128k --size=${2}m --direct=1 --ioengine=sync --thread \
        --verify=crc32c --verify_fatal=1 --verify_dump=0 --randseed=7 --minimal >$3/fio 2>&1 || { cat $3/fio; return 1; }
    if grep 'verify:' $3/fio; then return 1; fi
    echo "$2 MiB written and verified"
}
