# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Is a GPU guest well? Facts and what is wanted in, findings out, each with how to mend it. Pure."""

from __future__ import annotations

import dataclasses
import typing as t
from dataclasses import dataclass, field

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.driver_triangle import check_guest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.guest_facts import GuestFacts

CHECKS = ("nouveau", "driver", "gpu", "licence", "container", "mmio", "memory", "time")
OK, FAIL, UNKNOWN = "ok", "FAIL", "-"

_CONVERGE = "run the role grid_guest_driver on this guest"
_VM_SETTINGS = "power the VM off and run playbooks/gpu_vm.yml, which sets it"


@dataclass(frozen=True)
class Wanted:
    """What the inventory wants of a guest; empty, None or false: not asked.

    `gpus` is how many at least; `max_offset_s` how far from the controller its clock may be.
    """

    driver: str = ""
    manager: str = ""
    licence: bool = True
    gpus: int = 1
    container: bool = False
    max_offset_s: float = 5.0


@dataclass(frozen=True)
class VmView:
    """What the vCenter says of the guest's machine: changes that its settings of MMIO and memory would need."""

    mmio: tuple[str, ...] = ()
    memory: tuple[str, ...] = ()

    @classmethod
    def from_actions(cls, actions: t.Iterable[str]) -> VmView:
        """Sort the actions that the module vm_gpu would take into those of MMIO and of memory."""
        listed = tuple(actions)
        return cls(
            mmio=tuple(action for action in listed if "mmio" in action.lower()),
            memory=tuple(action for action in listed if "memory" in action.lower()),
        )


