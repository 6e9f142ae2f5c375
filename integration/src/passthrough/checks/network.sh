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
# Each of these sends the next when the last was answered.
for number in 0 1 2 3 4 5 6 7 8 9; do
    ping -A -q -c 1000 -w 100 -s $((number * 150)) 10.7.0.1 >/tmp/ping$number 2>&1 &
done
wait
answered=$(cat /tmp/ping? | grep -c '^1000 packets transmitted, 1000 packets received, 0% packet loss' || true)
[ "$answered" = 10 ] || { grep transmitted /tmp/ping?; exit 1; }
interrupts $card
echo "10000 pings answered"
