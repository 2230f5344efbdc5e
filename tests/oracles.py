"""Slow, obvious NumPy twins of what tfprune computes. Nothing here imports tfprune."""

from __future__ import annotations

import math

import numpy as np
import scipy.fft


def count_pruned(sparsity: float, size: int) -> int:
    """Entries that a sparsity prunes, rounded half to even in float32, as the library says."""
    return int(np.round(np.float32(sparsity) * np.float32(size)))


def keep_largest(score: np.ndarray, sparsity: float) -> np.ndarray:
    """Sort all entries, largest first, and of equals the first in memory; keep the head."""
    flat = np.asarray(score, "float32").ravel()
    order = sorted(range(flat.size), key=lambda i: (-float(flat[i]), i))
    keep = np.zeros(flat.size, bool)
    keep[order[: flat.size - count_pruned(sparsity, flat.size)]] = True
    return keep.reshape(np.shape(score))


def keep_largest_of_all(scores: list[np.ndarray], sparsity: float) -> list[np.ndarray]:
    """`keep_largest` of the concatenation, cut into the pieces again."""
    flat = np.concatenate([np.ravel(score) for score in scores])
    keep, masks, start = keep_largest(flat, sparsity), [], 0
    for score in scores:
        masks.append(keep[start : start + score.size].reshape(score.shape))
        start += score.size
    return masks


def magnitude_mask(weight: np.ndarray, sparsity: float) -> np.ndarray:
    """The mask of magnitude pruning for one weight."""
    return keep_largest(np.abs(weight), sparsity)


def hysteresis(magnitude: np.ndarray, mask: np.ndarray, low: float, high: float) -> np.ndarray:
    """Entry by entry: prune what is kept and small, splice what is pruned and large."""
    new = mask.copy()
    for index in np.ndindex(*mask.shape):
        if mask[index] and magnitude[index] <= low:
            new[index] = False
        elif not mask[index] and magnitude[index] > high:
            new[index] = True
    return new


def surgery_threshold(weights: list[np.ndarray], c: float) -> float:
    """max(mu + c * std, 0) of |w| over the non-zero entries of all arrays; std^2 = E w^2 - mu^2."""
    values = [abs(float(w)) for array in weights for w in np.ravel(array) if w != 0]
    if not values:
        return 0.0
    mean = sum(values) / len(values)
    variance = sum(v * v for v in values) / len(values) - mean * mean
    return max(mean + c * math.sqrt(max(variance, 0.0)), 0.0)


def sigma(iteration: int, gamma: float, power: float) -> float:
    """Probability of an update at an iteration."""
    return (1 + gamma * iteration) ** -power


class SurgeryLayer:
    """Dynamic network surgery of one layer, one call per iteration (threshold frozen at first)."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], c: float) -> None:
        self.masks = {name: np.ones(shape, bool) for name, shape in shapes.items()}
        self.c, self.threshold = c, None

    def step(self, weights: dict[str, np.ndarray], probability: float, draw: float) -> None:
        """Refresh the masks if the draw falls below the probability."""
        if not draw < probability:
            return
        if self.threshold is None:
            self.threshold = surgery_threshold(list(weights.values()), self.c)
        low, high = 0.9 * self.threshold, 1.1 * self.threshold
        self.masks = {
            name: hysteresis(np.abs(weights[name]), mask, low, high)
            for name, mask in self.masks.items()
        }


def keep_groups(scores: np.ndarray, weights: np.ndarray, kept: float) -> np.ndarray:
    """Largest scores first (of equals the first) while that brings the weight nearer to `kept`."""
    order = sorted(range(scores.size), key=lambda i: (-float(scores.ravel()[i]), i))
    keep, total = np.zeros(scores.size, bool), 0.0
    for i in order:
        weight = float(weights.ravel()[i])
        if total and abs(total + weight - kept) > abs(total - kept):
            break
        keep[i], total = True, total + weight
    return keep.reshape(scores.shape)


def dct_kernel(kernel: np.ndarray, rank: int) -> np.ndarray:
    """Orthonormal DCT-II over the first `rank` axes."""
    return scipy.fft.dctn(kernel, type=2, norm="ortho", axes=range(rank))


def band_number(shape: tuple[int, ...], rank: int) -> np.ndarray:
    """u + v + ... of each entry, of the kernel's shape."""
    band = np.zeros(shape, int)
    for index in np.ndindex(*shape):
        band[index] = sum(index[:rank])
    return band


def beta_factors(shape: tuple[int, ...], rank: int, lam: float, omega: float) -> np.ndarray:
    """f of each entry, x = (band + 1) / (bands + 1), with mean 1 over a kernel's coefficients."""
    band = band_number(shape, rank)
    x = (band + 1) / (band.max() + 2)
    f = x ** (lam - 1) * (1 - x) ** (omega - 1)
    return f / f.reshape(*shape[:rank], -1)[..., 0].mean()


def group_rms(kernel: np.ndarray, rank: int, granularity: str) -> np.ndarray:
    """For each entry of a [k..., cin, cout] kernel, the RMS of the group that it belongs to."""
    out = np.empty(kernel.shape)
    for index in np.ndindex(*kernel.shape):
        out[index] = math.sqrt(np.mean([kernel[i] ** 2 for i in np.ndindex(*kernel.shape)
                                        if _same_group(i, index, rank, granularity)]))  # fmt: skip
    return out


def _same_group(a: tuple[int, ...], b: tuple[int, ...], rank: int, granularity: str) -> bool:
    same_place = a[:rank] == b[:rank]
    if granularity == "band":
        return sum(a[:rank]) == sum(b[:rank])
    if granularity == "frequency":
        return same_place
    if granularity == "row":
        return same_place and a[rank] == b[rank]
    if granularity.startswith("block"):
        size = int(granularity[5:])
        return same_place and a[rank] == b[rank] and a[-1] // size == b[-1] // size
    if granularity == "input4":
        return same_place and a[-1] == b[-1] and a[rank] // 4 == b[rank] // 4
    return a == b


def polynomial(
    step: int, initial: float, final: float, begin: int, end: int, power: float
) -> float:
    """Sparsity of the gradual schedule at a step."""
    if step >= end:
        return final
    left = 1 - max(step - begin, 0) / (end - begin)
    return final + (initial - final) * left**power


def updates(begin: int, end: int, frequency: int) -> list[int]:
    """The steps at which a schedule updates masks: every `frequency` steps, and at the end."""
    return sorted({*range(begin, end + 1, frequency), end})


class Momentum:
    """SGD with momentum and L2 decay on a dict of arrays: v = m v - lr (g + decay w); w += v."""

    def __init__(self, rate: float, momentum: float, decay: float) -> None:
        self.rate, self.momentum, self.decay = rate, momentum, decay
        self.velocity: dict[str, np.ndarray] = {}

    def step(self, weights: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        """Change `weights` in place."""
        for name, weight in weights.items():
            total = gradients[name] + self.decay * weight
            old = self.velocity.get(name, np.zeros_like(weight))
            self.velocity[name] = self.momentum * old - self.rate * total
            weight += self.velocity[name]


def linear_gradients(
    x: np.ndarray, y: np.ndarray, kernel: np.ndarray, bias: np.ndarray
) -> dict[str, np.ndarray]:
    """Gradients of mean((x W + b - y)^2) with respect to W and b."""
    error = 2 * (x @ kernel + bias - y) / y.size
    return {"kernel": x.T @ error, "bias": error.sum(0)}
