"""What every rank knows of a harvest before the first frame is read: all that can be wrong with it is told here."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell, longest_reciprocal
from tds2el.crystal.centring import neighbour_vectors
from tds2el.crystal.symmetry import point_group, with_replicas
from tds2el.errors import InputError
from tds2el.experiment.background import Background, read_background
from tds2el.experiment.frames import FrameSeries, frame_files, open_frame_series, scan_together
from tds2el.experiment.geometry import Geometry
from tds2el.experiment.headers import Headers
from tds2el.experiment.mask import FrameMasks, read_mask, read_ranges
from tds2el.experiment.maxima import reflections_of_file
from tds2el.experiment.monitor import read_normalisation
from tds2el.harvest.centre import read_shifts
from tds2el.harvest.nodes import check_nodes, node_notes, node_warnings
from tds2el.harvest.plan import Plan, make_plan, shifted_plan
from tds2el.parallel import World
from tds2el.settings import CrystalSettings, Experiment, FrameSettings, HarvestSettings, Settings

# threshold_action "pixel" also drops this many pixels round each one above the threshold.
PIXEL_BORDER = 2


@dataclass(frozen=True)
class ScanInputs:
    """The scan and the shells, whatever the reflections.

    Attributes
    ----------
    path : Path
        The file to write.
    geometry : Geometry
    cell : Cell
    series : FrameSeries
    masks : FrameMasks
    denominator : ndarray, shape (frames,)
    background : Background or None
    delta_min, delta_max : float
        Å⁻¹.
    threshold, saturation : float
        Counts above the first or at least the second are over threshold.
    notes : list of str
    """

    path: Path
    geometry: Geometry
    cell: Cell
    series: FrameSeries
    masks: FrameMasks
    denominator: npt.NDArray[np.float64]
    background: Background | None
    delta_min: float
    delta_max: float
    threshold: float
    saturation: float
    notes: list[str]


@dataclass
class Inputs:
    """A harvest as it was asked for.

    Attributes
    ----------
    path : Path
        The file to write.
    geometry : Geometry
    cell : Cell
    hkl : ndarray of int, shape (n, 3)
        Reflections: those that were asked for, then their replicas.
    n_listed : int
        How many were asked for.
    source : str
        The option that asked for them.
    series : FrameSeries
    masks : FrameMasks
    denominator : ndarray, shape (frames,)
    background : Background or None
    delta_min, delta_max : float
        Å⁻¹.
    threshold, saturation : float
        Counts above the first or at least the second are over threshold.
    border : int
        Pixels round one above the threshold that are lost with it; −1: all of its frame.
    plan : Plan
        Empty where no reflection reaches the detector.
    neighbours : list of ndarray, shape (m, 3)
        For each blob, from its node to others that are allowed, Å⁻¹.
    warnings, notes : list of str
    """

    path: Path
    geometry: Geometry
    cell: Cell
    hkl: npt.NDArray[np.int64]
    n_listed: int
    source: str
    series: FrameSeries
    masks: FrameMasks
    denominator: npt.NDArray[np.float64]
    background: Background | None
    delta_min: float
    delta_max: float
    threshold: float
    saturation: float
    border: int
    plan: Plan
    neighbours: list[npt.NDArray[np.float64]]
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_headers(settings: Settings, threads: int, world: World) -> Headers:
    """The headers of all frames, each read by one rank (collective).

    Raises
    ------
    InputError
        On all ranks alike: what a harvest needs is missing, or a file cannot be read.
    """

    def find() -> list[str]:
        _, _, frames, cell, _, _ = _required(settings)
        if settings.harvest.collectSpots != "auto":
            reflections(settings.harvest, settings.crystal, cell)
        return frame_files(frames)

    return scan_together(find, threads, world)


def prepare(settings: Settings, scan: ScanInputs | None = None, scanned: Headers | None = None) -> Inputs:
    """Read all but the frames, and plan the harvest.

    Parameters
    ----------
    settings : Settings
        With the reflections, not "auto".
    scan : ScanInputs, optional
        If it has been read already.
    scanned : Headers, optional
        The headers of the frames, if they have been.

    Raises
    ------
    InputError
        For any fault of the inputs.
    """
    path, experiment, _, cell, delta_min, delta_max = _required(settings)
    options, crystal = settings.harvest, settings.crystal
    hkl, n_listed, source = reflections(options, crystal, cell)
    warnings = node_warnings(hkl, cell, crystal.centring, delta_max)
    notes = node_notes(hkl, cell, crystal.centring, delta_max)
    if len(hkl) > n_listed:
        notes.append(f"{n_listed} reflections and {len(hkl) - n_listed} equivalent ones (REPLICA_COLLECTION)")
    final = settings.values["save_to_file"]  # path is of a part where there are several sweeps
    notes.append(f"shells from {delta_min:.5f} to {delta_max:.5f} Å⁻¹; data go to {final}")

    scan = scan or read_scan(settings, scanned)
    notes += scan.notes
    geometry, series = scan.geometry, scan.series

    nodes = hkl @ cell.B.T
    plan = make_plan(geometry, nodes, series.angle_index, delta_max, series.shape)
    if options.centering_file is not None:
        phi = geometry.phi(series.angle_index)
        shift, remarks = read_shifts(options.centering_file, experiment, cell, series.names, phi, hkl, plan)
        warnings += remarks
        plan = shifted_plan(plan, shift, geometry, nodes, series.angle_index, delta_max, series.shape)
        notes.append(
            f"{np.count_nonzero(plan.shift.any(axis=1))} of {len(plan.node)} blobs are centred on their measured peaks"
        )
    neighbours = [np.empty((0, 3))] * len(plan.node)
    if crystal.centring is not None:
        of_node = {n: neighbour_vectors(hkl[n], cell, crystal.centring, 2 * delta_max) for n in np.unique(plan.node)}
        neighbours = [of_node[node] for node in plan.node]
    return Inputs(
        path=path,
        geometry=geometry,
        cell=cell,
        hkl=hkl,
        n_listed=n_listed,
        source=source,
        series=series,
        masks=scan.masks,
        denominator=scan.denominator,
        background=scan.background,
        delta_min=delta_min,
        delta_max=delta_max,
        threshold=scan.threshold,
        saturation=scan.saturation,
        border=PIXEL_BORDER if options.threshold_action == "pixel" else -1,
        plan=plan,
        neighbours=neighbours,
        warnings=warnings,
        notes=notes,
    )


def read_scan(settings: Settings, scanned: Headers | None = None) -> ScanInputs:
    """Read what does not depend on the reflections, all but the frames; of these the headers unless they are given.

    Raises
    ------
    InputError
        For any fault of the inputs.
    """
    path, experiment, frames, cell, delta_min, delta_max = _required(settings)
    geometry = Geometry(experiment)
    row, column = geometry.direct_beam()
    notes = [f"direct beam at row {row:.2f}, column {column:.2f}"]

    series = open_frame_series(frames, experiment.angular_step, scanned)
    background = read_background(frames, series.shape)
    if background is not None:
        notes.append(f"background of {background.n_frames} frames; {(~background.good).sum()} of its pixels are bad")
    if frames.normalisation_file is not None:
        denominator = read_normalisation(frames.normalisation_file, series)
    else:
        denominator = np.ones(series.n_frames)
    threshold, saturation, text = _threshold(settings.harvest.threshold, series.count_cutoff)
    notes.append(text)
    return ScanInputs(
        path=path,
        geometry=geometry,
        cell=cell,
        series=series,
        masks=frame_masks(frames, series, background),
        denominator=denominator,
        background=background,
        delta_min=delta_min,
        delta_max=delta_max,
        threshold=threshold,
        saturation=saturation,
        notes=notes,
    )


def _required(settings: Settings) -> tuple[Path, Experiment, FrameSettings, Cell, float, float]:
    """What no harvest can do without: the file to write, experiment, frames, cell and radii in Å⁻¹."""
    path = output_path(settings)
    options = settings.harvest
    experiment, frames, lengths_and_angles = settings.experiment, settings.frames, settings.crystal.cell
    if experiment is None or frames is None or lengths_and_angles is None:
        raise InputError("a harvest needs the experiment, the cell and images_prefix; give them in the par-files")
    if options.DeltaQ_min is None or options.DeltaQ_max is None:
        raise InputError("DeltaQ_min, DeltaQ_max: a harvest needs both; give them in the conf_file")
    if options.centering_file is not None and os.path.realpath(options.centering_file) == os.path.realpath(path):
        raise InputError(f"centering_file = {path}: save_to_file would overwrite it; give the new harvest another name")
    cell = Cell(*lengths_and_angles)
    unit = longest_reciprocal(cell)
    return path, experiment, frames, cell, options.DeltaQ_min * unit, options.DeltaQ_max * unit


def reflections(
    options: HarvestSettings, crystal: CrystalSettings, cell: Cell
) -> tuple[npt.NDArray[np.int64], int, str]:
    """The reflections to harvest.

    Returns
    -------
    hkl : ndarray of int, shape (n, 3)
        Those of collectSpots or file_maxima, then, with REPLICA_COLLECTION, what is equivalent to them.
    n_listed : int
        How many of them are no replicas.
    source : str
        The option that gave them.

    Raises
    ------
    InputError
    """
    source = "collectSpots"
    listed = options.collectSpots
    if isinstance(listed, str):
        raise InputError('collectSpots = "auto": the reflections are not chosen yet')
    if listed is None and options.file_maxima is not None:
        source = "file_maxima"
        listed = tuple(reflections_of_file(options.file_maxima))
    if not listed:
        raise InputError("collectSpots: a harvest needs a list of reflections such as [(1, 0, 4), (2, 0, 2)]")
    hkl = np.array(listed, dtype=np.int64)
    check_nodes(hkl, crystal.centring, source)
    n_listed = len(hkl)
    if options.REPLICA_COLLECTION:
        if crystal.ascii_generators is None:
            raise InputError("REPLICA_COLLECTION = 1: needs the symmetry; give ascii_generators")
        hkl = with_replicas(hkl, point_group(crystal.ascii_generators, cell, crystal.centring))
    return hkl, n_listed, source


def frame_masks(frames: FrameSettings, series: FrameSeries, background: Background | None) -> FrameMasks:
    """The masks of all frames, from filter_file, filter_ranges, the frames' own files and those of the background."""
    mask = np.ones(series.shape, dtype=np.bool_)
    if frames.filter_file is not None:
        mask &= read_mask(frames.filter_file, series.shape)
    if series.pixel_mask is not None:
        mask &= series.pixel_mask
    if background is not None:
        mask &= background.good
    return FrameMasks(mask, read_ranges(frames.filter_ranges or (), series.shape, series.n_frames))


def output_path(settings: Settings) -> Path:
    """The file to write; InputError if it cannot be written there."""
    if settings.run.save_to_file is None:
        raise InputError("save_to_file: a harvest needs the name of the file to write")
    path = Path(settings.run.save_to_file)
    if not path.parent.is_dir():
        raise InputError(f"save_to_file = {path}: the folder {path.parent} does not exist; create it")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"save_to_file = {path}: cannot be written there; choose another name or folder")
    return path


def _threshold(option: float | None, cutoff: float | None) -> tuple[float, float, str]:
    """Counts above the first or at least the second are over threshold; and what to tell the user."""
    if option is None and cutoff is None:
        raise InputError("threshold: not given, and the frames' headers name no count cutoff; give it in counts")
    threshold = np.inf if option is None else option
    saturation = np.inf if cutoff is None else cutoff
    if saturation <= threshold:
        reason = "no threshold is given" if option is None else f"lower than threshold = {option:g}"
        return threshold, saturation, f"the headers' count cutoff, {cutoff:g}, is the threshold ({reason})"
    return threshold, saturation, f"threshold: {option:g} counts"
