"""vCenter settings (OptionManager)."""

from __future__ import annotations

import typing as t

from vsphere_simulator.kernel.objects import ManagedObject, method, prop
from vsphere_simulator.vmomi import make, vim
from vsphere_simulator.world.entity import invalid_argument
from vsphere_simulator.world.migration import HOT_MIGRATE

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.world.site import Site

DEFAULTS: t.Final[dict[str, str | bool | int]] = {
    HOT_MIGRATE: False,
    "VirtualCenter.InstanceName": "vcenter.lab",
    "config.vpxd.filter.sharedDatastoreFilter": True,
    "config.vpxd.stats.maxQueryMetrics": 256,
    "event.maxAge": 30,
    "task.maxAge": 30,
}


def typed(key: str, text: str) -> str | bool | int:
    """A setting of a model as the type it has in vCenter. Raises ValueError when it cannot be one."""
    default = DEFAULTS.get(key)
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"options: {key} is true or false, not {text}")
        return text.lower() == "true"
    return int(text) if isinstance(default, int) else text


class OptionManager(ManagedObject):
    """The vCenter's settings. A known one keeps its type; others may be added."""

    wsdl = vim.option.OptionManager

    def __init__(self, site: Site) -> None:
        super().__init__(site.world, "VpxSettings")
        self.name = "VpxSettings"
        self.site = site

    def _shown(self) -> list[t.Any]:
        return [make(vim.option.OptionValue, key=key, value=value) for key, value in sorted(self.site.options.items())]

    @prop("setting")
    def _setting(self) -> list[t.Any]:
        return self._shown()

    @prop("supportedOption")
    def _supported(self) -> list[t.Any]:
        return [
            make(vim.option.OptionDef, key=key, label=key, summary=key, optionType=_option_type(value))
            for key, value in sorted(DEFAULTS.items())
        ]

    @method("QueryOptions")
    def query(self, name: str | None = None) -> list[t.Any]:
        """All settings, one by its name, or all below a name that ends with a dot. InvalidName for none."""
        found = [
            option
            for option in self._shown()
            if not name or option.key == name or (name.endswith(".") and option.key.startswith(name))
        ]
        if not found:
            raise vim.fault.InvalidName(name=name, msg=f"The name '{name}' is not valid.")
        return found

    @method("UpdateOptions", privilege="Global.Settings")
    def update(self, ctx: Context, changed_value: t.Any) -> None:
        """Set settings: all of them, or none. InvalidArgument for a value of the wrong type."""
        for option in changed_value:
            now = DEFAULTS.get(option.key)
            if not option.key or (now is not None and not _fits(option.value, now)):
                raise invalid_argument(f"changedValue.{option.key}")
        for option in changed_value:
            value = option.value
            self.site.options[option.key] = bool(value) if isinstance(value, bool) else _plain(value)
        ctx.world.changed(self, "setting")


def _fits(value: t.Any, known: object) -> bool:
    if isinstance(known, bool) or isinstance(value, bool):
        return isinstance(known, bool) and isinstance(value, bool)
    return isinstance(value, int) if isinstance(known, int) else isinstance(value, str)


def _plain(value: t.Any) -> str | int:
    return int(value) if isinstance(value, int) else str(value)


def _option_type(value: object) -> t.Any:
    if isinstance(value, bool):
        return make(vim.option.BoolOption, valueIsReadonly=False, supported=True, defaultValue=value)
    if isinstance(value, int):
        return make(vim.option.IntOption, valueIsReadonly=False, min=0, max=2**31 - 1, defaultValue=value)
    return make(vim.option.StringOption, valueIsReadonly=False, defaultValue=value)
