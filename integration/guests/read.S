# Reads SECTORS sectors by PIO, one by one, and looks whether sector n begins with the number n.
.include "firmware.inc"

.set BUFFER, 0x10000

main:
        call    set_up_ide
        xor     %ebp, %ebp
1:      mov     %ebp, %eax
        mov     $BUFFER, %edi
        call    read_sector
        expect_eax 0x50, "disk status"
        cmp     %ebp, BUFFER
        je      2f
        mov     %ebp, %eax
        fail    "not the contents of sector"
2:      inc     %ebp
        cmp     $SECTORS, %ebp
        jne     1b
        say     "read\n"
        ret
