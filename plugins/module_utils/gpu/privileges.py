# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which vCenter privileges each module and job needs, and which call asks for them.

Sources: the vSphere Web Services API reference, which names for each method its required privileges, and pyVmomi's
registry, which carries the same (`info.privId`). `ReconfigVM_Task` and `CloneVM_Task` check several, by what changes.
For cluster images the vSphere Automation API reference, which says of each operation what executing it requires, and
that the same is required on the cluster it names: esx/settings/depots/offline, depot-content/components,
clusters/{cluster}/software and its drafts; and vSphere Security 8.0, Lifecycle Manager General privileges, for tasks.
"""

from __future__ import annotations

import dataclasses
import typing as t

ALWAYS = ("System.Anonymous", "System.Read", "System.View")
"""In every role of a vCenter; enough to read."""

On = t.Literal["host", "vm", "template", "folder", "datastore", "pool", "root", "cluster", "network"]


@dataclasses.dataclass(frozen=True, slots=True)
class Need:
    """A privilege, the kind of object it is needed on, and the calls that ask for it."""

    privilege: str
    on: On
    calls: tuple[str, ...]
    reason: str = ""
    """When it is needed, if not always."""
    case: str = ""
    """The use of the module that it is for, in one word, where a run may do without."""
    attribute: str = ""
    """The custom attribute that it is for: not needed any more once that is defined."""
    planning: bool = False
    """Needed to work out what is to be done already, and so in check mode, too."""


def _intent(on: On, reason: str = "", case: str = "") -> tuple[Need, ...]:
    once = "once, for the attribute gpuops.intent"
    return (
        Need("Global.ManageCustomFields", "root", ("AddCustomFieldDef",), once, case, "gpuops.intent"),
        Need("Global.SetCustomField", on, ("SetField",), reason, case),
    )


def _image(privilege: str, *calls: str, reason: str = "method: image", planning: bool = False) -> Need:
    return Need(f"VcIntegrity.{privilege}", "root", calls, reason, "image", planning=planning)


_SOFTWARE = "clusters/{cluster}/software"
_POWER_OFF = ("PowerOffVM_Task", "ShutdownGuest")
_MAINTENANCE = ("EnterMaintenanceMode_Task", "ExitMaintenanceMode_Task")

MODULES: dict[str, tuple[Need, ...]] = {
    "esxi_gpu_info": (),
    "fleet_report": (),
    "gpu_placement": (),
    "harvest_plan": (),
    "harvest_report": (),
    "gpu_plan": (),
    "advanced_options": (
        Need("Global.Settings", "root", ("UpdateOptions",), "settings of the vCenter", "vcenter"),
        Need("Host.Inventory.EditCluster", "cluster", ("ReconfigureComputeResource_Task",), "options of DRS", "drs"),
    ),
    "cluster_member": (
        *_intent("host", "a host whose work a run has begun", "begun"),
        Need("Host.Inventory.EditCluster", "cluster", ("MoveHostInto_Task",), "into a cluster", "member"),
        Need("Host.Inventory.MoveHost", "host", ("MoveHostInto_Task", "MoveIntoFolder_Task")),
        Need("Host.Inventory.RemoveHostFromCluster", "host", ("Destroy_Task",), "out of the vCenter", "removed"),
        Need("Host.Config.Connection", "host", ("DisconnectHost_Task",), "out of the vCenter", "removed"),
    ),
    "esxi_passthrough": (Need("Host.Config.PciPassthru", "host", ("UpdatePassthruConfig",)),),
    "esxi_graphics": (
        Need("Host.Config.Settings", "host", ("UpdateGraphicsConfig",)),
        Need("Host.Config.NetService", "host", ("RestartService",), "restart_services: true", "restart_services"),
    ),
    "esxi_maintenance": (
        *_intent("host"),
        Need("Host.Config.Maintenance", "host", _MAINTENANCE),
        Need(
            "Resource.HotMigrate",
            "vm",
            ("RelocateVM_Task", "MigrateVM_Task"),
            "migrate: true, running machines",
            "migrate",
        ),
        Need("VirtualMachine.Interact.PowerOff", "vm", _POWER_OFF, "shut_down: guest or force", "shut_down"),
        Need(
            "VirtualMachine.Interact.PowerOn", "vm", ("PowerOnVM_Task",), "restore: true, what was stopped", "shut_down"
        ),
        Need("VirtualMachine.Interact.Suspend", "vm", ("SuspendVM_Task",), "suspend: true", "suspend"),
    ),
    "esxi_power": (*_intent("host"), Need("Host.Config.Maintenance", "host", ("RebootHost_Task",))),
    "esxi_driver": (
        *_intent("host"),
        Need("Host.Config.Image", "host", ("FetchSoftwarePackages",), "in check mode, too", planning=True),
        Need(
            "Host.Config.Patch",
            "host",
            ("InstallHostPatchV2_Task", "UninstallHostPatch_Task"),
            "method: patch",
            "patch",
        ),
        _image(
            "lifecycleSoftwareSpecification.Read",
            f"GET {_SOFTWARE}/components",
            f"GET {_SOFTWARE}/drafts",
            f"GET {_SOFTWARE}/drafts/{{draft}}/software/components",
            reason="clusters with an image; in check mode, too",
            planning=True,
        ),
        _image(
            "lifecycleSoftwareSpecification.Write",
            f"POST {_SOFTWARE}/drafts",
            f"PATCH {_SOFTWARE}/drafts/{{draft}}/software/components",
            f"POST {_SOFTWARE}/drafts/{{draft}}?action=commit",
            f"DELETE {_SOFTWARE}/drafts/{{draft}}",
        ),
        _image(
            "lifecycleSettings.Read",
            "GET depots/offline",
            "GET depots/offline/{depot}/content",
            "GET depot-content/components",
        ),
        _image("lifecycleSettings.Write", "POST depots/offline"),
        _image("lifecycleGeneral.Read", "GET /api/cis/tasks"),
        _image("lifecycleSoftwareRemediation.Read", f"POST {_SOFTWARE}?action=check"),
        _image("lifecycleSoftwareRemediation.Write", f"POST {_SOFTWARE}?action=apply"),
        _image("lifecycleHealth.Read", f"POST {_SOFTWARE}?action=check", f"POST {_SOFTWARE}?action=apply"),
    ),
    "vm_gpu": (
        *_intent("vm", "power: allow or force", "power"),
        Need("VirtualMachine.Config.AddRemoveDevice", "vm", ("ReconfigVM_Task",)),
        Need("VirtualMachine.Config.AdvancedConfig", "vm", ("ReconfigVM_Task",), "64-bit MMIO"),
        Need("VirtualMachine.Config.Memory", "vm", ("ReconfigVM_Task",), "memory size, memory hot-add"),
        Need("VirtualMachine.Config.Resource", "vm", ("ReconfigVM_Task",), "all memory reserved"),
        Need("VirtualMachine.Config.CPUCount", "vm", ("ReconfigVM_Task",), "CPU hot-add", "seldom"),
        Need("VirtualMachine.Config.Settings", "vm", ("ReconfigVM_Task",), "firmware, device groups", "seldom"),
        Need("VirtualMachine.Interact.PowerOff", "vm", _POWER_OFF, "power: allow or force", "power"),
        Need("VirtualMachine.Interact.PowerOn", "vm", ("PowerOnVM_Task",), "power: allow or force", "power"),
    ),
    "vm_group": (
        Need("VirtualMachine.Provisioning.DeployTemplate", "template", ("CloneVM_Task",)),
        Need("VirtualMachine.Inventory.CreateFromExisting", "folder", ("CloneVM_Task",)),
        Need("Datastore.AllocateSpace", "datastore", ("CloneVM_Task",)),
        Need("Resource.AssignVMToPool", "pool", ("CloneVM_Task",)),
        Need("Network.Assign", "network", ("CloneVM_Task",), "templates with network cards", "seldom"),
        Need("VirtualMachine.Inventory.Delete", "vm", ("Destroy_Task",), "state: absent", "absent"),
        Need("VirtualMachine.Interact.PowerOff", "vm", _POWER_OFF, "state: absent, force_power_off: true", "absent"),
    ),
    "vm_power": (
        Need("VirtualMachine.Interact.PowerOn", "vm", ("PowerOnVM_Task",), "state: on or resumed", "on"),
        Need("VirtualMachine.Interact.PowerOff", "vm", _POWER_OFF, "state: off", "off"),
        Need("VirtualMachine.Interact.Suspend", "vm", ("SuspendVM_Task",), "state: suspended", "suspended"),
        Need("Resource.ColdMigrate", "vm", ("RelocateVM_Task",), "hosts", "move"),
        *_intent("vm", "lend: true", "lend"),
    ),
    "vm_shares": (
        Need("VirtualMachine.Config.Resource", "vm", ("ReconfigVM_Task",), "vms"),
        Need("Resource.EditPool", "pool", ("UpdateConfig",), "pools", "pools"),
        Need(
            "Global.ManageCustomFields",
            "root",
            ("AddCustomFieldDef",),
            "once, for the attribute gpuops.shares",
            "remember",
            "gpuops.shares",
        ),
        Need(
            "Global.SetCustomField",
            "vm",
            ("SetField",),
            "remember: true, state: restored; on pools likewise",
            "remember",
        ),
    ),
    "gpu_lock": (
        Need(
            "Global.ManageCustomFields",
            "root",
            ("AddCustomFieldDef",),
            "once, for the attribute gpuops.lock",
            attribute="gpuops.lock",
        ),
        Need("Global.SetCustomField", "root", ("SetField",)),
        Need("Folder.Create", "root", ("CreateFolder",)),
        Need("Folder.Rename", "root", ("Rename_Task",)),
        Need("Folder.Delete", "root", ("Destroy_Task",)),
    ),
    "vcenter_privileges_info": (),
    "vcenter_role": (
        Need(
            "Authorization.ModifyRoles", "root", ("AddAuthorizationRole", "UpdateAuthorizationRole"), "an administrator"
        ),
    ),
}
"""What a module needs beyond reading."""

CASES = tuple(sorted({need.case for needs in MODULES.values() for need in needs if need.case}))

_REBOOT = ("gpu_lock", "esxi_maintenance", "esxi_power")
_ROLLING = ("esxi_passthrough", *_REBOOT)
_VMS = ("vm_group", "vm_gpu", "vm_power")  # shares of machines need nothing that GPUs do not
_COMPARED = ("esxi_passthrough", "esxi_driver", "esxi_graphics", *_VMS, "vm_shares")

JOBS: dict[str, tuple[str, ...]] = {
    "validate": (*_COMPARED, "vcenter_privileges_info"),
    "inventory": ("esxi_gpu_info",),
    "report": (*_COMPARED, "fleet_report"),
    "placement": ("gpu_placement",),
    "passthrough": _ROLLING,
    "graphics": ("esxi_graphics", *_REBOOT),
    "driver": ("esxi_driver", *_REBOOT),
    "rolling": _REBOOT,
    "vms": _VMS,
    "power": ("vm_power",),
    "harvest": ("harvest_plan", "gpu_lock", *_VMS),
    "shares": ("vm_shares", "harvest_report"),
    "lock": ("gpu_lock",),
    "cluster": ("advanced_options", "cluster_member"),
    "expand": ("gpu_plan", "cluster_member", *_ROLLING, "esxi_graphics", "esxi_driver", *_VMS),
    "site": (*_ROLLING, "esxi_graphics", "esxi_driver", *_VMS),
}
"""Modules of each job; `esxi_gpu_info` stands for reading alone."""

PLAN_ONLY = frozenset({"validate", "report"})
"""Jobs that compare with what is wanted, and run their modules in check mode only."""


def needs_of(job: str, module: str) -> tuple[Need, ...]:
    """What a module needs in a job."""
    return tuple(need for need in MODULES[module] if need.planning or job not in PLAN_ONLY)


def needed(jobs: t.Iterable[str]) -> dict[str, list[str]]:
    """Privilege -> modules that need it, for some jobs. Raises KeyError for a job there is not."""
    found: dict[str, list[str]] = {}
    for job in jobs:
        for module in JOBS[job]:
            for need in needs_of(job, module):
                if module not in found.setdefault(need.privilege, []):
                    found[need.privilege].append(module)
    return dict(sorted(found.items()))


def asked_by(verb: str, path: str) -> tuple[str, ...]:
    """The privileges that a call about cluster images asks for; none for another call."""
    bare = path.removesuffix("vmw-task=true").rstrip("?&")
    call = f"{verb} {bare.removeprefix('/api/esx/settings/')}"
    return tuple(need.privilege for needs in MODULES.values() for need in needs if call in need.calls)
