"""Scans of spring lattices: frames against sums of exact intensities, and mistakes in what is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.parallel import World
from tds2el.simulate.expectation import VirtualScan
from tds2el.simulate.lattice.examples import EXAMPLES
from tds2el.simulate.lattice.scattering import Scatterer
from tds2el.simulate.options import load_scan
from tds2el.simulate.scan import simulate_scan

SCAN = """\
pixel_size = 1.5
dist = 60.0
lmbda = 0.8
det_origin_X = 25.0
det_origin_Y = 20.0
phi = 10.0
angular_step = 0.5
r1 = 20.0
r2 = 35.0
r3 = 10.0
lattice = "fcc"
Temperature = 150.0
shape = [41, 51]
n_frames = 150
cut_radius = 0.15
peak_width = 0.001
DeltaQ_min = 0.04
DeltaQ_max = 0.15
collectSpots = [[1, 1, 1]]
output_folder = "scan"
"""


def scan_of(tmp_path: Path, text: str = SCAN) -> VirtualScan:
    path = tmp_path / "scan.par"
    path.write_text(text, encoding="utf-8")
    return VirtualScan(load_scan(path))


@pytest.mark.parametrize("turn", [0.02, 0.5])
def test_a_frame_is_the_sum_of_exact_halos(tmp_path: Path, turn: float) -> None:
    virtual = scan_of(tmp_path, SCAN.replace("angular_step = 0.5", f"angular_step = {turn}"))
    scan, frame = virtual.scan, 30
    row, column = np.mgrid[: scan.shape[0], : scan.shape[1]].astype(float)
    scatterer = Scatterer(EXAMPLES["fcc"](), scan.Temperature)
    far, near = 1.25 * scan.cut_radius, scan.cut_radius
    nodes = virtual.hkl @ scatterer.lattice.cell.B.T
    F2 = np.abs(scatterer.structure_factors(nodes)) ** 2
    np.testing.assert_allclose(virtual.halo_factors / virtual.halo_factors[0], F2 / F2[0], rtol=1e-12)
    total = np.zeros(row.shape)
    for step in (frame + (np.arange(5) - 2) / 5) * turn + scan.experiment.phi:
        Q = virtual.geometry.q_crystal(row, column, step)
        for node in nodes:
            q = Q - node
            length = np.linalg.norm(q, axis=-1)
            inside = length < far
            if inside.any():
                fade = np.clip((far**2 - length[inside] ** 2) / (far**2 - near**2), 0, 1)
                exact = scatterer.one_phonon(q[inside], node)
                total[inside] += fade**2 * (3 - 2 * fade) * exact * virtual.halo_factors[0] / F2[0] / 5
    found = virtual.intensity(frame)
    peaks = found > 1.1 * total
    assert peaks.sum() < 0.05 * peaks.size
    assert (total > 0).mean() > 0.3
    # Far from the nodes the middle of a frame stands for it; in a narrow one only the tables are left to differ.
    typical = np.median(total[total > 0])
    np.testing.assert_allclose(found[~peaks], total[~peaks], rtol=1e-4 if turn < 0.1 else 1e-3, atol=1e-4 * typical)


def test_a_scan_says_what_it_is_of(tmp_path: Path) -> None:
    virtual = scan_of(tmp_path, SCAN.replace("n_frames = 150", "n_frames = 2"))
    simulate_scan(virtual, World(), lambda frames, total: frames)
    known = json.loads((tmp_path / "scan" / "truth.json").read_text())
    assert known["lattice"] == "fcc"
    np.testing.assert_allclose(known["elastic_tensor_W_GPa"], EXAMPLES["fcc"]().tensor, atol=1e-9)
    conf = (tmp_path / "scan" / "experiment.par").read_text()
    assert "AA = 3.615" in conf
    assert 'centring = "F m -3 m"' in conf
    assert f"density = {EXAMPLES['fcc']().density!r}" in conf


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ('lattice = "sodium"', r'lattice = .*must be None, "fcc", "rock salt" or "corundum"'),
        ("AA = 3.6", r'scan.par: AA is settled by lattice = "fcc"; take one of them out'),
        ('constants = {"A11": 100.0}', r"constants is settled by lattice"),
        ("density = 2.7", r"density is settled by lattice"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, added: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scan_of(tmp_path, SCAN + added + "\n")


def test_halos_must_not_meet(tmp_path: Path) -> None:
    """Nodes are √3/a apart."""
    virtual = scan_of(tmp_path, SCAN.replace("cut_radius = 0.15", "cut_radius = 0.2"))
    with pytest.raises(InputError, match=r"cut_radius = 0.2: with a lattice halos must not meet; give 0.191\d or less"):
        _ = virtual.halo_tables
