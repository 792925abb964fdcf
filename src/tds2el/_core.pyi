"""Types of the compiled module, one section per topic."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# symmetry
def close_group(generators: npt.ArrayLike, tolerance: float = 1e-6) -> npt.NDArray[np.float64]: ...
def reduce_elastic_tensor(
    operations: npt.ArrayLike, tolerance: float = 1e-6
) -> tuple[list[tuple[int, int]], npt.NDArray[np.float64]]: ...

# halo
def halo_strength(
    Q: npt.ArrayLike, q: npt.ArrayLike, stiffness: npt.ArrayLike, thermal: float, terms: int
) -> npt.NDArray[np.float64]: ...
def scattering_image(
    q_lab: npt.ArrayLike,
    lab_to_crystal: npt.ArrayLike,
    blocks: npt.ArrayLike,
    block_weights: npt.ArrayLike,
    nodes: npt.ArrayLike,
    halo_factors: npt.ArrayLike,
    peak_heights: npt.ArrayLike,
    peak_precisions: npt.ArrayLike,
    peak_reach: float,
    stiffness: npt.ArrayLike,
    thermal: float,
    cut_radius: float,
    fade_radius: float,
    near_angle: float,
    ratios: npt.NDArray[np.float32],  # (n, 3, m, m, m), or empty
    spare: int,
) -> npt.NDArray[np.float64]: ...

# points
def relative_points(
    Q: npt.NDArray[Any],  # (n, 3)
    node: npt.ArrayLike,
    counts: npt.NDArray[Any],
    correction: npt.NDArray[Any],
    out: npt.NDArray[np.float32],  # (5 or more, capacity): x, y, z, counts, correction
    threads: int,
) -> None: ...
def survey(
    counts: npt.NDArray[Any],
    correction: npt.NDArray[Any],
    Q: npt.NDArray[Any],
    background: npt.NDArray[Any] | None,
    first: int,
    offsets: npt.NDArray[np.int64],
    centres: npt.ArrayLike,
    bands: int,
    middle: float,
    nearest: float,
    threads: int,
) -> tuple[bool, npt.NDArray[np.bool_], npt.NDArray[np.float64]]: ...

# fista
class CubeSolver:
    def __init__(
        self,
        *,
        q: npt.ArrayLike,  # (points, 3)
        values: npt.ArrayLike,  # (points, columns)
        half_width: float,
        n: int,
        beta: float,
        threads: int,
    ) -> None: ...
    def start(self, column: int) -> None: ...
    def iterate(self, count: int) -> None: ...
    def objective(self) -> float: ...
    def cube(self) -> npt.NDArray[np.float32]: ...
    def points_per_node(self) -> npt.NDArray[np.int32]: ...
    @property
    def columns(self) -> int: ...
    @property
    def bound(self) -> float: ...  # of the largest eigenvalue
    @property
    def restarts(self) -> int: ...
    @property
    def outside(self) -> int: ...
    @property
    def not_finite(self) -> int: ...

# cbf
def read_cbf(
    path: str, runs: list[tuple[int, int]] | None = None, wide: bool = True
) -> npt.NDArray[np.int32] | None: ...  # None: not a whole byte-offset CBF of 32-bit integers; ValueError: damaged

# headers
def header_numbers(text: bytes) -> tuple[float, float, float]: ...  # start angle, increment, cutoff; NaN: none there

# Those numbers of each file (files, 3), and of files that are no whole, plain CBFs, by index, first bytes and size; of
# a CBF those up to the marker of its image; None if it cannot be read.
def file_heads(
    paths: list[str], threads: int
) -> tuple[npt.NDArray[np.float64], dict[int, tuple[bytes, int] | None]]: ...

# bitshuffle
def unpack_bitshuffle(
    chunk: bytes, pixels: int, width: int, runs: list[tuple[int, int]] | None = None
) -> bytes: ...  # ValueError: damaged

# gather
_Pixels = npt.NDArray[np.unsignedinteger[Any]]  # uint16, or uint32 for large detectors
_Points = tuple[
    npt.NDArray[np.int64],  # number of each visit
    _Pixels,  # row
    _Pixels,  # column
    npt.NDArray[np.number[Any]],  # counts: int32 if these hold all that the frames' type does, or float64
]
# Path of a CBF; path, offset, size and type of a chunk packed with bitshuffle and LZ4; an image.
_Source = str | tuple[str, int, int, np.dtype[Any]] | npt.NDArray[Any]

class RegionGatherer:
    def __init__(
        self,
        *,
        mask: npt.NDArray[np.bool_],
        pixel_to_lab: npt.ArrayLike,
        origin: npt.ArrayLike,  # row and column of the foot point
        pixel_size: float,
        sensor_thickness: float,  # 0: no parallax
        sensor_mu: float,
        beam: npt.ArrayLike,
        lmbda: float,
        in_plane: npt.ArrayLike,
        normal: npt.ArrayLike,
        pol_degree: float,
        dist: float,
        centres: npt.ArrayLike,
        shifts: npt.ArrayLike,
        neighbours: npt.ArrayLike,
        neighbour_offsets: npt.ArrayLike,
        delta_min: float,
        delta_max: float,
        threshold: float,
        saturation: float,
        border: int,
        threads: int = 1,
    ) -> None: ...
    def set_mask(self, mask: npt.NDArray[np.bool_]) -> None: ...
    def frames(
        self,
        sources: Sequence[_Source],
        turns: npt.NDArray[np.float64],  # (frames, 3, 3), lab to crystal
        ends: npt.NDArray[np.int64],  # (frames,), end of each frame's visits
        blobs: npt.NDArray[np.int64],  # (visits,)
        regions: npt.NDArray[np.int64],  # (visits, 4)
    ) -> tuple[
        _Points, _Points, npt.NDArray[np.int64], npt.NDArray[np.uint8], list[tuple[int, str]]
    ]: ...  # points, peaks, losses (visits, 4), hot (visits,); faults (frame, text), and with any of them nothing else
    # Of pixels in runs: Q (n, 3) less the blob's shift, with one turn (3, 3) and one blob per run; κ.
    def places(
        self,
        row: _Pixels,
        column: _Pixels,
        numbers: npt.NDArray[np.int64],
        turns: npt.NDArray[np.float64],
        blobs: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float64]: ...
    def corrections(
        self,
        row: _Pixels,
        column: _Pixels,
        numbers: npt.NDArray[np.int64],
        denominators: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.float32]: ...

def join_runs(
    arrays: list[npt.NDArray[Any]],
    which: npt.NDArray[np.int64],  # array of each run
    starts: npt.NDArray[np.int64],  # and where it begins there
    numbers: npt.NDArray[np.int64],
    type: np.dtype[Any],
) -> npt.NDArray[Any]: ...

# gridding
class VolumeGridder:
    def __init__(
        self,
        *,
        masks: npt.NDArray[np.bool_],  # (n, rows, columns)
        pixel_to_lab: npt.ArrayLike,
        origin: npt.ArrayLike,  # (2,)
        pixel_size: float,
        sensor_thickness: float,  # 0: no parallax
        sensor_mu: float,
        beam: npt.ArrayLike,
        lmbda: float,
        in_plane: npt.ArrayLike,
        normal: npt.ArrayLike,
        pol_degree: float,
        dist: float,
        saturation: float,
        threshold: float,
        rate: npt.NDArray[np.float64] | None,  # of the background, (rows, columns)
        count_scale: float,
        correction_scale: float,
        background_scale: float,
        threads: int,
    ) -> None: ...
    # Turns (frames, microsteps, 3, 3) take Q in the lab to the place among the nodes, less the shift (3,).
    # Sums are (n0, n1, n2, 3 or 5): counts, correction, hits; background and its variance.
    def frames(
        self,
        *,
        sources: Sequence[_Source],
        turns: npt.NDArray[np.float64],
        shift: npt.NDArray[np.float64],
        denominators: npt.NDArray[np.float64],  # (frames,)
        which: npt.NDArray[np.int64],  # mask of each frame
        sums: npt.NDArray[np.int64],
        shared: bool,
    ) -> tuple[list[tuple[int, str]], int, int]: ...  # faults (frame, text), hits, saturated
    def background_variances(
        self,
        *,
        first_row: int,
        end_row: int,
        variance: npt.NDArray[np.float64],  # (rows, columns)
        turns: npt.NDArray[np.float64],
        shift: npt.NDArray[np.float64],
        denominators: npt.NDArray[np.float64],
        which: npt.NDArray[np.int64],
        sums: npt.NDArray[np.int64],
        scale: float,
        shared: bool,
    ) -> None: ...

def symmetrise(
    *,
    sums: npt.NDArray[np.int64],  # of the larger grid, (n0, n1, n2, columns)
    first: npt.NDArray[np.int64],  # (3,), number there of the node from which the operations count
    slab: npt.NDArray[np.int64],  # first and end along the first axis, numbers along the others
    turns: npt.NDArray[np.int64],  # (n, 3, 3)
    shifts: npt.NDArray[np.int64],  # (n, 3)
    threads: int,
) -> npt.NDArray[np.int64]: ...

# peaks
class PeakFinder:
    def __init__(
        self,
        *,
        mask: npt.NDArray[np.bool_],
        threshold: float,  # NaN: sigma decides
        sigma: float,
        saturated_above: float,
        saturated_from: float,
        window: int,
        most: int,
        threads: int = 1,
    ) -> None: ...
    def set_mask(self, mask: npt.NDArray[np.bool_]) -> None: ...
    # Of each frame: the number of its regions; its background (frames, 2): mean counts and pixels that count; sums
    # (regions, 18) as peaks/regions.py names them; runs of pixels (runs, 4): row, first and end column, region. Beyond
    # `most` regions neither of the last two; with faults (frame, text) nothing else.
    def frames(
        self, sources: Sequence[_Source]
    ) -> tuple[
        npt.NDArray[np.int64],
        npt.NDArray[np.float64],
        list[npt.NDArray[np.float64]],
        list[npt.NDArray[np.int32]],
        list[tuple[int, str]],
    ]: ...

def link_runs(
    one: npt.NDArray[np.int32], other: npt.NDArray[np.int32]
) -> npt.NDArray[np.int64]: ...  # (pairs, 2): regions of two frames with a pixel in common
