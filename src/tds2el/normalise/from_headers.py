"""Denominators from what headers say of the beam: a monitor, and the factors that it does not see."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.header_values import HeaderValues

logger = logging.getLogger("tds2el")

Array = npt.NDArray[np.float64]

MONITORS = (
    "Flux",
    "mon",
    "monitor",
    "Monitor",
    "entry/control/data",
    "entry/monitor/data",
    "entry/instrument/monitor/data",
    "entry/sample/beam/incident_flux",
    "entry/sample/beam/total_flux",
)
"""Tried in this order."""
FACTORS = {
    "exposure": (
        "Exposure_time",
        "exposure_time",
        "ExposureTime",
        "acq_expo_time",
        "count_time",
        "entry/instrument/detector/count_time",
    ),
    "transmission": (
        "Filter_transmission",
        "Transmission",
        "transmission",
        "entry/instrument/attenuator/attenuator_transmission",
    ),
}
"""Tried in this order."""
FREE_OF_NOISE = 1e-3
"""Relative changes of a factor that are more than the rounding of a header."""


def monitor(headers: HeaderValues, names: list[str], key: str | None) -> tuple[Array, str]:
    """The beam of each frame, in units of its own.

    Exposure and transmission count where they change from frame to frame and the monitor does not change with them: a
    monitor that integrates over the exposure, or stands behind the filter, has them already.

    Parameters
    ----------
    headers : HeaderValues
    names : list of str
        Names of the frames.
    key : str or None
        None: the first of `MONITORS` that is there.

    Returns
    -------
    (values, what was used)

    Raises
    ------
    InputError
        No such key; a value that is not positive, or the same in all frames.
    """
    used, values = _first_there(headers, MONITORS if key is None else (key,))
    if values is None:
        tried = ", ".join(name for name in MONITORS if "/" not in name) if key is None else key
        raise InputError(
            f"{headers.files[0]}: no {tried} in its header; name what counts the beam as header_key, or set "
            'normalise_from = "frames"'
        )
    wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if wrong.size:
        raise InputError(
            f"{names[wrong[0]]}: {used} = {values[wrong[0]]:g} in its header ({wrong.size} of {len(values)} frames are "
            f"like this), but a monitor counts more; name another header_key, leave the frames out, or set "
            'normalise_from = "frames"'
        )
    if len(values) > 2 and np.all(values == values[0]):
        raise InputError(
            f"{names[0]}: {used} = {values[0]:g} in its header as in those of all {len(values)} frames, so it is no "
            'reading of a monitor; name another header_key, or set normalise_from = "frames"'
        )
    text = f"{used} of the headers"
    for factor, keys in FACTORS.items():
        name, scale = _first_there(headers, keys)
        if scale is None or not np.all(scale > 0) or np.ptp(scale) <= FREE_OF_NOISE * scale.mean():
            continue
        if _follows(values, scale):
            text += f" (which changes with the {factor}, {name}, by itself)"
        else:
            values = values * (scale / scale.mean())
            text += f" × {factor} ({name})"
    return values, text


def _first_there(headers: HeaderValues, keys: tuple[str, ...]) -> tuple[str, Array | None]:
    for key in keys:
        values = headers.values(key)
        if values is not None:
            return key, values
    return "", None


def _follows(values: Array, factor: Array) -> bool:
    """Whether the values change with the factor where that changes: half of its change at least, on the whole."""
    step = np.diff(np.log(factor))
    change = np.diff(np.log(values))
    return bool(np.sum(step * change) > 0.5 * np.sum(step**2))
