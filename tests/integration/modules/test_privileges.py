# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each job works with exactly the privileges the table gives it, and says which one is missing without it."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.privileges import ALWAYS, JOBS, MODULES, needed
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import GpuOpsError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import ConnectionOptions
from gpu_vms import TEMPLATE, fixed, vcenter_connection
from simulated import TOP, Vcenter, launch

USER, PASSWORD, ROLE = "robot", "Robot-1-password", "robot"
VERSION, DEPOT = "17.1", "https://depot.lab/vgpu-17.1/metadata.zip"
BUNDLE = "https://depot.lab/vgpu-17.1.zip"
HOST_KEYS = ("id", "address", "class", "name")
GPU_KEYS = ("id", "address", "label", "profile", "name", "at_least_gb", "at_most_gpu", "profile_class")


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A module's work on the nth host or machine, and what it needs."""

    module: str
    params: Callable[[int], dict[str, Any]]
    needs: tuple[str, ...]
    before: Callable[[int], tuple[str, dict[str, Any]]] | None = None
    """What an administrator does first."""

    def __str__(self) -> str:
        return self.module


def host(n: int) -> str:
    return f"esx-{n:03}.lab"


def device(**given: Any) -> dict[str, Any]:
    return dict.fromkeys(HOST_KEYS) | given


def gpu() -> dict[str, Any]:
    return dict.fromkeys(GPU_KEYS) | {"migrate": False, "suspend": False} | fixed()


def passthrough(n: int) -> dict[str, Any]:
    one = {"name": host(n), "devices": [device(id="10de:1eb8")], "hardware_label": "t4"}
    return {"hosts": [one | {"enabled": None, "missing": None}]}


def graphics(n: int, **more: Any) -> dict[str, Any]:
    one: dict[str, Any] = {
        "name": host(n),
        "default_type": "sharedDirect",
        "assignment_policy": None,
        "devices": [],
        "missing": None,
    }
    return {"hosts": [one | {"restart_services": None}], **more}


def driver(n: int) -> dict[str, Any]:
    one = {"name": host(n), "state": "present", "version": VERSION, "bundle": DEPOT, "method": "patch"}
    return {"hosts": [one | dict.fromkeys(("checksum",)) | {"package": ["NVD-*"], "guest_drivers": []}]}


def cluster_image(n: int) -> dict[str, Any]:
    hosts = driver(n)["hosts"]
    return {"hosts": [hosts[0] | {"name": f"image-{n:03}.lab", "method": "image", "bundle": BUNDLE}]}


def member(state: str, **one: Any) -> Callable[[int], dict[str, Any]]:
    def params(n: int) -> dict[str, Any]:
        cluster = f"spare-{n:03}" if state == "member" else None
        return {"hosts": [{"name": host(n), "cluster": cluster, **one}], "state": state, "keep_vms": True}

    return params


def vm(name: str, **more: Any) -> dict[str, Any]:
    texts = dict.fromkeys(("host", "template", "datastore", "folder", "resource_pool", "annotation", "num_cpus"))
    return {"name": name, **texts, "memory_mb": None, **more}


def attach(kind: str, **more: Any) -> Callable[[int], dict[str, Any]]:
    def params(n: int) -> dict[str, Any]:
        one = {"name": f"{kind}-{n:03}", "host": None, "gpus": [gpu()], "memory_mb": 32768, "firmware": "efi"}
        return {"vms": [one], **more}

    return params


def power(kind: str, state: str, **more: Any) -> Callable[[int], dict[str, Any]]:
    return lambda n: {"vms": [f"{kind}-{n:03}"], "state": state, **more}


def shares(n: int) -> dict[str, Any]:
    values = {"shares": "high", "reservation": None, "limit": None}
    return {"vms": [{"name": f"off-{n:03}", "cpu": values, "memory": None}], "pools": None}


MANAGE, SET = "Global.ManageCustomFields", "Global.SetCustomField"
MAINTENANCE = "Host.Config.Maintenance"
ON, OFF, SUSPEND = (f"VirtualMachine.Interact.{verb}" for verb in ("PowerOn", "PowerOff", "Suspend"))
RECONFIGURE = tuple(f"VirtualMachine.Config.{it}" for it in ("AddRemoveDevice", "AdvancedConfig", "Memory", "Resource"))
RAW = ("VirtualMachine.Config.Settings",)
CLONE = (
    "VirtualMachine.Provisioning.DeployTemplate",
    "VirtualMachine.Inventory.CreateFromExisting",
    "Datastore.AllocateSpace",
    "Resource.AssignVMToPool",
)
STOP = {"migrate": False, "shut_down": "force"}
HELD = {"run_id": "r", "owner": "o"}
READ_SOFTWARE = "Host.Config.Image"
EDIT, MOVE = "Host.Inventory.EditCluster", "Host.Inventory.MoveHost"
IMAGE = tuple(
    f"VcIntegrity.lifecycle{it}"
    for it in (
        "Settings.Read", "Settings.Write", "SoftwareSpecification.Read", "SoftwareSpecification.Write",
        "General.Read", "SoftwareRemediation.Read", "SoftwareRemediation.Write", "Health.Read",
    )  # the import first: once it is done, nobody needs it
)  # fmt: skip


