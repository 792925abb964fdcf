"""Builds the model kernel on a CPU device and checks one pass against numpy.

Usage: ``python -m tds2el.model.probe PLATFORM INDEX``, in a process of its own: a broken driver ends the process that
uses it.
"""

from __future__ import annotations

import sys

import numpy as np

from tds2el.model.engine import Columns, Conditions, Piece, Points, State
from tds2el.model.numpy_engine import NumpyEngine
from tds2el.model.opencl_engine import OpenCLEngine


def main(platform_name: str, index: int) -> None:
    """Compare the Gram sums of the OpenCL engine with those of numpy on a few pixels."""
    import pyopencl as cl

    platform = next(p for p in cl.get_platforms() if p.name == platform_name)
    rng = np.random.default_rng(1)
    q = rng.normal(scale=0.02, size=(1000, 3))
    counts = rng.poisson(2.0, size=1000).astype(float)
    points = Points(
        nodes=np.array([[0.3, 0.2, 0.5]]),
        sizes=np.array([1000]),
        mean_counts=np.array([2.0]),
        mean_correction=np.array([1.0]),
        q_max=0.1,
        pieces=lambda blob, start=0, stop=None: iter([Piece(q, counts, np.ones(1000))]),
    )
    columns, conditions = Columns(np.eye(6)[None], scale=True, centre=True), Conditions(300.0, 3.0)
    normal = np.array([1.0, 1, 1, 0, 0, 0])
    tensor = np.diag(120 * normal + 40 * (1 - normal)) + 30 * np.outer(normal, normal)
    state = State(tensor, factor=np.array([0.1]), baseline=np.array([1.0]))
    expected = NumpyEngine(points, columns, conditions).evaluate(state).gram
    engine = OpenCLEngine(platform.get_devices()[index], points, columns, conditions)
    scale = np.sqrt(np.diagonal(expected[0]))
    if not np.allclose(engine.evaluate(state).gram[0], expected[0], rtol=0, atol=1e-3 * np.outer(scale, scale)):
        sys.exit("its arithmetic is wrong")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
