"""The Kuramoto-Sivashinsky equation  u_t = −u u_x − u_xx − u_xxxx  on a period, a field that is chaotic.

Source of the integrator: Kassam & Trefethen 2005, "Fourth-order time-stepping for stiff PDEs", SIAM J. Sci. Comput.
26(4), section 2: ETDRK4, whose coefficients are means over a circle in the complex plane.
"""

import numpy as np

TRAJECTORIES = 20  # integrated at a time, each from its own initial field
TRANSIENT = 500.0  # time units that lead to the attractor


def kuramoto_sivashinsky(
    size: int, length: float = 22, points: int = 64, seed: int = 0, spacing: float = 1.0, step: float = 0.125
) -> np.ndarray:
    """Fields ``(size, points)`` float64, ``spacing`` time units apart on each of 20 trajectories, one after the other.

    Args:
        length: L, the period.
        points: of the grid, even.
        step: of time; ``spacing`` is a multiple of it.
    """
    rng = np.random.default_rng(seed)
    grid = length / points * np.arange(points)
    # Four long waves: the initial field does not depend on the grid.
    waves = 2 * np.pi / length * np.arange(1, 5)[:, None] * grid
    amplitudes = rng.standard_normal((2, TRAJECTORIES, 4))
    field = np.fft.rfft(amplitudes[0] @ np.cos(waves) + amplitudes[1] @ np.sin(waves))
    field = evolve(field, length, points, step, round(TRANSIENT / step), 0)[-1]
    snapshots = -(-size // TRAJECTORIES)
    every = round(spacing / step)
    fields = evolve(field, length, points, step, snapshots * every, every)
    return np.fft.irfft(fields.swapaxes(0, 1).reshape(-1, points // 2 + 1), points)[:size]


def evolve(field: np.ndarray, length: float, points: int, step: float, steps: int, every: int) -> np.ndarray:
    """Fourier coefficients ``(K, B, points/2 + 1)`` after each ``every`` steps, or 0: the last."""
    wavenumbers = 2 * np.pi / length * np.arange(points // 2 + 1)
    linear = wavenumbers**2 - wavenumbers**4
    derivative = -0.5j * wavenumbers
    derivative[-1] = 0  # of the highest wave, which has no derivative on the grid
    circle = np.exp(1j * np.pi * (np.arange(32) + 0.5) / 32)
    lr = step * linear[:, None] + circle
    e, e2 = np.exp(step * linear), np.exp(step * linear / 2)
    q = step * np.mean((np.exp(lr / 2) - 1) / lr, axis=1).real
    f1 = step * np.mean((-4 - lr + np.exp(lr) * (4 - 3 * lr + lr**2)) / lr**3, axis=1).real
    f2 = step * np.mean((2 + lr + np.exp(lr) * (lr - 2)) / lr**3, axis=1).real
    f3 = step * np.mean((-4 - 3 * lr - lr**2 + np.exp(lr) * (4 - lr)) / lr**3, axis=1).real

    def nonlinear(v: np.ndarray) -> np.ndarray:
        return derivative * np.fft.rfft(np.fft.irfft(v, points) ** 2)

    kept = []
    for index in range(1, steps + 1):
        n = nonlinear(field)
        a = e2 * field + q * n
        n_a = nonlinear(a)
        n_b = nonlinear(e2 * field + q * n_a)
        n_c = nonlinear(e2 * a + q * (2 * n_b - n))
        field = e * field + n * f1 + 2 * (n_a + n_b) * f2 + n_c * f3
        if every and index % every == 0:
            kept.append(field)
    return np.array(kept or [field])
