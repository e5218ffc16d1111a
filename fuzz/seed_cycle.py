"""Corpora for the targets of the instruction-level machine: a few inputs for each kind of thing that their headers name.

With SPINNAKER_BOOT_IMAGE set, pieces of that image as well: code that a compiler has made.
"""

import os
import pathlib
import random
import struct

HERE = pathlib.Path(__file__).parent / "corpus"
# A multiplication with overflow of halves, a copy by fours, a loop with a call, a swap, saturation, a long multiply, status.
CODE = struct.pack(
    "<24I", 0xE3A04501, 0xE3A05B02, 0xE8B403C0, 0xE8A503C0, 0xE1600283, 0xE1010382, 0xE1040095, 0xE0854396, 0xE10F0000,
    0xE12FF000, 0xE3500000, 0x0A000001, 0xE5D41001, 0xE1D420F2, 0xE1C420F8, 0xE16F1F12, 0xE1021053, 0xE0C54396, 0xEB000001,
    0xEAFFFFEB, 0xE12FFF1E, 0xE92D4010, 0xE8BD8010, 0xEF000000)
# The same things in Thumb, behind a branch into it.
THUMB = struct.pack("<2I", 0xE28F0001, 0xE12FFF10) + struct.pack(
    "<16H", 0x2001, 0x1880, 0xB510, 0xBC10, 0x4770, 0x6801, 0x6041, 0xC907, 0xC107, 0x4348, 0xD1F5, 0xE7F4, 0xDF00, 0x5C41,
    0x4288, 0xBD10)


def write(target, name, data):
    """One input."""
    folder = HERE / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def image():
    """The official image, or nothing."""
    path = os.environ.get("SPINNAKER_BOOT_IMAGE")
    return pathlib.Path(path).read_bytes() if path else b""


def arm968():
    """How, status, start, code."""
    pieces = {"arm": CODE, "thumb": THUMB, "both": CODE + THUMB}
    pieces |= {f"image-{at}": image()[at:at + 256] for at in range(0x1000, len(image()), 0x1000)}
    for name, code in pieces.items():
        for how in (0x00, 0x03, 0x0A, 0x0F, 0x4B, 0x8B):
            for status in (0x13, 0xD3, 0x10, 0x33):
                write("arm968", f"{name}-{how:02x}-{status:02x}", bytes([how, status, 0]) + code)


def cycle_boot():
    """Programs spelled out, and images."""
    rng = random.Random(1)
    for kind in range(12):
        for device in range(24):
            steps = b"".join(
                bytes([kind + 12 * rng.randrange(21) & 0xFF, device]) + rng.randbytes(6) for _ in range(20))
            write("cycle_boot", f"step-{kind}-{device}", b"\1" + steps)
    write("cycle_boot", "code", b"\0" + CODE)
    if image():
        write("cycle_boot", "image", b"\0" + image()[:8192])


def scp(command, arguments, data=b"", place=0):
    """A request, as the target reads it: kind, place, number of the command, three arguments as they are, data."""
    words = b"".join(b"\0" + struct.pack("<I", a) for a in arguments)
    return bytes([0, place, command]) + words + bytes([len(data)]) + data


def cycle_udp():
    """A request for each command, and messages of the other kinds."""
    data = bytes(range(64))
    place, size = 0x6300_0000, 16
    requests = {
        "ver": scp(0, [0, 0, 0]), "read": scp(1, [place, size, 2]), "write": scp(2, [place, 64, 0], data),
        "fill": scp(3, [place, 0x5A5A5A5A, 256]), "count": scp(4, [0, 15, 0]), "remap": scp(5, [3, 0, 0], b"", 0x20),
        "link read": scp(6, [place, size, 0]), "link write": scp(7, [place, size, 0], data[:16]),
        "run": scp(8, [0x1E000002, 0, 0]), "flood start": scp(9, [0x06020100, 0xFFFF, 0x80003F1A]),
        "flood cores": scp(9, [0x07000002, 0, 0x3F1A]), "flood end": scp(9, [0x0F000002, 0x1E000002, 0x3F1A]),
        "copy and run": scp(10, [0, 64, 0x1E000002]), "signal": scp(11, [0, 0x0002FF1E, 0xFFFF]),
        "signal near": scp(11, [2, 0x0002FF1E, 0xFFFF]), "flood data": scp(12, [0x3F1E0002, 0xF00, 0x67800000], data),
        "start": scp(13, [0x67800000, 0x1E000002, 0]), "led": scp(14, [3, 0, 0]),
        "tag": scp(15, [0x00010003, 0x4321, 0x0100007F]), "reverse tag": scp(15, [0x20012204, 0x1234, 0]),
        "tag get": scp(15, [0x00020003, 1, 0]), "tag clear": scp(15, [0x00030003, 0, 0]),
        "serial rom": scp(16, [0x01000020, 0x03000000, 0]), "alloc": scp(17, [0x1E00, 4096, 1]),
        "route alloc": scp(17, [0x1E03, 8, 0]), "route load": scp(18, [0x00011E02, place, 0]), "info": scp(19, [0, 0, 0]),
        "sync": scp(20, [0, 0, 0]), "core ver": scp(0, [0, 0, 0], b"", 1), "core read": scp(1, [0x400000, 16, 0], b"", 2),
        "far": scp(0, [0, 0, 0], b"", 0x60), "nobody": scp(0, [0, 0, 0], b"", 0xE0),
    }
    for name, request in requests.items():
        write("cycle_udp", name.replace(" ", "-"), request)
    write("cycle_udp", "all", b"".join(requests.values())[:4000])
    flood = [requests[name] for name in ("flood start", "flood cores", "flood data", "flood end")]
    write("cycle_udp", "flood", b"".join(flood) + b"\xFD")
    boot = lambda opcode, operands, block=b"": bytes([8, opcode]) + b"".join(
        b"\0" + struct.pack("<I", o) for o in operands) + (bytes([128]) + block if block else b"\0")
    block = CODE.ljust(1024, b"\0")
    write("cycle_udp", "boot", boot(1, [0, 0, 0]) + boot(3, [0xFF00, 0, 0], block) + boot(5, [1, 0, 0]) + b"\xFD")
    write("cycle_udp", "hello", boot(0x41 & 7, [0, 0, 0]))
    power = bytes([11]) + scp(21, [0, 1, 0])[1:]
    write("cycle_udp", "power", power)
    # To the reverse tag's core: EIEIO with keys of 16 and 32 bits, with a count that is too large, a command, and too much.
    to_tag = lambda body: bytes([10]) + struct.pack("<H", 0x1234) + bytes([min(len(body), 127)]) + body[:127]
    eieio = [struct.pack("<HHH", 2, 1, 2), struct.pack("<HII", 0x0802, 1, 2), b"\xFF\x0C" + data, struct.pack("<HB", 0x4007, 1)]
    write("cycle_udp", "eieio", requests["reverse tag"] + b"".join(to_tag(body) for body in eieio) + b"\xFD")
    arp = bytes([12, 0x08]) + bytes([32]) + bytes([0, 1, 2, 0, 192, 168, 240, 254, 192, 168, 240, 254] + [0] * 20)
    echo = bytes([12, 0x03]) + bytes([44]) + bytes([192, 168, 240, 254, 192, 168, 240, 253, 8, 0, 0, 0, 0, 1, 0, 1] + [7] * 28)
    write("cycle_udp", "frames", arp + echo + requests["ver"])


if __name__ == "__main__":
    arm968()
    cycle_boot()
    cycle_udp()
