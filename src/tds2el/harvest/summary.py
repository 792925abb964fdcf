"""Tables about a harvest for people to read."""

from __future__ import annotations

from tds2el.harvest.file import LOSSES, HarvestFile


def harvest_table(harvest: HarvestFile) -> str:
    """The listing of show_hkls: a line for each blob, then the totals with the points lost and why."""
    lines = [" blob     h    k    l      angle         frames      points  above threshold"]
    for blob, (h, k, l) in enumerate(harvest.hkl):
        frames = f"{harvest.first_frame[blob]}-{harvest.last_frame[blob]}"
        lines.append(
            f"{blob:5d}  {h:4d} {k:4d} {l:4d}  {harvest.angle[blob]:9.3f}  {frames:>13}  "
            f"{harvest.n_points[blob]:10d}  {harvest.n_peaks[blob]:15d}"
        )
    total = f"{harvest.n_blobs} blobs, {harvest.n_points.sum()} points, {harvest.n_peaks.sum()} above threshold"
    lost = ", ".join(f"{harvest.lost[cause].sum()} {cause.replace('_', ' ')}" for cause in LOSSES)
    return "\n".join([*lines, "", total, f"lost: {lost}"])
