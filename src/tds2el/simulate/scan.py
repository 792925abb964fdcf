"""Write a scan of a virtual crystal: frames, mask, monitor, par-files and the truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import longest_reciprocal
from tds2el.errors import InputError
from tds2el.experiment.maxima import Maxima, write_maxima
from tds2el.harvest.plan import passages
from tds2el.output import replaced
from tds2el.parallel import World
from tds2el.simulate.cbf import write_cbf
from tds2el.simulate.disturbances import shadow_masks, zingers
from tds2el.simulate.expectation import VirtualScan
from tds2el.simulate.parfiles import MaskRange, check_written_cell, conf_file, input_file, truth

# Streams of random numbers that a seed gives, beside that of reflections, 3; every frame has its own.
_FRAMES, _HOT_PIXELS, _ZINGERS, _EMPTY_FRAMES = 1, 2, 4, 5
_EXPOSURE = 0.1  # s per frame
_FULL_FLUX = 1e6  # monitor counts of a frame just after a refill


def frame_name(frame: int) -> str:
    """Name of a frame's file; numbers begin with 1, as at beamlines."""
    return f"scan_{frame + 1:05d}.cbf"


def empty_name(frame: int) -> str:
    """Name of a file without the crystal."""
    return f"empty_{frame + 1:05d}.cbf"


def good_pixels(virtual: VirtualScan) -> npt.NDArray[np.bool_]:
    """The mask of the detector: False in gaps and hot pixels, shape (rows, columns)."""
    good = _active_pixels(virtual)
    good.reshape(-1)[_hot_pixels(virtual)[0]] = False
    return good


def draw_counts(virtual: VirtualScan, frame: int) -> npt.NDArray[np.int32]:
    """One frame: Poisson counts, zingers, saturation, hot pixels and gaps, fixed by the seed and its number alone."""
    scan = virtual.scan
    added = zingers(scan.zingers, scan.shape, _stream(virtual, _ZINGERS, frame)) if scan.zingers else None
    return _detect(virtual, virtual.expected(frame), _stream(virtual, _FRAMES, frame), added)


def draw_background(virtual: VirtualScan, frame: int) -> npt.NDArray[np.int32]:
    """One frame without the crystal: Poisson counts of air and slits, hot pixels and gaps."""
    return _detect(virtual, virtual.expected_background(frame), _stream(virtual, _EMPTY_FRAMES, frame))


def simulate_scan(
    virtual: VirtualScan, world: World, progress: Callable[[Iterable[object], int], Iterable[object]]
) -> Path:
    """Write the scan into its output_folder (collective); every rank writes its share of the frames.

    Parameters
    ----------
    virtual : VirtualScan
    world : World
    progress : callable
        Wraps the iterable of finished frames, whose number is its second argument.

    Returns
    -------
    Path
        The input.par that was written.

    Raises
    ------
    InputError
        If the options do not fit together or the folder cannot be written.
    """
    scan, folder = virtual.scan, virtual.scan.output_folder
    world.attempt(lambda: _prepare(virtual))
    # The frames without the crystal come after those of the scan.
    total = scan.n_frames + scan.background_frames
    first, last = (total * rank // world.size for rank in (world.rank, world.rank + 1))

    def write_frame(number: int) -> None:
        if number < scan.n_frames:
            path, counts = folder / "frames" / frame_name(number), draw_counts(virtual, number)
        else:
            number -= scan.n_frames
            path, counts = folder / "background" / empty_name(number), draw_background(virtual, number)
        write_cbf(path, counts, _header(virtual, number))

    def write_frames() -> None:
        threads = world.cores
        with ThreadPoolExecutor(threads) as pool:
            for _ in progress(pool.map(write_frame, range(first, last)), last - first):
                pass

    world.attempt(write_frames)
    world.attempt(lambda: _write_rest(virtual) if world.rank == 0 else None)
    return folder / "input.par"


def _prepare(virtual: VirtualScan) -> None:
    """Find mistakes in the options before the first frame, and make the folders."""
    _ = virtual.halo_factors, virtual.halo_tables, virtual.corrections, virtual.structured_background
    scan = virtual.scan
    check_written_cell(scan)
    _make_folder(scan.output_folder / "frames", "scan_*.cbf", {frame_name(n) for n in range(scan.n_frames)})
    if scan.background_frames:
        ours = {empty_name(n) for n in range(scan.background_frames)}
        _make_folder(scan.output_folder / "background", "empty_*.cbf", ours)
    if scan.shadow is not None:
        (scan.output_folder / "mask_ranges").mkdir(exist_ok=True)


def _make_folder(folder: Path, pattern: str, ours: set[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    other = sorted(path.name for path in folder.glob(pattern) if path.name not in ours)
    if other:
        raise InputError(f"{folder} holds {other[0]} of another scan; remove it or choose another output_folder")


def _write_rest(virtual: VirtualScan) -> None:
    """Everything beside the frames."""
    scan, folder = virtual.scan, virtual.scan.output_folder
    _write_mask(folder / "mask.edf", good_pixels(virtual))
    ranges = _write_mask_ranges(virtual)
    rows = (f"frames/{frame_name(n)} {virtual.monitor(n):.6f}\n" for n in range(scan.n_frames))
    _write(folder / "monitor.txt", "".join(rows))
    if scan.background_frames:
        rows = (f"background/{empty_name(n)} {virtual.monitor(n):.6f}\n" for n in range(scan.background_frames))
        _write(folder / "background_monitor.txt", "".join(rows))
    _write(folder / "experiment.par", conf_file(virtual))
    _write(folder / "input.par", input_file(virtual, ranges))
    _write_maxima(folder / "maxima.h5", virtual)
    _write(folder / "truth.json", json.dumps(truth(virtual, ranges), indent=1) + "\n")


def _write_mask_ranges(virtual: VirtualScan) -> list[MaskRange]:
    """Write the masks that exclude the shadow; their ranges of frames and names for input.par."""
    scan = virtual.scan
    ranges: list[MaskRange] = []
    if scan.shadow is not None:
        for first, last, good in shadow_masks(scan.shadow, scan.shape, scan.n_frames):
            name = f"mask_ranges/frames_{first:05d}_{last:05d}.edf"
            _write_mask(scan.output_folder / name, good)
            ranges.append((first, last, name))
    return ranges


def _stream(virtual: VirtualScan, stream: int, frame: int) -> np.random.Generator:
    """The random numbers of the counting noise for one purpose in one frame."""
    scan = virtual.scan
    seed = scan.seed if scan.noise_seed is None else scan.noise_seed
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, frame)))


