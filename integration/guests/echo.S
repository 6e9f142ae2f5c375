# Says what is typed: first as it looks for it, and from the first line's end on as it is told by interrupt 4. Ends with a q.
.include "firmware.inc"

.set ENTRIES, 0x30

main:
        say     "type\n"
polled:
        inb     COM1 + 5
        test    $1, %al
        jz      polled
        inb     COM1
        call    put_byte
        cmp     $'\n', %al
        jne     polled

        call    set_up_interrupts
        say     "type on\n"
        # OUT2 lets the port's interrupt out; "received data" is enabled.
        outb    COM1 + 4, 0x08
        outb    COM1 + 1, 0x01
1:      sti
        hlt
        jmp     1b

on_uart:
        # As long as the port says that it has something.
        inb     COM1 + 2
        test    $1, %al
        jnz     2f
        inb     COM1
        cmp     $'q', %al
        je      power_off
        call    put_byte
        jmp     on_uart
2:      mov     $0x20, %al
        out     %al, $0x20
        # Not by IRET: a KVM that emulates kernel-mode instructions knows it in real mode only.
        add     $12, %esp
        jmp     1b

        one_interrupt 0x24, on_uart, 0xef, 0xff
