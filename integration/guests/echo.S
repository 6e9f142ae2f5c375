# Says what is typed: first as it looks for it, and from the first line's end on as it is told by interrupt 4. Ends with a q.
.include "firmware.inc"

.set IDT, 0x11000
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

on_anything_else:
        fail    "an interrupt or exception that nobody asked for"

set_up_interrupts:
        mov     $IDT, %edi
        xor     %ecx, %ecx
1:      mov     $on_anything_else, %eax
        cmp     $0x24, %ecx
        jne     2f
        mov     $on_uart, %eax
2:      mov     %eax, %ebx
        and     $0xffff, %ebx
        or      $0x00080000, %ebx
        mov     %ebx, (%edi)
        and     $0xffff0000, %eax
        or      $0x8e00, %eax
        mov     %eax, 4(%edi)
        add     $8, %edi
        inc     %ecx
        cmp     $0x30, %ecx
        jne     1b
        lidt    idt_descriptor
        outb    0x20, 0x11
        outb    0x21, 0x20
        outb    0x21, 0x04
        outb    0x21, 0x01
        outb    0x21, 0xef
        outb    0xa1, 0xff
        ret
        .balign 8
idt_descriptor:
        .word   8 * 0x30 - 1
        .long   IDT
