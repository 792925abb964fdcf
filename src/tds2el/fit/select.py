"""Which spots of a harvest deserve trust, and which tell most about the constants."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.fit.fit import Fit
from tds2el.harvest.file import HarvestFile
from tds2el.harvest.quality import SpotQuality

log = logging.getLogger("tds2el")

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LIMITS: dict[str, tuple[Callable[[SpotQuality], Array], int, str]] = {
    "min_points": (lambda quality: quality.points.astype(float), 1, "too few points"),
    "min_coverage": (lambda quality: quality.coverage, 1, "too few directions of q"),
    "min_signal": (lambda quality: quality.signal, 1, "too little signal over the baseline"),
    "max_offset": (lambda quality: np.linalg.norm(quality.offset, axis=1), -1, "the Bragg peak too far from its node"),
    "max_lost_frames": (lambda quality: quality.lost_frames, -1, "too many frames lost to the threshold"),
}
"""Option of spot_filter → figure, 1 for at least or −1 for at most, and what to say."""


def filtered_blobs(
    harvest: HarvestFile, blobs: Integers, quality: SpotQuality, limits: Mapping[str, float]
) -> tuple[Integers, dict[str, str]]:
    """The blobs within the limits of spot_filter, and why others are left out.

    Parameters
    ----------
    harvest : HarvestFile
    blobs : ndarray of int
    quality : SpotQuality
        Of all blobs of the harvest.
    limits : mapping
        As the option gives them; max_chi2 is for the fit itself.

    Returns
    -------
    kept : ndarray of int
    left_out : dict
        Name of a spot → reason with the limit.

    Raises
    ------
    InputError
        If nothing is left.
    """
    reasons: dict[int, str] = {}
    for name, limit in limits.items():
        if name not in LIMITS:
            continue
        figure, side, words = LIMITS[name]
        values = figure(quality)[blobs]
        # A figure that cannot be told, such as the offset of a peak that was not seen, is no reason.
        for blob in blobs[side * (values - limit) < 0]:
            reasons.setdefault(int(blob), f"{words} ({name} = {limit:g})")
    kept = np.array([blob for blob in blobs if int(blob) not in reasons], dtype=np.int64)
    if not len(kept):
        raise InputError("spot_filter leaves no spot; loosen it (show_hkls lists the figures of every spot)")
    names = {"({} {} {}) at {:.2f}°".format(*harvest.hkl[b], harvest.angle[b]): why for b, why in reasons.items()}
    return kept, names


def most_informative(found: Fit, number: int) -> Integers:
    """Blobs of the reflections that tell most about the constants, from a fit of all.

    Reflections are taken one by one, each time the one that raises the determinant of the Fisher information of the
    constants most; all passages of one are taken together.

    Parameters
    ----------
    found : Fit
    number : int
        Most reflections.

    Returns
    -------
    ndarray of int
        Numbers in the harvest, ascending.
    """
    used = ~found.result.spots.left_out
    hessians = found.information * used[:, None, None]
    if not hessians.shape[1]:
        raise InputError('collectSpots = "auto" needs a fit (doMinimisation = 1) of constants that are not all frozen')
    names, inverse = np.unique(found.data.hkl, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    of_name = np.array([hessians[inverse == n].sum(axis=0) for n in range(len(names))])
    usable = [n for n in range(len(names)) if used[inverse == n].any()]
    unit = 1 / np.sqrt(np.diag(of_name.sum(axis=0)))
    of_name = of_name * np.outer(unit, unit)
    total = 1e-6 * np.eye(len(unit))  # so that the first few have a determinant
    chosen: list[int] = []
    while usable and len(chosen) < number:
        gains = [np.linalg.slogdet(total + of_name[n])[1] for n in usable]
        best = usable.pop(int(np.argmax(gains)))
        chosen.append(best)
        total = total + of_name[best]
    log.info(
        "collectSpots = auto: %d of %d reflections: %s",
        len(chosen),
        len(names),
        ", ".join("({} {} {})".format(*names[n]) for n in chosen),
    )
    return np.sort(found.data.blobs[np.isin(inverse, chosen)])
