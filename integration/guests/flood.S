# CPU 0 talks without end. CPU 1 meanwhile asks the clock for its memory and writes sector 1, again and again: from its fourth byte on, how
# often, and how many lines CPU 0 has said.
.include "firmware.inc"

.set LINE, 0x9000
.set SAID, 0x9100
.set BUFFER, 0x10000

main:
        mov     $(LINE), %edi
        mov     $0x2e, %al
        mov     $64, %ecx
        rep stosb
        call    start_others
1:      mov     $COM1, %edx
        mov     $LINE, %esi
        mov     $64, %ecx
        rep outsb
        incl    SAID
        jmp     1b

main_of_others:
        call    set_up_ide
1:      outb    0x70, 0x50
        inb     0x71
        incl    BUFFER + 4
        mov     SAID, %eax
        mov     %eax, BUFFER + 8
        mov     $1, %eax
        mov     $BUFFER, %esi
        call    write_sector
        jmp     1b
