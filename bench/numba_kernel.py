"""The pass over the points of calcite as a user of numba would write it: scalar loops over pixels, on all cores.

Everything is written out for a trigonal tensor with a* ∥ x: Γ, and ∂S/∂p for A33, A44, A66, A13, A15 and ln s.
Columns are in single precision, their products summed in double, one set of sums for each chunk of a spot.
"""

from __future__ import annotations

import numba
import numpy as np

from tds2el.model.engine import Conditions, Points, State, Sums
from tds2el.model.quantum import quantum_sum

CHUNK = 8192
COLUMNS = 9
N_GRAM = COLUMNS * (COLUMNS + 1) // 2
TOLERANCE = 1e-8


@numba.njit(fastmath=True, inline="always")
def _solve(xx, yy, zz, yz, xz, xy, x, y, z):
    a, b, c = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    d, e, f = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    inverse = np.float32(1) / (xx * a + xy * b + xz * c)
    return (a * x + b * y + c * z) * inverse, (b * x + d * y + e * z) * inverse, (c * x + e * y + f * z) * inverse


@numba.njit(fastmath=True, inline="always")
def _strain(x, y, z, qx, qy, qz):
    return x * qx, y * qy, z * qz, y * qz + z * qy, x * qz + z * qx, x * qy + y * qx


@numba.njit(fastmath=True, inline="always")
def _products(a, b):
    """aᵀ(∂C/∂p)b of A33, A44, A66, A13, A15."""
    two = np.float32(2)
    return (
        a[2] * b[2],
        a[3] * b[3] + a[4] * b[4],
        a[5] * b[5] - two * (a[0] * b[1] + a[1] * b[0]),
        (a[0] + a[1]) * b[2] + a[2] * (b[0] + b[1]),
        (a[0] - a[1]) * b[4] + a[4] * (b[0] - b[1]) - a[3] * b[5] - a[5] * b[3],
    )


@numba.njit(parallel=True, fastmath=True)
def _pass(qx, qy, qz, counts, kappa, chunks, blobs, constants, a, tail, n_max, sums):
    c11, c33, c44, c66, c13, c15 = constants
    t0, t1, t2 = tail
    zero, half, one, two, three = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2), np.float32(3)
    for chunk in numba.prange(len(chunks)):
        nx, ny, nz, factor, baseline, floor = blobs[chunks[chunk, 0]]
        total = np.zeros(N_GRAM + 2)
        column = np.empty(COLUMNS)
        for i in range(chunks[chunk, 1], chunks[chunk, 2]):
            if kappa[i] <= zero:
                continue
            x, y, z = qx[i], qy[i], qz[i]
            X, Y, Z = nx + x, ny + y, nz + z
            xx = c11 * x * x + c66 * y * y + c44 * z * z + two * c15 * x * z
            yy = c66 * x * x + c11 * y * y + c44 * z * z - two * c15 * x * z
            zz = c44 * (x * x + y * y) + c33 * z * z
            yz = (c13 + c44) * y * z - two * c15 * x * y
            xz = (c13 + c44) * x * z + c15 * (x * x - y * y)
            xy = (c11 - c66) * x * y - two * c15 * y * z
            vx, vy, vz = xx * X + xy * Y + xz * Z, xy * X + yy * Y + yz * Z, xz * X + yz * Y + zz * Z
            square, first, second = X * X + Y * Y + Z * Z, X * vx + Y * vy + Z * vz, vx * vx + vy * vy + vz * vz
            s = t0 * square + t1 * first + t2 * second
            scale = t0 * square + two * t1 * first + three * t2 * second
            big, pushed = _strain(X, Y, Z, x, y, z), _strain(vx, vy, vz, x, y, z)
            p, r = _products(big, big), _products(pushed, big)
            d0, d1, d2 = t1 * p[0] + two * t2 * r[0], t1 * p[1] + two * t2 * r[1], t1 * p[2] + two * t2 * r[2]
            d3, d4 = t1 * p[3] + two * t2 * r[3], t1 * p[4] + two * t2 * r[4]
            for n in range(n_max + 1):
                shift = a * np.float32(n * n)
                weight = one if n == 0 else two
                ux, uy, uz = _solve(xx + shift, yy + shift, zz + shift, yz, xz, xy, X, Y, Z)
                s += weight * (X * ux + Y * uy + Z * uz)
                scale += weight * shift * (ux * ux + uy * uy + uz * uz)
                e = _strain(ux, uy, uz, x, y, z)
                p = _products(e, e)
                d0 -= weight * p[0]
                d1 -= weight * p[1]
                d2 -= weight * p[2]
                d3 -= weight * p[3]
                d4 -= weight * p[4]

            N, k = counts[i], kappa[i]
            m = k * (factor * s + baseline)
            mc = max(m, floor)
            under = m - mc
            t = under / mc
            if zero < N:
                ratio = (mc - N) / N
                if abs(ratio) < np.float32(0.05):
                    part = (
                        ratio
                        * ratio
                        * (half - ratio * (one / three - ratio * (np.float32(0.25) - ratio * np.float32(0.2))))
                    )
                else:
                    part = ratio - np.log(one + ratio)
                deviance = N * part + under - N * t * (one - half * t)
            else:
                deviance = mc + under
            column[0], column[1], column[2], column[3], column[4] = k * d0, k * d1, k * d2, k * d3, k * d4
            column[5], column[6], column[7], column[8] = k * scale, k * s, k, N * (one - t) - mc
            w = np.float64(one / mc)
            place = 0
            for j in range(COLUMNS):
                weighted = w * column[j]
                for l in range(j + 1):
                    total[place] += weighted * column[l]
                    place += 1
            total[N_GRAM] += deviance
            total[N_GRAM + 1] += m < floor
        sums[chunk] = total


