# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The shell of every module: facts -> plan -> show or apply -> report, and the one way to fail.

A module gives three functions. `read` gets all facts in bulk, `plan` is pure, and `apply` carries the
plan out; check mode leaves out `apply` and shares every other line with a real run.
"""

from __future__ import annotations

import dataclasses
import signal
import types
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts, assume_hosts, without_vms
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.plan import ObjectPlan, Problem, diff, result
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import GpuOpsError, InputError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import (
    ConnectionOptions,
    Spec,
    bulk_spec,
    connection_spec,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import IMPORT_ERROR
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import TaskOutcome

F = t.TypeVar("F")

Params = t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Planned:
    """What a planner found: one plan for each object, and the facts it predicts."""

    plans: t.Mapping[str, ObjectPlan]
    """In the order they are reported."""
    hosts: t.Mapping[str, t.Mapping[str, t.Any]] = dataclasses.field(default_factory=dict)
    """Predicted facts of hosts, only what changes (`facts.predicted_host`)."""
    vms: t.Mapping[str, t.Mapping[str, t.Any] | None] = dataclasses.field(default_factory=dict)
    """Predicted facts of virtual machines (`facts.to_dict`), None for those that are deleted."""
    returns: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    """Further return values of the module."""
    work: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    """What `apply` needs to know of each object beside its changes, as the planner's own type."""
    warnings: tuple[str, ...] = ()
    """Of no single object."""
    always: bool = False
    """Whether `apply` is to be called where nothing changes, too; such as to note the time."""

    @property
    def todo(self) -> tuple[str, ...]:
        """Names of the objects that change and that nothing stands in the way of."""
        return tuple(name for name, plan in self.plans.items() if plan.changed)


@dataclasses.dataclass(frozen=True, slots=True)
class Applied:
    """What was really done to one object."""

    changed: bool
    problems: tuple[Problem, ...] = ()
    notes: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    """Replace the plan's notes of the same name."""


def applied(outcomes: t.Mapping[str, TaskOutcome]) -> dict[str, Applied]:
    """The usual report: an object changed if its operation succeeded or goes on, and failed with its error."""
    return {
        name: Applied(changed=True)
        if outcome.error is None
        # A time-out without a fault is ours: the vCenter carries on.
        else Applied(
            changed=outcome.begun or (outcome.error.code == "timeout" and outcome.error.fault is None),
            problems=(problem(name, outcome.error),),
        )
        for name, outcome in outcomes.items()
    }


def problem(name: str, error: GpuOpsError) -> Problem:
    """An error met while applying, as an entry of the object's result."""
    text = error.msg.removeprefix(f"{name}: ")
    return Problem(code=error.code, object=name, msg=text, kind="state", fault=error.fault)


def with_assumed(hosts: t.Mapping[str, HostFacts], params: Params) -> dict[str, HostFacts]:
    """The hosts' facts with `assume` laid over them. Raises InputError for fields that no host has."""
    try:
        return without_vms(assume_hosts(hosts, params["assume"]["hosts"]), assumed_gone(params))
    except (TypeError, ValueError) as error:
        raise InputError(f"assume.hosts is not what the return value predicted shows: {error}.") from error


def assumed_gone(params: Params) -> frozenset[str]:
    """Names of the virtual machines that an earlier step is going to delete."""
    return frozenset(name for name, fields in (params["assume"].get("vms") or {}).items() if fields is None)


Read = t.Callable[[Client, Params], F]
Plan = t.Callable[[F, Params], Planned]
Apply = t.Callable[[Client, F, Planned, Params], t.Mapping[str, Applied]]


