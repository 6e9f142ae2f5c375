    begin=$(cut -d ' ' -f 1 /proc/uptime)
    if sh /checks/$name >/tmp/said 2>&1; then verdict=ok; else verdict=failed; fi
    # One line: a check that is fine says one, and one that failed may say anything.
    echo "$verdict $name $(tr '\n' ' ' </tmp/said)in $(awk "{ print \$1 - $begin }" /proc/uptime) s"
