"""Pictures of the fitted tensor as a function of direction: slowness of sound, and Young's modulus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tds2el.fit.read import FitFile
from tds2el.model.christoffel import christoffel
from tds2el.view.style import BLUE, GREEN, RED, SEQUENTIAL, grid, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

MODES = (("quasi-longitudinal", BLUE, "-"), ("fast quasi-transverse", GREEN, "--"), ("slow quasi-transverse", RED, "-"))
PLANES = ((0, 1), (0, 2), (1, 2))
FRAME = "P"
STEPS = 361


def phase_velocities(stiffness: Array, density: float, directions: Array) -> Array:
    """Phase velocities of the three plane waves in each direction, fastest first.

    Parameters
    ----------
    stiffness : ndarray, shape (6, 6)
        GPa, positive definite.
    density : float
        g/cm³.
    directions : ndarray, shape (..., 3)
        Unit vectors in the frame of the tensor.

    Returns
    -------
    ndarray, shape (..., 3)
        km/s: √(eigenvalue of Γ/ρ), and 1 GPa/(g/cm³) = 1 (km/s)².
    """
    eigenvalues = np.linalg.eigvalsh(christoffel(stiffness, directions))
    return np.asarray(np.sqrt(eigenvalues[..., ::-1] / density))


def young_modulus(stiffness: Array, directions: Array) -> Array:
    """Young's modulus for uniaxial stress along each direction, in the unit of the tensor.

    Parameters
    ----------
    stiffness : ndarray, shape (6, 6)
        Positive definite.
    directions : ndarray, shape (..., 3)
        Unit vectors n: 1/E = s_ijkl n_i n_j n_k n_l (Nye 1957), the compliance on the stress n nᵀ in Voigt form.
    """
    x, y, z = np.moveaxis(directions, -1, 0)
    stress = np.stack([x * x, y * y, z * z, y * z, x * z, x * y], axis=-1)
    return np.asarray(1 / np.einsum("...i,ij,...j->...", stress, np.linalg.inv(stiffness), stress))


def slowness_sections(fit: FitFile) -> Figure:
    """Sections of the slowness surface by the three planes of axes of the standard frame.

    While the scale is held slownesses are in units of √(ρ/C), C the held constant, else in s/km.
    """
    frame, constants = fit.frames[FRAME], fit.constants
    with style():
        figure = new_figure(11, 4.3)
        panels = figure.subplots(1, 3)
        velocities = [phase_velocities(frame.stiffness, fit.density, _circle(*plane)) for plane in PLANES]
        unit = np.sqrt(constants.unit / fit.density) if constants.held else 1.0
        reach = 1.08 * max(float((unit / v).max()) for v in velocities)
        label = f"s√({constants.held}/ρ)" if constants.held else "s (s/km)"
        turn = np.linspace(0, 2 * np.pi, STEPS)
        for axes, (x, y), v in zip(panels, PLANES, velocities, strict=True):
            for mode, (name, colour, dashes) in enumerate(MODES):
                slowness = unit / v[:, mode]
                axes.plot(slowness * np.cos(turn), slowness * np.sin(turn), color=colour, ls=dashes, label=name)
            _section(axes, x, y, reach)
            axes.set_xlabel(f"{label} along {'xyz'[x]}")
            axes.set_ylabel(f"{label} along {'xyz'[y]}")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        about = f"; {constants.held} and ρ set the scale" if constants.held else f"; ρ = {fit.density:g} g/cm³"
        figure.suptitle(f"slowness s of sound in the frame {frame.axes}{about}")
    return figure


def young_surface(fit: FitFile) -> Figure:
    """Young's modulus against direction in the standard frame: the surface, and its sections.

    While the scale is held the modulus is given as its ratio to the held constant, else in GPa.
    """
    frame, constants = fit.frames[FRAME], fit.constants
    stiffness = frame.stiffness / constants.unit
    label = f"E/{constants.held}" if constants.held else "E (GPa)"
    theta, phi = np.meshgrid(np.linspace(0, np.pi, 73), np.linspace(0, 2 * np.pi, 145), indexing="ij")
    directions = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1)
    modulus = young_modulus(stiffness, directions)
    reach = 1.08 * float(modulus.max())
    turn = np.linspace(0, 2 * np.pi, STEPS)
    with style():
        figure = new_figure(9.5, 8.6, constrained=False)
        _draw_surface(figure, directions, modulus, reach, label)
        for place, (x, y) in zip((2, 3, 4), PLANES, strict=True):
            axes = figure.add_subplot(2, 2, place)
            section = young_modulus(stiffness, _circle(x, y))
            axes.plot(section * np.cos(turn), section * np.sin(turn), color=BLUE)
            _section(axes, x, y, reach)
            axes.set_xlabel(f"{label} along {'xyz'[x]}")
            axes.set_ylabel(f"{label} along {'xyz'[y]}")
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.07, top=0.9, wspace=0.22, hspace=0.25)
        low, high = (_in_words(directions, modulus, int(n)) for n in _extremes(modulus))
        figure.suptitle(f"Young's modulus in the frame {frame.axes}\n{label}: {low} to {high}", y=0.985)
    return figure


def _draw_surface(figure: Figure, directions: Array, modulus: Array, reach: float, label: str) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    axes = figure.add_subplot(2, 2, 1, projection="3d")
    mapped = ScalarMappable(Normalize(float(modulus.min()), float(modulus.max())), colormaps[SEQUENTIAL])
    x, y, z = np.moveaxis(directions * modulus[..., None], -1, 0)
    middle = (modulus[1:, 1:] + modulus[:-1, 1:] + modulus[1:, :-1] + modulus[:-1, :-1]) / 4
    axes.plot_surface(x, y, z, facecolors=mapped.to_rgba(middle), rstride=1, cstride=1, shade=True, antialiased=False)
    for name in "xyz":
        getattr(axes, f"set_{name}lim")(-reach, reach)
        getattr(axes, f"set_{name}label")(name, labelpad=-4)
        getattr(axes, f"{name}axis").set_major_locator(MaxNLocator(3, symmetric=True))
        axes.tick_params(axis=name, labelsize=7, pad=-2)
    axes.set_box_aspect((1, 1, 1), zoom=1.25)
    axes.view_init(elev=22, azim=35)
    figure.colorbar(mapped, ax=axes, shrink=0.7, pad=0.14, label=label)


def _section(axes: Axes, x: int, y: int, reach: float) -> None:
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.locator_params(nbins=7)
    axes.axhline(0, color="#bbbbbb", lw=0.6, zorder=0)
    axes.axvline(0, color="#bbbbbb", lw=0.6, zorder=0)
    grid(axes)
    axes.set_title(f"{'xyz'[x]}{'xyz'[y]} plane")


def _circle(x: int, y: int) -> Array:
    """Unit vectors once round a plane of axes, (STEPS, 3)."""
    turn = np.linspace(0, 2 * np.pi, STEPS)
    directions = np.zeros((STEPS, 3))
    directions[:, x], directions[:, y] = np.cos(turn), np.sin(turn)
    return directions


def _extremes(modulus: Array) -> tuple[np.intp, np.intp]:
    """Where it is smallest and largest; of directions that are equal by symmetry, the first, whatever the rounding."""
    rounded = np.round(modulus / modulus.max(), 9)
    return rounded.argmin(), rounded.argmax()


def _in_words(directions: Array, modulus: Array, index: int) -> str:
    n = directions.reshape(-1, 3)[index]
    n = np.round(n if n[np.abs(n).argmax()] > 0 else -n, 2) + 0.0  # no "-0.00"
    return f"{modulus.ravel()[index]:.4g} along ({', '.join(f'{c:.2f}' for c in n)})".replace("-", "−")
