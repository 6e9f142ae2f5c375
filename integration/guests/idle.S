# Says that it is there, and waits for ever.
.include "firmware.inc"

main:
        say     "ready\n"
        jmp     halt
