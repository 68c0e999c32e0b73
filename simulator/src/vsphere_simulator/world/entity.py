"""What every inventory object has besides its kind's own: custom values, renaming, faults of common mistakes."""

from __future__ import annotations

import asyncio
import typing as t

from vsphere_simulator.kernel.objects import ManagedEntity, method, prop
from vsphere_simulator.vmomi import make, support, vim, vmodl

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context, ManagedObject
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.custom_fields import CustomFieldsManager
    from vsphere_simulator.world.folders import Folder
    from vsphere_simulator.world.site import Site

MAX_NAME = 80
"""Longest name of an entity in vCenter."""


class Signal:
    """Something that coroutines wait for again and again."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def fire(self) -> None:
        """Wake everyone who waits now."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def wait(self, real_seconds: float | None) -> bool:
        """Wait for the next `fire`; False when so many real seconds have passed without one."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait_for(future, real_seconds)
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(future)
        return True


class Entity(ManagedEntity):
    """An object of the inventory tree."""

    rename_privilege: t.ClassVar[str] = "Folder.Rename"
    parent: t.Any

    def __init__(self, site: Site, moid: str, name: str, parent: ManagedObject | None) -> None:
        super().__init__(site.world, moid)
        self.site = site
        self.name = name
        self.parent = parent
        self.custom_values: dict[int, str] = {}

    @property
    def _fields(self) -> CustomFieldsManager | None:
        return t.cast("CustomFieldsManager | None", self.world.content.get("customFieldsManager"))

    @prop("customValue", "value", "summary.customValue")
    def _custom_values(self) -> list[t.Any]:
        value_type = vim.CustomFieldsManager.StringValue
        return [make(value_type, key=key, value=value) for key, value in sorted(self.custom_values.items())]

    @prop("availableField")
    def _available_fields(self) -> list[t.Any]:
        return self._fields.definitions_for(self) if self._fields is not None else []

    @method("setCustomValue", privilege="Global.SetCustomField")
    def set_custom_value(self, key: str, value: str) -> None:
        """Set a custom attribute by its name."""
        if self._fields is None or (found := self._fields.by_name(key, self)) is None:
            raise vmodl.fault.InvalidArgument(invalidProperty="key", msg="A specified parameter was not correct: key")
        self._fields.set_value(self, found, value)

    @method("Reload")
    def reload(self, ctx: Context) -> None:
        """Read the entity's state again; here it is never stale."""

    @method("Rename_Task", privilege="")
    def rename(self, ctx: Context, new_name: str) -> t.Any:
        """Rename within the folder; DuplicateName when the name is taken, InvalidName when it cannot be one."""
        ctx.world.authorization.require(ctx.session, self, self.rename_privilege)

        async def body(control: TaskControl) -> None:
            await control.work(0.5, steps=1)
            self.set_name(new_name)

        return ctx.world.start_task(self, f"{support.GetWsdlName(self.wsdl)}.rename", body, ctx.session)

    def set_name(self, name: str) -> None:
        """Take another name. Raises DuplicateName or InvalidName."""
        check_name(name)
        folder = self.parent
        siblings = getattr(folder, "children", None)
        if name != self.name and siblings is not None:
            t.cast("Folder", folder).check_free(name)
            siblings.pop(self.name, None)
            siblings[name] = self
        self.name = name
        self.renamed()

    def renamed(self) -> None:
        """Tell who watches that the name has changed."""
        self.world.changed(self, "name")


def check_name(name: str) -> None:
    """Raise InvalidName for a name that no entity can have."""
    if not name or len(name) > MAX_NAME or name.strip() != name:
        raise vim.fault.InvalidName(name=name, msg=f"The name '{name}' is not valid.")


def invalid_argument(name: str, message: str | None = None) -> Exception:
    """The fault for a parameter that makes no sense; `name` is the parameter's path."""
    text = message or f"A specified parameter was not correct: {name}"
    return t.cast("Exception", vmodl.fault.InvalidArgument(invalidProperty=name, msg=text))


def invalid_state(message: str = "The operation is not allowed in the current state.") -> Exception:
    """The fault for an operation that the object's state does not allow."""
    return t.cast("Exception", vim.fault.InvalidState(msg=message))