def maintenance(**more: Any) -> Callable[[int], dict[str, Any]]:
    return lambda n: {"hosts": [host(n)], **more}


def entered(n: int) -> tuple[str, dict[str, Any]]:
    return "esxi_maintenance", maintenance(**STOP)(n)


def lock(**more: Any) -> Callable[[int], dict[str, Any]]:
    return lambda n: {"clusters": [f"c-{n:03}"], **HELD, **more}


SCENARIOS = [
    Scenario("esxi_gpu_info", lambda n: {"hosts": [host(n)]}, ()),
    Scenario("esxi_passthrough", passthrough, ("Host.Config.PciPassthru",)),
    Scenario("esxi_graphics", graphics, ("Host.Config.Settings",)),
    Scenario(
        "esxi_graphics",
        lambda n: graphics(n, restart_services=True),
        ("Host.Config.Settings", "Host.Config.NetService"),
        entered,
    ),
    Scenario("esxi_driver", driver, (READ_SOFTWARE, "Host.Config.Patch", SET), entered),
    Scenario(
        "esxi_driver",
        cluster_image,
        (READ_SOFTWARE, SET, *IMAGE),
        lambda n: ("esxi_maintenance", {"hosts": [f"image-{n:03}.lab"]}),
    ),
    Scenario("cluster_member", member("standalone"), (MOVE, SET), entered),
    Scenario("cluster_member", member("member"), (EDIT, MOVE), entered),
    Scenario(
        "cluster_member",
        member("removed"),
        ("Host.Config.Connection", "Host.Inventory.RemoveHostFromCluster", SET),
        entered,
    ),
    Scenario("advanced_options", lambda n: {"vcenter": {f"config.test.{n}": "1"}}, ("Global.Settings",)),
    Scenario(
        "advanced_options",
        lambda n: {"clusters": [{"name": f"c-{n:03}", "drs_options": {"LBMaxVmotionPerHost": "1"}}]},
        (EDIT,),
    ),
    Scenario("esxi_maintenance", maintenance(), (MANAGE, SET, "Resource.HotMigrate", MAINTENANCE)),
    Scenario("esxi_maintenance", maintenance(**STOP), (MANAGE, SET, OFF, MAINTENANCE)),
    Scenario(
        "esxi_maintenance",
        maintenance(state="left"),
        (SET, MAINTENANCE, ON),
        lambda n: ("esxi_maintenance", maintenance(**STOP)(n)),
    ),
    Scenario(
        "esxi_power", lambda n: {"hosts": [host(n)], "always": [host(n)], "force": True}, (MANAGE, SET, MAINTENANCE)
    ),
    Scenario("vm_gpu", attach("off"), RECONFIGURE),
    Scenario("vm_gpu", attach("raw"), (*RECONFIGURE, *RAW)),
    Scenario("vm_gpu", attach("on", power="force"), (MANAGE, SET, ON, OFF, *RECONFIGURE)),
    Scenario("vm_power", power("off", "on"), (ON,)),
    Scenario("vm_power", power("on", "off", force=True), (OFF,)),
    Scenario("vm_power", power("on", "suspended"), (SUSPEND,)),
    Scenario("vm_power", power("on", "suspended", lend=True), (MANAGE, SET, SUSPEND)),
    Scenario("vm_power", power("on", "resumed"), (ON,), lambda n: ("vm_power", power("on", "suspended")(n))),
    Scenario(
        "vm_power",
        lambda n: {"vms": [f"off-{n:03}"], "state": "on", "hosts": {f"off-{n:03}": f"spare-{n:03}.lab"}},
        ("Resource.ColdMigrate", ON),
    ),
    Scenario("vm_shares", shares, ("VirtualMachine.Config.Resource",)),
    Scenario("vm_shares", lambda n: shares(n) | {"remember": True}, (MANAGE, SET, "VirtualMachine.Config.Resource")),
    Scenario("vm_group", lambda n: {"vms": [vm(f"new-{n}", host=host(n), template=TEMPLATE)]}, CLONE),
    Scenario(
        "vm_group",
        lambda n: {"vms": [vm(f"on-{n:03}")], "state": "absent", "force_power_off": True},
        ("VirtualMachine.Inventory.Delete", OFF),
    ),
    Scenario("gpu_lock", lock(), ("Folder.Create", MANAGE, SET, "Folder.Rename")),
    Scenario("gpu_lock", lock(state="released"), ("Folder.Delete",), lambda n: ("gpu_lock", lock()(n))),
    Scenario("vcenter_role", lambda n: {"name": f"role-{n}", "jobs": ["site"]}, ("Authorization.ModifyRoles",)),
]
# Needed in cases that are not shown here: a machine suspended for maintenance, CPU hot-add to be switched off, shares
# of a pool, a template's networks (which the simulator does not check), and intents of modules that write them only
# for what a run has begun.
ELSEWHERE = {
    "esxi_maintenance": {SUSPEND},
    "esxi_driver": {MANAGE},
    "cluster_member": {MANAGE},
    "vm_gpu": {"VirtualMachine.Config.CPUCount"},
    "vm_shares": {"Resource.EditPool"},
    "vm_group": {"Network.Assign"},
}


