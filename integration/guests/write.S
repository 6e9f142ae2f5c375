# Writes sector 1 by PIO, and says what the disk says to that.
.include "firmware.inc"

.set BUFFER, 0x10000

main:
        call    set_up_ide
        mov     $1, %eax
        mov     $BUFFER, %esi
        call    write_sector
        say     "status "
        call    put_hex
        inb     0x1f1
        say     "\nerror "
        call    put_hex
        say     "\n"
        ret
