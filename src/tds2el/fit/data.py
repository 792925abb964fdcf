"""From a harvest to the points of a fit: which blobs, thinned by nred, relative to their nodes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.harvest.file import HarvestFile
from tds2el.model.engine import Points
from tds2el.progress import Stage

log = logging.getLogger("tds2el")

Array = npt.NDArray[np.float64]

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
    """

    points: Points
    blobs: npt.NDArray[np.int64]
    hkl: npt.NDArray[np.int64]
    angle: Array


def fit_data(harvest: HarvestFile, spots: Sequence[tuple[int, int, int]] | None, nred: int = 1) -> FitData:
    """Select the blobs to fit.

    Parameters
    ----------
    harvest : HarvestFile
        Stays open as long as the points are read.
    spots : sequence of hkl, optional
        By default all that were harvested.
    nred : int
        Of every nred points in file order one is taken, at random with a fixed seed (a stride would follow detector
        columns).

    Raises
    ------
    InputError
        A spot that was not harvested; no blob with enough points.
    """
    chosen = np.arange(harvest.n_blobs)
    if spots is not None:
        harvested = {tuple(int(i) for i in hkl) for hkl in harvest.hkl}
        missed = {tuple(spot) for spot in harvest.settings.get("collectSpots") or ()} - harvested
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
        chosen = np.flatnonzero((harvest.hkl[:, None] == wanted[None]).all(axis=2).any(axis=1))

    def pieces(blob: int) -> Iterator[tuple[Array, Array, Array]]:
        # The same random numbers each time, so that every pass sees the same points.
        random = np.random.default_rng([SEED, int(blob)])
        length = max(1, PIECE // nred) * nred
        for start in range(0, int(harvest.n_points[blob]), length):
            counts, correction, q = harvest.points(blob, start, start + length)
            if nred > 1:
                first = np.arange(0, len(counts), nred)
                width = np.minimum(nred, len(counts) - first)
                taken = first + (random.random(len(first)) * width).astype(int)
                counts, correction, q = counts[taken], correction[taken], q[taken]
            yield q - harvest.centre[blob], np.asarray(counts, dtype=float), np.asarray(correction, dtype=float)

    sizes = -(-harvest.n_points[chosen] // nred)
    means = np.zeros((len(chosen), 2))
    with Stage("check points", int(sizes.sum()), "point") as stage:
        for i, blob in enumerate(chosen):
            for q, counts, correction in pieces(int(blob)):
                if not (np.isfinite(q).all() and (correction > 0).all() and (counts >= 0).all()):
                    raise InputError(f"{harvest.path}: damaged: impossible numbers among its points; harvest again")
                means[i] += counts.sum(), correction.sum()
                stage.update(len(counts))
    means /= np.maximum(sizes, 1)[:, None]
    usable = (sizes >= FEWEST_POINTS) & (means[:, 0] > 0)
    if not usable.any():
        raise InputError(f"{harvest.path}: no spot has {FEWEST_POINTS} points with counts: harvest others")
    if not usable.all():
        names = ", ".join("({}, {}, {})".format(*hkl) for hkl in harvest.hkl[chosen[~usable]][:10])
        log.warning("left out, with fewer than %d points or no counts: %s", FEWEST_POINTS, names)
    chosen, sizes, means = chosen[usable], sizes[usable], means[usable]
    points = Points(
        nodes=harvest.centre[chosen],
        sizes=sizes,
        mean_counts=means[:, 0],
        mean_correction=means[:, 1],
        q_max=harvest.delta_max,
        pieces=lambda index: pieces(int(chosen[index])),
        q_min=harvest.delta_min,
    )
    return FitData(points, chosen, harvest.hkl[chosen], harvest.angle[chosen])
