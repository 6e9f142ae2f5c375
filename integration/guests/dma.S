# Bus-master DMA as a driver does it, and what a driver should not do. The disk's sector n begins with the number n. The primary
# channel's interrupt is counted by a handler; nothing else may come.
.include "firmware.inc"

.set TABLE, 0x10000
.set READ, 0x20000
.set WRITE, 0x30000

main:
        call    set_up_ide
        call    set_up_interrupts

        # Polled, with the disk's interrupt held back: the bus master's own bit tells.
        outb    0x3f6, 0x02
        movl    $READ, TABLE
        movl    $0x80000200, TABLE + 4
        mov     $3, %eax
        mov     $8, %ebp
        mov     $0xc8, %ebx
        call    dma
1:      inb     BUS_MASTER + 2
        test    $4, %al
        jz      1b
        call    dma_end
        expect_eax 0x04, "bus master status, polled"
        inb     0x1f7
        expect_eax 0x50, "disk status, polled"
        mov     READ, %eax
        expect_eax 3, "sector 3"
        mov     interrupts, %eax
        expect_eax 0, "interrupts while they are held back"
        say     "polled\n"

        # By interrupt, two regions with a hole between.
        outb    0x3f6, 0x00
        movl    $READ, TABLE
        movl    $0x00000100, TABLE + 4
        movl    $(READ + 0x1000), TABLE + 8
        movl    $0x80000100, TABLE + 12
        movl    $0x55555555, READ + 0x100
        mov     $5, %eax
        mov     $8, %ebp
        mov     $0xc8, %ebx
        call    dma
        call    wait_interrupt
        call    dma_end
        expect_eax 0x04, "bus master status, by interrupt"
        mov     READ, %eax
        expect_eax 5, "sector 5"
        mov     READ + 0x100, %eax
        expect_eax 0x55555555, "between the regions"
        mov     READ + 0x1000, %eax
        expect_eax 0x100, "sector 5, second region"
        mov     interrupts, %eax
        expect_eax 1, "interrupts"
        say     "interrupt\n"

        # A write, read back by whoever looks into the image.
        mov     $WRITE, %edi
        mov     $128, %ecx
        mov     $0x6b676f00, %eax
2:      stosl
        inc     %eax
        loop    2b
        movl    $WRITE, TABLE
        movl    $0x80000200, TABLE + 4
        mov     $7, %eax
        xor     %ebp, %ebp
        mov     $0xca, %ebx
        call    dma
        call    wait_interrupt
        call    dma_end
        expect_eax 0x04, "bus master status, write"
        inb     0x1f7
        expect_eax 0x50, "disk status, write"
        say     "written\n"

        # A region outside memory: the Error bit, an aborted command, an interrupt.
        movl    $0xe0000000, TABLE
        mov     $8, %ebp
        mov     $3, %eax
        mov     $0xc8, %ebx
        call    dma
        call    wait_interrupt
        call    dma_end
        expect_eax 0x06, "bus master status, region outside memory"
        inb     0x1f7
        and     $0x81, %eax
        expect_eax 0x01, "disk status, region outside memory"
        inb     0x1f1
        expect_eax 0x04, "disk error, region outside memory"
        # A table outside memory.
        mov     $0xd0000000, %ecx
        mov     $8, %ebp
        mov     $3, %eax
        mov     $0xc8, %ebx
        call    dma_table
        call    wait_interrupt
        call    dma_end
        expect_eax 0x06, "bus master status, table outside memory"
        inb     0x1f7
        say     "outside\n"

        # While a read waits for the bus master, the disk is busy and hears no other command.
        movl    $READ, TABLE
        movl    $0, READ
        mov     $9, %eax
        mov     $0xc8, %ebx
        call    disk_command
        inb     0x3f6
        expect_eax 0x80, "disk status before the bus master runs"
        outb    0x1f3, 11
        outb    0x1f7, 0xec
        outb    0x1f7, 0xca
        inb     0x3f6
        expect_eax 0x80, "disk status after a command to a busy disk"
        mov     $TABLE, %ecx
        mov     $8, %ebp
        call    dma_start
        call    wait_interrupt
        call    dma_end
        expect_eax 0x04, "bus master status, busy"
        mov     READ, %eax
        expect_eax 9, "sector 9"
        inb     0x1f7
        expect_eax 0x50, "disk status, busy"
        say     "busy\n"

        # A command that no disk has, and a sector that this one does not have.
        outb    0x1f7, 0xff
        call    wait_interrupt
        inb     0x1f7
        expect_eax 0x51, "disk status, unknown command"
        inb     0x1f1
        expect_eax 0x04, "disk error, unknown command"
        mov     $0x0fffffff, %eax
        mov     $0x20, %ebx
        call    disk_command
        call    wait_interrupt
        inb     0x1f7
        and     $0x81, %eax
        expect_eax 0x01, "disk status, no such sector"
        inb     0x1f1
        expect_eax 0x10, "disk error, no such sector"
        mov     interrupts, %eax
        expect_eax 7, "interrupts in all"
        say     "aborted\n"
        ret

# Command BL for sector EAX with the table at TABLE; EBP is 8 to read from the disk.
dma:
        mov     $TABLE, %ecx
# The same with the table at ECX.
dma_table:
        push    %ecx
        call    disk_command
        pop     %ecx
dma_start:
        mov     $(BUS_MASTER + 4), %edx
        mov     %ecx, %eax
        out     %eax, %dx
        outb    BUS_MASTER + 2, 0x06
        mov     $BUS_MASTER, %edx
        mov     %ebp, %eax
        out     %al, %dx
        or      $1, %al
        out     %al, %dx
        ret

# Stops the bus master; its status in EAX.
dma_end:
        mov     $BUS_MASTER, %edx
        mov     %ebp, %eax
        out     %al, %dx
        inb     BUS_MASTER + 2
        ret

# Lets an interrupt in, and waits for it. Changes EAX.
wait_interrupt:
        movl    $0, arrived
1:      sti
        hlt
interrupted:
        cli
        cmpl    $0, arrived
        je      1b
        ret

interrupts:
        .long   0
arrived:
        .long   0

on_primary_channel:
        incl    interrupts
        incl    arrived
        mov     $0x20, %al
        out     %al, $0xa0
        out     %al, $0x20
        # Not by IRET: a KVM that emulates kernel-mode instructions knows it in real mode only.
        add     $12, %esp
        jmp     interrupted

        one_interrupt 0x2e, on_primary_channel, 0xfb, 0xbf
