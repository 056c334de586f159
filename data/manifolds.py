"""Points on manifolds of known dimension, to try estimators of dimension on.

``TUNING`` names those that settings may be chosen on, ``TEST`` those that results are reported on.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.kuramoto_sivashinsky import kuramoto_sivashinsky
from utils.errors import UserError

Generator = Callable[[int, np.random.Generator], np.ndarray]  # number of points N, random numbers -> (N, D')


@dataclass(frozen=True)
class Manifold:
    """How points are drawn, and what is known of them."""

    points: Generator
    dimension: float  # d, intrinsic; of an attractor, that of the literature
    global_dimension: int | None  # fewest coordinates of one continuous invertible code of all of it, where known
    ambient: int | None = None  # D, to which a random isometry carries the points; None: as they are generated
    noise: float = 0.0  # standard deviation of Gaussian noise, as a fraction of the points' root mean square


def sphere(dimension: int) -> Generator:
    """Uniform points of the unit sphere S^d in d + 1 dimensions."""

    def points(size: int, rng: np.random.Generator) -> np.ndarray:
        normal = rng.standard_normal((size, dimension + 1))
        return normal / np.linalg.norm(normal, axis=1, keepdims=True)

    return points


def cube(dimension: int, ambient: int) -> Generator:
    """Uniform points u of [-1, 1]^d as (u, sin(2 B u)) of D coordinates, B random of unit rows: an embedding, as u is
    among its coordinates, whose linear span has all D dimensions.
    """

    def points(size: int, rng: np.random.Generator) -> np.ndarray:
        u = rng.uniform(-1, 1, (size, dimension))
        directions = rng.standard_normal((dimension, ambient - dimension))
        return np.hstack([u, np.sin(2 * u @ (directions / np.linalg.norm(directions, axis=0)))])

    return points


def circles(size: int, rng: np.random.Generator) -> np.ndarray:
    """The flat torus, a product of two circles, in 4 dimensions."""
    angles = rng.uniform(0, 2 * np.pi, (size, 2))
    return np.hstack([np.cos(angles), np.sin(angles)])


def spiral_surface(size: int, rng: np.random.Generator) -> np.ndarray:
    """An Archimedean spiral of two turns times an interval, bent into a fourth dimension by a paraboloid."""
    angle, height = rng.uniform(np.pi, 5 * np.pi, size), rng.uniform(-1, 1, size)
    x, y = angle * np.cos(angle) / (5 * np.pi), angle * np.sin(angle) / (5 * np.pi)
    return np.stack([x, y, height, x**2 + y**2 + height**2], axis=1)


def torus(size: int, rng: np.random.Generator) -> np.ndarray:
    """A torus in three dimensions, as scikit-dimension generates it."""
    from skdim import datasets  # slow to import

    return datasets.torus(size, random_state=int(rng.integers(2**31)))


def scikit_dimension(name: str) -> Generator:
    """A manifold of the benchmark of Hein & Audibert 2005 and Campadelli et al. 2015, as scikit-dimension has it."""

    def points(size: int, rng: np.random.Generator) -> np.ndarray:
        from skdim import datasets  # slow to import

        benchmark = datasets.BenchmarkManifolds(random_state=int(rng.integers(2**31)))
        dimension, width, _ = benchmark._dict_truth[name]
        return benchmark.generate(name, size, width, dimension)

    return points


def lorenz(size: int, rng: np.random.Generator) -> np.ndarray:
    """States of the Lorenz system (σ = 10, ρ = 28, β = 8/3), 0.1 apart on 20 trajectories, as 128 values of a field.

    The field is Σ z_i P_{i-1} + Σ z_i³ P_{i+2}, P Legendre polynomials on [-1, 1], z the state over 40: the example of
    Champion et al. 2019, "Data-driven discovery of coordinates and governing equations", PNAS 116(45).
    """
    state = rng.standard_normal((20, 3)) + np.array([0, 0, 25])

    def velocity(s: np.ndarray) -> np.ndarray:
        x, y, z = s.T
        return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], axis=1)

    step, kept = 0.01, []
    for index in range(2_000 + 10 * -(-size // len(state))):  # the first 20 time units lead to the attractor
        a = velocity(state)  # Runge-Kutta of fourth order
        b = velocity(state + step / 2 * a)
        c = velocity(state + step / 2 * b)
        state = state + step / 6 * (a + 2 * b + 2 * c + velocity(state + step * c))
        if index >= 2_000 and index % 10 == 0:
            kept.append(state)
    z = np.stack(kept, axis=1).reshape(-1, 3)[:size] / 40
    modes = np.polynomial.legendre.legvander(np.linspace(-1, 1, 128), 5)
    return np.hstack([z, z**3]) @ modes.T


def field(length: float) -> Generator:
    """Fields of the Kuramoto-Sivashinsky equation on a period of ``length``, at 64 points."""
    return lambda size, rng: kuramoto_sivashinsky(size, length, seed=int(rng.integers(2**31)))


TUNING = {
    "sphere-3-in-15": Manifold(sphere(3), 3, 4, 15),
    "nonlinear-4-in-20": Manifold(cube(4, 20), 4, 4, 20),
    "circles-2-in-10": Manifold(circles, 2, 3, 10),
}
TEST = {
    "sphere-2-in-20": Manifold(sphere(2), 2, 3, 20),
    "sphere-5-in-50": Manifold(sphere(5), 5, 6, 50),
    "sphere-10-in-100": Manifold(sphere(10), 10, 11, 100),
    "torus-2-in-30": Manifold(torus, 2, 3, 30),
    "swiss-roll-2-in-20": Manifold(scikit_dimension("M7_Roll"), 2, 2, 20),
    "spiral-surface-2-in-20": Manifold(spiral_surface, 2, 2, 20),
    "helix-1-in-13": Manifold(scikit_dimension("M13b_Spiral"), 1, 1, 13),
    "affine-3-in-30": Manifold(scikit_dimension("M2_Affine_3to5"), 3, 3, 30),
    # The benchmark's "Moebius" band has ten half twists: a ring, which lies in a plane.
    "twisted-band-2-in-20": Manifold(scikit_dimension("M11_Moebius"), 2, 2, 20),
    "nonlinear-6-in-40": Manifold(cube(6, 40), 6, 6, 40),
    "cube-10-in-50": Manifold(cube(10, 50), 10, 10, 50),
    "beta-10-in-40": Manifold(scikit_dimension("Mbeta"), 10, None, 40),
    "sphere-5-in-50-noise": Manifold(sphere(5), 5, 6, 50, noise=0.01),
    "swiss-roll-2-in-20-noise": Manifold(scikit_dimension("M7_Roll"), 2, 2, 20, noise=0.01),
    # The correlation dimension of the attractor (Grassberger & Procaccia 1983, Physica D 9); it lies in 3 coordinates.
    "lorenz-in-128": Manifold(lorenz, 2.05, 3),
    # Inertial manifold: 8 by covariant Lyapunov vectors (Ding et al. 2016, arXiv 1604.01859); 8 and 18 by autoencoders
    # (Linot & Graham 2022, Chaos 32, 073110; Zeng et al. 2023, arXiv 2305.01090). The attractor in it is smaller: the
    # Kaplan-Yorke dimension for L = 22 is 5.2 (Cvitanović, Davidchack & Siminos 2010, SIAM J. Appl. Dyn. Syst. 9(1)).
    "kuramoto-sivashinsky-22": Manifold(field(22), 8, 8),
    "kuramoto-sivashinsky-44": Manifold(field(44), 18, 18),
}


def manifold(name: str, size: int = 10_000, seed: int = 0) -> tuple[np.ndarray, float, int | None]:
    """Points ``(size, D)`` float64 of ``TUNING`` or ``TEST``, the intrinsic and the global dimension of ``Manifold``.

    Raises UserError for a name that is in neither.
    """
    known = TUNING | TEST
    if name not in known:
        raise UserError(f"unknown manifold {name!r}: choose from {', '.join(known)}")
    chosen = known[name]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])  # other points for each name
    points = chosen.points(size, rng)
    if chosen.ambient is not None:
        points = points @ np.linalg.qr(rng.standard_normal((chosen.ambient, points.shape[1])))[0].T
    if chosen.noise:
        points = points + chosen.noise * np.sqrt(np.mean(points**2)) * rng.standard_normal(points.shape)
    return points, chosen.dimension, chosen.global_dimension
