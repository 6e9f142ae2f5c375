# Does everything that no driver would, COUNT times on each CPU and different for each SEED: random accesses of all widths to all ports and to
# memory that is not there, configuration registers that move devices over each other, DMA to and from nowhere, commands to busy disks.
# Some of it resets the machine; then it goes on where it was. At last it must still be able to reset the disk, read it, speak and switch
# the machine off.
#
# Two things are left out: the local and I/O APICs, which are the kernel's; and at ports where the power management block may have moved to,
# values that would switch the machine off.
.include "firmware.inc"

.set STATE, 0x9000              # what survives resets: magic, CPUs, starts; from 10h on, 8 bytes for each CPU: random state, accesses left
.set MAGIC, 0x6b616f73
.set SCRATCH, 0x20000           # nobody minds what happens to the 256 KiB from here on
.set TABLE, 0x10000

main:
        cmpl    $MAGIC, STATE
        je      1f
        call    other_cpus
        mov     %eax, STATE + 4
        movl    $0, STATE + 8
        # As many states as there may be CPUs.
        xor     %ecx, %ecx
        mov     $(SEED * 0x9e3779b1 + 1), %eax
2:      mov     %eax, STATE + 0x10(, %ecx, 8)
        movl    $COUNT, STATE + 0x14(, %ecx, 8)
        imul    $0x85ebca6b, %eax
        add     $0x12345677, %eax
        inc     %ecx
        cmp     $16, %ecx
        jne     2b
        movl    $MAGIC, STATE
1:      incl    STATE + 8
        cmpl    $0, STATE + 4
        je      3f
        call    start_others
3:      call    run
        # Everyone else is through as well?
        mov     STATE + 4, %ecx
4:      pause
        test    %ecx, %ecx
        jz      5f
        cmpl    $0, STATE + 0x14(, %ecx, 8)
        jne     4b
        dec     %ecx
        jmp     4b
5:
        # The serial port's divisor, loopback and interrupts are off again.
        outb    COM1 + 3, 0x03
        outb    COM1 + 4, 0x00
        outb    COM1 + 1, 0x00
        call    set_up_ide
        outb    0x3f6, 0x04
        outb    0x3f6, 0x00
        call    wait_ready
        mov     $1, %eax
        mov     $SCRATCH, %edi
        call    read_sector
        expect_eax 0x50, "the disk"
        say     "\nsurvived, starts: "
        mov     STATE + 8, %eax
        call    put_hex
        say     "\n"
        ret

main_of_others:
run:
        call    cpu_number
        lea     STATE + 0x10(, %eax, 8), %ebp
        cmpl    $0, 4(%ebp)
        jne     next
        ret
next:
        call    random
        mov     %eax, %ebx
        shr     $27, %ebx
        call    *doings(, %ebx, 4)
        decl    4(%ebp)
        jnz     next
        ret

doings:
        .long   write_known, write_known, write_known, write_known
        .long   read_known, read_known, write_any, read_any
        .long   write_string, read_string, write_memory, read_memory
        .long   configure, firmware_dma, disk_dma, command
        .long   write_known, write_known, write_moved, read_known
        .long   read_moved, write_any, read_any, repair
        .long   write_memory, read_memory, configure, firmware_dma
        .long   disk_dma, disk_dma, command, repair

# The next random number, in EAX (xorshift).
random:
        push    %ecx
        mov     (%ebp), %eax
        mov     %eax, %ecx
        shl     $13, %ecx
        xor     %ecx, %eax
        mov     %eax, %ecx
        shr     $17, %ecx
        xor     %ecx, %eax
        mov     %eax, %ecx
        shl     $5, %ecx
        xor     %ecx, %eax
        mov     %eax, (%ebp)
        pop     %ecx
        ret

# A port of some device, in EDX; those that reset the machine come rarely. Clears nothing else.
known_port:
        call    random
        shr     $10, %eax
        xor     %edx, %edx
        mov     $KNOWN, %ecx
        div     %ecx
        movzwl  ports(, %edx, 2), %edx
        cmp     $0x64, %edx
        je      1f
        cmp     $0x92, %edx
        je      1f
        cmp     $0xcf9, %edx
        je      1f
        ret
1:      call    random
        test    $0x1f0000, %eax
        jnz     known_port
        ret

        .balign 2
