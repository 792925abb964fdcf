"""The text files of a simulated scan: both par-files and the truth."""

from __future__ import annotations

import json

from tds2el.crystal.cell import CELL_OPTIONS, Cell
from tds2el.crystal.symmetry import point_group
from tds2el.errors import InputError
from tds2el.simulate.expectation import VirtualScan
from tds2el.simulate.options import Scan

# First and last frame, and the name of a mask.
MaskRange = tuple[int, int, str]


def check_written_cell(scan: Scan) -> None:
    """Raise an InputError if the cell with geometry_error no longer has the symmetry: no run could read it."""
    if not set(scan.geometry_error or {}) & set(CELL_OPTIONS):
        return
    values = [value for name, value in scan.written_geometry.items() if name in CELL_OPTIONS]
    try:
        point_group(scan.ascii_generators, Cell(*(float(str(value)) for value in values)), scan.centring)
    except InputError as error:
        raise InputError(f"geometry_error: {error}") from None


def conf_file(virtual: VirtualScan) -> str:
    """The text of experiment.par, with the errors in geometry and cell that were asked for."""
    scan = virtual.scan
    lines = ["# Experiment"]
    lines += [f"{name} = {value!r}" for name, value in scan.written_geometry.items()]
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
        "",
        "# Counts are those of the middle of a pixel.",
        "pixel_response = 0.0",
    ]
    return "\n".join(lines) + "\n"


def input_file(virtual: VirtualScan, mask_ranges: list[MaskRange]) -> str:
    """The text of input.par; background frames and masks of the shadow are for the user to switch on."""
    lines = [
        'conf_file = "experiment.par"',
        'images_prefix = "frames/scan_"',
        'images_postfix = ".cbf"',
        'filter_file = "mask.edf"',
        'normalisation_file = "monitor.txt"',
        f"ascii_generators = {json.dumps(virtual.scan.ascii_generators)}",
    ]
    if mask_ranges:
        lines.append(f"# filter_ranges = {json.dumps(mask_ranges)}")
    if virtual.scan.background_frames:
        lines += [
            '# background_prefix = "background/empty_"',
            '# background_postfix = ".cbf"',
            '# background_normalisation_file = "background_monitor.txt"',
        ]
    return "\n".join(lines) + "\n"


def truth(virtual: VirtualScan, mask_ranges: list[MaskRange]) -> dict[str, object]:
    """What truth.json holds."""
    scan = virtual.scan
    known: dict[str, object] = {
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
    if scan.lattice is not None:
        known["lattice"] = scan.lattice
    if scan.second_lattice is not None:
        known["second_lattice"] = scan.second_lattice._asdict()
    if scan.zingers:
        known["zingers"] = scan.zingers
    if scan.shadow is not None:
        known["shadow"] = scan.shadow._asdict()
        known["filter_ranges"] = mask_ranges
    if scan.structured_background:
        known["structured_background"] = scan.structured_background
        known["background_frames"] = scan.background_frames
    if scan.geometry_error:
        known["geometry_error"] = scan.geometry_error
        known["true_geometry"] = scan.true_geometry
    return known
