"""Custom attributes: their definitions and their values on entities."""

from __future__ import annotations

import dataclasses
import typing as t

from vsphere_simulator.kernel.objects import ManagedObject, method, prop
from vsphere_simulator.vmomi import make, support, vim
from vsphere_simulator.world.entity import invalid_argument

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.world.entity import Entity
    from vsphere_simulator.world.site import Site

_FIRST_KEY = 101


@dataclasses.dataclass(slots=True)
class Field:
    """The definition of one custom attribute."""

    key: int
    name: str
    applies_to: str | None
    """WSDL name of the type of objects that have it; None: all."""


class CustomFieldsManager(ManagedObject):
    """The vCenter's custom attributes."""

    wsdl = vim.CustomFieldsManager

    def __init__(self, site: Site) -> None:
        super().__init__(site.world, "CustomFieldsManager")
        self.name = "CustomFieldsManager"
        self.fields: dict[int, Field] = {}

    @prop("field")
    def _fields(self) -> list[t.Any]:
        return [_definition(field) for field in self.fields.values()]

    def definitions_for(self, entity: Entity) -> list[t.Any]:
        """The definitions that apply to an entity."""
        return [_definition(field) for field in self.fields.values() if _applies(field, entity)]

    def by_name(self, name: str, entity: Entity) -> Field | None:
        """The attribute of this name that applies to an entity."""
        return next((f for f in self.fields.values() if f.name == name and _applies(f, entity)), None)

    def define(self, name: str, applies_to: str | None) -> Field:
        """Add an attribute. Raises DuplicateName when the same objects have one of this name already."""
        for field in self.fields.values():
            if field.name == name and (field.applies_to == applies_to or None in (field.applies_to, applies_to)):
                raise vim.fault.DuplicateName(name=name, object=self.ref, msg=f"The name '{name}' already exists.")
        self.world.ids["customField"] += 1
        key = _FIRST_KEY - 1 + self.world.ids["customField"]
        field = self.fields[key] = Field(key, name, applies_to)
        self.world.changed(self, "field")
        return field

    def set_value(self, entity: Entity, field: Field, value: str) -> None:
        """Set or, with an empty text, clear an attribute of an entity."""
        if value:
            entity.custom_values[field.key] = value
        else:
            entity.custom_values.pop(field.key, None)
        self.world.changed(entity, "customValue", "value", "summary.customValue")

    @method("AddCustomFieldDef")
    def add(
        self,
        name: str,
        mo_type: t.Any = None,
    ) -> t.Any:
        """Define an attribute for one type of object, or for all."""
        if not name:
            raise invalid_argument("name")
        return _definition(self.define(name, None if mo_type is None else str(support.GetWsdlName(mo_type))))

    @method("RemoveCustomFieldDef")
    def remove(self, key: int) -> None:
        """Remove an attribute and its values."""
        self._get(key)
        del self.fields[key]
        for obj in list(self.world.objects.values()):
            values: dict[int, str] = getattr(obj, "custom_values", {})
            if values.pop(key, None) is not None:
                self.world.changed(obj, "customValue", "value", "summary.customValue")
        self.world.changed(self, "field")

    @method("RenameCustomFieldDef")
    def rename(self, key: int, name: str) -> None:
        """Rename an attribute."""
        field = self._get(key)
        if any(other.name == name and other is not field for other in self.fields.values()):
            raise vim.fault.DuplicateName(name=name, object=self.ref, msg=f"The name '{name}' already exists.")
        field.name = name
        self.world.changed(self, "field")

    @method("SetField", privilege="")
    def set_field(self, ctx: Context, entity: Entity, key: int, value: str) -> None:
        """Set an attribute of an entity; the privilege is needed on the entity."""
        ctx.world.authorization.require(ctx.session, entity, "Global.SetCustomField")
        field = self._get(key)
        if not _applies(field, entity):
            raise invalid_argument("key")
        self.set_value(entity, field, value)

    def _get(self, key: int) -> Field:
        if key not in self.fields:
            raise invalid_argument("key")
        return self.fields[key]


def _applies(field: Field, entity: Entity) -> bool:
    return field.applies_to is None or field.applies_to == str(support.GetWsdlName(entity.wsdl))


def _definition(field: Field) -> t.Any:
    return make(
        vim.CustomFieldsManager.FieldDef,
        key=field.key,
        name=field.name,
        type=str,
        managedObjectType=None if field.applies_to is None else support.GetWsdlType("urn:vim25", field.applies_to),
    )
