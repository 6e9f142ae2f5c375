# Loads $drivers. A stage is checks that run side by side; each says one line.
modprobe -a $drivers

stage() {
    for name; do
        check $name &
    done
    wait
}

check() {
    mkdir -p /tmp/$1
    begin=$(cut -d ' ' -f 1 /proc/uptime)
    if sh /checks/$1 /tmp/$1 >/tmp/$1/said 2>&1; then verdict=ok; else verdict=failed; fi
    took=$(awk "{ print \$1 - $begin }" /proc/uptime)
    echo "$verdict: $1 $(tr '\n' ' ' </tmp/$1/said)in $took s"
}

