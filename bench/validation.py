"""Ratios of constants from exact lattice dynamics: how far each model is from the truth that the springs tell.

    python bench/validation.py [--lattices fcc …] [--models elastic …] [--points 2000] [--block 48] [--json FILE]

Points have no noise: the expected counts of one-phonon scattering from all branches, round strong reflections, in
shells from 0.04 to 0.15 and to 0.3 of the longest reciprocal axis, in directions all round or where a scan cuts them.
So what the fit gets wrong is the model's own fault.

With --block, also the intensities to all orders of a periodic block of so many cells cubed, at the waves that fit in,
beside one-phonon scattering at the same: what more phonons do to the constants.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # matrices are small; threads would only wait for each other

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from figures import figure, hand_over
from tds2el.crystal.cell import longest_reciprocal
from tds2el.crystal.dispersion import DispersionStructure, dispersion_structure
from tds2el.crystal.elasticity import TensorStructure, tensor_structure
from tds2el.crystal.symmetry import PointGroup, point_group
from tds2el.experiment.geometry import Geometry
from tds2el.fit.common import Common, SpotTerms, Values
from tds2el.fit.minimise import Minimiser, Minimum
from tds2el.fit.parameters import Constants, Scale
from tds2el.model.engine import Conditions, Piece, Points, State
from tds2el.model.numpy_engine import NumpyEngine
from tds2el.settings import Experiment
from tds2el.simulate.lattice.displacements import Block
from tds2el.simulate.lattice.examples import EXAMPLES
from tds2el.simulate.lattice.points import (
    Shell,
    points_from_intensities,
    points_of,
    shells_all_round,
    shells_of_scan,
    strong_reflections,
)
from tds2el.simulate.lattice.scattering import Scatterer

TEMPERATURE = 300.0
Q_MIN = 0.04
REACHES = (0.15, 0.3)
"""DeltaQ_min and DeltaQ_max in units of the longest of a*, b*, c*."""
LONGEST = 1.6
"""Largest |G|, Å⁻¹."""
SPOTS = 24
START = 1.1
BLOCKS = ("block, one phonon", "block, all")
SHAPE, FRAMES = (1043, 981), 1800
SCAN = Experiment(
    pixel_size=0.172, dist=100.0, lmbda=0.45, det_origin_X=521.0, det_origin_Y=490.0, phi=0.05, angular_step=0.1,
    r1=20.0, r2=35.0, r3=10.0, beam_tilt_angle=0.0, d1=0.0, d2=0.0, theta=0.0, theta_offset=0.0, omega=0.0,
    omega_offset=0.0, alpha=0.0, beta=0.0, kappa=0.0, orientation_codes=0, pol_degree=1.0,
    normal_to_pol=(0.0, 0.0, 1.0),
)  # fmt: skip
"""Half a turn before a detector of a million pixels."""


@dataclass(frozen=True)
class Truth:
    """Points, and the constants (k,) in GPa that they come from."""

    points: Points
    structure: TensorStructure
    constants: np.ndarray
    conditions: Conditions
    group: PointGroup


def fitted(truth: Truth, terms: SpotTerms | None = None, dispersion: DispersionStructure | None = None) -> np.ndarray:
    """The constants (k,) that a model finds; the first is held."""
    free = np.full(len(truth.constants), np.inf)
    start = truth.constants * np.where(np.arange(len(free)) == 0, 1.0, START)
    constants = Constants(truth.structure, start, -free, free)
    values = state = None
    if terms is not None:  # from the elastic limit, as a fit begins
        plain = Common(constants, Scale.HELD)
        minimum = _minimum(truth, plain)
        values, state = replace(minimum.values, dispersion=np.zeros(len(dispersion.names))), minimum.state
    minimum = _minimum(truth, Common(constants, Scale.HELD, terms=terms, dispersion=dispersion), values, state)
    return minimum.values.constants


def _minimum(truth: Truth, common: Common, values: Values | None = None, state: State | None = None) -> Minimum:
    engine = NumpyEngine(truth.points, common.columns, truth.conditions)
    minimum = Minimiser(engine, truth.points, common, truth.conditions).run(values, state)
    if not minimum.converged:
        raise RuntimeError("the fit did not converge")
    return minimum


def elastic(truth: Truth) -> np.ndarray:
    """The elastic limit."""
    return fitted(truth)


def next_order(truth: Truth, *, strain: bool = True) -> np.ndarray:
    """All terms; of a thousand times the counts, so that none is held for its σ."""

    def pieces(blob: int, *part: int) -> Iterator[Piece]:
        for piece in truth.points.pieces(blob, *part):
            yield replace(piece, counts=BRIGHTER * piece.counts, correction=BRIGHTER * piece.correction)

    points = truth.points
    brighter = replace(
        points,
        mean_counts=BRIGHTER * points.mean_counts,
        mean_correction=BRIGHTER * points.mean_correction,
        pieces=pieces,
    )
    terms = SpotTerms(gradient=True, strain=strain)
    return fitted(replace(truth, points=brighter), terms, dispersion_structure(truth.group))


def without_strain(truth: Truth) -> np.ndarray:
    """Dispersion and gradients."""
    return next_order(truth, strain=False)


MODELS: dict[str, Callable[[Truth], np.ndarray]] = {
    "elastic": elastic,
    "next-order": next_order,
    "T and g": without_strain,
}
"""What the program can fit."""
BRIGHTER = 1e3


def truth_of(lattice: str, reach: float, where: str, number: int, block: int = 0) -> Truth:
    """Points of a lattice in a shell, "all round", in a "scan", or at the waves of a block: see BLOCKS."""
    scatterer = Scatterer(EXAMPLES[lattice](), TEMPERATURE)
    crystal = scatterer.lattice
    unit = longest_reciprocal(crystal.cell)
    q_min, q_max = Q_MIN * unit, reach * unit
    shells: list[Shell]
    if where in BLOCKS:
        return _of_block(Block(scatterer, block), q_min, q_max, number, one_phonon=where == BLOCKS[0])
    if where == "scan":
        geometry = Geometry(SCAN)
        hkl = strong_reflections(scatterer, LONGEST, SPOTS, (geometry, SHAPE, FRAMES, q_max))
        nodes = hkl @ crystal.cell.B.T
        shells = shells_of_scan(geometry, nodes, SHAPE, FRAMES, q_min, q_max, number)
    else:
        nodes = strong_reflections(scatterer, LONGEST, SPOTS) @ crystal.cell.B.T
        shells = shells_all_round(len(nodes), number, q_min, q_max)
    return _truth(scatterer, points_of(scatterer, nodes, shells))


def _of_block(block: Block, q_min: float, q_max: float, number: int, *, one_phonon: bool) -> Truth:
    scatterer = block.scatterer
    nodes = strong_reflections(scatterer, LONGEST, SPOTS) @ scatterer.lattice.cell.B.T
    q = block.shell(q_min, q_max)
    # Pairs of q and −q stay together.
    half = q[np.lexsort(q.T)][: len(q) // 2]
    half = half[np.random.default_rng(1).permutation(len(half))[: number // 2]]
    q = np.concatenate([half, -half])
    halos = [block.intensity(node + q, one_phonon=one_phonon) for node in nodes]
    shells = [Shell(q, np.ones(len(q)))] * len(nodes)
    return _truth(scatterer, points_from_intensities(nodes, shells, halos))


def _truth(scatterer: Scatterer, points: Points) -> Truth:
    crystal = scatterer.lattice
    group = point_group(crystal.point_group, crystal.cell, crystal.space_group)
    structure = tensor_structure(group)
    constants = structure.constants(crystal.tensor)
    return Truth(points, structure, constants, Conditions(TEMPERATURE, crystal.density), group)


def ratio_errors(truth: Truth, found: np.ndarray) -> dict[str, float]:
    """Relative errors of C/C_first, in %, by name."""
    error = 100 * ((found / found[0]) / (truth.constants / truth.constants[0]) - 1)
    return dict(zip(truth.structure.names[1:], error[1:].tolist(), strict=True))


def measure(
    lattices: Sequence[str] = tuple(EXAMPLES),
    models: Sequence[str] = tuple(MODELS),
    reaches: Sequence[float] = REACHES,
    points: int = 2000,
    block: int = 0,
) -> dict[str, object]:
    """Errors of the ratios, in %, for each lattice, directions, shell and model."""
    rows = []
    for lattice in lattices:
        for where in ("all round", "scan", *(BLOCKS if block else ())):
            for reach in reaches:
                truth = truth_of(lattice, reach, where, points, block)
                for model in models:
                    errors = ratio_errors(truth, MODELS[model](truth))
                    worst = max(abs(error) for error in errors.values())
                    rows.append({"lattice": lattice, "where": where, "reach": reach, "model": model,
                                 "spots": len(truth.points.nodes), "errors": errors, "worst": worst})  # fmt: skip
    figures = [
        figure(f"worst ratio, {r['model']}, {r['lattice']} {r['where']}, {Q_MIN:g} to {r['reach']:g}", r["worst"], "%")
        for r in rows
    ]
    return {"rows": rows, "figures": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lattices", nargs="+", choices=EXAMPLES, default=list(EXAMPLES))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--reaches", nargs="+", type=float, default=list(REACHES))
    parser.add_argument("--points", type=int, default=2000, help="of a spot")
    parser.add_argument("--block", type=int, default=0, help="primitive cells along an edge; 0: no block")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.lattices, options.models, options.reaches, options.points, options.block)
    for row in result["rows"]:
        errors = "  ".join(f"{name} {error:+.3f} %" for name, error in row["errors"].items())
        print(f"{row['model']:10} {row['lattice']:10} {row['where']:17} {Q_MIN:g}–{row['reach']:<5g} {errors}")
    hand_over(result, options.json)


if __name__ == "__main__":
    main()
