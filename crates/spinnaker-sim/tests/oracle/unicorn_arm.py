"""Executes programs in Unicorn (an ARMv5TE core of QEMU's) and compares the states after them with those expected.

Reads records from standard input, all numbers little-endian 32-bit words:

    1, address, length, bytes             memory to write
    2, thumb, start, end, r0..r14, cpsr,
       r0..r14, cpsr, crc                 a program: the state before, the state expected after and CRC-32 of data memory
    3, thumb, count, address, words...    instructions to classify; answers one byte each: 0 valid, 1 undefined

Prints a line for each program that ends differently and, last, "compared N". Answers to 3 go to the file descriptor
given as the first argument.
"""

import os
import struct
import sys
import zlib

from unicorn import UC_ARCH_ARM, UC_ERR_EXCEPTION, UC_ERR_INSN_INVALID, UC_HOOK_INTR, UC_MODE_ARM, Uc, UcError
from unicorn.arm_const import UC_ARM_REG_CPSR, UC_ARM_REG_PC, UC_ARM_REG_R0, UC_ARM_REG_R13, UC_ARM_REG_R14, UC_CPU_ARM_946

ITCM, ITCM_BYTES = 0, 0x8000
DTCM, DTCM_BYTES = 0x400000, 0x10000
REGISTERS = [UC_ARM_REG_R0 + i for i in range(13)] + [UC_ARM_REG_R13, UC_ARM_REG_R14]
STATUS = 0xF80000DF
UNDEFINED = 1


def machine():
    uc = Uc(UC_ARCH_ARM, UC_MODE_ARM)
    uc.ctl_set_cpu_model(UC_CPU_ARM_946)
    uc.mem_map(ITCM, ITCM_BYTES)
    uc.mem_map(DTCM, DTCM_BYTES)
    return uc


class Input:
    def __init__(self, stream):
        self.stream = stream

    def words(self, count):
        data = self.stream.read(4 * count)
        return struct.unpack(f"<{len(data) // 4}I", data)


def run_program(uc, words):
    thumb, start, end = words[:3]
    before, cpsr = words[3:18], words[18]
    expected, expected_cpsr, expected_crc = words[19:34], words[34], words[35]
    uc.reg_write(UC_ARM_REG_CPSR, cpsr | (0x20 if thumb else 0))
    for register, value in zip(REGISTERS, before):
        uc.reg_write(register, value)
    error = None
    try:
        uc.emu_start(start | thumb, end, count=10000)
    except UcError as caught:
        error = caught
    after = tuple(uc.reg_read(register) for register in REGISTERS)
    cpsr_after = uc.reg_read(UC_ARM_REG_CPSR) & STATUS
    crc = zlib.crc32(bytes(uc.mem_read(DTCM, DTCM_BYTES)))
    if error is None and (after, cpsr_after, crc) == (expected, expected_cpsr, expected_crc):
        return True
    code = bytes(uc.mem_read(start, end - start + 8)).hex()
    print(f"differs: thumb {thumb} error {error} pc {uc.reg_read(UC_ARM_REG_PC):#x} memory {crc == expected_crc}")
    print(f"  code {code}")
    print("  before  ", " ".join(f"{v:08x}" for v in before), f"{cpsr:08x}")
    print("  unicorn ", " ".join(f"{v:08x}" for v in after), f"{cpsr_after:08x}")
    print("  expected", " ".join(f"{v:08x}" for v in expected), f"{expected_cpsr:08x}")
    return False


def classify(uc, thumb, address, words):
    """Whether each instruction is undefined: told by Unicorn's exception number 1 or its error."""
    seen = []
    hook = uc.hook_add(UC_HOOK_INTR, lambda uc, number, _: (seen.append(number), uc.emu_stop()))
    answers = bytearray()
    for word in words:
        uc.ctl_remove_cache(address, address + 8)
        uc.mem_write(address, struct.pack("<I", word))
        uc.reg_write(UC_ARM_REG_CPSR, 0x400000DF | (0x20 if thumb else 0))
        for register in REGISTERS:
            uc.reg_write(register, DTCM + 0x8000)
        seen.clear()
        invalid = False
        try:
            uc.emu_start(address | thumb, 0, count=1)
        except UcError as error:
            invalid = error.errno == UC_ERR_INSN_INVALID
            if error.errno == UC_ERR_EXCEPTION and not seen:
                seen.append(0)
        answers.append(1 if invalid or UNDEFINED in seen else 0)
    uc.hook_del(hook)
    return bytes(answers)


def main():
    source = Input(sys.stdin.buffer)
    uc = machine()
    compared = differing = 0
    while header := source.words(1):
        if header[0] == 1:
            address, length = source.words(2)
            uc.ctl_remove_cache(ITCM, ITCM + ITCM_BYTES)
            uc.mem_write(address, sys.stdin.buffer.read(length))
        elif header[0] == 2:
            compared += 1
            differing += not run_program(uc, source.words(36))
            if differing >= 10:
                break
        elif header[0] == 3:
            thumb, count, address = source.words(3)
            os.write(int(sys.argv[1]), classify(machine(), thumb, address, source.words(count)))
    print(f"compared {compared}")


main()