def model(count: int) -> dict[str, Any]:
    shape = {"firmware": "efi", "hardware_version": 21, "memory_mb": 16384}
    gpus = [{"gpu": "V100-32", "count": 2, "passthrough": True}, {"gpu": "T4", "count": 1}]
    return {
        "datacenter": "lab",
        "datastores": [{"name": "shared-01"}],
        "networks": [{"name": "VM Network"}],
        "clusters": [
            {"name": f"c-{n:03}", "hosts": [{"name": host(n), "gpus": gpus}, {"name": f"spare-{n:03}.lab"}]}
            for n in range(1, count + 1)
        ]
        + [{"name": f"spare-{n:03}"} for n in range(1, count + 1)]
        + [
            {"name": f"imaged-{n:03}", "image": {}, "hosts": [{"name": f"image-{n:03}.lab", "gpus": gpus}]}
            for n in range(1, count + 1)
        ],
        "depots": {url: [{"version": VERSION, "vgpu_manager": VERSION}] for url in (DEPOT, BUNDLE)},
        "templates": [{"name": TEMPLATE, "folder": "templates", **shape}],
        "vms": [
            {"name": f"{kind}-{n:03}", "host": host(n), "power": kind, **shape}
            for kind in ("on", "off")
            for n in range(1, count + 1)
        ]
        + [
            {"name": f"raw-{n:03}", "host": host(n), "power": "off", **shape, "firmware": "bios"}
            for n in range(1, count + 1)
        ],
        "roles": {ROLE: []},
        "users": [{"name": USER, "password": PASSWORD, "role": ROLE}],
    }


def attempt(vcenter: Vcenter, module: str, params: dict[str, Any], user: str | None = None) -> list[tuple[str, str]]:
    """Read, plan and apply; code and message of all that failed."""
    code: Any = importlib.import_module(f"ansible_collections.gpuops.vsphere.plugins.modules.{module}")
    defaults = {name: option.get("default") for name, option in code.argument_spec().items()}
    bounds = {"timeout": 60, "max_parallel": 4, "assume": {"hosts": {}, "vms": {}}, "object_errors": "fail"}
    given = {**defaults, **bounds, **params}
    options = {"validate_certs": True, "thumbprint": None, **vcenter.options()}
    if user is not None:
        options |= {"username": user, "password": PASSWORD}
    try:
        with Client.open(ConnectionOptions.from_params(options)) as client:
            facts = code.read(client, given)
            planned = code.plan(facts, given)
            done = code.apply(client, facts, planned, given) if planned.todo else {}
    except GpuOpsError as error:
        return [(error.code, error.msg)]
    outcomes = [*planned.plans.values(), *done.values()]
    return [(problem.code, problem.msg) for outcome in outcomes for problem in outcome.problems]


def allow(vcenter: Vcenter, privileges: set[str]) -> None:
    with vcenter_connection(vcenter) as content:
        manager = content.authorizationManager
        role = next(role for role in manager.roleList if role.name == ROLE)
        manager.UpdateAuthorizationRole(role.roleId, ROLE, sorted(privileges))


def forget_attributes(vcenter: Vcenter) -> None:
    with vcenter_connection(vcenter) as content:
        for field in content.customFieldsManager.field:
            content.customFieldsManager.RemoveCustomFieldDef(field.key)