def _detect(
    virtual: VirtualScan,
    expected: npt.NDArray[np.float64],
    rng: np.random.Generator,
    added: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.int32]:
    """What the detector makes of expected counts and of counts that are added to them."""
    cutoff = virtual.scan.count_cutoff
    # Far above the cutoff the expectation no longer matters, and must fit into the generator.
    counts = rng.poisson(np.minimum(expected, 4.0 * cutoff))
    where, level = _hot_pixels(virtual)
    counts.reshape(-1)[where] = rng.poisson(level)
    if added is not None:
        counts += added
    counts = np.minimum(counts, cutoff)
    counts[~_active_pixels(virtual)] = -1
    return counts.astype(np.int32)


def _write_maxima(path: Path, virtual: VirtualScan) -> None:
    """A table of the Bragg peaks of collectSpots, where they truly are, for file_maxima."""
    scan, geometry, hkl = virtual.scan, virtual.geometry, virtual.spots
    index = np.arange(scan.n_frames, dtype=float)
    found = [
        (*crossing, number)
        for number, node in enumerate(hkl @ virtual.group.cell.B.T)
        for passage in passages(geometry, node, index, scan.DeltaQ_max * longest_reciprocal(virtual.group.cell))
        if (crossing := _crossing(virtual, node, passage.angle)) is not None
    ]
    row, column, frame, number = np.array(found).reshape(-1, 4).T
    counts = np.full(len(row), float(scan.count_cutoff))
    accepted = np.ones(len(row), dtype=bool)
    write_maxima(path, Maxima(row, column, frame, counts, hkl[number.astype(int)], accepted), "output_folder")


def _crossing(virtual: VirtualScan, node: npt.NDArray[np.float64], phi: float) -> tuple[float, float, float] | None:
    """Row, column and frame where a node (Å⁻¹) crosses the Ewald sphere at phi (degrees), if the detector sees it."""
    geometry, e = virtual.geometry, virtual.scan.experiment
    direction = e.lmbda * (geometry.lab_to_crystal(phi).T @ node) - geometry.beam
    if abs(np.linalg.norm(direction) - 1) > 1e-6:  # it only comes near
        return None
    row, column = (float(x) for x in geometry.pixel_of(direction))
    if not (0 <= row <= virtual.scan.shape[0] - 1 and 0 <= column <= virtual.scan.shape[1] - 1):
        return None
    return row, column, (phi - e.phi) / e.angular_step


def _active_pixels(virtual: VirtualScan) -> npt.NDArray[np.bool_]:
    active = np.ones(virtual.scan.shape, dtype=bool)
    for first, last in virtual.scan.gap_rows:
        active[first : last + 1] = False
    for first, last in virtual.scan.gap_columns:
        active[:, first : last + 1] = False
    return active


def _hot_pixels(virtual: VirtualScan) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Flat indices of hot pixels and their expected counts."""
    scan = virtual.scan
    rng = np.random.default_rng(np.random.SeedSequence(scan.seed, spawn_key=(_HOT_PIXELS,)))
    size = scan.shape[0] * scan.shape[1]
    where = rng.choice(size, min(scan.n_hot_pixels, size), replace=False)
    return where, rng.uniform(0.01, 1.5, len(where)) * scan.count_cutoff


def _header(virtual: VirtualScan, frame: int) -> list[str]:
    """Mini header of a frame: half a step lies between the start angle and the phi of a conf_file."""
    e, scan = virtual.scan.experiment, virtual.scan
    row, column = virtual.geometry.direct_beam()
    size = f"{e.pixel_size * 1e-3:g}"
    return [
        "Detector: PILATUS, virtual",
        f"Pixel_size {size} m x {size} m",
        "Silicon sensor, thickness 0.000450 m",
        f"Exposure_time {_EXPOSURE:.7f} s",
        f"Exposure_period {_EXPOSURE:.7f} s",
        f"Count_cutoff {scan.count_cutoff} counts",
        f"N_excluded_pixels = {scan.n_hot_pixels}",
        f"Wavelength {e.lmbda:.6g} A",
        f"Start_angle {e.phi + (frame - 0.5) * e.angular_step:.6f} deg.",
        f"Angle_increment {e.angular_step:.6f} deg.",
        f"Flux {_FULL_FLUX * virtual.monitor(frame):.0f} counts",
        f"Temperature {scan.Temperature:.2f} K",
        f"Detector_distance {e.dist * 1e-3:.6f} m",
        # Pixel centres lie at halves in the convention of headers.
        f"Beam_xy ({column + 0.5:.2f}, {row + 0.5:.2f}) pixels",
    ]


def _write(path: Path, text: str) -> None:
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_mask(path: Path, good: npt.NDArray[np.bool_]) -> None:
    import fabio

    with replaced(path) as temporary:
        fabio.edfimage.EdfImage(data=good.astype(np.uint8)).write(str(temporary))
