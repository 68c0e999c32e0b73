# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""vGPU profiles: how boards divide, and where in the framebuffer a vGPU may start.

The figures are the catalogue's. Sizes are the framebuffer of a profile in GB, as its name has it.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import KNOWN

_NAME = re.compile(r"(?:(?:grid|nvidia)_)?(?P<board>[a-z0-9]+)-(?P<size>[0-9]+)(?P<series>[abcq])")
_MIG_BACKED = re.compile(r"(?:(?:grid|nvidia)_)?[a-z0-9]+-[1-7]-[0-9]+[a-z][a-z_.]*")


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


BOARDS: t.Mapping[str, Board] = {
    model.board: Board(
        model.framebuffer_gb, dict(model.vgpu.equal), dict(model.vgpu.mixed), dict(model.vgpu.placements)
    )
    for model in KNOWN
    if model.board and model.framebuffer_gb and model.vgpu
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
    if _MIG_BACKED.fullmatch(name.strip().lower()):
        raise UnknownProfileError(
            f"{name} is MIG-backed, and only time-sliced ones are placed here: choose a host for its machine yourself"
        )
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
