# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Planner: how hosts hand out their GPUs as vGPUs: default type, assignment policy, type and vGPU mode of each GPU.

Sources: vSphere's HostGraphicsConfig (values, and that all of it is set in one call), its resource management guide
(machines off before, Xorg restarted after a change of type), and the release notes of vGPU for vSphere (mixed size
from vSphere 8.0 U3 and from the Ampere generation on).
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import (
    GraphicsConfig,
    GraphicsDevice,
    GraphicsSetting,
    HostFacts,
    PciFunction,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.ownership import (
    left_alone,
    maintenance_owner,
    not_connected,
    reboot_in_progress,
    standing,
    unknown_host,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import Change, ObjectPlan, Problem
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import Selector, normalise_address

SHARED_DIRECT = "sharedDirect"
_MODES_SINCE = (8, 0, 3)
# Boards older than the Ampere generation divide into vGPUs of one size only.
_ONE_SIZE = frozenset(
    ["P100-16", "P40", "V100-16", "V100-32", "V100-SXM2-16", "V100-SXM2-32", "RTX6000", "T4"]
)  # fmt: skip
XORG = "xorg"
"""The service that takes over a change of graphics type while the host is up."""


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceWish:
    """What is wanted of the GPUs that a selector chooses; None leaves it."""

    selector: Selector
    graphics_type: str | None = None
    vgpu_mode: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class GraphicsWish:
    """What is wanted of one host; None leaves it."""

    name: str
    default_type: str | None = None
    """Of the host, and of every GPU that is neither passed through nor named in `devices` with its own type."""
    assignment_policy: str | None = None
    devices: tuple[DeviceWish, ...] = ()
    missing: t.Literal["fail", "skip"] = "fail"
    """What a selector that matches no GPU means."""


@dataclasses.dataclass(frozen=True, slots=True)
class GraphicsPlan:
    """The plan of one host, the configuration to send, and the host as it is then."""

    plan: ObjectPlan
    config: GraphicsConfig | None = None
    after: HostFacts | None = None


def plan_graphics(
    hosts: t.Mapping[str, HostFacts],
    wishes: t.Sequence[GraphicsWish],
    *,
    known: t.Collection[str] = (),
    vm_names: t.Mapping[str, str] | None = None,
) -> dict[str, GraphicsPlan]:
    """One plan for each wish. `vm_names` gives names of virtual machines by id, for messages."""
    plans: dict[str, GraphicsPlan] = {}
    for wish in wishes:
        host = hosts.get(wish.name)
        if host is None:
            plans[wish.name] = GraphicsPlan(unknown_host(wish.name, known))
        elif reboot_in_progress(host):
            plans[wish.name] = GraphicsPlan(ObjectPlan(host.name, notes=_notes(host, ())))
        elif not host.answers:
            plans[wish.name] = GraphicsPlan(not_connected(host))
        elif maintenance_owner(host) == "other":
            plans[wish.name] = GraphicsPlan(left_alone(host))
        elif host.graphics_config is None:
            plans[wish.name] = GraphicsPlan(
                ObjectPlan(host.name, problems=(_no_graphics(host),), notes=_notes(host, ()))
            )
        else:
            plans[wish.name] = _Planner(host, host.graphics_config, wish, vm_names or {}).plan()
    return plans


class _Planner:
    """The plan of one host."""

    def __init__(
        self, host: HostFacts, config: GraphicsConfig, wish: GraphicsWish, vm_names: t.Mapping[str, str]
    ) -> None:
        self.host = host
        self.config = config
        self.wish = wish
        self.vm_names = vm_names
        self.functions = {normalise_address(f.address) or f.address: f for f in host.devices}
        self.gpus = {gpu.address: gpu for gpu in host.graphics}
        self.now = {address: self._setting(address) for address in sorted(self.gpus)}
        self.problems: list[Problem] = []
        self.warnings: list[str] = []

    def plan(self) -> GraphicsPlan:
        """Compare, gather problems, and say what has to be restarted."""
        wanted = self._wanted()
        default = self.wish.default_type or self.config.default_type
        policy = self.wish.assignment_policy or self.config.assignment_policy
        after = GraphicsConfig(default, policy, tuple(wanted[address] for address in sorted(wanted)))
        changes = self._changes(after)
        self._check_users(wanted)
        retyped = [change for change in changes if change.path.endswith("_type")]
        restart = (XORG,) if retyped and not self.problems else ()
        host = self._predicted(after) if changes and not self.problems else self.host
        plan = ObjectPlan(
            self.host.name,
            changes=tuple(changes),
            problems=tuple(self.problems),
            warnings=tuple(self.warnings),
            notes=_notes(host, restart),
        )
        return GraphicsPlan(plan, after, host)

    def _setting(self, address: str) -> GraphicsSetting:
        """What is configured for a GPU now; one that is not listed follows the host's default."""
        for device in self.config.devices:
            if device.address == address:
                return device
        return GraphicsSetting(address, self.config.default_type, None)

    def _wanted(self) -> dict[str, GraphicsSetting]:
        wanted = dict(self.now)
        if self.wish.default_type is not None:
            for address, setting in wanted.items():
                if not self._passed_through(address):
                    wanted[address] = dataclasses.replace(setting, graphics_type=self.wish.default_type)
        for device in self.wish.devices:
            chosen = [a for a in self.gpus if a in self.functions and device.selector.matches(self.functions[a])]
            if not chosen and self.wish.missing == "fail":
                self.problems.append(self._not_found(device.selector))
            elif not chosen:
                self.warnings.append(f"{self.host.name} has no GPU with {device.selector}; skipped.")
            for address in chosen:
                setting = wanted[address]
                kind = device.graphics_type or setting.graphics_type
                mode = device.vgpu_mode or setting.vgpu_mode
                wanted[address] = GraphicsSetting(address, kind, mode)
                self._check_device(address, device, kind)
        return wanted

    def _check_device(self, address: str, wish: DeviceWish, kind: str) -> None:
        if self._passed_through(address):
            self._refuse(
                "gpu_passed_through",
                f"{self._gpu(address)} is passed through to virtual machines as a whole, so it has no graphics type. "
                "Take it out of passthrough first (gpuops.vsphere.esxi_passthrough with enabled: false, then the "
                "reboot it asks for), or leave it out here.",
                "devices",
            )
        elif wish.vgpu_mode is not None:
            self._check_mode(address, wish.vgpu_mode, kind)

    def _check_mode(self, address: str, mode: str, kind: str) -> None:
        host = self.host
        function = self.functions[address]
        model = Catalog().get(function.id)
        if not _modes_known(host):
            self._refuse(
                "vgpu_mode_not_supported",
                f"vGPU modes exist from ESXi 8.0 Update 3 on, and the host runs {host.version or 'an older release'}. "
                "Leave vgpu_mode out, or upgrade the host.",
                "vgpu_mode",
            )
        elif kind != SHARED_DIRECT:
            self._refuse(
                "vgpu_mode_not_supported",
                f"{self._gpu(address)} has the graphics type {kind}; a vGPU mode is for sharedDirect. "
                "Set its type to sharedDirect, or leave vgpu_mode out.",
                "vgpu_mode",
            )
        elif mode == "mixedSize" and model is not None and model.key in _ONE_SIZE:
            self._refuse(
                "vgpu_mode_not_supported",
                f"{self._gpu(address)} ({model.key}) divides into vGPUs of one size only: mixed size needs the Ampere "
                "generation or later. Use sameSize.",
                "vgpu_mode",
            )

    def _changes(self, after: GraphicsConfig) -> list[Change]:
        pairs: list[tuple[str, str | None, str | None]] = [
            ("default_type", self.config.default_type, after.default_type),
            ("assignment_policy", self.config.assignment_policy, after.assignment_policy),
        ]
        for setting in after.devices:
            now = self.now[setting.address]
            pairs.append((f"{setting.address} graphics_type", now.graphics_type, setting.graphics_type))
            pairs.append((f"{setting.address} vgpu_mode", now.vgpu_mode, setting.vgpu_mode))
        return [
            Change("set", path, before, then, f"{then}, was {before}") for path, before, then in pairs if before != then
        ]

    def _check_users(self, wanted: t.Mapping[str, GraphicsSetting]) -> None:
        """A GPU keeps type and mode while anything runs on it."""
        for address, setting in wanted.items():
            users = self.gpus[address].vm_moids
            if setting != self.now[address] and users and not self._passed_through(address):
                names = ", ".join(sorted(self.vm_names.get(moid, moid) for moid in users))
                self._refuse(
                    "gpu_in_use",
                    f"{self._gpu(address)} cannot change while {names} run on it. Power off, suspend or move them, "
                    "then run again.",
                    "devices",
                    state=True,
                )

    def _predicted(self, after: GraphicsConfig) -> HostFacts:
        def predicted(gpu: GraphicsDevice) -> GraphicsDevice:
            setting = next(device for device in after.devices if device.address == gpu.address)
            if gpu.graphics_type not in ("shared", SHARED_DIRECT):
                return gpu
            mode = setting.vgpu_mode if setting.graphics_type == SHARED_DIRECT else "none"
            return dataclasses.replace(
                gpu, graphics_type=setting.graphics_type, vgpu_mode=None if gpu.vgpu_mode is None else mode
            )

        graphics = tuple(predicted(gpu) for gpu in self.host.graphics)
        return dataclasses.replace(self.host, graphics_config=after, graphics=graphics)

    def _passed_through(self, address: str) -> bool:
        function: PciFunction | None = self.functions.get(address)
        return function is not None and (function.passthrough_enabled or function.passthrough_active)

    def _gpu(self, address: str) -> str:
        function = self.functions.get(address)
        return f"The GPU at {address}" + (f" ({function.name})" if function is not None else "")

    def _not_found(self, selector: Selector) -> Problem:
        there = ", ".join(f"{self.functions[a].id} ({a})" for a in sorted(self.gpus) if a in self.functions)
        return Problem(
            code="device_not_found",
            object=self.host.name,
            msg=f"The host's graphics manager has no GPU with {selector}. It has {there or 'none at all'}. "
            "Correct the device, or set missing to skip.",
            option="devices",
        )

    def _refuse(self, code: str, msg: str, option: str, *, state: bool = False) -> None:
        self.problems.append(Problem(code, self.host.name, msg, option, kind="state" if state else "input"))


def _modes_known(host: HostFacts) -> bool:
    try:
        return tuple(int(part) for part in (host.version or "").split(".")) >= _MODES_SINCE
    except ValueError:
        return False


def _no_graphics(host: HostFacts) -> Problem:
    return Problem(
        code="graphics_not_supported",
        object=host.name,
        msg="The host tells nothing of its graphics: it is older than ESXi 6.5, or its graphics manager does not "
        "answer. Upgrade it, or restart its hostd, then run again.",
        kind="state",
    )


def _notes(host: HostFacts, restart: t.Sequence[str]) -> dict[str, t.Any]:
    """What takes a change over: a restart of these services, or a reboot, which does it too."""
    return {
        **standing(host, ()),
        "reboot_required": host.reboot_pending,
        "services_to_restart": list(restart),
        "vgpu_types": list(host.vgpu_types),
    }
