"""Bytes of whole files damaged as disks, networks and attackers do it: flips, cuts, runs of one byte, and numbers at their limits."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hypothesis import strategies as st

LIMITS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**60, 2**63 - 1, 2**63, 2**64 - 1)
FORMATS = ("<B", "<H", "<I", "<Q", ">H", ">I", ">Q")


@st.composite
def damaged(draw: st.DrawFn, files: Sequence[bytes], most: int = 4, header: int = 4096) -> bytes:
    """One of the files with up to `most` damages; half of them within its first `header` bytes, where its sizes and counts are."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, most))):
        reach = min(len(data), header) if draw(st.booleans()) else len(data)
        at = draw(st.integers(0, max(reach - 1, 0)))
        how = draw(st.integers(0, 6))
        if how == 0:
            del data[at:]
        elif how == 1:
            del data[at : at + draw(st.sampled_from((1, 4, 100)))]
        elif how == 2:
            data[at:at] = draw(st.sampled_from((b"\0" * 8, b"\xff" * 8, bytes(data[:64]), b"a" * 4096)))
        elif how == 3 and data:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
        elif how == 4:
            length = draw(st.sampled_from((4, 64, 1024)))
            data[at : at + length] = bytes([draw(st.sampled_from((0, 0xFF, 0x41)))]) * length
        else:
            form = draw(st.sampled_from(FORMATS))
            number = draw(st.sampled_from(LIMITS)) % (256 ** struct.calcsize(form))
            data[at : at + struct.calcsize(form)] = struct.pack(form, number)
    return bytes(data)
