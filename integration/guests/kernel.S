# A kernel that is booted directly, by PVH: says what it finds of the functions in slots 3 to 31, and of what firmware would have set up.
.include "firmware.inc"

.set XEN_ELFNOTE_PHYS32_ENTRY, 18
.set MTRR_DEFAULT_TYPE, 0x2ff

.section .note.Xen, "a", @note
        .long   4, 4, XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .long   kernel

.text
kernel:
        cli
        lgdtl   gdt_descriptor
        ljmp    $8, $enter32

main:
        mov     $0x80001800, %ebp
1:      mov     %ebp, %eax
        call    pci_read
        cmp     $0xffffffff, %eax
        je      2f
        mov     %ebp, %eax
        shr     $11, %eax
        and     $31, %eax
        say     "slot "
        call    put_hex
        # BARs 0 to 5, then Command, and Interrupt Line and Pin.
        mov     $0x10, %ecx
3:      call    put_register
        add     $4, %ecx
        cmp     $0x28, %ecx
        jne     3b
        mov     $0x04, %ecx
        call    put_register
        mov     $0x3c, %ecx
        call    put_register
        say     "\n"
2:      add     $0x800, %ebp
        cmp     $0x80010000, %ebp
        jne     1b
        say     "levels "
        inb     0x4d1
        mov     %eax, %ebx
        inb     0x4d0
        shl     $8, %ebx
        or      %ebx, %eax
        call    put_hex
        say     "\nmemory type "
        mov     $MTRR_DEFAULT_TYPE, %ecx
        rdmsr
        call    put_hex
        say     "\n"
        ret

put_register:
        lea     (%ebp, %ecx), %eax
        call    pci_read
        say     " "
        call    put_hex
        ret
