# Begins to write a sector, and then talks without end.
.include "firmware.inc"

.set TABLE, 0x10000
.set DATA, 0x20000

main:
        call    set_up_ide
        movl    $0x6b676f00, DATA
        movl    $DATA, TABLE
        movl    $0x80000200, TABLE + 4
        # Talks first until nobody listens any more: 2 MiB.
        mov     $512, %ebp
1:      mov     $COM1, %edx
        mov     $DATA, %esi
        mov     $4096, %ecx
        rep outsb
        dec     %ebp
        jnz     1b
        jmp     halt
