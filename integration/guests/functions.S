# Finds the toy function on the PCI bus, sizes and moves its BARs while it decodes, and takes its interrupt through the 8259A, at first on
# interrupt 10 and then, routed elsewhere, on 11; and as messages. The toy: BAR 0 is registers, BAR 1 ports, BAR 2 (64 bits) memory.
.include "firmware.inc"

.set TOY, 0x4b611234            # device and vendor ID
.set ISA_BRIDGE, 0x80000800
.set PORTS, 0xd000
.set PORTS_MOVED, 0xd100
.set LOW, 0xe0000000
.set MOVED, 0xe0100000
.set MEMORY, 0xe1000000
.set MEMORY_MOVED, 0xe2000000

main:
        # Slots 3 to 31.
        mov     $0x80001800, %ebp
1:      mov     %ebp, %eax
        call    pci_read
        cmp     $TOY, %eax
        je      2f
        add     $0x800, %ebp
        cmp     $0x80010000, %ebp
        jne     1b
        fail    "no toy"
2:      mov     %ebp, %eax
        shr     $11, %eax
        and     $31, %eax
        say     "slot "
        call    put_hex
        say     "\n"

        # What the BARs ask for.
        mov     $0x10, %ecx
        mov     $-1, %ebx
        call    size
        expect_eax 0xfffff000, "BAR 0"
        mov     $0x14, %ecx
        call    size
        and     $0xffff, %eax
        expect_eax 0xfff1, "BAR 1"
        mov     $0x18, %ecx
        call    size
        expect_eax 0xffff000c, "BAR 2"
        mov     $0x1c, %ecx
        call    size
        expect_eax 0xffffffff, "BAR 2, upper half"

        # Nothing is there before it is enabled.
        mov     LOW, %eax
        expect_eax 0xffffffff, "nothing"
        mov     $0x10, %ecx
        mov     $LOW, %ebx
        call    write
        mov     $0x14, %ecx
        mov     $PORTS, %ebx
        call    write
        mov     $0x18, %ecx
        mov     $MEMORY, %ebx
        call    write
        mov     $0x1c, %ecx
        xor     %ebx, %ebx
        call    write
        mov     LOW, %eax
        expect_eax 0xffffffff, "not yet enabled"
        mov     $0x04, %ecx
        mov     $3, %ebx
        call    write

        # Registers, in all widths, and up to the last.
        movl    $0x12345678, LOW
        movb    $0xab, LOW + 1
        movw    $0xcdef, LOW + 2
        mov     LOW, %eax
        expect_eax 0xcdefab78, "registers"
        movzbl  LOW + 3, %eax
        expect_eax 0xcd, "a byte"
        movl    $0x600df00d, LOW + 0xffc
        mov     LOW + 0xffc, %eax
        expect_eax 0x600df00d, "the last register"
        mov     LOW + 0xffe, %eax
        # Two accesses: it crosses a page.
        expect_eax 0xffff600d, "past the last register"
        outl    (PORTS + 4), 0x0badcafe
        mov     $(PORTS + 4), %edx
        in      %dx, %eax
        expect_eax 0x0badcafe, "ports"
        # A string of reads of one port.
        mov     $0x20000, %edi
        mov     $3, %ecx
        rep insl
        mov     0x20008, %eax
        expect_eax 0x0badcafe, "a string of ports"
        # Memory that is the guest's without exits.
        movl    $0x51077ed0, MEMORY + 0x1234
        lock incl MEMORY + 0x1234
        mov     MEMORY + 0x1234, %eax
        expect_eax 0x51077ed1, "memory"

        # What KVM has kept back is carried out before an access to the function: it says how long the log is.
        outb    0x402, 'x'
        outb    0x402, '\n'
        mov     LOW + 0x20, %eax
        expect_eax 2, "the log"

        # All of them move while they decode.
        mov     $0x10, %ecx
        mov     $MOVED, %ebx
        call    write
        mov     $0x14, %ecx
        mov     $PORTS_MOVED, %ebx
        call    write
        mov     $0x18, %ecx
        mov     $MEMORY_MOVED, %ebx
        call    write
        mov     LOW, %eax
        expect_eax 0xffffffff, "registers stayed"
        mov     MOVED, %eax
        expect_eax 0xcdefab78, "registers moved"
        mov     $(PORTS + 4), %edx
        in      %dx, %eax
        expect_eax 0xffffffff, "ports stayed"
        mov     $(PORTS_MOVED + 4), %edx
        in      %dx, %eax
        expect_eax 0x0badcafe, "ports moved"
        mov     MEMORY + 0x1234, %eax
        expect_eax 0xffffffff, "memory stayed"
        mov     MEMORY_MOVED + 0x1234, %eax
        expect_eax 0x51077ed1, "memory moved"

        # What is fixed wins: ports of the board, RAM, the interrupt controllers.
        mov     $0x14, %ecx
        mov     $0x170, %ebx
        call    write
        mov     $0x174, %edx
        in      %dx, %eax
        cmp     $0x0badcafe, %eax
        jne     1f
        fail    "ports over the disk's"
