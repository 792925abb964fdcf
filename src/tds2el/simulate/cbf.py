"""Frames as a Pilatus writes them: CBF with the mini header and byte-offset compression."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.output import replaced

# Ends text for a pager and marks the start of the binary section (CBFlib).
_STARTER = b"\x0c\x1a\x04\xd5"


def write_cbf(path: Path, counts: npt.NDArray[np.int32], header: Sequence[str]) -> None:
    """Write one frame under a temporary name and rename it.

    Parameters
    ----------
    path : Path
    counts : ndarray of int32, shape (rows, columns)
    header : sequence of str
        Lines of the Pilatus mini header, without the leading "# ".
    """
    from fabio.compression import compByteOffset, md5sum

    rows, columns = counts.shape
    blob = bytes(compByteOffset(np.ascontiguousarray(counts, dtype=np.int32)))
    text = [
        "###CBF: VERSION 1.5, CBFlib v0.7.8 - PILATUS detectors",
        "",
        f"data_{path.stem}",
        "",
        '_array_data.header_convention "PILATUS_1.2"',
        "_array_data.header_contents",
        ";",
        *(f"# {line}" for line in header),
        ";",
        "",
        "_array_data.data",
        ";",
        "--CIF-BINARY-FORMAT-SECTION--",
        "Content-Type: application/octet-stream;",
        '     conversions="x-CBF_BYTE_OFFSET"',
        "Content-Transfer-Encoding: BINARY",
        f"X-Binary-Size: {len(blob)}",
        "X-Binary-ID: 1",
        'X-Binary-Element-Type: "signed 32-bit integer"',
        "X-Binary-Element-Byte-Order: LITTLE_ENDIAN",
        f"Content-MD5: {md5sum(blob).decode('ascii')}",
        f"X-Binary-Number-of-Elements: {rows * columns}",
        f"X-Binary-Size-Fastest-Dimension: {columns}",
        f"X-Binary-Size-Second-Dimension: {rows}",
        "X-Binary-Size-Padding: 4095",
        "",
        "",
    ]
    end = "\r\n".join(["", "--CIF-BINARY-FORMAT-SECTION----", ";", ""])
    with replaced(path) as temporary, temporary.open("wb") as stream:
        stream.write("\r\n".join(text).encode("ascii"))
        stream.write(_STARTER + blob + bytes(4095))
        stream.write(end.encode("ascii"))
