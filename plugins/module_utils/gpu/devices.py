# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which GPUs of a virtual machine stay, go and come, and how a plan speaks of them."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import GpuModel, UnknownGpuError
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GpuAttachment, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.host_gpus import HostGpus
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.sharing import Share
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import plain
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.wants import GpuWant


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """The GPUs of one virtual machine: those that stay, go and come."""

    kept: list[GpuAttachment]
    removed: tuple[GpuAttachment, ...]
    added: list[GpuAttachment]
    """With negative keys, as new devices have in a reconfigure."""

    def applied_to(self, vm: VmFacts) -> VmFacts:
        """The virtual machine with this choice of GPUs; devices that are no GPUs stay."""
        others = (gpu for gpu in vm.gpus if gpu not in self.kept and gpu not in self.removed)
        return dataclasses.replace(vm, gpus=(*others, *self.kept, *self.added))


def choose_devices(
    current: collections.abc.Sequence[GpuAttachment],
    wanted: collections.abc.Sequence[GpuWant],
    share: Share,
    host: HostGpus,
) -> Choice:
    """Keep what is wanted and there, take away the rest, add what is missing."""
    kept, removed = _keep(current, wanted, share)
    return Choice(kept, removed, _new(kept, wanted, share, host))


def _keep(
    current: collections.abc.Sequence[GpuAttachment], wanted: collections.abc.Sequence[GpuWant], share: Share
) -> tuple[list[GpuAttachment], tuple[GpuAttachment, ...]]:
    """The GPUs that stay, and those that go."""
    fixed = set(share.fixed)
    dynamic: collections.Counter[GpuWant] = collections.Counter()
    vgpus: collections.Counter[str] = collections.Counter()
    groups: collections.Counter[str] = collections.Counter()
    for want, count in zip(wanted, share.counts, strict=True):
        if want.mode == "dynamic":
            dynamic[want] += count
        elif want.mode == "vgpu":
            vgpus[plain(str(want.profile))] += count
        elif want.mode == "device_group":
            groups[str(want.group)] += count
    stay = _groups_that_stay(current, groups)
    kept: list[GpuAttachment] = []
    for gpu in sorted(current, key=lambda gpu: (gpu.address is None, gpu.key)):
        if gpu.group is not None:
            if gpu.group_key in stay:
                kept.append(gpu)
        elif gpu.mode == "vgpu" and vgpus[plain(str(gpu.profile))] > 0:
            vgpus[plain(str(gpu.profile))] -= 1
            kept.append(gpu)
        elif gpu.mode == "fixed" and gpu.address in fixed:
            fixed.remove(gpu.address)
            kept.append(gpu)
        elif (met := _wanted_as(gpu, dynamic)) is not None:
            dynamic[met] -= 1
            kept.append(gpu)
    return kept, tuple(gpu for gpu in current if gpu not in kept)


def _wanted_as(gpu: GpuAttachment, left: collections.Counter[GpuWant]) -> GpuWant | None:
    """Which of the dynamic GPUs that are still missing this one is, if any; those by id come first."""
    return next(
        (want for want in sorted(left, key=lambda want: want.id is None) if left[want] and want.met_by(gpu)), None
    )


def _groups_that_stay(current: collections.abc.Sequence[GpuAttachment], wanted: collections.Counter[str]) -> set[int]:
    """Keys of the device groups that the virtual machine has and may keep, the first of each name."""
    stay: set[int] = set()
    left = collections.Counter(wanted)
    for key, name in sorted({(gpu.group_key or 0, gpu.group) for gpu in current if gpu.group is not None}):
        if left[name] > 0:
            left[name] -= 1
            stay.add(key)
    return stay


def _new(
    kept: collections.abc.Sequence[GpuAttachment],
    wanted: collections.abc.Sequence[GpuWant],
    share: Share,
    host: HostGpus,
) -> list[GpuAttachment]:
    """The GPUs that come, with keys -1, -2, … as a reconfigure wants them."""
    have = {gpu.address for gpu in kept if gpu.mode == "fixed"}
    added = [
        GpuAttachment("fixed", 0, address=address, ids=(host.devices[address].id,))
        for address in share.fixed
        if address not in have
    ]
    dynamic: collections.Counter[GpuWant] = collections.Counter()
    for want, count in zip(wanted, share.counts, strict=True):
        dynamic[want] += count if want.mode == "dynamic" else 0
    for gpu in kept:
        if (met := _wanted_as(gpu, dynamic)) is not None:
            dynamic[met] -= 1
    for want in wanted:
        if want.mode == "vgpu":
            profile = str(want.profile)
            have_vgpus = sum(
                gpu.group is None and plain(gpu.profile or "") == plain(profile) for gpu in [*kept, *added]
            )
            missing = sum(
                number
                for other, number in zip(wanted, share.counts, strict=True)
                if other.mode == "vgpu" and plain(str(other.profile)) == plain(profile)
            )
            added.extend(GpuAttachment("vgpu", 0, profile=profile) for _number in range(missing - have_vgpus))
        added.extend(
            GpuAttachment("dynamic", 0, ids=host.dynamic_ids(want), label=want.label)
            for _number in range(dynamic.pop(want, 0))
        )
    added.extend(_new_groups(kept, wanted, share, host))
    return [dataclasses.replace(gpu, key=-number) for number, gpu in enumerate(added, start=1)]