ports:
        .word   0x00, 0x01, 0x08, 0x0a, 0x0d, 0x0f, 0x20, 0x21, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x83
        .word   0x8f, 0x92, 0xa0, 0xa1, 0xb2, 0xb3, 0xc0, 0xd6, 0xdf, 0x402, 0x510, 0x511, 0x514, 0x518, 0x51a, 0x51b
        .word   0x170, 0x171, 0x172, 0x173, 0x174, 0x175, 0x176, 0x177, 0x376
        .word   0x1f0, 0x1f1, 0x1f2, 0x1f3, 0x1f4, 0x1f5, 0x1f6, 0x1f7, 0x3f6
        .word   0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff
        .word   0xcf8, 0xcf9, 0xcfa, 0xcfb, 0xcfc, 0xcfd, 0xcfe, 0xcff
ports_end:
.set KNOWN, (ports_end - ports) / 2

# A port of the power management block, wherever it is now, in EDX.
moved_port:
        mov     $(POWER + 0x40), %eax
        call    pci_read
        mov     %eax, %edx
        call    random
        shr     $11, %eax
        and     $0x3f, %eax
        and     $0xffc0, %edx
        or      %eax, %edx
        ret

# Any port at all, in EDX.
any_port:
        call    random
        mov     %eax, %edx
        shr     $13, %edx
        and     $0xffff, %edx
        ret

write_known:
        call    known_port
        call    random
        jmp     write
write_moved:
        call    moved_port
        jmp     1f
write_any:
        call    any_port
1:      call    random
        # Nothing that means "sleep", in any byte.
        and     $0xdfdfdfdf, %eax
write:
        mov     %eax, %ebx
        call    random
        xchg    %eax, %ebx
        shr     $20, %ebx
        and     $3, %ebx
        jmp     *writes(, %ebx, 4)
writes:
        .long   1f, 1f, 2f, 3f
1:      out     %al, %dx
        ret
2:      out     %ax, %dx
        ret
3:      out     %eax, %dx
        ret

read_known:
        call    known_port
        jmp     read
read_moved:
        call    moved_port
        jmp     read
read_any:
        call    any_port
read:
        call    random
        shr     $20, %eax
        and     $3, %eax
        jmp     *reads(, %eax, 4)
reads:
        .long   1f, 1f, 2f, 3f
1:      in      %dx, %al
        ret
2:      in      %dx, %ax
        ret
3:      in      %dx, %eax
        ret

# A count for a string instruction, in ECX: mostly few, now and then more than a sector or a page, and odd ones too.
string_count:
        call    random
        mov     %eax, %ecx
        shr     $8, %ecx
        and     $0x1f, %ecx
        test    $0x3f000000, %eax
        jnz     1f
        shl     $6, %ecx
        add     $3, %ecx
1:      ret

write_string:
        call    known_port
        call    string_count
        call    random
        mov     $SCRATCH, %esi
        shr     $20, %eax
        and     $3, %eax
        jmp     *string_writes(, %eax, 4)
string_writes:
        .long   1f, 1f, 2f, 3f
1:      rep outsb
        ret
2:      rep outsw
        ret
3:      rep outsl
        ret

read_string:
        call    known_port
        call    string_count
        call    random
        mov     $SCRATCH, %edi
        shr     $20, %eax
        and     $3, %eax
        jmp     *string_reads(, %eax, 4)
string_reads:
        .long   1f, 1f, 2f, 3f
1:      rep insb
        ret
2:      rep insw
        ret
3:      rep insl
        ret

# An address where no memory is, in EDI: the VGA window, above RAM, the PCI hole, beside the APICs. Unaligned as well.
hole:
        call    random
        mov     %eax, %edi
        shr     $12, %eax
        and     $7, %eax
        and     $0x0fff, %edi
        add     holes(, %eax, 4), %edi
        ret
holes:
        .long   0xa0000, 0xbf000, 0x08000000, 0xbffff000, 0xc0000000, 0xe0000000, 0xfebff000, 0xfed00000

write_memory:
        call    hole
        call    random
        mov     %eax, %ebx
        shr     $24, %ebx
        and     $3, %ebx
        jmp     *memory_writes(, %ebx, 4)
memory_writes:
        .long   1f, 2f, 3f, 4f
1:      mov     %al, (%edi)
        ret
2:      mov     %ax, (%edi)
        ret
