# Starts all CPUs and counts them.
.include "firmware.inc"

.set COUNT, 0x9000

main:
        movl    $1, COUNT
        call    other_cpus
        mov     %eax, %ebp
        call    start_others
        inc     %ebp
1:      pause
        cmp     %ebp, COUNT
        jne     1b
        mov     COUNT, %eax
        call    put_hex
        say     " CPUs\n"
        ret

main_of_others:
        lock incl COUNT
        ret
