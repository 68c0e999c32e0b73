# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How many more vGPUs GPUs take. A fleet has few kinds of occupied GPUs, so that each kind is worked out once."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import Gpu, Profile, parse_profile

_Key = tuple[t.Any, ...]
_MOST = 64
"""Above what any GPU takes; a bound, should the catalogue be wrong."""


class Fits:
    """Room on GPUs, remembered by kind."""

    def __init__(self) -> None:
        self._room: dict[_Key, int] = {}
        self.rooms: list[dict[str, int]] = [{}]
        """Profile -> how many more, for each kind of room that was met; the first has none."""
        self._profiles: dict[str, Profile | None] = {}

    def of(self, gpu: Gpu, offered: tuple[str, ...]) -> int:
        """Of the offered profiles, how many more of each alone the GPU takes, as an index into `rooms`."""
        key = (*_kind(gpu), offered)
        if key not in self._room:
            counts = {name: self._count(gpu, name) for name in offered}
            found = {name: count for name, count in counts.items() if count}
            if found not in self.rooms:
                self.rooms.append(found)
            self._room[key] = self.rooms.index(found)
        return self._room[key]

    def open(self, gpu: Gpu, room: int) -> tuple[tuple[float, float], ...]:
        """Free pieces of the framebuffer (begin, size in GB): slots of the settled size, else the gaps."""
        if not self.rooms[room]:
            return ()
        if gpu.mode == "sameSize" and gpu.slots:
            profile = gpu.slots[0].profile
            pieces: list[tuple[float, float]] = []
            while len(pieces) < _MOST and (start := gpu.start_for(profile)) is not None:
                pieces.append((float(start), float(profile.size_gb)))
                gpu = gpu.with_vgpu(profile, start)
            return tuple(pieces)
        gaps, at = [], 0
        for slot in sorted(gpu.slots, key=lambda slot: slot.start_gb):
            gaps.append((float(at), float(slot.start_gb - at)))
            at = slot.start_gb + slot.profile.size_gb
        gaps.append((float(at), float(gpu.framebuffer_gb - at)))
        return tuple((begin, size) for begin, size in gaps if size > 0)

    def board_of(self, name: str) -> str:
        """Board in the profile's name, in capitals: `T4`."""
        profile = self._profile(name)
        return profile.board.upper() if profile else name

    def size_of(self, name: str) -> float:
        """Framebuffer of the profile."""
        profile = self._profile(name)
        return float(profile.size_gb) if profile else 0.0

    def _count(self, gpu: Gpu, name: str) -> int:
        profile = self._profile(name)
        count = 0
        while profile is not None and count < _MOST and (start := gpu.start_for(profile)) is not None:
            gpu = gpu.with_vgpu(profile, start)
            count += 1
        return count

    def _profile(self, name: str) -> Profile | None:
        if name not in self._profiles:
            self._profiles[name] = parse_profile(name)
        return self._profiles[name]


def _kind(gpu: Gpu) -> _Key:
    slots = tuple((slot.profile.name, slot.start_gb) for slot in gpu.slots)
    return (gpu.board, gpu.model.key if gpu.model else None, gpu.framebuffer_gb, gpu.mode, slots)