1:      mov     $0x14, %ecx
        mov     $PORTS, %ebx
        call    write
        movl    $0x4a4a4a4a, 0x300000
        mov     $0x18, %ecx
        mov     $0x300000, %ebx
        call    write
        mov     0x300000, %eax
        expect_eax 0x4a4a4a4a, "memory over RAM"
        mov     $0x18, %ecx
        mov     $0xfee00000, %ebx
        call    write
        mov     0xfee00020, %eax
        expect_eax 0, "memory over the local APIC"
        mov     $0x18, %ecx
        mov     $MEMORY, %ebx
        call    write
        mov     MEMORY + 0x1234, %eax
        expect_eax 0x51077ed1, "memory again"
        # Over one another: memory that is mapped is nearer than registers.
        mov     $0x10, %ecx
        mov     $(MEMORY + 0x1000), %ebx
        call    write
        mov     MEMORY + 0x1234, %eax
        expect_eax 0x51077ed1, "registers over memory"
        mov     $0x10, %ecx
        mov     $LOW, %ebx
        call    write

        # Off and on again, many times.
        mov     $500, %esi
1:      mov     $0x04, %ecx
        mov     $1, %ebx
        call    write
        mov     MEMORY + 0x1234, %eax
        expect_eax 0xffffffff, "memory that is switched off"
        mov     LOW, %eax
        expect_eax 0xffffffff, "registers that are switched off"
        mov     $0x04, %ecx
        mov     $3, %ebx
        call    write
        mov     MEMORY + 0x1234, %eax
        expect_eax 0x51077ed1, "memory that is switched on"
        dec     %esi
        jnz     1b
        mov     LOW, %eax
        expect_eax 0xcdefab78, "registers that are switched on"

        # The interrupt: pin A of slot 5 is PIRQA. Both 10 and 11 are let through, by level.
        call    set_up_interrupts
        mov     IDT + 8 * 0x2a, %eax
        mov     %eax, IDT + 8 * 0x2b
        mov     IDT + 8 * 0x2a + 4, %eax
        mov     %eax, IDT + 8 * 0x2b + 4
        outb    0x4d1, 0x0c
        # Not routed: nobody hears it, until it is.
        outb    PORTS, 1
        inb     PORTS
        expect_eax 1, "raised"
        outb    0xa0, 0x0a
        inb     0xa0
        and     $0x0c, %eax
        expect_eax 0, "an interrupt that is not routed"
        mov     $0x0a, %ebx
        call    route
        # It comes once more after the first time, as it is still raised then.
        call    wait_for_two
        expect_eax 0x04, "interrupt 10"
        inb     PORTS
        expect_eax 0, "lowered"
        outb    PORTS, 1
        call    wait_for_two
        expect_eax 0x04, "interrupt 10 again"
        mov     $0x0b, %ebx
        call    route
        outb    PORTS, 1
        call    wait_for_two
        expect_eax 0x08, "interrupt 11"

        # The same as messages to the local APIC: register 30h is the vector of the next one, which comes at once.
        movl    $0x1ff, 0xfee000f0
        mov     $on_message_2c, %eax
        mov     $(IDT + 8 * 0x2c), %edi
        call    set_gate
        mov     $on_message_2d, %eax
        mov     $(IDT + 8 * 0x2d), %edi
        call    set_gate
        mov     $0x2c, %eax
        call    message
        expect_eax 0x2c, "message 2C"
        mov     $0x2d, %eax
        call    message
        expect_eax 0x2d, "message 2D"
        mov     $0x2d, %eax
        call    message
        expect_eax 0x2d, "message 2D again"
        # One to nowhere.
        movl    $0, LOW + 0x30
        mov     LOW + 0x30, %eax
        mov     0xfee00210, %eax
        expect_eax 0, "a message that was not sent"
        say     "all is well\n"
        ret

# Writes ones to the register at ECX and reads it back into EAX. Keeps EBX.
size:
        push    %ebx
        mov     $-1, %ebx
        call    write
        call    pci_read
        pop     %ebx
        ret

# Writes EBX to the toy's register at ECX, whose name is in EAX then.
write:
        lea     (%ebp, %ecx), %eax
        call    pci_write
        ret

# PIRQA leads to interrupt EBX.
route:
        mov     $(ISA_BRIDGE + 0x60), %eax
        or      $0x80808000, %ebx
        call    pci_write
        ret

# Waits for two interrupts; in EAX what was in service the last time. Interrupts are on nowhere else, as the handler comes back without IRET:
# a KVM that emulates kernel-mode instructions knows it in real mode only.
wait_for_two:
        movl    $0, interrupts
1:      sti
        hlt
interrupted:
        cli
        cmpl    $2, interrupts
        jb      1b
        mov     in_service, %eax
        ret

# The toy is satisfied the second time.
on_interrupt:
        add     $12, %esp
        incl    interrupts
        outb    0xa0, 0x0b
        inb     0xa0
        mov     %eax, in_service
        cmpl    $2, interrupts
        jb      1f
        outb    PORTS, 0
1:      outb    0xa0, 0x20
        outb    0x20, 0x20
        jmp     interrupted

# An interrupt gate at EDI to EAX.
set_gate:
        mov     %eax, %ebx
        and     $0xffff, %eax
        or      $0x00080000, %eax
        mov     %eax, (%edi)
        and     $0xffff0000, %ebx
        or      $0x8e00, %ebx
        mov     %ebx, 4(%edi)
        ret

# Has the toy send message EAX, and waits for one; in EAX which one came.
message:
        movl    $0, interrupts
        mov     %eax, LOW + 0x30
1:      sti
        hlt
received:
        cli
        cmpl    $1, interrupts
        jb      1b
        mov     in_service, %eax
        ret

on_message_2c:
        movl    $0x2c, in_service
        jmp     1f
on_message_2d:
        movl    $0x2d, in_service
1:      add     $12, %esp
        incl    interrupts
        movl    $0, 0xfee000b0
        jmp     received

        .balign 4
interrupts:
        .long   0
in_service:
        .long   0

one_interrupt 0x2a, on_interrupt, 0xfb, 0xf3