@dataclass(frozen=True)
class Finding:
    """How one check ended: `ok`, `FAIL` with what is wrong and how to mend it, or `-` where it does not apply."""

    check: str
    status: str
    message: str
    mend: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings of one guest, in the order of CHECKS."""

    findings: tuple[Finding, ...] = field(default=())

    @property
    def healthy(self) -> bool:
        """Whether nothing failed."""
        return all(finding.status != FAIL for finding in self.findings)

    def to_dict(self) -> dict[str, t.Any]:
        """Return the JSON form."""
        return {"healthy": self.healthy, "findings": [dataclasses.asdict(finding) for finding in self.findings]}


def diagnose(facts: GuestFacts, wanted: Wanted, vm: VmView | None) -> Diagnosis:
    """Return the findings of one guest; `vm` is None where no vCenter was asked."""
    return Diagnosis(
        (
            _nouveau(facts),
            _driver(facts, wanted),
            _gpu(facts, wanted),
            _licence(facts, wanted),
            _container(facts, wanted),
            _mmio(facts, vm),
            _memory(vm),
            _time(facts, wanted),
        )
    )


def _nouveau(facts: GuestFacts) -> Finding:
    if facts.nouveau_loaded:
        return Finding("nouveau", FAIL, "nouveau is loaded and holds the GPU", f"{_CONVERGE}, then reboot it")
    if not facts.nouveau_blocked:
        return Finding(
            "nouveau", FAIL, "nothing in modprobe.d keeps nouveau out: it may take the GPU at the next boot", _CONVERGE
        )
    return Finding("nouveau", OK, "absent and kept out")


def _driver(facts: GuestFacts, wanted: Wanted) -> Finding:
    if not facts.loaded:
        if not facts.installed:
            return Finding("driver", FAIL, "no driver is installed", _CONVERGE)
        reason = facts.smi_error or "nvidia-smi says nothing"
        return Finding(
            "driver",
            FAIL,
            f"driver {facts.installed} is installed but not loaded: {reason}",
            f"reboot the guest; if that does not help, see `dkms status` and the headers of kernel {facts.kernel}",
        )
    if wanted.driver and facts.loaded != wanted.driver:
        mend = "reboot the guest" if facts.installed == wanted.driver else _CONVERGE
        return Finding("driver", FAIL, f"driver {facts.loaded} is loaded, {wanted.driver} is wanted", mend)
    if facts.installed and facts.installed != facts.loaded:
        return Finding(
            "driver",
            FAIL,
            f"driver {facts.loaded} is loaded, but {facts.installed} is installed",
            "reboot the guest",
        )
    problem = check_guest(wanted.manager, facts.loaded) if wanted.manager else None
    if problem:
        return Finding(
            "driver", FAIL, problem.msg, f"set grid_guest_driver_file to a driver of that release and {_CONVERGE}"
        )
    return Finding("driver", OK, f"{facts.loaded} is loaded")


def _gpu(facts: GuestFacts, wanted: Wanted) -> Finding:
    if len(facts.gpus) >= wanted.gpus:
        return Finding("gpu", OK, f"{len(facts.gpus)} visible: {', '.join(gpu.name for gpu in facts.gpus)}")
    message = f"nvidia-smi sees {len(facts.gpus)} GPU{'' if len(facts.gpus) == 1 else 's'}, {wanted.gpus} wanted"
    if facts.smi_error and facts.loaded:
        message += f" ({facts.smi_error})"
    if len(facts.pci) < wanted.gpus:
        return Finding(
            "gpu",
            FAIL,
            f"{message}; {len(facts.pci)} on the PCI bus",
            "give the VM its GPUs: run playbooks/gpu_vm.yml",
        )
    return Finding(
        "gpu", FAIL, f"{message}, though the PCI bus has {len(facts.pci)}", "read `journalctl -k -g NVRM` on the guest"
    )


def _licence(facts: GuestFacts, wanted: Wanted) -> Finding:
    if not wanted.licence:
        return Finding("licence", UNKNOWN, "not wanted")
    gridd = facts.gridd
    if not gridd.present:
        return Finding("licence", FAIL, "the licence daemon nvidia-gridd is not installed", _CONVERGE)
    if not gridd.active:
        return Finding(
            "licence", FAIL, "nvidia-gridd does not run" + _log(gridd.log), "run `systemctl restart nvidia-gridd`"
        )
    without = [gpu for gpu in facts.gpus if not gpu.licensed]
    if without or not facts.gpus:
        state = without[0].licence or "no licence" if without else "no GPU"
        mend = (
            "run `systemctl restart nvidia-gridd`: its settings are newer than it"
            if gridd.stale
            else "check the token (grid_guest_driver_token) and that the licence server's port 443 is reachable"
        )
        return Finding("licence", FAIL, f"{state}{_log(gridd.log)}", mend)
    return Finding("licence", OK, facts.gpus[0].licence)


def _container(facts: GuestFacts, wanted: Wanted) -> Finding:
    view = facts.container
    if not wanted.container or view is None:
        return Finding("container", UNKNOWN, "no image to look into (gpu_doctor_container_image)")
    if view.error:
        return Finding(
            "container", FAIL, f"{view.image}: {view.error}", "run the role singularity, and see that the image exists"
        )
    if view.gpus < len(facts.gpus) or not view.gpus:
        return Finding(
            "container",
            FAIL,
            f"the container sees {view.gpus} of {len(facts.gpus)} GPUs",
            "run it with --nv, and see that /dev/nvidia* exists on the guest",
        )
    return Finding("container", OK, f"{view.gpus} visible in {view.image}")


def _mmio(facts: GuestFacts, vm: VmView | None) -> Finding:
    missing = [f"{gpu.address} BAR {', '.join(map(str, gpu.unassigned))}" for gpu in facts.pci if gpu.unassigned]
    if missing:
        return Finding("mmio", FAIL, f"no address for {'; '.join(missing)}: the MMIO space is too small", _VM_SETTINGS)
    if vm and vm.mmio:
        return Finding("mmio", FAIL, f"the VM lacks: {'; '.join(vm.mmio)}", _VM_SETTINGS)
    if not facts.pci:
        return Finding("mmio", UNKNOWN, "no GPU on the PCI bus")
    return Finding("mmio", OK, "all BARs have addresses")


def _memory(vm: VmView | None) -> Finding:
    if vm is None:
        return Finding("memory", UNKNOWN, "the vCenter was not asked")
    if vm.memory:
        return Finding("memory", FAIL, f"the VM lacks: {'; '.join(vm.memory)}", _VM_SETTINGS)
    return Finding("memory", OK, "all memory is reserved and locked")


def _time(facts: GuestFacts, wanted: Wanted) -> Finding:
    clock = facts.clock
    if clock.offset_s is not None and abs(clock.offset_s) > wanted.max_offset_s:
        direction = "ahead of" if clock.offset_s > 0 else "behind"
        return Finding(
            "time",
            FAIL,
            f"the clock is {abs(clock.offset_s):.0f} s {direction} the controller's",
            "set the clock (`chronyc makestep`) and see that the guest has a time source",
        )
    if clock.synchronized is False:
        return Finding(
            "time",
            FAIL,
            f"{clock.source} says that the clock is not synchronised",
            "give the guest a time source it can reach (chrony, systemd-timesyncd)",
        )
    if clock.synchronized is None:
        return Finding("time", FAIL, "nothing keeps the clock in step", "install chrony or systemd-timesyncd")
    return Finding("time", OK, f"synchronised, says {clock.source}")


def _log(lines: tuple[str, ...]) -> str:
    return f"; nvidia-gridd says: {lines[-1]}" if lines else ""


def table(diagnoses: t.Mapping[str, Diagnosis | None]) -> str:
    """Return the diagnoses of guests as a table, and below it what failed and how to mend it.

    None stands for a guest that could not be read.
    """
    width = max([len("guest"), *map(len, diagnoses)])
    lines = ["  ".join([f"{'guest':{width}}", *(f"{check:{max(len(check), 4)}}" for check in CHECKS)]).rstrip()]
    details = []
    for guest, diagnosis in diagnoses.items():
        if diagnosis is None:
            lines.append(f"{guest:{width}}  could not be read")
            continue
        status = {finding.check: finding.status for finding in diagnosis.findings}
        cells = (f"{status[check]:{max(len(check), 4)}}" for check in CHECKS)
        lines.append("  ".join([f"{guest:{width}}", *cells]).rstrip())
        for finding in diagnosis.findings:
            if finding.status == FAIL:
                details += [f"{guest}: {finding.check}: {finding.message}", f"  to mend: {finding.mend}"]
    return "\n".join([*lines, "", *(details or ["Nothing to mend."])])
