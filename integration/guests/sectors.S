# Reads runs of sectors from the boot drive by their numbers, and looks whether sector n begins with the number n; then writes such a run
# itself, each word of sector n the number n, and reads it back.
.include "boot.inc"

.set BUFFER_SEGMENT, 0x1000
# Not among the sectors that are read before.
.set WRITTEN, 30000
.set WRITTEN_COUNT, 9

main:
        say     "booted\n"
        mov     $runs, %bx
each:
        mov     (%bx), %eax
        mov     %eax, sector
        mov     4(%bx), %ax
        mov     %ax, count
        mov     $0x42, %ah
        call    transfer
        jc      failed
        say     "read "
        call    look
        jne     wrong
        add     $6, %bx
        cmp     $end_of_runs, %bx
        jb      each

        movl    $WRITTEN, sector
        movw    $WRITTEN_COUNT, count
        call    fill
        mov     $0x4300, %ax
        call    transfer
        jc      failed
        call    wipe
        mov     $0x42, %ah
        call    transfer
        jc      failed
        say     "written "
        call    look
        jne     wrong
        say     "done\n"
        ret

failed:
        movzbl  %ah, %eax
        say     "FAILED with "
        call    put_hex
        say     "\n"
        ret
wrong:
        say     "WRONG\n"
        ret

# The BIOS function in AX, for `count` sectors from `sector` on. Carry when it failed.
transfer:
        pusha
        mov     $packet, %si
        int     $0x13
        jnc     1f
        # What AH says stays there.
        mov     %sp, %bp
        mov     %ah, 15(%bp)
        stc
1:      popa
        ret

# Says the run and whether it is right. Zero flag when it is.
look:
        mov     sector, %eax
        call    put_hex
        say     "+"
        movzwl  count, %eax
        call    put_hex
        push    %es
        mov     $BUFFER_SEGMENT, %ax
        mov     %ax, %es
        xor     %di, %di
        mov     sector, %eax
        mov     count, %cx
1:      cmp     %eax, %es:(%di)
        jne     2f
        inc     %eax
        add     $512, %di
        loop    1b
        say     "\n"
        cmp     %eax, %eax
2:      pop     %es
        ret

# The buffer as the run should be.
fill:
        push    %dx
        push    %es
        mov     $BUFFER_SEGMENT, %ax
        mov     %ax, %es
        xor     %di, %di
        mov     sector, %eax
        mov     count, %dx
1:      mov     $128, %cx
        rep stosl
        inc     %eax
        dec     %dx
        jnz     1b
        pop     %es
        pop     %dx
        ret

wipe:
        push    %es
        mov     $BUFFER_SEGMENT, %ax
        mov     %ax, %es
        xor     %di, %di
        xor     %eax, %eax
        mov     $0x4000, %cx
        rep stosl
        pop     %es
        ret

        .balign 4
packet:
        .byte   16, 0
count:  .word   0
        .word   0, BUFFER_SEGMENT
sector: .quad   0

# First sector and count: one, what fits into no frame, the most that the BIOS takes, the last.
runs:
        .long   77
        .word   1
        .long   1000
        .word   2
        .long   4095
        .word   17
        .long   20000
        .word   127
        .long   LAST
        .word   1
end_of_runs:
