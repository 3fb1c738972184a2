"""Near-duplicates: images that are the same picture, saved, scaled, lit or turned differently.

Each image is reduced to its luminance on a 16x16 grid, with mean 0 and length 1. Two images are as
alike as the correlation of these, over the eight turns and mirrorings of one of them: all pairs
are eight matrix products, seconds for the 17,000 images of PBC. Decision 0041 has the measurements
behind grid and threshold.
"""

import dataclasses

import numpy as np

GRID = 16
# On PBC the most alike pair of different cells has 0.915; 1 % of copies with a 2 % crop lie
# below 0.948, and all other kinds of copies above 0.98.
THRESHOLD = 0.93
_ROWS = 1024
VIEWS = (
    "as it is",
    "mirrored left to right",
    "mirrored top to bottom",
    "turned by 180 degrees",
    "transposed",
    "turned by 90 degrees",
    "turned by 270 degrees",
    "transposed the other way",
)


@dataclasses.dataclass(frozen=True)
class NearPair:
    """Two positions, first < second, and how alike they are."""

    first: int
    second: int
    similarity: float
    view: str


def luminance_grid(thumbs_NxSxSx3: np.ndarray) -> np.ndarray:
    """(N, S, S, 3) uint8, S a multiple of `GRID` -> (N, GRID * GRID) float32 of mean 0, length 1.

    An image without any structure becomes zeros, and is like nothing.
    """
    count, side = thumbs_NxSxSx3.shape[:2]
    grey = thumbs_NxSxSx3.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    step = side // GRID
    grid = grey.reshape(count, GRID, step, GRID, step).mean((2, 4)).reshape(count, -1)
    grid -= grid.mean(axis=1, keepdims=True)
    length = np.linalg.norm(grid, axis=1, keepdims=True)
    # One grey level of spread is noise.
    return np.where(length > GRID, grid / np.maximum(length, 1e-9), 0.0).astype(np.float32)


def _turned(grid_NxD: np.ndarray) -> list[np.ndarray]:
    """The eight views, in the order of `VIEWS`."""
    views = []
    for swapped in (False, True):
        square = grid_NxD.reshape(-1, GRID, GRID)
        square = square.swapaxes(1, 2) if swapped else square
        for rows in (1, -1):
            for columns in (1, -1):
                views.append(square[:, ::rows, ::columns].reshape(len(grid_NxD), -1))
    return views


def near_duplicates(
    thumbs_NxSxSx3: np.ndarray, *, threshold: float = THRESHOLD, limit: int = 20_000
) -> list[NearPair]:
    """All pairs at least as alike as the threshold, the most alike first.

    Args:
        thumbs_NxSxSx3: small versions of the images, uint8.
        threshold: correlation from which two images count as the same picture.
        limit: of pairs; more are cut off, the least alike first (N copies of one image are N^2/2).

    Returns:
        The pairs; identical files are among them, with similarity 1.
    """
    grid = luminance_grid(thumbs_NxSxSx3)
    best: dict[tuple[int, int], tuple[float, str]] = {}
    for view, turned in zip(VIEWS, _turned(grid), strict=True):
        for start in range(0, len(grid), _ROWS):
            alike = grid[start : start + _ROWS] @ turned[start:].T
            rows, columns = np.nonzero(alike >= threshold)
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
                pair = (start + row, start + column)
                value = float(alike[row, column])
                if row < column and value > best.get(pair, (0.0, ""))[0]:
                    best[pair] = (value, view)
            if len(best) > 4 * limit:
                break
    pairs = [
        NearPair(*pair, round(min(value, 1.0), 4), view) for pair, (value, view) in best.items()
    ]
    return sorted(pairs, key=lambda p: (-p.similarity, p.first, p.second))[:limit]


def clusters(count: int, pairs: list[NearPair]) -> np.ndarray:
    """(N,) the smallest position that each image is connected to by pairs."""
    parent = np.arange(count)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for pair in pairs:
        a, b = sorted((root(pair.first), root(pair.second)))
        parent[b] = a
    return np.array([root(i) for i in range(count)], int).reshape(count)
