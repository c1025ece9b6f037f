"""Pictures worth looking at, drawn from formulas: a head in CT and MR, a breast, a beating heart.

Defined here and only here: the shapes and their values. Arrays only, no DICOM. All is
deterministic: RandomState is the one generator whose stream numpy promises never to change.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BLEEDING",
    "CT_GRID",
    "MR_GRID",
    "VENTRICLES",
    "Ellipsoid",
    "Grid",
    "bench_planes",
    "head_ct",
    "head_mr",
    "heart",
    "inside",
    "mammogram",
    "tile",
]

Floats: TypeAlias = NDArray[np.float32]
Words: TypeAlias = NDArray[np.uint16]
Octets: TypeAlias = NDArray[np.uint8]
Bools: TypeAlias = NDArray[np.bool_]

HU_OFFSET = 1024
"""Stored CT value minus Hounsfield units (the negative of Rescale Intercept)."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The voxels of a head volume, in mm of the patient system (left, posterior, superior)."""

    slices: int
    rows: int
    columns: int
    spacing_mm: float
    thickness_mm: float
    lowest_z_mm: float

    @property
    def left_mm(self) -> float:
        """x of the first column's centre."""
        return -self.spacing_mm * (self.columns - 1) / 2

    @property
    def front_mm(self) -> float:
        """y of the first row's centre."""
        return -self.spacing_mm * (self.rows - 1) / 2

    def z_mm(self, index: int) -> float:
        """Return the height of slice `index`."""
        return self.lowest_z_mm + index * self.thickness_mm

    def coordinates(self) -> tuple[Floats, Floats, Floats]:
        """Return z, y and x as arrays that broadcast to (slices, rows, columns)."""
        z = self.lowest_z_mm + self.thickness_mm * np.arange(self.slices, dtype=np.float32)
        y = self.front_mm + self.spacing_mm * np.arange(self.rows, dtype=np.float32)
        x = self.left_mm + self.spacing_mm * np.arange(self.columns, dtype=np.float32)
        return z[:, None, None], y[None, :, None], x[None, None, :]


CT_GRID = Grid(60, 256, 256, spacing_mm=0.9, thickness_mm=2.5, lowest_z_mm=-62.5)
MR_GRID = Grid(20, 128, 128, spacing_mm=1.8, thickness_mm=6.0, lowest_z_mm=-40.0)


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """A piece of anatomy: centre and semi-axes (x, y, z) in mm, CT value in HU, MR signal."""

    x: float
    y: float
    z: float
    a: float
    b: float
    c: float
    hu: float
    signal: float
    twin: bool = False

    def both(self) -> Iterator["Ellipsoid"]:
        """Yield the piece, and its mirror image where the anatomy has two."""
        yield self
        if self.twin:
            yield Ellipsoid(-self.x, self.y, self.z, self.a, self.b, self.c, self.hu, self.signal)


SKULL = (
    Ellipsoid(0, 0, 0, 80, 100, 94, 35, 260),
    Ellipsoid(0, 0, 0, 78, 98, 92, -85, 640),
    Ellipsoid(0, 0, 0, 74.5, 94.5, 88.5, 1150, 40),
    Ellipsoid(0, 0, 0, 72, 92, 86, 620, 180),
    Ellipsoid(0, 0, 0, 70.5, 90.5, 84.5, 1050, 40),
    Ellipsoid(0, 0, 0, 67.5, 87.5, 81.5, 8, 90),
)
VENTRICLES = (
    Ellipsoid(10, -26, 10, 6.5, 14, 9, 6, 95, twin=True),
    Ellipsoid(14, 4, 18, 6, 24, 8, 6, 95, twin=True),
    Ellipsoid(23, 34, 10, 6.5, 13, 9, 6, 95, twin=True),
    Ellipsoid(0, 2, -4, 2.6, 13, 10, 6, 95),
    Ellipsoid(0, 40, -32, 8, 6, 9, 6, 95),
)
BLEEDING = Ellipsoid(34, 18, 30, 10, 12, 9, 68, 330)
INNER = (
    Ellipsoid(0, 46, -40, 46, 32, 21, 37, 330),
    Ellipsoid(0, 18, -44, 13, 12, 26, 32, 350),
    Ellipsoid(25, -6, 4, 8, 17, 13, 42, 335, twin=True),
    Ellipsoid(11, 12, 2, 8, 13, 9, 41, 340, twin=True),
    *VENTRICLES,
    Ellipsoid(34, 18, 30, 16, 19, 15, 22, 260),
    BLEEDING,
    Ellipsoid(0, 25, 4, 2.4, 2.4, 2.4, 190, 60),
    Ellipsoid(22, 30, 10, 2.2, 4, 2.2, 140, 80, twin=True),
)
FACE = (
    Ellipsoid(0, -60, -62, 34, 34, 30, 45, 300),
    Ellipsoid(48, 16, -46, 22, 9, 8, 980, 60, twin=True),
    Ellipsoid(60, 28, -50, 9, 11, 12, -650, 20, twin=True),
    Ellipsoid(0, -88, -18, 22, 8, 17, 900, 60),
    Ellipsoid(9, -87, -18, 8, 5, 13, -1000, 0, twin=True),
    Ellipsoid(31, -59, -42, 20, 23.5, 18, 880, 50, twin=True),
    Ellipsoid(31, -61, -42, 18, 23.5, 16, -90, 600, twin=True),
    Ellipsoid(30, -50, -42, 2.5, 16, 2.5, 35, 300, twin=True),
    Ellipsoid(32, -69, -42, 12, 12, 12, 14, 110, twin=True),
    Ellipsoid(32, -77.5, -42, 4.5, 2.4, 4.5, 95, 60, twin=True),
    Ellipsoid(7, -61, -46, 5.5, 20, 14, -800, 10, twin=True),
    Ellipsoid(0, -61, -46, 1.4, 22, 16, 420, 60),
    Ellipsoid(28, -60, -66, 17, 19, 15, 760, 50, twin=True),
    Ellipsoid(28, -60, -66, 15.5, 17.5, 13.5, -1000, 0, twin=True),
)


