"""A reader of FAT volumes for the tests, strict where linuxkit's writer must be: both FATs equal, no lost cluster."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field


@dataclass
class Found:
    bits: int
    clusters: int
    label: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    short: dict[str, list[bytes]] = field(default_factory=dict)


def read_volume(data: bytes) -> Found:
    """Everything in a volume; an AssertionError for what isn't as the specification has it."""
    sector, per, reserved, copies, root_count, total, media, fat = struct.unpack_from("<HBHBHHBH", data, 11)
    assert sector == 512 and copies == 2 and media == 0xF8 and data[510:512] == b"\x55\xaa"
    wide = fat == 0
    fat = fat or struct.unpack_from("<I", data, 36)[0]
    total = total or struct.unpack_from("<I", data, 32)[0]
    assert total * 512 == len(data)
    root_at = reserved + 2 * fat
    data_at = root_at + root_count * 32 // 512
    clusters = (total - data_at) // per
    bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
    assert wide == (bits == 32)
    table = data[reserved * 512 : (reserved + fat) * 512]
    assert table == data[(reserved + fat) * 512 : root_at * 512]
    assert (clusters + 2) * bits <= len(table) * 8
    found, used = Found(bits, clusters), set[int]()

    def entry(n: int) -> int:
        if bits == 12:
            pair = int.from_bytes(table[n * 3 // 2 : n * 3 // 2 + 2], "little")
            return pair >> 4 if n % 2 else pair & 0xFFF
        value = int.from_bytes(table[n * bits // 8 : (n + 1) * bits // 8], "little")
        return value & 0x0FFFFFFF

    end = (1 << min(bits, 28)) - 8
    assert entry(0) == (end + 7) & ~0xFF | media

    def chain(first: int) -> bytes:
        out = []
        while first < end:
            assert 2 <= first < clusters + 2 and first not in used
            used.add(first)
            at = (data_at + (first - 2) * per) * 512
            out.append(data[at : at + per * 512])
            first = entry(first)
        return b"".join(out)

    def walk(content: bytes, where: str) -> None:
        long: list[tuple[int, int, bytes]] = []
        for at in range(0, len(content), 32):
            raw = content[at : at + 32]
            if raw[0] == 0:
                break
            attributes = raw[11]
            if attributes == 0x0F:
                long.append((raw[0], raw[13], raw[1:11] + raw[14:26] + raw[28:32]))
                continue
            high, low, size = struct.unpack_from("<H4xHI", raw, 20)
            first = high << 16 | low
            if attributes & 8:
                found.label = raw[:11].decode().rstrip()
                continue
            if raw[:11].strip() in (b".", b".."):
                assert where and at < 64
                continue
            name = raw[:8].decode().rstrip() + ("." + raw[8:11].decode().rstrip()).rstrip(".")
            if long:
                total = 0
                for byte in raw[:11]:
                    total = ((total & 1) * 128 + (total >> 1) + byte) % 256
                assert [o & 0x3F for o, _, _ in long] == list(range(len(long), 0, -1)) and long[0][0] & 0x40
                assert {c for _, c, _ in long} == {total}
                text = b"".join(part for _, _, part in reversed(long)).decode("utf-16-le")
                name = text.split("\0")[0]
                long = []
            path = f"{where}/{name}".lstrip("/")
            short = found.short.setdefault(where, [])
            assert raw[:11] not in short
            short.append(raw[:11])
            if attributes & 0x10:
                assert size == 0
                found.folders.add(path)
                walk(chain(first), path)
            else:
                content_ = chain(first) if first else b""
                assert len(content_) - size in range(per * 512) and not content_[size:].strip(b"\0")
                found.files[path] = content_[:size]

    root = chain(struct.unpack_from("<I", data, 44)[0]) if wide else data[root_at * 512 : data_at * 512]
    walk(root, "")
    assert {n for n in range(2, clusters + 2) if entry(n)} == used
    if wide:
        lead, first_free = data[512:516], struct.unpack_from("<II", data, 512 + 488)
        assert lead == b"RRaA" and first_free[0] == clusters - len(used)
    return found
