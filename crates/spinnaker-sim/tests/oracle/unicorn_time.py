"""Times a kernel in Unicorn: arguments are the number of calls, its address, where it returns to, and r0 to r3; standard input
has instruction memory, then data memory. Prints the seconds of the best of five rounds, times five."""

import sys
import time

from unicorn import UC_ARCH_ARM, UC_MODE_ARM, Uc
from unicorn.arm_const import UC_ARM_REG_R0, UC_ARM_REG_R13, UC_ARM_REG_R14, UC_CPU_ARM_946

ROUNDS = 5
ITCM_BYTES, DTCM, DTCM_BYTES = 0x8000, 0x400000, 0x10000
calls, entry, finish, *arguments = map(int, sys.argv[1:])

uc = Uc(UC_ARCH_ARM, UC_MODE_ARM)
uc.ctl_set_cpu_model(UC_CPU_ARM_946)
uc.mem_map(0, ITCM_BYTES)
uc.mem_map(DTCM, DTCM_BYTES)
uc.mem_write(0, sys.stdin.buffer.read(ITCM_BYTES))
uc.mem_write(DTCM, sys.stdin.buffer.read(DTCM_BYTES))


def call():
    for index, value in enumerate(arguments):
        uc.reg_write(UC_ARM_REG_R0 + index, value)
    uc.reg_write(UC_ARM_REG_R13, DTCM + 0xFF00)
    uc.reg_write(UC_ARM_REG_R14, finish)
    uc.emu_start(entry, finish)


def measure():
    start = time.perf_counter()
    for _ in range(max(1, calls // ROUNDS)):
        call()
    return time.perf_counter() - start


call()
per_call = min(measure() for _ in range(ROUNDS)) / max(1, calls // ROUNDS)
print(per_call * calls)
