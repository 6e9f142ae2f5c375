. /checks/common
# Four bands of equal height over the whole width.
draw() {
    framebuffer=/sys/class/graphics/$1
    shift
    # Writing a mode is what sets it, on a framebuffer without a console.
    head -n 1 $framebuffer/modes >$framebuffer/mode
    height=$(cut -d , -f 2 $framebuffer/virtual_size)
    band=$(($(cat $framebuffer/stride) * height / 4))
    for colour; do
        printf "$colour" >/tmp/pixels
        while [ $(wc -c </tmp/pixels) -lt $band ]; do
            cat /tmp/pixels /tmp/pixels /tmp/pixels /tmp/pixels >/tmp/more
            mv /tmp/more /tmp/pixels
        done
        head -c $band /tmp/pixels
    done >/dev/${framebuffer##*/}
}
framebuffer_of() {
    wait_for $1/graphics
    ls $1/graphics
}
# Blue, green, red, and a byte that means nothing.
display=$(framebuffer_of $(device 1234 1111 0380))
draw $display '\000\000\377\000' '\000\377\000\000' '\377\000\000\000' '\377\377\377\000'
vga=$(framebuffer_of $(device 1234 1111 0300))
draw $vga '\000\377\377\000' '\377\377\000\000' '\377\000\377\000' '\000\000\377\000'
echo "drawn on $display and $vga"
