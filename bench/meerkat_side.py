"""meerkat 0.4, what people in the field reconstruct volumes with, in an environment of its own.

Its detector, rotation and orientation are those of a file XPARM.XDS, which is written here from our geometry.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

from scipy.spatial.transform import Rotation

from tds2el.crystal.cell import Cell
from tds2el.experiment.geometry import Geometry

REQUIREMENT = "meerkat==0.4.*"
SCRIPT = Path(__file__).with_name("meerkat_reconstruct.py")


def meerkat_python(folder: Path | None = None) -> Path | None:
    """The interpreter of an environment with meerkat, made if need be; None, with a message, if it cannot be."""
    folder = Path(sys.prefix) / "meerkat" if folder is None else folder
    python = folder / "bin" / "python"
    if not python.is_file():
        venv.create(folder, with_pip=True)
    install = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", REQUIREMENT]
    for command in ([python, "-c", "import meerkat.meerkat"], install):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return python
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
    print(f"{REQUIREMENT} cannot be installed into {folder} ({reason}): without a network tds2el is measured alone")
    return None


def write_xparm(path: Path, geometry: Geometry, cell: Cell, shape: tuple[int, int]) -> None:
    """Our geometry as XPARM.XDS, with frame 0 at phi of our frame 0.

    The lab axes stay ours, since XDS has none of its own. Its pixel numbers begin at 1. A scan about any axis of the
    goniometer turns Q0 by M(φ) = lab_to_crystal(0)ᵀ lab_to_crystal(φ), in XDS a rotation by −φ about its axis; what is
    left goes to the cell vectors.
    """
    e, at_zero = geometry.experiment, geometry.lab_to_crystal(0.0)
    axis = -Rotation.from_matrix(at_zero.T @ geometry.lab_to_crystal(1.0)).as_rotvec(degrees=True)
    detector_y, detector_x = (geometry.pixel_to_lab[:, i] / e.pixel_size for i in range(2))
    rows, columns = shape
    lines = [
        [0, e.phi, e.angular_step, *axis],
        [e.lmbda, *(-geometry.beam / e.lmbda)],
        [1, *cell.parameters],
        *(cell.A @ at_zero),
        [1, columns, rows, e.pixel_size, e.pixel_size],
        [e.det_origin_Y + 1, e.det_origin_X + 1, e.dist],
        detector_x,
        detector_y,
        -geometry.detector[:, 0],
        [1, 1, columns, 1, rows],
        [0, 0, 0, 1, 0, 0, 0, 1, 0],
    ]
    # meerkat reads no exponents.
    text = "\n".join(" ".join(str(x) if isinstance(x, int) else f"{x:.15f}" for x in line) for line in lines)
    path.write_text(f" XPARM.XDS\n{text}\n")


def reconstruct(
    python: Path,
    folder: Path,
    frames: int,
    shape: tuple[int, int, int],
    half_width: tuple[float, float, float],
    microsteps: int = 1,
    corrections: str = "all",
) -> tuple[float, Path]:
    """Seconds of one reconstruction, and its file; see `SCRIPT` for the corrections."""
    job, output = folder / "meerkat.json", folder / "meerkat.h5"
    job.write_text(
        json.dumps(
            {
                "folder": str(folder),
                "frames": frames,
                "shape": shape,
                "half_width": half_width,
                "microsteps": microsteps,
                "corrections": corrections,
                "xparm": str(folder / "XPARM.XDS"),
                "output": str(output),
            }
        )
    )
    done = subprocess.run([str(python), str(SCRIPT), str(job)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"meerkat failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1]), output
