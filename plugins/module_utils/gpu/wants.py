# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an operator asks for a virtual machine's GPUs: parsed and checked, before any fact is known."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import valid_id
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GpuAttachment
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.profiles import Needs
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import normalise_address
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import parse_profile

ALL = "all"

Mode = t.Literal["fixed", "dynamic", "vgpu", "device_group"]

_NEEDS = ("at_least_gb", "at_most_gpu", "migrate", "suspend", "profile_class")
# What each mode may be given beside its count.
_KEYS: dict[str, tuple[str, ...]] = {
    "fixed": ("id", "address"),
    "dynamic": ("id", "label"),
    "vgpu": ("profile", *_NEEDS),
    "device_group": ("name",),
}
_INSTEAD = {
    "fixed": "a fixed GPU is chosen by id or address",
    "dynamic": "a dynamic GPU is chosen by id or label",
    "vgpu": "a vGPU is chosen by profile, or by at_least_gb, at_most_gpu, migrate, suspend and profile_class",
    "device_group": "a device group is chosen by name",
}


@dataclasses.dataclass(frozen=True, slots=True)
class GpuWant:
    """Some GPUs of one kind."""

    mode: Mode
    count: int | None
    """How many; None for all that the host has."""
    id: str | None = None
    """`vendor:device` in lower-case hex."""
    address: str | None = None
    """Fixed only: one device, by its full PCI address."""
    label: str | None = None
    """Dynamic only: the hardware label."""
    profile: str | None = None
    """vGPU only: the profile."""
    needs: Needs | None = None
    """vGPU only, instead of a profile: what it must have."""
    group: str | None = None
    """Device groups only: the name of the group."""

    @property
    def passthrough(self) -> bool:
        """Whether whole GPUs are asked for."""
        return self.mode in ("fixed", "dynamic")

    def met_by(self, gpu: GpuAttachment) -> bool:
        """Whether a GPU in a virtual machine's configuration is one of these dynamic ones."""
        return gpu.is_dynamic(self.id, self.label)


@dataclasses.dataclass(frozen=True, slots=True)
class VmWant:
    """The exact set of GPUs that a virtual machine shall have."""

    name: str
    gpus: tuple[GpuWant, ...] = ()
    host: str | None = None
    """Where the virtual machine is expected to be."""
    memory_mb: int | None = None
    firmware: t.Literal["check", "efi"] | None = None
    """What to do with BIOS where EFI is needed; None for what holds for all of the call."""


def parse(items: collections.abc.Sequence[t.Mapping[str, t.Any]]) -> tuple[dict[str, VmWant], dict[str, list[Problem]]]:
    """The wanted state from the option `vms`, and what is wrong with it, by virtual machine.

    A virtual machine with a mistake is in both, with the GPUs that could be understood.
    """
    wants: dict[str, VmWant] = {}
    problems: dict[str, list[Problem]] = collections.defaultdict(list)
    for item in items:
        name = item["name"]
        if name in wants:
            if not any(problem.code == "duplicate_name" for problem in problems[name]):
                problems[name].append(
                    Problem("duplicate_name", name, "is listed more than once in vms. Keep one entry.", "vms")
                )
            continue
        gpus = []
        for number, gpu in enumerate(item.get("gpus") or (), start=1):
            want, mistakes = _gpu(gpu)
            problems[name].extend(
                Problem("invalid_gpu", name, f"entry {number} of gpus: {mistake}.", "gpus") for mistake in mistakes
            )
            if want is not None:
                gpus.append(want)
        problems[name].extend(_repeated(name, gpus))
        memory_mb = item.get("memory_mb")
        if memory_mb is not None and (memory_mb < 4 or memory_mb % 4):
            problems[name].append(
                Problem("invalid_memory", name, f"memory_mb must be a multiple of 4, not {memory_mb}.", "memory_mb")
            )
        wants[name] = VmWant(name, tuple(gpus), item.get("host") or None, memory_mb, item.get("firmware"))
    return wants, {name: found for name, found in problems.items() if found}


def _gpu(item: t.Mapping[str, t.Any]) -> tuple[GpuWant | None, list[str]]:
    mode: Mode = item["mode"]
    given = {key: str(item[key]).strip() for key in ("id", "address", "label", "profile", "name") if item.get(key)}
    asked = {key: item[key] for key in _NEEDS if item.get(key)}
    mistakes = [f"{key} is not for mode {mode}; {_INSTEAD[mode]}" for key in (*given, *asked) if key not in _KEYS[mode]]
    if "address" in given and "id" in given and mode == "fixed":
        mistakes.append("give either id or address, not both")
    if mode == "dynamic" and not {"id", "label"} & given.keys():
        mistakes.append("a dynamic GPU needs id or label")
    if mode == "device_group" and "name" not in given:
        mistakes.append("a device group needs its name")
    device_id = given.get("id", "").lower() or None
    if device_id and not valid_id(device_id):
        mistakes.append(f"id {given['id']!r} is not vendor:device in hex, such as '10de:1db6'")
    address = normalise_address(given["address"]) if "address" in given else None
    if "address" in given and address is None:
        mistakes.append(f"address {given['address']!r} is not a PCI address such as '0000:3b:00.0'")
    count = _count(item.get("count", 1))
    if count == 0:
        mistakes.append(f"count must be a whole number from 1, or 'all', not {item.get('count')!r}")
    elif "address" in given and count != 1:
        mistakes.append("an address is one device: leave out count")
    elif count is None and mode not in ("fixed", "dynamic"):
        mistakes.append(f"count must be a number for mode {mode}, not 'all'")
    if mode == "vgpu":
        mistakes += _vgpu_mistakes(given, asked)
    if mistakes:
        return None, mistakes
    needs = Needs(**asked) if mode == "vgpu" and "profile" not in given else None
    return (
        GpuWant(mode, count, device_id, address, given.get("label"), given.get("profile"), needs, given.get("name")),
        [],
    )


def _vgpu_mistakes(given: t.Mapping[str, str], asked: t.Mapping[str, t.Any]) -> list[str]:
    mistakes = []
    if "profile" in given:
        if parse_profile(given["profile"]) is None:
            mistakes.append(f"profile {given['profile']!r} is not a vGPU profile such as 'nvidia_a100-10c'")
        if asked:
            mistakes.append(f"give either profile or {', '.join(asked)}, not both")
    elif not asked:
        mistakes.append("a vGPU needs a profile, or at_least_gb and the like to choose one by")
    if asked.get("at_least_gb", 1) <= 0:
        mistakes.append(f"at_least_gb must be above 0, not {asked['at_least_gb']:g}")
    if not 0 < asked.get("at_most_gpu", 1) <= 1:
        mistakes.append(f"at_most_gpu is a share of one GPU, above 0 and at most 1, not {asked['at_most_gpu']:g}")
    return mistakes


def _count(value: t.Any) -> int | None:
    """The number, None for all, 0 for what is neither."""
    text = str(value).strip().lower()
    if text == ALL:
        return None
    return int(text) if text.isascii() and text.isdigit() else 0


def _repeated(name: str, gpus: t.Iterable[GpuWant]) -> list[Problem]:
    counts = collections.Counter(gpu.address for gpu in gpus if gpu.address)
    return [
        Problem("invalid_gpu", name, f"address {address} is listed {count} times in gpus. Keep one.", "gpus")
        for address, count in counts.items()
        if count > 1
    ]
