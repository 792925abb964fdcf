"""From a harvest to the points of a fit: which blobs, thinned by nred, relative to their nodes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tds2el.crystal.symmetry import PointGroup, with_replicas
from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry
from tds2el.harvest.centre import peak_offsets, peak_places
from tds2el.harvest.file import HarvestFile
from tds2el.harvest.nodes import node_names
from tds2el.model.engine import Piece, Points
from tds2el.model.sharing import Share, shares
from tds2el.progress import Stage
from tds2el.team import Team

log = logging.getLogger("tds2el")

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PIECE = 1 << 20
FEWEST_POINTS = 10
"""A blob with fewer points tells nothing beside its own factor and baseline."""
SEED = 20090


@dataclass(frozen=True)
class FitData:
    """The blobs of a fit.

    Attributes
    ----------
    points : Points
    blobs : ndarray of int, shape (n_blobs,)
        Their numbers in the harvest.
    hkl : ndarray of int, shape (n_blobs, 3)
    angle : ndarray, shape (n_blobs,)
        Goniometer angle of closest approach, degrees.
    peak : ndarray, shape (n_blobs, 3)
        Where the Bragg peak lies relative to the node, as q of the harvest, Å⁻¹; NaN where none was seen.
    peak_pixel : ndarray, shape (n_blobs, 3)
        Its row, column and goniometer angle in degrees; NaN likewise.
    nred : int
        Of so many points of the harvest one is taken.
    """

    points: Points
    blobs: Integers
    hkl: Integers
    angle: Array
    peak: Array
    peak_pixel: Array
    nred: int = 1


def chosen_blobs(
    harvest: HarvestFile, spots: Sequence[tuple[int, int, int]] | None, replicas: PointGroup | None = None
) -> Integers:
    """The numbers of the blobs that a list of reflections names.

    Parameters
    ----------
    harvest : HarvestFile
    spots : sequence of hkl, optional
        By default all that were harvested.
    replicas : PointGroup, optional
        Takes also what the group makes of the list, as far as it was harvested.

    Raises
    ------
    InputError
        A spot that was not harvested.
    """
    if spots is None:
        return np.arange(harvest.n_blobs)
    harvested = {tuple(int(i) for i in hkl) for hkl in harvest.hkl}
    missed = {tuple(spot) for spot in harvest.settings.get("collectSpots") or () if spot != "auto"} - harvested
    unseen = [spot for spot in spots if spot in missed]
    if unseen:
        log.warning("left out, since the scan does not see them: %s", ", ".join(str(spot) for spot in unseen[:10]))
    absent = [spot for spot in spots if spot not in harvested | missed]
    if absent:
        shown = ", ".join(str(spot) for spot in absent[:5])
        raise InputError(
            f"collectSpots: {shown} {'is' if len(absent) == 1 else 'are'} not in {harvest.path}: harvest again "
            "with this list, or take only spots that show_hkls lists"
        )
    wanted = np.array(sorted(set(spots)))
    if replicas is not None:
        wanted = with_replicas(wanted, replicas)
        others = np.array([node for node in wanted.tolist() if tuple(node) not in harvested])
        if len(others):
            log.info(
                "equivalent reflections that are not in the harvest (not seen, or harvested without "
                "REPLICA_COLLECTION): %s",
                node_names(others),
            )
    return np.flatnonzero((harvest.hkl[:, None] == wanted[None]).all(axis=2).any(axis=1))


def fit_data(
    harvest: HarvestFile, blobs: Integers, nred: int = 1, *, pixels: bool = False, team: Team | None = None
) -> FitData:
    """The points of blobs.

    Parameters
    ----------
    harvest : HarvestFile
        Stays open as long as the points are read.
    blobs : ndarray of int
        As `chosen_blobs` gives them; those with too few points are left out, with a warning.
    nred : int
        Of every nred points in file order one is taken, at random with a fixed seed (a stride would follow detector
        columns).
    pixels : bool
        Whether the pieces say where on the detector and in which frame their points are.
    team : Team, optional
        Ranks that share the reading, as `tds2el.fit.shared.HarvestShare`.

    Raises
    ------
    InputError
        No blob with enough points.
    """
    sizes = -(-harvest.n_points[blobs] // nred)
    if team is None:
        means = point_sums(harvest, blobs, nred, shares(sizes, 1)[0])
    else:
        means = np.sum(team.ask("sums", blobs, nred), axis=0)
    means /= np.maximum(sizes, 1)[:, None]
    usable = (sizes >= FEWEST_POINTS) & (means[:, 0] > 0)
    if not usable.any():
        raise InputError(f"{harvest.path}: no spot has {FEWEST_POINTS} points with counts: harvest others")
    if not usable.all():
        names = ", ".join("({}, {}, {})".format(*hkl) for hkl in harvest.hkl[blobs[~usable]][:10])
        log.warning("left out, with fewer than %d points or no counts: %s", FEWEST_POINTS, names)
    blobs, means = blobs[usable], means[usable]
    return FitData(
        harvest_points(harvest, blobs, means, nred, pixels=pixels),
        blobs,
        harvest.hkl[blobs],
        harvest.angle[blobs],
        peak_offsets(harvest)[blobs],
        peak_places(harvest)[blobs],
        nred,
    )


def point_sums(harvest: HarvestFile, blobs: Integers, nred: int, share: Share) -> Array:
    """Sums of counts, correction and background over a share of the points of blobs, (n_blobs, 3)."""
    sums = np.zeros((len(blobs), 3))
    reader = _Reader(harvest, nred, pixels=False)
    with Stage("read points", int(share.sizes.sum()), "point") as stage:
        for i, start, stop in zip(share.blobs, share.starts, share.stops, strict=True):
            for piece in reader.pieces(int(blobs[i]), start=int(start), stop=int(stop)):
                background = 0.0 if piece.background is None else piece.background.sum()
                sums[i] += piece.counts.sum(dtype=float), piece.correction.sum(dtype=float), background
                stage.update(len(piece.counts))
    return sums


def harvest_points(harvest: HarvestFile, blobs: Integers, means: Array, nred: int, *, pixels: bool) -> Points:
    """The points of blobs, read as they are asked for; `means`: of counts, correction and background, (n_blobs, 3)."""
    brightness = means[:, 0] / means[:, 1]
    reader = _Reader(harvest, nred, pixels)

    def pieces(blob: int, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        return reader.pieces(int(blobs[blob]), float(brightness[blob]), start, stop)

    return Points(
        nodes=harvest.centre[blobs],
        sizes=-(-harvest.n_points[blobs] // nred),
        mean_counts=means[:, 0],
        mean_correction=means[:, 1],
        q_max=harvest.delta_max,
        pieces=pieces,
        q_min=harvest.delta_min,
        background=harvest.has_background,
        pixels=pixels,
        mean_background=means[:, 2],
    )


@dataclass(frozen=True)
class _Reader:
    """Reads the points of a blob piece by piece."""

    harvest: HarvestFile
    nred: int
    pixels: bool

    @cached_property
    def geometries(self) -> list[Geometry]:
        return [Geometry(experiment) for experiment in self.harvest.experiments]

    def pieces(self, blob: int, brightness: float = 1.0, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        """The pieces of a blob of the harvest, of its points start:stop among those that are taken.

        `brightness` is its mean of N/κ, for the weights of a background.
        """
        # The same random numbers each time, so that every pass sees the same points; one for each that is taken.
        harvest, nred, bits = self.harvest, self.nred, np.random.PCG64([SEED, int(blob)])
        bits.advance(start)
        random = np.random.Generator(bits)
        length = max(1, PIECE // nred) * nred
        end = int(harvest.n_points[blob])
        if stop is not None:
            end = min(end, stop * nred)
        for begin in range(start * nred, end, length):
            part = (blob, begin, min(begin + length, end))
            counts, correction, q = harvest.points(*part)
            taken: slice | Integers = slice(None)
            if nred > 1:
                first = np.arange(0, len(counts), nred)
                width = np.minimum(nred, len(counts) - first)
                taken = first + (random.random(len(first)) * width).astype(int)
            kappa = correction[taken]
            columns: dict[str, Array] = {}
            if harvest.has_background or self.pixels:
                row, column, frame = (values[taken] for values in harvest.pixels(*part))
                if self.pixels:
                    entry = self.geometries[self.harvest.sweep[blob]].entry(row, column)
                    columns = {
                        "row": row.astype(float),
                        "column": column.astype(float),
                        "entry_row": entry[0],
                        "entry_column": entry[1],
                        "frame": frame.astype(float),
                        "phi": harvest.phi[frame],
                    }
                background, exposure = harvest.background(*part), harvest.background_exposure
                if background is not None and exposure is not None:
                    expected = np.asarray(background[taken], dtype=float)
                    # Of N_tot counts in the exposure T: τB = D N_tot/T, its variance D² (N_tot + 1)/T².
                    share = harvest.denominator[frame] / exposure
                    variance = expected * share + share**2
                    mean = np.maximum(kappa.astype(float) * brightness, expected)
                    columns |= {"background": expected, "weight": mean / (mean + variance)}
            yield Piece(q[taken], counts[taken], kappa, node=harvest.centre[blob], **columns)
