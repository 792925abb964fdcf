"""Write a scan of a virtual crystal: frames, mask, monitor, par-files and the truth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.options import TABLE
from tds2el.output import replaced
from tds2el.parallel import World
from tds2el.simulate.cbf import write_cbf
from tds2el.simulate.expectation import VirtualScan

# Streams of random numbers that a seed gives; every frame has its own.
_FRAMES, _HOT_PIXELS = 1, 2
_EXPOSURE = 0.1  # s per frame
_FULL_FLUX = 1e6  # monitor counts of a frame just after a refill


def frame_name(frame: int) -> str:
    """Name of a frame's file; numbers begin with 1, as at beamlines."""
    return f"scan_{frame + 1:05d}.cbf"


def good_pixels(virtual: VirtualScan) -> npt.NDArray[np.bool_]:
    """The mask of the detector: False in gaps and hot pixels, shape (rows, columns)."""
    good = _active_pixels(virtual)
    good.reshape(-1)[_hot_pixels(virtual)[0]] = False
    return good


def draw_counts(virtual: VirtualScan, frame: int) -> npt.NDArray[np.int32]:
    """One frame: Poisson counts, saturation, hot pixels and gaps, fixed by the seed and the frame's number alone."""
    scan, expected = virtual.scan, virtual.expected(frame)
    seed = scan.seed if scan.noise_seed is None else scan.noise_seed
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_FRAMES, frame)))
    # Far above the cutoff the expectation no longer matters, and must fit into the generator.
    counts = rng.poisson(np.minimum(expected, 4.0 * scan.count_cutoff))
    where, level = _hot_pixels(virtual)
    counts.reshape(-1)[where] = rng.poisson(level)
    counts = np.minimum(counts, scan.count_cutoff)
    counts[~_active_pixels(virtual)] = -1
    return counts.astype(np.int32)


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
    first, last = (scan.n_frames * rank // world.size for rank in (world.rank, world.rank + 1))

    def write_frame(frame: int) -> None:
        write_cbf(folder / "frames" / frame_name(frame), draw_counts(virtual, frame), _header(virtual, frame))

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
    _ = virtual.halo_factors, virtual.corrections
    frames = virtual.scan.output_folder / "frames"
    frames.mkdir(parents=True, exist_ok=True)
    ours = {frame_name(n) for n in range(virtual.scan.n_frames)}
    other = sorted(path.name for path in frames.glob("scan_*.cbf") if path.name not in ours)
    if other:
        raise InputError(f"{frames} holds {other[0]} of another scan; remove it or choose another output_folder")


def _write_rest(virtual: VirtualScan) -> None:
    """Everything beside the frames."""
    folder = virtual.scan.output_folder
    _write_mask(folder / "mask.edf", good_pixels(virtual))
    rows = (f"frames/{frame_name(n)} {virtual.monitor(n):.6f}\n" for n in range(virtual.scan.n_frames))
    _write(folder / "monitor.txt", "".join(rows))
    _write(folder / "experiment.par", _conf_file(virtual))
    _write(folder / "input.par", _input_file(virtual))
    _write(folder / "truth.json", json.dumps(_truth(virtual), indent=1) + "\n")


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


def _conf_file(virtual: VirtualScan) -> str:
    scan = virtual.scan
    lines = ["# Experiment"]
    lines += [
        f"{o.name} = {getattr(scan.experiment, o.name)!r}" for o in TABLE["Experiment: beam, goniometer and detector"]
    ]
    lines += [f"{name} = {getattr(scan, name)!r}" for name in ("AA", "BB", "CC", "aAA", "aBB", "aCC")]
    lines.append(f"centring = {json.dumps(scan.centring)}")
    lines += [f"{name} = {getattr(scan, name)!r}" for name in ("Temperature", "density")]
    threshold = scan.threshold if scan.threshold is not None else scan.count_cutoff / 2
    lines += [
        "",
        "# Harvest",
        f"DeltaQ_max = {scan.DeltaQ_max!r}",
        f"DeltaQ_min = {scan.DeltaQ_min!r}",
        f"collectSpots = {virtual.spots.tolist()}",
        f"threshold = {threshold!r}",
        'save_to_file = "harvest.h5"',
    ]
    return "\n".join(lines) + "\n"


def _input_file(virtual: VirtualScan) -> str:
    lines = [
        'conf_file = "experiment.par"',
        'images_prefix = "frames/scan_"',
        'images_postfix = ".cbf"',
        'filter_file = "mask.edf"',
        'normalisation_file = "monitor.txt"',
        f"ascii_generators = {json.dumps(virtual.scan.ascii_generators)}",
    ]
    return "\n".join(lines) + "\n"


def _truth(virtual: VirtualScan) -> dict[str, object]:
    scan = virtual.scan
    return {
        "constants_GPa": virtual.constants,
        "elastic_tensor_W_GPa": virtual.stiffness.tolist(),
        "count_level": scan.count_level,
        "background": scan.background,
        "mosaicity_deg": scan.mosaicity,
        "seed": scan.seed,
        "noise_seed": scan.noise_seed,
        "spots": virtual.spots.tolist(),
        "spot_factors_GPa": virtual.spot_factors.tolist(),
    }


def _write(path: Path, text: str) -> None:
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_mask(path: Path, good: npt.NDArray[np.bool_]) -> None:
    import fabio

    with replaced(path) as temporary:
        fabio.edfimage.EdfImage(data=good.astype(np.uint8)).write(str(temporary))
