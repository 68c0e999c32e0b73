# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From what is asked for in vGPUs and device groups to what a host has: names, choices, and why not."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import GpuModel
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import GpuAttachment, HostFacts, VmFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.host_gpus import HostGpus
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.profiles import choose, wrong_mode
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.suggest import did_you_mean, some_of
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import (
    Gpu,
    Profile,
    offered,
    parse_profile,
    plain,
    predict,
    profiles_of,
    running,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.wants import GpuWant

_SRIOV_FROM = 0x2000
"""Device ids of Ampere and later boards, which divide by SR-IOV: their profiles are called `nvidia_…`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Resolved:
    """The wants of one virtual machine in the words of its host."""

    gpus: tuple[GpuWant, ...]
    problems: tuple[Problem, ...]
    reasons: t.Mapping[str, str]
    """Why a profile was chosen, by profile."""


def resolve(vm: VmFacts, wants: collections.abc.Sequence[GpuWant], host: HostGpus) -> Resolved:
    """Replace needs by the profile chosen, and names by those of the host. What cannot be had is a problem."""
    facts = with_expected_types(host)
    has = [gpu.profile for gpu in vm.gpus if gpu.profile and gpu.group is None]
    gpus: list[GpuWant] = []
    problems: list[Problem] = []
    reasons: dict[str, str] = {}
    for want in wants:
        if want.mode == "device_group":
            problems += _group_problems(vm, want, facts)
            gpus.append(want)
            continue
        if want.mode != "vgpu":
            gpus.append(want)
            continue
        if want.needs is not None:
            choice = choose(want.needs, facts, host.catalog, has=has)
            if choice.profile is None:
                why = cannot_offer(host, None)
                text = f"asks for a vGPU with {want.needs}. {why[1] if why else choice.reason}"
                mode = ("wrong_gpu_mode", "state") if choice.wrong_mode else ("profile_not_found", "input")
                code, kind = (why[0], "state") if why else mode
                problems.append(Problem(code, vm.name, text, "gpus", kind=t.cast("t.Any", kind)))
            else:
                reasons[choice.profile] = choice.reason
            # Without a choice nothing is known to keep or to take away.
            gpus.append(dataclasses.replace(want, profile=choice.profile, count=want.count if choice.profile else 0))
            continue
        name = offered(str(want.profile), facts)
        runs = vm.power == "poweredOn" and plain(str(want.profile)) in {plain(one) for one in has}
        if name is None and not runs:
            problems.append(_not_offered(vm.name, str(want.profile), host, facts))
        gpus.append(dataclasses.replace(want, profile=name or want.profile))
    return Resolved(tuple(gpus), tuple(problems), reasons)


def with_expected_types(host: HostGpus) -> HostFacts:
    """The host's facts with the profiles its GPUs will have, where they are predicted to be sharedDirect.

    A host that tells its profiles is taken at its word.
    """
    facts = host.facts
    if facts.vgpu_types:
        return facts
    models = _models(host, "sharedDirect")
    names = tuple(
        f"{'nvidia' if int(model.id[5:], 16) >= _SRIOV_FROM else 'grid'}_{model.board}-{size}{series}"
        for model in dict.fromkeys(models)
        for series in ("c", "q")
        for size, _most in (model.vgpu.equal if model.vgpu else ())
    )
    return dataclasses.replace(facts, vgpu_types=names, vgpu_suspend=names, vgpu_migrate=names)


def _models(host: HostGpus, graphics_type: str) -> list[GpuModel]:
    found = []
    for device in host.facts.graphics:
        function = host.devices.get(device.address)
        model = host.catalog.get(function.id) if function is not None else None
        if device.graphics_type == graphics_type and model is not None:
            found.append(model)
    return found


def cannot_offer(host: HostGpus, board: str | None) -> tuple[str, str] | None:
    """Code and text of why the GPUs of a host (of one board) offer no vGPUs now; None when some do."""
    types: dict[str, list[str]] = collections.defaultdict(list)
    for device in host.facts.graphics:
        function = host.devices.get(device.address)
        model = host.catalog.get(function.id) if function is not None else None
        if function is not None and (board is None or (model is not None and model.board == board)):
            types["direct" if host.active(device.address) else device.graphics_type].append(device.address)
    if not types or "sharedDirect" in types:
        return None
    if "shared" in types:
        return (
            "not_shared_direct",
            f"The graphics type of {', '.join(types['shared'])} on {host.name} is shared; vGPUs need sharedDirect. Set"
            " it with the module esxi_graphics, which also says what has to be restarted.",
        )
    if "basic" in types:
        return (
            "no_vgpu_manager",
            f"No vGPU manager runs on {host.name}: it is not installed, or the host has not been rebooted since."
            " Install it (module esxi_driver or role grid_host_driver) and reboot the host.",
        )
    return (
        "gpu_passed_through",
        f"{', '.join(types.get('direct', []))} on {host.name} is in passthrough, so the vGPU manager does not have it."
        " Take it out of passthrough (esxi_passthrough with enabled: false).",
    )


def _not_offered(vm: str, name: str, host: HostGpus, facts: HostFacts) -> Problem:
    profile = parse_profile(name)
    boards = {model.board for function in host.devices.values() if (model := host.catalog.get(function.id))}
    unknown = [function.id for function in host.devices.values() if host.catalog.get(function.id) is None]
    if profile is not None and profile.board not in boards and not unknown:
        text = f"asks for {name}, and {host.name} has no GPU of the board {profile.board}. Its GPUs: {host.summary()}."
        return Problem("device_not_found", vm, text, "profile")
    why = cannot_offer(host, profile.board if profile is not None and profile.board in boards else None)
    if why is not None:
        return Problem(why[0], vm, f"asks for {name}. {why[1]}", "profile", kind="state")
    hint = did_you_mean(name, facts.vgpu_types) if facts.vgpu_types else ""
    text = f"asks for {name}, which {host.name} does not offer. {hint} It offers: {some_of(facts.vgpu_types, 12)}."
    return Problem("profile_not_found", vm, text.replace("  ", " "), "profile")


def _group_problems(vm: VmFacts, want: GpuWant, facts: HostFacts) -> list[Problem]:
    groups = {group.name: group for group in facts.device_groups}
    has = {gpu.group for gpu in vm.gpus}
    if want.group in groups or want.group in has:
        return []
    hint = did_you_mean(str(want.group), groups)
    text = (
        f"asks for the device group {want.group}, which {facts.name} does not offer. {hint} It offers:"
        f" {some_of(groups)}. Device groups need vSphere 8 and GPUs that are joined, such as by NVLink."
    )
    return [Problem("device_group_not_found", vm.name, text.replace("  ", " "), "gpus")]


def several_problems(
    vm: str, gpus: collections.abc.Iterable[GpuAttachment], host: HostGpus, api: tuple[int, ...]
) -> list[Problem]:
    """Several vGPUs in one virtual machine: of one board and series; whole GPUs, or any C-series from vSphere 8 on."""
    profiles = [
        profile
        for gpu in gpus
        if gpu.mode == "vgpu" and gpu.group is None and (profile := parse_profile(gpu.profile or "")) is not None
    ]
    if len(profiles) < 2:
        return []
    names = ", ".join(dict.fromkeys(profile.name for profile in profiles))
    if len({(profile.board, profile.series) for profile in profiles}) > 1:
        text = f"would have {names}: all vGPUs of a virtual machine must be of one board and one series."
        return [Problem("vgpu_mix", vm, text, "gpus")]
    whole = all(_whole(profile, host) for profile in profiles)
    if whole or (api >= (8,) and profiles[0].series == "c"):
        return []
    rule = "only the C-series can share a GPU" if api >= (8,) else "each must have a whole GPU before vSphere 8"
    text = f"would have {len(profiles)} vGPUs ({names}): of several vGPUs in one virtual machine {rule}."
    return [Problem("vgpu_mix", vm, text + " Ask for one, or for profiles with the whole framebuffer.", "gpus")]


def _whole(profile: Profile, host: HostGpus) -> bool:
    model = host.catalog.of_board(profile.board)
    return model is None or model.framebuffer_gb is None or profile.size_gb >= model.framebuffer_gb


def boards_of(gpus: collections.abc.Iterable[GpuAttachment], host: HostGpus) -> list[GpuModel | None]:
    """The board of each vGPU, None for one that the catalogue does not know."""
    profiles = [parse_profile(gpu.profile or "") for gpu in gpus if gpu.mode == "vgpu"]
    return [host.catalog.of_board(profile.board) if profile is not None else None for profile in profiles]


def shortages(
    host: HostGpus,
    planned: t.Mapping[str, VmFacts],
    vms: collections.abc.Iterable[VmFacts],
    moving: collections.abc.Container[str],
) -> dict[str, Problem]:
    """Virtual machines whose new vGPUs do not fit on the host beside those that run.

    `planned` are the virtual machines of the call as they will be, `moving` those whose vGPUs change.
    """
    demands = {name: profiles_of(vm) for name, vm in planned.items() if any(gpu.mode == "vgpu" for gpu in vm.gpus)}
    if not any(name in moving for name in demands):
        return {}
    others = [vm for vm in vms if vm.name not in moving]
    gpus = running(host.facts, others, host.catalog)
    on = {vm.name for vm in others if vm.power == "poweredOn"}
    result = predict(gpus, {n: p for n, p in demands.items() if n not in on}, host.facts.assignment_policy)
    found = {}
    for name in result.missing:
        if name not in moving:
            continue
        profiles = collections.Counter(profile.name for profile in demands[name])
        asked = ", ".join(f"{count} x {profile}" for profile, count in profiles.items())
        modes = [wrong_mode(profile, host.facts, host.catalog) for profile in demands[name]]
        if (mode := next((text for text in modes if text), None)) is not None:
            found[name] = Problem("wrong_gpu_mode", name, f"asks for {asked}. {mode}", "gpus", kind="state")
            continue
        used = "; ".join(_held(gpu) for gpu in gpus.values())
        text = (
            f"asks for {asked}, and {host.name} has no room for it beside those that run and those asked for with it"
            f" ({used or 'no GPU takes vGPUs'}). Take a smaller profile, power off what is not needed, or"
            " use another host."
        )
        found[name] = Problem("gpu_shortage", name, text, "gpus")
    return found


def _held(gpu: Gpu) -> str:
    held = collections.Counter(slot.profile.name for slot in gpu.slots)
    return f"{gpu.address} has {', '.join(f'{count} x {profile}' for profile, count in held.items()) or 'none'}"
