"""The demo's scan: calcite before a small Pilatus, in frames of 0.1°."""

CALCITE_SCAN = """\
# Calcite in a beam of 17.7 keV, turned by 90° before a Pilatus 300K.
pixel_size = 0.172
dist = 100.0
lmbda = 0.7
det_origin_X = 309.0
det_origin_Y = 243.0
phi = 0.05
angular_step = 0.1
r1 = 20.0
r2 = 35.0
r3 = 10.0

AA = 4.990
BB = 4.990
CC = 17.061
aAA = 90.0
aBB = 90.0
aCC = 120.0
ascii_generators = "1~,3(z),2(y)"
centring = "R -3 c:H"
Temperature = 300.0
density = 2.71

# In the standard frame, x ∥ a and z ∥ c.
tensor_frame = "P"
elastic_tensor = [
    [147.1, 54.1, 53.7, -20.6, 0.0, 0.0],
    [54.1, 147.1, 53.7, 20.6, 0.0, 0.0],
    [53.7, 53.7, 85.3, 0.0, 0.0, 0.0],
    [-20.6, 20.6, 0.0, 34.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, 0.0, 34.0, -20.6],
    [0.0, 0.0, 0.0, 0.0, -20.6, (147.1 - 54.1) / 2],
]

shape = [619, 487]
gap_rows = [[195, 211], [407, 423]]
n_frames = 900
count_level = 5.0
background = 2.0
seed = 1

DeltaQ_min = 0.04
DeltaQ_max = 0.15
n_spots = 24
output_folder = "."
"""
