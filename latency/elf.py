"""The few facts of 64-bit little-endian ELF files that running them on a device depends on."""

import struct
from typing import Literal

import msgspec

__all__ = ["Elf", "Libc", "Machine", "global_symbols", "read_elf"]

Machine = Literal["aarch64", "x86_64"]
Libc = Literal["glibc", "bionic"]

MACHINES: dict[int, Machine] = {183: "aarch64", 62: "x86_64"}
LOAD, DYNAMIC, NOTE = 1, 2, 4
NEEDED, STRING_TABLE = 1, 5
SYMBOL_TABLE, LOCAL = 2, 0


class Elf(msgspec.Struct, frozen=True, kw_only=True):
    """A shared library or program: the machine and C library it is for, and the largest page size it can be loaded with, in bytes."""

    machine: Machine
    libc: Libc
    page_size: int
    needed: tuple[str, ...]


def read_elf(data: bytes) -> Elf:
    """What ``data``, the whole file, is for.

    Raises:
        ValueError: it is no ELF file, cut short, or for a machine that this project does not know; the text says which.
    """
    try:
        return _elf(data)
    except (struct.error, IndexError) as error:
        raise ValueError("it is cut short or damaged") from error


def global_symbols(data: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """Names that an object file defines for others, and names that it uses and does not define."""
    offset, size, count = *struct.unpack_from("<Q", data, 0x28), *struct.unpack_from("<HH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, offset + i * size) for i in range(count)]
    defined: set[str] = set()
    undefined: set[str] = set()
    for start, length, link in ((s[4], s[5], s[6]) for s in sections if s[1] == SYMBOL_TABLE):
        for at in range(start + 24, start + length, 24):
            name, info, _, section = struct.unpack_from("<IBBH", data, at)
            if info >> 4 != LOCAL:
                (defined if section else undefined).add(_string(data, sections[link][4] + name))
    return frozenset(defined), frozenset(undefined)


def _elf(data: bytes) -> Elf:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("it is no 64-bit little-endian ELF file")
    machine = MACHINES.get(struct.unpack_from("<H", data, 18)[0])
    if machine is None:
        raise ValueError(f"it is not for {' or '.join(MACHINES.values())}")
    segments = _segments(data)
    needed = _needed(data, segments)
    bionic = "libc.so" in needed or any(kind == NOTE and b"Android\0" in data[at : at + size] for kind, at, _, size, _ in segments)
    page_size = min((align for kind, _, _, _, align in segments if kind == LOAD), default=0)
    return Elf(machine=machine, libc="bionic" if bionic else "glibc", page_size=page_size, needed=needed)


def _segments(data: bytes) -> list[tuple[int, int, int, int, int]]:
    """Kind, place in the file, address, bytes and alignment of every segment."""
    offset, size, count = *struct.unpack_from("<Q", data, 0x20), *struct.unpack_from("<HH", data, 0x36)
    headers = (struct.unpack_from("<IIQQQQQQ", data, offset + i * size) for i in range(count))
    return [(h[0], h[2], h[3], h[5], h[7]) for h in headers]


def _needed(data: bytes, segments: list[tuple[int, int, int, int, int]]) -> tuple[str, ...]:
    entries: list[tuple[int, int]] = []
    for kind, at, _, size, _ in segments:
        if kind == DYNAMIC:
            entries = [struct.unpack_from("<QQ", data, at + i) for i in range(0, size, 16)]
    strings = next((value for tag, value in entries if tag == STRING_TABLE), 0)
    place = next((at + strings - address for kind, at, address, size, _ in segments if kind == LOAD and 0 <= strings - address < size), 0)
    return tuple(_string(data, place + value) for tag, value in entries if tag == NEEDED)


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
