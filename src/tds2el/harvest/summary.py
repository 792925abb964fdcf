"""Tables about a harvest for people to read."""

from __future__ import annotations

import numpy as np

from tds2el.harvest.file import LOSSES, HarvestFile
from tds2el.harvest.quality import SpotQuality

HEAD = (
    " blob     h    k    l      angle         frames      points  above threshold"
    "  coverage  signal/base  lost frames  offset (1/Å)  offset (pixels)"
)


def harvest_table(harvest: HarvestFile, quality: SpotQuality) -> str:
    """The listing of show_hkls: a line for each blob, then the totals with the points lost and why."""
    several = len(harvest.experiments) > 1
    lines = [f"sweep {HEAD}" if several else HEAD]
    for blob, (h, k, l) in enumerate(harvest.hkl):
        frames = f"{harvest.first_frame[blob]}-{harvest.last_frame[blob]}"
        length = float(np.linalg.norm(quality.offset[blob]))
        sweep = f"{harvest.sweep[blob] + 1:5d} " if several else ""
        lines.append(
            f"{sweep}{blob:5d}  {h:4d} {k:4d} {l:4d}  {harvest.angle[blob]:9.3f}  {frames:>13}  "
            f"{harvest.n_points[blob]:10d}  {harvest.n_peaks[blob]:15d}"
            f"  {quality.coverage[blob]:8.2f}  {_number(quality.signal[blob], '.2f'):>11}"
            f"  {quality.lost_frames[blob]:11.2f}  {_number(length, '.5f'):>12}"
            f"  {_number(quality.offset_pixels[blob], '.2f'):>15}"
        )
    total = f"{harvest.n_blobs} blobs, {harvest.n_points.sum()} points, {harvest.n_peaks.sum()} above threshold"
    lost = ", ".join(f"{harvest.lost[cause].sum()} {cause.replace('_', ' ')}" for cause in LOSSES)
    return "\n".join([*lines, "", total, f"lost: {lost}"])


def _number(value: float, form: str) -> str:
    return "-" if np.isnan(value) else format(value, form)
