# Resets the machine once. Then, for each disk that the BIOS knows: says what sector 5 and sector 5000 say, the first by cylinder, head and
# sector, the other by its number; and writes its drive number and "C" to sector 6, and its drive number and "N" to sector 7, in the same two
# ways.
.include "boot.inc"

.set BUFFER, 0xb000

main:
        # CMOS byte 50h is nobody's.
        mov     $0x50, %al
        out     %al, $0x70
        in      $0x71, %al
        test    %al, %al
        jnz     again
        inc     %al
        out     %al, $0x71
        say     "once more\n"
        mov     $3, %al
        out     %al, $0x92
        jmp     halt
again:
        mov     $0x80, %dl
each:
        push    %dx
        call    one
        pop     %dx
        inc     %dl
        # How many there are stands in the BIOS's data.
        mov     %dl, %al
        sub     $0x80, %al
        cmp     0x475, %al
        jb      each
        ret

one:
        say     "drive "
        movzbl  %dl, %eax
        call    put_hex
        say     ": "
        mov     $5, %ax
        call    address
        mov     $0x0201, %ax
        mov     $BUFFER, %bx
        int     $0x13
        jc      failed
        mov     $BUFFER, %si
        call    put_text
        say     ", "
        movl    $5000, sector
        mov     $0x42, %ah
        mov     $packet, %si
        int     $0x13
        jc      failed
        mov     $BUFFER, %si
        call    put_text

        mov     %dl, BUFFER
        movb    $'C', BUFFER + 1
        mov     $6, %ax
        call    address
        mov     $0x0301, %ax
        mov     $BUFFER, %bx
        int     $0x13
        jc      failed
        movb    $'N', BUFFER + 1
        movl    $7, sector
        mov     $0x4300, %ax
        mov     $packet, %si
        int     $0x13
        jc      failed
        say     ", written\n"
        ret
failed:
        say     "FAILED\n"
        ret

# Cylinder, head and sector of sector AX in CX and DH, by the geometry that the BIOS tells of drive DL.
address:
        push    %ax
        push    %dx
        mov     $8, %ah
        xor     %di, %di
        int     $0x13
        mov     %cx, %bx
        and     $0x3f, %bx      # sectors in a track
        movzbw  %dh, %si
        inc     %si             # heads
        xor     %ax, %ax
        mov     %ax, %es
        pop     %di             # the drive
        pop     %ax
        xor     %dx, %dx
        div     %bx
        mov     %dl, %cl
        inc     %cl
        xor     %dx, %dx
        div     %si
        mov     %al, %ch
        shl     $6, %ah
        or      %ah, %cl
        mov     %dl, %dh
        mov     %di, %ax
        mov     %al, %dl
        ret

        .balign 4
packet:
        .byte   16, 0
        .word   1, BUFFER, 0
sector: .quad   0