class NumbaEngine:
    """Holds the points of calcite in memory and passes over them, like an engine of tds2el with those columns."""

    description = "numba, float32 with double sums"

    def __init__(self, points: Points, conditions: Conditions) -> None:
        self._points, self._conditions = points, conditions
        total = int(points.sizes.sum())
        self._arrays = [np.empty(total, np.float32) for _ in range(5)]
        start, chunks = 0, []
        for blob in range(len(points.sizes)):
            end = start + int(points.sizes[blob])
            chunks += [(blob, i, min(i + CHUNK, end)) for i in range(start, end, CHUNK)]
            for piece in points.pieces(blob):
                part = slice(start, start + len(piece.counts))
                for array, values in zip(self._arrays, [*piece.q.T, piece.counts, piece.correction], strict=True):
                    array[part] = values
                start = part.stop
        self._chunks = np.array(chunks)
        self._sums = np.empty((len(chunks), N_GRAM + 2))
        self._first = np.searchsorted(self._chunks[:, 0], np.arange(len(points.sizes)))

    def evaluate(self, state: State) -> Sums:
        """One pass: deviance, score and Gram matrices of every spot at `state`."""
        points, conditions, c = self._points, self._conditions, state.tensor
        quantum = quantum_sum(c, points.q_max, conditions.temperature, conditions.density, TOLERANCE)
        constants = np.array([c[0, 0], c[2, 2], c[3, 3], c[5, 5], c[0, 2], c[0, 4]], np.float32)
        blobs = np.column_stack([points.nodes, state.factor, state.baseline, points.floors]).astype(np.float32)
        tail = np.array(quantum.tail, np.float32)
        _pass(*self._arrays, self._chunks, blobs, constants, np.float32(quantum.a), tail, quantum.n_max, self._sums)
        total = np.add.reduceat(self._sums, self._first, axis=0)
        gram = np.zeros((len(total), COLUMNS, COLUMNS))
        rows, columns = np.tril_indices(COLUMNS)
        gram[:, rows, columns] = gram[:, columns, rows] = total[:, :N_GRAM]
        return Sums(2 * total[:, N_GRAM], gram, total[:, N_GRAM + 1])