@pytest.fixture(scope="module")
def vcenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcenter]:
    running = launch(tmp_path_factory.mktemp("privileges") / "vcenter", model(1))
    try:
        yield running
    finally:
        running.stop()


def numbered() -> list[Any]:
    return [pytest.param(one, id=f"{number}-{one.module}") for number, one in enumerate(SCENARIOS)]


@pytest.mark.parametrize("scenario", numbered())
def test_each_missing_privilege_is_named_and_all_of_them_are_enough(tmp_path: Path, scenario: Scenario) -> None:
    running = launch(tmp_path / "vcenter", model(len(scenario.needs) + 1))
    try:
        everything = set(scenario.needs)
        assert everything <= {need.privilege for need in MODULES[scenario.module]}
        for number, privilege in enumerate([*scenario.needs, None], start=1):
            if MANAGE in everything:
                forget_attributes(running)
            if scenario.before is not None:
                assert attempt(running, *scenario.before(number)) == []
            allow(running, everything - {privilege})
            failures = attempt(running, scenario.module, scenario.params(number), USER)
            if privilege is None:
                assert failures == []
                continue
            named = rf"lacks the privilege {re.escape(privilege)} on \S+"
            found = [re.search(named, msg) for _code, msg in failures]
            assert any(found), (privilege, failures)
    finally:
        running.stop()


def test_the_table_says_what_every_module_needs() -> None:
    modules = {
        path.stem
        for path in (TOP / "plugins" / "modules").glob("*.py")
        if "module_utils.vsphere.client import" in path.read_text()
    }
    assert modules == set(MODULES)
    for module, needs in MODULES.items():
        shown = {privilege for scenario in SCENARIOS if scenario.module == module for privilege in scenario.needs}
        assert shown | ELSEWHERE.get(module, set()) == {need.privilege for need in needs}, module
    assert {module for job in JOBS.values() for module in job} == set(MODULES) - {"vcenter_role"}
    assert not set(needed(JOBS)) & set(ALWAYS)


def test_the_role_is_made_brought_up_to_date_and_left_alone(vcenter: Vcenter) -> None:
    made = vcenter.ok("vcenter_role", check=True, jobs=["passthrough"], diff=True)
    assert made["changed"] is True
    assert "Host.Config.PciPassthru" in made["privileges"]
    assert vcenter.ok("vcenter_role", jobs=["passthrough"])["changed"] is True
    assert vcenter.ok("vcenter_role", jobs=["passthrough"])["changed"] is False
    more = vcenter.ok("vcenter_role", jobs=["power"])
    assert "remove Host.Config.PciPassthru" in more["objects"]["gpuops"]["actions"]
    assert more["requests"]["UpdateAuthorizationRole"] == 1
    with vcenter_connection(vcenter) as content:
        role = next(role for role in content.authorizationManager.roleList if role.name == "gpuops")
    assert set(role.privilege) == {*needed(["power"]), *ALWAYS}


def test_what_an_older_vcenter_does_not_know_is_left_out_and_named(tmp_path: Path) -> None:
    running = launch(tmp_path / "vcenter", model(1) | {"api_version": "6.7.3"})
    try:
        made = running.ok("vcenter_role", jobs=["driver"])
        assert set(made["unknown"]) == {*IMAGE}
        assert set(made["privileges"]) == set(needed(["driver"])) - {*IMAGE}
        assert made["objects"]["gpuops"]["warnings"] == [
            f"This vCenter does not know the privileges {', '.join(sorted(IMAGE))} (for esxi_driver): the role goes "
            "without them. Later versions have them."
        ]
        again = running.ok("vcenter_role", jobs=["driver"])
        assert again["changed"] is False
        lacking = running.ok("vcenter_privileges_info", jobs=[{"name": "driver"}], object_errors="report")
        assert lacking["missing"] == []
        robot = {"username": USER, "password": PASSWORD}
        asked = running.ok("vcenter_privileges_info", jobs=[{"name": "driver"}], object_errors="report", **robot)
        assert {one["privilege"] for one in asked["missing"]} == set(made["privileges"])
    finally:
        running.stop()


def test_the_page_shows_the_table() -> None:
    page = (TOP / "docs" / "least-privilege.md").read_text()
    for job, modules in JOBS.items():
        assert f"| `{job}` | {', '.join(f'`{one}`' for one in dict.fromkeys(modules))} |\n" in page
    for module, needs in MODULES.items():
        for need in needs:
            calls = ", ".join(f"`{call}`" for call in need.calls)
            assert f"| `{module}` | `{need.privilege}` | {need.on} | {calls} | {need.reason} |\n" in page