def head_ct(grid: Grid = CT_GRID) -> Words:
    """Return a head as stored CT values (HU + 1024), shape (slices, rows, columns)."""
    volume = np.full((grid.slices, grid.rows, grid.columns), -1000, dtype=np.float32)
    _paint_head_rest(volume, grid)
    _paint_head(volume, grid, is_ct=True)
    noise = _noise(grid.rows, grid.columns)
    for index, plane in enumerate(volume):
        shift = (index * 37 % grid.rows, index * 91 % grid.columns)
        plane += np.roll(noise[index % len(noise)], shift, axis=(0, 1))
    return _stored(volume + HU_OFFSET)


def head_mr(grid: Grid = MR_GRID, *, contrast: bool) -> Words:
    """Return a head as T1-weighted MR signal; `contrast` makes the lesion's rim enhance."""
    volume = np.zeros((grid.slices, grid.rows, grid.columns), dtype=np.float32)
    _paint_head(volume, grid, is_ct=False)
    if contrast:
        _paint(volume, grid, BLEEDING, 760)
        core = Ellipsoid(34, 18, 30, 6.5, 8, 6, 0, 0)
        _paint(volume, grid, core, 240)
    _, y, x = grid.coordinates()
    coil = 1 + 0.25 * np.cos(x / 70) * np.cos(y / 90)
    noise = _noise(grid.rows, grid.columns)
    for index, plane in enumerate(volume):
        plane *= coil[0]
        plane += 2 * np.roll(noise[index % len(noise)], index * 29, axis=1)
    return _stored(np.abs(volume))


def _stored(values: NDArray[Any]) -> Words:
    """Return values as 12-bit pixels."""
    pixels: Words = values.clip(0, 4095).round().astype(np.uint16)
    return pixels


def inside(grid: Grid, pieces: tuple[Ellipsoid, ...]) -> Bools:
    """Return which voxels lie inside any of `pieces` (or their mirror images)."""
    volume = np.zeros((grid.slices, grid.rows, grid.columns), dtype=np.float32)
    for piece in pieces:
        for one in piece.both():
            _paint(volume, grid, one, 1)
    return volume > 0.5


def _paint_head(volume: Floats, grid: Grid, *, is_ct: bool) -> None:
    for piece in SKULL:
        _paint(volume, grid, piece, piece.hu if is_ct else piece.signal)
    _paint_brain(volume, grid, is_ct=is_ct)
    for piece in (*INNER, *FACE):
        for one in piece.both():
            _paint(volume, grid, one, one.hu if is_ct else one.signal)


def _paint(volume: Floats, grid: Grid, piece: Ellipsoid, value: float) -> None:
    """Blend a piece into the volume with edges one voxel soft, touching only its surroundings."""
    z, y, x = grid.coordinates()
    box = (
        _span(z, piece.z, piece.c),
        _span(y, piece.y, piece.b + grid.spacing_mm),
        _span(x, piece.x, piece.a + grid.spacing_mm),
    )
    part = volume[box]
    radius = np.sqrt(
        ((z[box[0]] - piece.z) / piece.c) ** 2
        + ((y[:, box[1]] - piece.y) / piece.b) ** 2
        + ((x[:, :, box[2]] - piece.x) / piece.a) ** 2
    )
    cover = ((1 - radius) * (min(piece.a, piece.b) / grid.spacing_mm) + 0.5).clip(0, 1)
    part += cover * (np.float32(value) - part)


def _span(axis: Floats, centre: float, half: float) -> slice:
    places = np.flatnonzero(np.abs(axis.ravel() - centre) <= half)
    return slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, 0)


