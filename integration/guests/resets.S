# Resets the machine in every way there is, three times each. How often it has started is in the disk's sector 1; beside it, CMOS memory
# has to keep its own count, as it has a battery. Waits for a typed byte before the first reset and after the last.
.include "firmware.inc"

.set BUFFER, 0x10000
.set LAST, 12

main:
        call    set_up_ide
        mov     $1, %eax
        mov     $BUFFER, %edi
        call    read_sector
        expect_eax 0x50, "reading the count"
        mov     BUFFER, %ebp

        # CMOS byte 50h is nobody's.
        outb    0x70, 0x50
        inb     0x71
        cmp     %ebp, %eax
        je      1f
        fail    "CMOS memory says"
1:      lea     1(%ebp), %eax
        out     %al, %dx

        mov     %ebp, %eax
        inc     %eax
        mov     %eax, BUFFER
        mov     $1, %eax
        mov     $BUFFER, %esi
        call    write_sector
        expect_eax 0x50, "writing the count"

        say     "start "
        mov     %ebp, %eax
        call    put_hex
        say     "\n"
        cmp     $0, %ebp
        je      wait_key
        cmp     $LAST, %ebp
        jne     reset
wait_key:
        inb     COM1 + 5
        test    $1, %al
        jz      wait_key
        inb     COM1
        cmp     $LAST, %ebp
        jne     reset
        ret

reset:
        mov     %ebp, %eax
        and     $3, %eax
        jmp     *ways(, %eax, 4)
ways:
        .long   keyboard_controller, port_92, reset_control, triple_fault

keyboard_controller:
        outb    0x64, 0xfe
        jmp     halt
port_92:
        outb    0x92, 0x03
        jmp     halt
reset_control:
        outb    0xcf9, 0x02
        outb    0xcf9, 0x06
        jmp     halt
triple_fault:
        # An exception that nobody takes, and nobody takes that either.
        lidt    no_interrupts
        ud2
        jmp     halt
        .balign 8
no_interrupts:
        .word   0
        .long   0
