# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The memory across runs: custom attributes on hosts, virtual machines and pools, above all `gpuops.intent`."""

from __future__ import annotations

import datetime
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import Intent
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.collector import paths, retrieve, start
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.convert import format_intent, iso
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import from_fault
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim, vmodl
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.reads import INTENT_ATTRIBUTE
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.tasks import TaskOutcome, run_calls


def now() -> str:
    """The time for `Intent.started`."""
    return str(iso(datetime.datetime.now(datetime.UTC)))


def vcenter_time(client: Client) -> str:
    """The vCenter's own time, in the form of `now`. Raises GpuOpsError."""
    service = vim.ServiceInstance("ServiceInstance", client.stub)
    return str(iso(client.read(service.CurrentTime)))


def write_intents(
    client: Client, intents: t.Mapping[str, tuple[t.Any, Intent | None]], *, max_parallel: int
) -> dict[str, TaskOutcome]:
    """Set each named object's intent, or clear it with None: `{name: (managed object, intent)}`.

    Defines the attribute when it is not there yet. Raises GpuOpsError when it cannot be defined; a
    failure for one object is in its outcome.
    """
    texts = {name: (ref, format_intent(intent)) for name, (ref, intent) in intents.items()}
    return write_attribute(client, INTENT_ATTRIBUTE, texts, max_parallel=max_parallel)


def write_attribute(
    client: Client, attribute: str, texts: t.Mapping[str, tuple[t.Any, str]], *, max_parallel: int
) -> dict[str, TaskOutcome]:
    """Set a custom attribute of each named object: `{name: (managed object, text)}`, an empty text clears it.

    Defines the attribute when it is not there yet. Raises GpuOpsError when it cannot be defined; a
    failure for one object is in its outcome.
    """
    if not texts:
        return {}
    key = _ensure_attribute(client, attribute)
    manager = t.cast("vim.CustomFieldsManager", client.content.customFieldsManager)

    def setter(ref: t.Any, text: str) -> t.Callable[[], None]:
        return lambda: manager.SetField(ref, key, text)

    calls = {name: setter(ref, text) for name, (ref, text) in texts.items()}
    return run_calls(client, calls, max_parallel=max_parallel, doing=f"write the attribute {attribute}")


def _ensure_attribute(client: Client, attribute: str) -> int:
    key = attribute_key(client, attribute)
    if key is not None:
        return key
    manager = t.cast("vim.CustomFieldsManager", client.content.customFieldsManager)
    try:
        return int(manager.AddCustomFieldDef(attribute, None, None, None).key)
    except vim.fault.DuplicateName as fault:
        # Another process was faster.
        key = attribute_key(client, attribute)
        if key is None:
            raise from_fault(fault, object=attribute, doing="define the custom attribute") from fault
        return key
    except vmodl.MethodFault as fault:
        raise from_fault(fault, doing=f"define the custom attribute {attribute}", names=client.names) from fault


def attribute_key(client: Client, attribute: str) -> int | None:
    """The key of a custom attribute, None where it is not defined. Raises GpuOpsError."""
    manager = client.content.customFieldsManager
    rows = retrieve(client, lambda: [start(manager)], [paths(vim.CustomFieldsManager, "field")])
    for row in rows:
        for field in row.props.get("field") or ():
            if field.name == attribute:
                return int(field.key)
    return None
