"""``python one_arch.py LIBRARY 90``: the machine code of all other GPU architectures in a CUDA library becomes zeros.

A library of CUDA holds "fat binaries": a header (magic number, version, its own length, length of what follows), then
one entry for each architecture, with a header of its own. Lengths stay, so nothing has to be moved.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

MAGIC = struct.pack("<I", 0xBA55ED50)
MACHINE_CODE = 2
"""Kind of an entry; others hold source for a compiler at run time."""


def main() -> None:
    """Write the library anew; prints how many bytes were kept of how many."""
    path, wanted = Path(sys.argv[1]), int(sys.argv[2])
    data = bytearray(path.read_bytes())
    kept = whole = start = 0
    while (start := data.find(MAGIC, start)) >= 0:
        version, header, length = struct.unpack_from("<HHQ", data, start + 4)
        if (version, header) != (1, 16) or start + header + length > len(data):
            start += 4
            continue
        at, end = start + header, start + header + length
        while at < end:
            kind, _, own, size = struct.unpack_from("<HHIQ", data, at)
            (architecture,) = struct.unpack_from("<I", data, at + 28)
            if own == 0:
                raise SystemExit(f"{path}: an entry without a header at {at:#x}")
            if kind == MACHINE_CODE and architecture == wanted:
                kept += size
            else:
                data[at + own : at + own + size] = bytes(size)
            whole += size
            at += own + size
        start = end
    path.write_bytes(data)
    print(f"{kept >> 20} of {whole >> 20} MiB of machine code are kept")


if __name__ == "__main__":
    main()
