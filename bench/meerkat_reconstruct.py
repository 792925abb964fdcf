"""Runs in meerkat's own environment, for bench/volume_speed.py: ``python meerkat_reconstruct.py JOB.json``.

The job names the folder of the frames, their number and the grid. With "bare" the sums are those of counts, without
meerkat's corrections; with "vacuum" only its absorption by air is left out. Both keep sums and numbers of pixels apart.
The last line that is printed has the seconds of the reconstruction, without the imports.
"""

import json
import sys
import time
from pathlib import Path

import meerkat.meerkat as engine
import numpy as np

job = json.loads(Path(sys.argv[1]).read_text())
if job["corrections"] == "bare":
    engine.correction_coefficients = lambda h, *_: np.ones(len(h))
elif job["corrections"] == "vacuum":
    engine.air_absorption_coefficient = lambda medium, wavelength: 0.0

start = time.perf_counter()
engine.reconstruct_data(
    f"{job['folder']}/frame_%05i.cbf",
    0,
    job["frames"] - 1,
    job["half_width"],
    job["shape"],
    microsteps=[1, 1, job["microsteps"]],
    polarization_plane_normal=[0, 0, 1],
    path_to_XPARM=job["xparm"],
    output_filename=job["output"],
    all_in_memory=True,
    override=True,
    keep_number_of_pixels=job["corrections"] != "all",
)
print(time.perf_counter() - start)
