# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""vGPU profiles: how boards divide, and where in the framebuffer a vGPU may start.

Sources: NVIDIA AI Enterprise user guide (instances per GPU, placement ids of mixed-size mode). Counts of P100 and P40
are size arithmetic. Sizes are the framebuffer of a profile in GB, as its name has it.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import typing as t

_NAME = re.compile(r"(?:(?:grid|nvidia)_)?(?P<board>[a-z0-9]+)-(?P<size>[0-9]+)(?P<series>[abcq])")


@dataclasses.dataclass(frozen=True, slots=True)
class Board:
    """How one GPU board divides into vGPUs."""

    framebuffer_gb: int
    equal: t.Mapping[int, int]
    """Same-size mode: size -> how many fit."""
    mixed: t.Mapping[int, int] = dataclasses.field(default_factory=dict)
    """Mixed-size mode: size -> how many fit; empty where the board has no such mode."""
    placements: t.Mapping[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    """Mixed-size mode: size -> start slots; where absent, multiples of framebuffer / count."""

    def starts(self, size: int) -> tuple[int, ...]:
        """Where a vGPU of this size may start in mixed-size mode."""
        if size in self.placements:
            return self.placements[size]
        count = self.mixed.get(size, 0)
        return tuple(self.framebuffer_gb // count * index for index in range(count))


_40 = {
    20: (0, 20),
    10: (0, 10, 20, 30),
    8: (0, 12, 20, 32),
    5: (0, 5, 10, 15, 20, 25, 30, 35),
    4: (0, 6, 10, 16, 20, 26, 30, 36),
}
_80 = {16: (0, 24, 40, 64), 8: (0, 12, 20, 32, 40, 52, 60, 72)}
_24 = {8: (0, 16), 4: (0, 8, 12, 20)}
_EQUAL_16 = {4: 4, 8: 2, 16: 1}
_EQUAL_24 = {4: 6, 6: 4, 8: 3, 12: 2, 24: 1}
_MIXED_24 = {4: 4, 6: 4, 8: 2, 12: 2, 24: 1}
_EQUAL_48 = {4: 12, 6: 8, 8: 6, 12: 4, 16: 3, 24: 2, 48: 1}
_MIXED_48 = {4: 8, 6: 8, 8: 4, 12: 4, 16: 2, 24: 2, 48: 1}
_A100_80 = Board(
    80,
    {4: 20, 8: 10, 10: 8, 16: 5, 20: 4, 40: 2, 80: 1},
    {4: 16, 8: 8, 10: 8, 16: 4, 20: 4, 40: 2, 80: 1},
    _80,
)
_A100_40 = Board(40, {4: 10, 5: 8, 8: 5, 10: 4, 20: 2, 40: 1}, {4: 8, 5: 8, 8: 4, 10: 4, 20: 2, 40: 1}, _40)
_V100_32 = Board(32, {4: 8, 8: 4, 16: 2, 32: 1})

BOARDS: t.Mapping[str, Board] = {
    "p100": Board(16, _EQUAL_16),
    "p40": Board(24, _EQUAL_24),
    "v100": Board(16, _EQUAL_16),
    "v100x": Board(16, _EQUAL_16),
    "v100d": _V100_32,
    "v100dx": _V100_32,
    "t4": Board(16, _EQUAL_16),
    "rtx6000": Board(24, _EQUAL_24),
    "a10": Board(24, _EQUAL_24, _MIXED_24, _24),
    "a30": Board(24, _EQUAL_24, _MIXED_24, _24),
    "l4": Board(24, _EQUAL_24, _MIXED_24, _24),
    "a100": _A100_40,
    "a100x": _A100_40,
    "a100d": _A100_80,
    "a100dx": _A100_80,
    "a40": Board(48, _EQUAL_48, _MIXED_48),
    "l40s": Board(48, _EQUAL_48, _MIXED_48),
    "h100": Board(
        80,
        {4: 20, 5: 16, 8: 10, 10: 8, 16: 5, 20: 4, 40: 2, 80: 1},
        {4: 16, 5: 16, 8: 8, 10: 8, 16: 4, 20: 4, 40: 2, 80: 1},
        _80,
    ),
    "h200": Board(141, {4: 32, 7: 20, 8: 16, 14: 10, 17: 8, 28: 5, 35: 4, 70: 2, 141: 1}),
}
"""Boards by the name they have in profiles."""


@dataclasses.dataclass(frozen=True, slots=True)
class Profile:
    """A vGPU type."""

    board: str
    size: int
    series: str

    @property
    def share(self) -> float:
        """Which part of the GPU's framebuffer it takes."""
        return self.size / BOARDS[self.board].framebuffer_gb


class UnknownProfileError(LookupError):
    """A name that is no profile of a known board; the message says what there is."""


@functools.cache
def profile(name: str) -> Profile:
    """A profile by its name, with or without vCenter's prefix (`nvidia_a100-10c`). Raises UnknownProfileError."""
    match = _NAME.fullmatch(name.strip().lower())
    board = BOARDS.get(match["board"]) if match else None
    if match is None or board is None:
        known = ", ".join(sorted(BOARDS))
        raise UnknownProfileError(
            f"{name} is not the name of a vGPU profile such as nvidia_a100-10c of a known board ({known})"
        )
    size = int(match["size"])
    if size not in board.equal:
        sizes = ", ".join(f"{match['board']}-{known}{match['series']}" for known in sorted(board.equal))
        raise UnknownProfileError(f"the board {match['board']} has no profile of {size} GB; it has {sizes}")
    return Profile(match["board"], size, match["series"])
