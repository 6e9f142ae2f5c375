#!/bin/sh
# The first process of L1: mounts, drivers, and then an agent that starts jobs for L0.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tracefs trace /sys/kernel/tracing
ln -s /proc/self/fd /dev/fd
modprobe -a virtio_pci virtio_blk virtio_console 9pnet_virtio 9p kvm_amd e1000e tun
mkdir /share /run/jobs
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 share /share
ip link set lo up
if [ -n "$lab_mtu" ]; then ip link set eth0 mtu "$lab_mtu" up; fi

# One job: `/share/jobs/ID/script`, in a session of its own. Its number says "started ID PID" and "exit ID CODE".
start() {
    folder=/share/jobs/$1
    if [ "$2" = typed ]; then
        mkfifo "/run/jobs/$1"
        # Open both ways, so that the job sees no end of file between two inputs.
        setsid sh "$folder/script" <>"/run/jobs/$1" >"$folder/stdout" 2>"$folder/stderr" 3>&- &
    else
        setsid sh "$folder/script" </dev/null >"$folder/stdout" 2>"$folder/stderr" 3>&- &
    fi
    pid=$!
    echo "started $1 $pid" >&3
    wait $pid
    echo "exit $1 $?" >&3
    rm -f "/run/jobs/$1"
}

# Its first number counts virtio devices, in the order in which they are found.
until [ -c /dev/vport*p1 ]; do usleep 20000; done
exec 3<>$(echo /dev/vport*p1)
echo "ready" >&3
while read -r verb job rest <&3; do
    case $verb in
    start) start "$job" "$rest" & ;;
    # Input comes as base64: any byte, one line. A job that has ended must not block the agent.
    type) echo "$rest" | base64 -d | timeout 5 dd of="/run/jobs/$job" conv=notrunc 2>/dev/null & ;;
    off) sync; poweroff -f ;;
    esac
done
echo "the control port is gone"
poweroff -f