def bulk_module(
    argument_spec: Spec,
    *,
    read: Read[F],
    plan: Plan[F],
    apply: Apply[F] | None = None,
    prepare: t.Callable[[AnsibleModule], None] | None = None,
    **module_args: t.Any,
) -> t.NoReturn:
    """Run a module that acts on many objects.

    `apply` carries out `Planned.todo`, reports on each, and raises only when it could not begin. `prepare`
    checks options further, before anything is connected to; it raises InputError. `assume` is passed
    to the planner in `params` in check mode only: in a real run the vCenter's facts are the truth.
    """
    module = AnsibleModule(
        argument_spec={**connection_spec(), **bulk_spec(), **argument_spec}, supports_check_mode=True, **module_args
    )
    if IMPORT_ERROR is not None:
        module.fail_json(
            msg=missing_required_lib("pyvmomi"),
            exception=IMPORT_ERROR,
            failure={"code": "library_missing", "object": None, "fault": None},
        )
    _interrupt_on_terminate()
    requests: dict[str, int] = {}
    try:
        if prepare is not None:
            prepare(module)
        report = _run(module, read, plan, apply, requests)
    except GpuOpsError as error:
        module.fail_json(msg=error.msg, failure=error.failure, requests=requests)
    except KeyboardInterrupt:
        module.fail_json(
            msg="Interrupted. What was begun goes on in the vCenter; run again to carry on from there.",
            failure={"code": "interrupted", "object": None, "fault": None},
            requests=requests,
        )
    failed = [name for name, entry in report["objects"].items() if entry["failed"]]
    if failed and module.params["object_errors"] == "fail":
        module.fail_json(**_failure(report, failed))
    module.exit_json(**report)
    raise AssertionError  # exit_json does not return


def _run(
    module: AnsibleModule, read: Read[F], plan: Plan[F], apply: Apply[F] | None, requests: dict[str, int]
) -> dict[str, t.Any]:
    params = {**module.params, "assume": _assume(module)}
    done: t.Mapping[str, Applied] = {}
    client = Client.open(ConnectionOptions.from_params(params))
    try:
        facts = read(client, params)
        planned = plan(facts, params)
        if (planned.todo or planned.always) and apply is not None and not module.check_mode:
            done = apply(client, facts, planned, params)
    finally:
        client.close()
        requests.update(sorted(client.requests.items()))
    return _report(module, planned, done, requests)


def _assume(module: AnsibleModule) -> dict[str, dict[str, t.Any]]:
    given = module.params.get("assume") or {}
    if not module.check_mode:
        given = {}
    return {"hosts": given.get("hosts") or {}, "vms": given.get("vms") or {}}


def _report(
    module: AnsibleModule, planned: Planned, done: t.Mapping[str, Applied], requests: t.Mapping[str, int]
) -> dict[str, t.Any]:
    results = {name: _entry(item, done.get(name)) for name, item in planned.plans.items()}
    report: dict[str, t.Any] = {
        **planned.returns,
        "changed": any(entry["changed"] for entry in results.values()),
        # Not "results": Ansible keeps that key for loops, and ansible-core 2.19 renames it with a warning.
        "objects": results,
        "predicted": {"hosts": dict(planned.hosts), "vms": dict(planned.vms)},
        "requests": dict(requests),
    }
    # With object_errors=report, host_result shows each host its own.
    if module.params["object_errors"] == "fail":
        texts = (text for entry in results.values() for text in entry["warnings"])
        for warning in dict.fromkeys([*planned.warnings, *texts]):
            module.warn(warning)
        report["diff"] = [diff(item) for item in planned.plans.values() if item.changed]
    return report


def _entry(plan: ObjectPlan, done: Applied | None) -> dict[str, t.Any]:
    if done is None:
        return result(plan)
    whole = dataclasses.replace(plan, problems=(*plan.problems, *done.problems), notes={**plan.notes, **done.notes})
    return result(whole, changed=done.changed)


def _failure(report: dict[str, t.Any], failed: list[str]) -> dict[str, t.Any]:
    results = report["objects"]
    texts = [results[name]["msg"] for name in failed]
    head = f"{len(failed)} of {len(results)} failed. " if len(results) > 1 else ""
    return {**report, "msg": head + "\n".join(texts), "failure": results[failed[0]]["failure"]}


def _interrupt_on_terminate() -> None:
    """Make SIGTERM end the run as Ctrl-C does: what was done is reported."""

    def handler(_number: int, _frame: types.FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handler)
