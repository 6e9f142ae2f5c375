# Says what the BIOS tells an operating system: its memory map, and whether the ACPI tables' beginning is where it belongs and whole.
.include "boot.inc"

.set BUFFER, 0xb000

main:
        xor     %ebx, %ebx
each:
        mov     $0xe820, %eax
        mov     $20, %ecx
        mov     $0x534d4150, %edx
        mov     $BUFFER, %di
        int     $0x15
        jc      tables
        say     "memory "
        mov     BUFFER + 4, %eax
        call    put_hex
        mov     BUFFER, %eax
        call    put_hex
        say     "+"
        mov     BUFFER + 12, %eax
        call    put_hex
        mov     BUFFER + 8, %eax
        call    put_hex
        say     " "
        mov     BUFFER + 16, %eax
        call    put_hex
        say     "\n"
        test    %ebx, %ebx
        jnz     each

tables:
        # "RSD PTR " at a multiple of 16 in E0000-FFFFF (ACPI 6.5, 5.2.5.1).
        mov     $0xe000, %bx
1:      mov     %bx, %es
        mov     $signature, %si
        xor     %di, %di
        mov     $8, %cx
        repe cmpsb
        je      2f
        inc     %bx
        jnz     1b
        say     "no RSDP\n"
        jmp     3f
2:      # Its first 20 bytes add up to zero.
        xor     %di, %di
        xor     %al, %al
        mov     $20, %cx
4:      add     %es:(%di), %al
        inc     %di
        loop    4b
        movzbl  %al, %eax
        push    %eax
        say     "RSDP sum "
        pop     %eax
        call    put_hex
        say     "\n"
3:      xor     %ax, %ax
        mov     %ax, %es
        ret
signature:
        .ascii  "RSD PTR "
