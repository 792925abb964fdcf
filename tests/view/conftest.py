"""A fit of calcite as its file tells it, with round numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tds2el.fit.read import ConstantsTable, FitFile, FrameTensor, IterationTable, SpotTable

NAMES = ["A11", "A33", "A44", "A66", "A13", "A15"]
VALUES = np.array([147.1, 85.3, 34.0, 46.5, 53.7, -20.6])
SIGMA = np.array([np.nan, 0.853, 0.17, 0.31, 0.5, 0.206])
HKL = np.array([(1, 0, 4), (-2, 1, 3), (0, 2, 4), (1, 1, -6), (-1, 0, 14), (0, 1, 8), (2, -1, 6), (1, -2, 0)])


def _tensor() -> np.ndarray:
    a11, a33, a44, a66, a13, a15 = VALUES
    c = np.diag([a11, a11, a33, a44, a44, a66])
    c[0, 1] = c[1, 0] = a11 - 2 * a66
    c[:2, 2] = c[2, :2] = a13
    c[0, 4] = c[4, 0] = c[3, 5] = c[5, 3] = a15
    c[1, 4] = c[4, 1] = -a15
    return c


def _frame(title: str, rotation: np.ndarray) -> FrameTensor:
    c = _tensor()
    return FrameTensor(title, "x ∥ a*, y ∥ b, z ∥ c", rotation, c, np.where(c == 0, 0.0, 0.5))


def _fit(**changes: object) -> FitFile:
    n = len(HKL)
    constants = ConstantsTable(
        names=NAMES,
        status=["held", *["fitted"] * 5],
        value=VALUES,
        start=np.round(1.1 * VALUES, 2),
        lower=np.array([0.0, 0, 0, 0, -np.inf, -300]),
        upper=np.array([500.0, 500, 500, 500, np.inf, 300]),
        sigma=SIGMA,
        sigma_poisson=0.5 * SIGMA,
        sigma_scaled=0.75 * SIGMA,
        sigma_clustered=SIGMA,
        scale="held",
        scale_in_words="held: A11 keeps its start value, the data give the ratios to it only",
        held="A11",
        simulated=False,
        fitted=NAMES[1:],
        covariance=np.diag(SIGMA[1:] ** 2),
        correlation=np.eye(5),
    )
    turn = np.array([[np.sqrt(3) / 2, -0.5, 0], [0.5, np.sqrt(3) / 2, 0], [0, 0, 1]])
    rows = np.zeros(n)
    fit = FitFile(
        path=Path("results/tds2el_fit.h5"),
        title="elastic constants",
        constants=constants,
        frames={"W": _frame("Working frame W", np.eye(3)), "P": _frame("Standard frame P (IEEE 1987)", turn)},
        eigenvalues=np.array([37.0, 37.0, 47.0, 124.0, 124.0, 238.0]),
        moduli={
            **{f"{kind}_{mean}": (73.55, 0.7355) for kind in ("bulk", "shear") for mean in ("voigt", "reuss", "hill")},
            "young_hill": (86.0, 0.66),
            "poisson_hill": (0.3096, 0.0019),
            "universal_anisotropy": (1.831, 0.02),
        },
        spots=SpotTable(
            label=["" for _ in HKL],
            hkl=HKL,
            centre=0.2 * HKL,
            angle=np.linspace(0, 70, n),
            points=np.array([9, 1000, 20000, 300, 4000, 50000, 600, 70]) * 10,
            factor=np.linspace(0.1, 0.8, n),
            baseline=np.linspace(2, 3, n),
            sigma_factor=np.full(n, 0.01),
            sigma_baseline=np.full(n, 0.02),
            chi2_per_dof=np.array([1.01, 0.99, 1.2, 1.0, 0.98, 1.05, 1.02, 1.03]),
            sigma_chi2_per_dof=np.full(n, 0.01),
            deviance=rows,
            below_floor=rows,
            left_out=np.zeros(n, dtype=bool),
            filtered=np.zeros(n, dtype=bool),
            offset=np.zeros((n, 3)),
            sigma_offset=np.full((n, 3), np.nan),
            peak=np.full((n, 3), np.nan),
            centre_held=np.zeros(n, dtype=bool),
            slope=np.zeros((n, 3)),
            background=np.ones(n),
            sigma_background=np.full(n, np.nan),
            cut=np.zeros(n, dtype=int),
            foreign=np.zeros(n, dtype=int),
            regions=np.zeros(n, dtype=int),
            coverage=np.full(n, np.nan),
            signal=np.full(n, np.nan),
            lost_frames=np.full(n, np.nan),
            offset_pixels=np.full(n, np.nan),
        ),
        curve_profiles=None,  # a page takes pictures, not profiles
        iterations=IterationTable(
            deviance=np.array([1796237.2, 1202162.2]),
            predicted=np.array([np.inf, 3.2e-5]),
            damping=np.zeros(2),
            accepted=np.array([True, False]),
            constants=np.array([1.1 * VALUES, VALUES]),
            corrections=np.zeros((2, 0)),
            converged=True,
        ),
        corrections=None,
        next_order=None,
        deviance=1.1e6,
        chi2=1.0e6,
        dof=1_000_000,
        point_group="1~,3(z),2(y)",
        system="trigonal",
        cell=np.array([4.99, 4.99, 17.061, 90, 90, 120]),
        temperature=300.0,
        density=2.71,
        quantum_term=2.5e-4,
        relative_error=0.0,
        direct_beam=(512.25, 498.5),
        shell=(0.01, 0.03),
        n_frames=900,
        nred=1,
        harvested=12000,
        lost={"masked": 120, "over_threshold": 0},
        settings={"DeltaQ_max": 0.15, "images_prefix": None, "nred": 1, "pol_degree": 1.0},
        harvest_settings={"images_prefix": "/data/a_", "images_postfix": ".cbf", "lmbda": 0.7},
        program={
            "program": "tds2el",
            "version": "0.1.0",
            "date": "2026-03-05T10:20:30+01:00",
            "command_line": "/opt/bin/tds2el input.par --set nred=1",
            "device": "numpy, double precision",
            "numpy": "2.4.6",
        },
        inputs=["/data/calcite/input.par", "/data/calcite/harvest.h5"],
        warnings=[],
        notes=["The constants are isothermal."],
        report="ELASTIC CONSTANTS\n  A11  147.1",
    )
    return dataclasses.replace(fit, **changes)  # type: ignore[arg-type]


@pytest.fixture
def make_fit():
    """A FitFile with the scale held at A11; keywords replace its attributes."""
    return _fit