def _paint_brain(volume: Floats, grid: Grid, *, is_ct: bool) -> None:
    """Blend in the brain: white matter, a folded grey rim, sulci between the folds, the falx."""
    z, y, x = grid.coordinates()
    box = (slice(None), _span(y, 0, 88), _span(x, 0, 68))
    y, x = y[:, box[1]], x[:, :, box[2]]
    part = volume[box]
    radius = np.sqrt((z / 80) ** 2 + (y / 86) ** 2 + (x / 66) ** 2)
    folds = np.sin(np.abs(x) / 5.1 + 2 * np.sin(y / 9 + z / 14)) * np.cos(
        y / 6.3 + 1.5 * np.sin(x / 11 - z / 12)
    )
    grey, white, fluid, falx = (39, 28, 10, 58) if is_ct else (330, 440, 100, 260)
    rim = ((radius - 0.84 + 0.09 * folds) * 14).clip(0, 1)
    tissue = white + rim * np.float32(grey - white)
    sulci = (1 - np.abs(folds) * 5).clip(0, 1) * ((radius - 0.8) * 8).clip(0, 1)
    tissue += sulci * (fluid - tissue)
    midline = (1.6 - np.abs(x)).clip(0, 1) * (radius > 0.42) * (z > -20)
    tissue += midline * (falx - tissue)
    cover = ((1 - radius) * 60).clip(0, 1)
    part += cover * (tissue - part)


def _paint_head_rest(volume: Floats, grid: Grid) -> None:
    _, y, x = grid.coordinates()
    distance = np.sqrt(x[0] ** 2 + (y[0] - 4) ** 2)
    shell = (2.2 - np.abs(distance - 108)).clip(0, 1) * (y[0] > 48)
    volume += shell * np.float32(820)


def _noise(rows: int, columns: int) -> Floats:
    """Return eight planes of noise of about 4 HU, grainy as reconstructed CT is."""
    planes = np.random.RandomState(20210601).normal(0, 8, (8, rows, columns)).astype(np.float32)
    return np.asarray((planes + np.roll(planes, 1, 1) + np.roll(planes, 1, 2)) / 3, np.float32)


def mammogram(rows: int = 640, columns: int = 480) -> Words:
    """Return a breast: glandular texture, one spiculated mass, a few calcifications."""
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    x = np.linspace(0, 1.25, columns, dtype=np.float32)[None, :]
    radius = np.sqrt(x**2 + (y / 0.85) ** 2)
    breast = ((1 - radius) * 40).clip(0, 1)
    thickness = np.sqrt((1 - radius**2).clip(0, 1))
    gland = np.zeros((rows, columns), np.float32)
    for order in range(1, 7):
        turn = 1.9 * order
        wave = x * np.cos(turn) + y * np.sin(turn)
        bend = np.sin(order * 3 * (y * np.cos(turn) - x * np.sin(turn)))
        gland += np.sin(order * 7 * wave + 2 * bend) / order
    picture = breast * (900 + 900 * thickness + 240 * gland * thickness)
    angle, away = np.arctan2(y - 0.16, x - 0.5), np.hypot(x - 0.5, y - 0.16)
    picture += 900 * ((0.075 + 0.012 * np.cos(11 * angle) - away) * 40).clip(0, 1)
    for place in range(7):
        spot = np.hypot(x - 0.42 - 0.02 * (place % 3), y + 0.22 + 0.017 * (place * 5 % 7))
        picture += 1500 * (spot < 0.006)
    grain = np.random.RandomState(7).normal(0, 18, (rows, columns))
    return _stored(picture + breast * grain)


def heart(frames: int = 24, size: int = 128) -> Octets:
    """Return a beating ventricle in an ultrasound sector, shape (frames, size, size)."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    depth, side = np.hypot(x - 0.5, y + 0.05), np.arctan2(x - 0.5, y + 0.05)
    sector = (np.abs(side) < 0.62) & (depth < 1.0) & (depth > 0.12)
    grains = np.random.RandomState(11).gamma(2.0, 0.5, (size, size)).astype(np.float32)
    speckle = (grains + np.roll(grains, 1, 0) + np.roll(grains, 1, 1)) / 3
    beats = []
    for frame in range(frames):
        squeeze = 1 - 0.22 * np.sin(np.pi * frame / frames) ** 2
        ring = np.hypot((x - 0.48) / 0.20, (y - 0.52) / 0.29) / squeeze
        wall = np.exp(-(((ring - 1.12) / 0.16) ** 2))
        chamber = 0.12 + 0.28 * (ring > 1)
        picture = sector * speckle * (chamber + 0.8 * wall) * 150
        beats.append(picture.clip(0, 255).astype(np.uint8))
    return np.stack(beats)


def tile(size: int, seed: int) -> Words:
    """Return a small picture that differs by `seed`: a bright disc on a ramp."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    turn = seed * 0.7
    disc = np.hypot(x - size * (0.5 + 0.2 * np.cos(turn)), y - size * (0.5 + 0.2 * np.sin(turn)))
    picture = 200 + 8 * x + 4 * y + 900 * (size / 5 - disc).clip(0, 1)
    return _stored(picture)


def bench_planes(count: int = 8, size: int = 512) -> Words:
    """Return CT slices as noisy as a real thin slice, which DEFLATE halves and no more."""
    grid = Grid(count, size, size, 230 / size, 3.0, lowest_z_mm=6.0)
    volume = head_ct(grid).astype(np.float32)
    noise = np.random.RandomState(5).normal(0, 11, volume.shape)
    return _stored(volume + noise)
