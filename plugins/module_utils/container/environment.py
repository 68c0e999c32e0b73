# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What makes a guest's environment, and how another guest differs from it. Pure."""

from __future__ import annotations

import dataclasses
import fnmatch
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError

if t.TYPE_CHECKING:
    import collections.abc

FORMAT = 1

PARTS = ("distribution", "architecture", "kernel", "gpus", "driver", "packages", "images")
"""What a lock holds, and what a difference can be accepted for."""

_ADVICE = {
    "distribution": "use a guest with that release",
    "architecture": "use a guest of that architecture",
    "kernel": "install and boot that kernel, it is not changed under a running guest",
    "gpus": "give the virtual machine that GPU or vGPU profile (gpu_vm_vms)",
    "driver": "apply the role grid_guest_driver with that version",
}


@dataclasses.dataclass(frozen=True)
class Difference:
    """One thing that is not as in the lock; `recreated` is whether the role can bring it."""

    part: str
    name: str
    wanted: str
    here: str
    recreated: bool

    def to_dict(self) -> dict[str, t.Any]:
        """Plain data, with a sentence for people."""
        return {**dataclasses.asdict(self), "text": self.text}

    @property
    def text(self) -> str:
        """What, wanted, here, and what to do where the role cannot."""
        name = f"{self.part} {self.name}".strip()
        said = f"{name}: {self.wanted or 'none'} in the lock, {self.here or 'none'} here"
        return said if self.recreated else f"{said}; {_ADVICE[self.part]}"


def matching(packages: t.Mapping[str, str], patterns: collections.abc.Iterable[str]) -> dict[str, str]:
    """The packages whose name matches one of the patterns."""
    wanted = list(patterns)
    return {
        name: version
        for name, version in sorted(packages.items())
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)
    }


def checked_lock(lock: t.Any, where: str) -> dict[str, t.Any]:
    """The content of a lock file, if it is one."""
    if not isinstance(lock, dict) or lock.get("format") != FORMAT:
        found = lock.get("format") if isinstance(lock, dict) else None
        raise ContainerError(
            "bad_lock", f"{where} is no lock file of an environment (format {found!r}; this release reads {FORMAT})."
        )
    shapes = {part: list if part == "gpus" else dict if part in ("packages", "images") else str for part in PARTS}
    for part, shape in shapes.items():
        if not isinstance(lock.get(part), shape):
            raise ContainerError(
                "bad_lock", f"{where}: {part} is missing or no {shape.__name__}; write the lock again."
            )
    for name, image in lock["images"].items():
        if not isinstance(image, dict) or not image.get("version") or not image.get("sha256"):
            raise ContainerError("bad_lock", f"{where}: image {name} lacks version or sha256; write the lock again.")
    return lock


def differences(lock: t.Mapping[str, t.Any], facts: t.Mapping[str, t.Any]) -> list[Difference]:
    """What a guest must change to be as in the lock, what cannot be changed first. More than the lock has is fine."""
    found = [
        Difference(part, "", _text(lock[part]), _text(facts[part]), recreated=False)
        for part in ("distribution", "architecture", "kernel", "gpus", "driver")
        if lock[part] != facts[part]
    ]
    for name, version in lock["packages"].items():
        here = facts["all_packages"].get(name, "")
        if here != version:
            found.append(Difference("packages", name, version, here, recreated=True))
    for name, image in lock["images"].items():
        mine = facts["images"].get(name, {})
        if mine.get("sha256") != image["sha256"]:
            found.append(Difference("images", name, image["version"], mine.get("version", ""), recreated=True))
    return found


def _text(value: t.Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