3:      mov     %eax, (%edi)
        ret
4:      mov     $13, %ecx
        rep stosl
        ret

read_memory:
        call    hole
        call    random
        shr     $24, %eax
        and     $3, %eax
        jmp     *memory_reads(, %eax, 4)
memory_reads:
        .long   1f, 2f, 3f, 4f
1:      mov     (%edi), %al
        ret
2:      mov     (%edi), %ax
        ret
3:      mov     (%edi), %eax
        ret
4:      mov     %edi, %esi
        mov     $SCRATCH, %edi
        mov     $7, %ecx
        rep movsl
        ret

# Any register of the functions that there are, and of two that are not.
configure:
        call    random
        mov     %eax, %ebx
        shr     $8, %ebx
        and     $7, %ebx
        mov     functions(, %ebx, 4), %ebx
        shr     $16, %eax
        and     $0xfc, %eax
        # Often those that move or switch something.
        test    $0x40, %ah
        jz      1f
        and     $0x40, %eax
1:      or      %ebx, %eax
        mov     $0xcf8, %edx
        out     %eax, %dx
        call    random
        mov     %eax, %edx
        and     $3, %edx
        add     $0xcfc, %edx
        call    random
        jmp     write
functions:
        .long   0x80000000, 0x80000800, IDE, IDE + 0x20, POWER, POWER + 0x40, POWER + 0x80, 0x8000f800

# A request to fw_cfg: nowhere, or in memory and full of nonsense. Its data is never in memory.
firmware_dma:
        call    random
        mov     %eax, SCRATCH               # control, big endian: selects, reads, writes, skips
        call    random
        mov     %eax, SCRATCH + 4           # length
        call    random
        or      $0x80, %al                  # address, big endian: far above RAM
        mov     %eax, SCRATCH + 8
        call    random
        mov     %eax, SCRATCH + 12
        call    random
        mov     $0x514, %edx
        test    $0x10000, %eax
        jnz     1f
        xor     %eax, %eax
1:      out     %eax, %dx
        mov     $0x518, %edx
        test    $0x20000, %eax
        jz      2f
        call    random
        out     %eax, %dx
        ret
2:      mov     $SCRATCH, %eax
        bswap   %eax
        out     %eax, %dx
        ret

# A DMA command with a table whose regions are mostly nowhere, else in the scratch memory; the bus master may be anywhere or switched off.
disk_dma:
        mov     $TABLE, %edi
        mov     $16, %ecx
1:      call    random
        test    $0x30000, %eax
        jz      2f
        or      $0x08000000, %eax
        jmp     3f
2:      and     $0x1ffff, %eax
        add     $SCRATCH, %eax
3:      stosl
        call    random
        and     $0x8000ffff, %eax
        stosl
        loop    1b
        call    random
        and     $0x3ff, %eax
        test    $0x100, %eax
        jz      4f
        mov     $0x0fffffff, %eax
4:      call    disk_address
        outb    0x1f2, 0
        mov     $(IDE + 0x20), %eax
        call    pci_read
        mov     %eax, %ebx
        and     $0xfff0, %ebx
        lea     4(%ebx), %edx
        mov     $TABLE, %eax
        out     %eax, %dx
        call    random
        mov     $0x1f7, %edx
        and     $2, %eax
        or      $0xc8, %eax
        out     %al, %dx
        call    random
        mov     %ebx, %edx
        and     $8, %eax
        out     %al, %dx
        or      $1, %eax
        out     %al, %dx
        ret

# Any command, whether or not the disk is busy, on either channel.
command:
        call    random
        mov     $0x1f7, %edx
        test    $0x10000, %eax
        jz      1f
        mov     $0x177, %edx
1:      out     %al, %dx
        ret

# The disk controller as a driver needs it, and the disk reset, so that there is something left to break; but the bus master and the power
# management block go anywhere.
repair:
        call    set_up_ide
        call    random
        mov     %eax, %ebx
        and     $0xfff0, %ebx
        mov     $(IDE + 0x20), %eax
        call    pci_write
        call    random
        mov     %eax, %ebx
        mov     $(POWER + 0x40), %eax
        call    pci_write
        mov     $(POWER + 0x80), %eax
        mov     $1, %ebx
        call    pci_write
        outb    0x3f6, 0x04
        outb    0x3f6, 0x00
        ret
