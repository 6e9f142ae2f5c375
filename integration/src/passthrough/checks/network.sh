. /checks/common
card=$(device 8086 10d3)
wait_for $card/net
interface=$(ls $card/net)
ip addr add 10.7.0.2/24 dev $interface
ip link set $interface up
tries=0
until [ "$(cat $card/net/$interface/carrier)" = 1 ]; do
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { echo "no link"; exit 1; }
    usleep 50000
done
ping -q -c 1 -w 30 10.7.0.1 >/dev/null || { echo "the first ping was not answered"; exit 1; }
# Debian's ping, which counts rightly when it adapts, unlike busybox's. The next goes out when the last one is answered (a flood sends more than
# it was told when an answer is late, and does not wait for them);
# half of them are frames of full size.
for size in 56 1472; do
    /bin/ping -A -q -c $((pings / 2)) -s $size -w 100 10.7.0.1 >$1/ping || true
    grep -q "^$((pings / 2)) packets transmitted, $((pings / 2)) received, 0% packet loss" $1/ping || { grep transmitted $1/ping; exit 1; }
done
interrupts $card
echo "$pings pings answered"
