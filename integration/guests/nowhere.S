# Goes to execute what is not memory.
.include "firmware.inc"

main:
        say     "going\n"
        mov     $0xd0000000, %eax
        jmp     *%eax