def _new_groups(
    kept: collections.abc.Sequence[GpuAttachment],
    wanted: collections.abc.Sequence[GpuWant],
    share: Share,
    host: HostGpus,
) -> t.Iterator[GpuAttachment]:
    """The devices of the groups that come; groups have keys -1, -2, … while they are planned."""
    offers = {group.name: group for group in host.facts.device_groups}
    have = collections.Counter(name for _key, name in {(gpu.group_key, gpu.group) for gpu in kept if gpu.group})
    key = 0
    for want, count in zip(wanted, share.counts, strict=True):
        offer = offers.get(want.group or "")
        if want.mode != "device_group" or offer is None:
            continue
        stay = min(have[offer.name], count)
        have[offer.name] -= stay
        for _number in range(count - stay):
            key -= 1
            for profile, sequence in zip(offer.profiles, offer.sequence, strict=True):
                yield GpuAttachment(
                    "vgpu", 0, profile=profile or None, group=offer.name, group_key=key, sequence=sequence
                )


def models_of(gpus: collections.abc.Iterable[GpuAttachment], host: HostGpus) -> tuple[list[GpuModel], list[str]]:
    """The boards of these GPUs, and what to say of unknown ones. A GPU by label is the largest that bears it."""
    models: list[GpuModel] = []
    unknown: dict[str, None] = {}
    for gpu in gpus:
        if gpu.mode == "vgpu":
            continue
        ids = gpu.ids or tuple(f.id for f in host.devices.values() if f.hardware_label == gpu.label)
        found = []
        for device_id in ids:
            try:
                found.append(host.catalog.require(device_id))
            except UnknownGpuError as error:
                unknown[str(error)] = None
        if found:
            models.append(max(found, key=lambda model: model.bars_gb))
    return models, list(unknown)


def device_changes(
    removed: collections.abc.Iterable[GpuAttachment],
    added: collections.abc.Iterable[GpuAttachment],
    host: HostGpus,
    reasons: t.Mapping[str, str],
) -> list[Change]:
    """One change for each GPU or device group; `reasons` say why a profile was chosen."""
    changes = [
        Change("detach GPU", path, text, None, text)
        for path, text in (_shown(gpu, host, {}) for gpu in _units(removed))
    ]
    changes += [
        Change("attach GPU", path, None, text, text)
        for path, text in (_shown(gpu, host, reasons) for gpu in _units(added))
    ]
    return changes


def _units(gpus: collections.abc.Iterable[GpuAttachment]) -> list[GpuAttachment]:
    """The first device of each device group, and all others."""
    seen: set[int | None] = set()
    units = []
    for gpu in gpus:
        if gpu.group is None or gpu.group_key not in seen:
            units.append(gpu)
        if gpu.group is not None:
            seen.add(gpu.group_key)
    return units


def _shown(gpu: GpuAttachment, host: HostGpus, reasons: t.Mapping[str, str]) -> tuple[str, str]:
    """What a GPU is called in a plan, and what there is to say of it."""
    if gpu.group is not None:
        return gpu.group, "device group"
    if gpu.mode == "vgpu":
        reason = reasons.get(str(gpu.profile))
        return str(gpu.profile), f"vGPU, {reason}" if reason else "vGPU"
    text = f"{' or '.join(host.model_name(device_id) for device_id in gpu.ids) or 'any model'}, {gpu.mode}"
    if gpu.mode == "fixed":
        return str(gpu.address), text
    return " ".join([*gpu.ids, *([f"label {gpu.label}"] if gpu.label else [])]), text


def described(vm: VmFacts, host: HostGpus) -> list[dict[str, t.Any]]:
    """The GPUs of the virtual machine as they will be, for people and reports."""
    return [
        {
            "mode": gpu.mode,
            "address": gpu.address,
            "ids": list(gpu.ids),
            "label": gpu.label,
            "model": " or ".join(host.model_name(device_id) for device_id in gpu.ids) or None,
            "profile": gpu.profile,
            "group": gpu.group,
        }
        for gpu in host.gpu_attachments(vm)
    ]
