"""A fit, or a simulation, from a harvest to its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tds2el.fit.data import FitData
from tds2el.fit.minimise import Iteration, Minimiser, engine_columns
from tds2el.fit.parameters import Constants
from tds2el.fit.result import FitResult, result_of
from tds2el.model.device import make_engine
from tds2el.model.engine import Engine
from tds2el.settings import FitSettings

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """A result together with the engine that can draw its curve.

    Attributes
    ----------
    result : FitResult
    engine : Engine
    data : FitData
    """

    result: FitResult
    engine: Engine
    data: FitData

    def curve(self, blob: int) -> npt.NDArray[np.float32]:
        """Expected counts m of every point of one blob."""
        correction = np.concatenate([kappa for _, _, kappa in self.data.points.pieces(blob)])
        spots = self.result.spots
        intensity = spots.factor[blob] * self.engine.intensity(self.result.tensor, blob) + spots.baseline[blob]
        return np.asarray(correction * intensity, dtype=np.float32)


def fit(
    data: FitData,
    constants: Constants,
    settings: FitSettings,
    *,
    temperature: float,
    density: float,
    cores: int | None = None,
    started: Callable[[Engine], None] | None = None,
    report: Callable[[Iteration], None] | None = None,
) -> Fit:
    """Fit constants, factors and baselines; with doMinimisation off the constants keep their start values.

    Parameters
    ----------
    data : FitData
    constants : Constants
    settings : FitSettings
        doMinimisation, ftol, scale, relative_error and device are used.
    temperature, density : float
        K and g/cm³.
    cores : int, optional
        Threads that a CPU device may use; by default one for each core of this process.
    started : callable, optional
        Called with the engine once the points are on the device.
    report : callable, optional
        Called after every pass over the points.
    """
    if not settings.doMinimisation:
        constants = replace(constants, lower=constants.start, upper=constants.start)
    scale = constants.initial_scale(settings.scale)
    engine = make_engine(
        settings.device,
        data.points,
        engine_columns(constants, scale),
        temperature=temperature,
        density=density,
        relative_error=settings.relative_error,
        cores=cores,
    )
    if started is not None:
        started(engine)
    minimum = Minimiser(
        engine,
        data.points,
        constants,
        scale,
        temperature=temperature,
        density=density,
        may_free_scale=settings.scale == "auto",
        ftol=settings.ftol,
        report=report,
    ).run()
    return Fit(result_of(minimum, constants, data.points, data.hkl, data.angle), engine, data)
