"""Tags over REST: `cis.tagging.category`, `cis.tagging.tag`, `cis.tagging.tag-association`."""

from __future__ import annotations

import typing as t

from vsphere_simulator.rest.errors import ApiError, invalid, not_found
from vsphere_simulator.rest.operations import Call, operation
from vsphere_simulator.vmomi import wsdl_name
from vsphere_simulator.world.tags import Category, Tag

if t.TYPE_CHECKING:
    from vsphere_simulator.world.tags import Tags

_CATEGORY: t.Final = "/api/cis/tagging/category"
_TAG: t.Final = "/api/cis/tagging/tag"
_ASSOCIATION: t.Final = "/api/cis/tagging/tag-association"
_CARDINALITIES: t.Final = ("SINGLE", "MULTIPLE")


def _tags(call: Call) -> Tags:
    return call.site.tags


def _category(call: Call, identifier: str) -> Category:
    if identifier not in _tags(call).categories:
        raise not_found("category", identifier)
    return _tags(call).categories[identifier]


def _tag(call: Call, identifier: str) -> Tag:
    if identifier not in _tags(call).tags:
        raise not_found("tag", identifier)
    return _tags(call).tags[identifier]


def _new_id(call: Call, kind: str) -> str:
    call.ctx.world.ids["tagging"] += 1
    number = call.ctx.world.ids["tagging"]
    return f"urn:vmomi:InventoryService{kind}:{call.site.uuid_of(f'tagging/{number}')}:GLOBAL"


def _name(call: Call, taken: dict[str, str], own: str | None = None) -> str:
    """The name in the body; ALREADY_EXISTS when another of `taken` (id -> name) has it."""
    name = call.field("name", default=taken.get(own) if own is not None else ...)
    if not name:
        raise invalid("The name is empty.")
    if any(other == name and identifier != own for identifier, other in taken.items()):
        raise ApiError("ALREADY_EXISTS", f"The name {name} is taken.")
    return str(name)


# --- categories ---


@operation("GET", _CATEGORY)
def list_categories(call: Call) -> list[str]:
    """The ids of all categories."""
    return list(_tags(call).categories)


@operation("GET", _CATEGORY + "/{category}")
def get_category(call: Call) -> dict[str, t.Any]:
    """One category."""
    found = _category(call, call.path["category"])
    return {
        "id": found.id,
        "name": found.name,
        "description": found.description,
        "cardinality": found.cardinality,
        "associable_types": found.types,
        "used_by": [],
    }


def _cardinality(call: Call, default: t.Any) -> str:
    value = call.field("cardinality", default=default)
    if value not in _CARDINALITIES:
        raise invalid(f"cardinality is SINGLE or MULTIPLE, not {value}.")
    return str(value)


def _types(call: Call) -> list[str]:
    return sorted({kind.rpartition(":")[2] for kind in call.strings("associable_types")})


@operation("POST", _CATEGORY, status=201, privileges=("InventoryService.Tagging.CreateCategory",))
def create_category(call: Call) -> str:
    """Make a category and return its id."""
    name = _name(call, {one.id: one.name for one in _tags(call).categories.values()})
    made = Category(
        _new_id(call, "Category"), name, call.field("description", default=""), _cardinality(call, ...), _types(call)
    )
    _tags(call).categories[made.id] = made
    call.saved()
    return made.id


@operation("PATCH", _CATEGORY + "/{category}", status=204, privileges=("InventoryService.Tagging.EditCategory",))
def update_category(call: Call) -> None:
    """Change a category; its types can only grow, and MULTIPLE stays."""
    found = _category(call, call.path["category"])
    name = _name(call, {one.id: one.name for one in _tags(call).categories.values()}, found.id)
    cardinality = _cardinality(call, found.cardinality)
    types = _types(call) if call.field("associable_types", list, default=None) is not None else found.types
    if (found.cardinality, cardinality) == ("MULTIPLE", "SINGLE"):
        raise invalid("The cardinality of a category cannot become SINGLE.")
    if types and not set(found.types) <= set(types):
        raise invalid("The associable types of a category can only grow.")
    found.name, found.cardinality, found.types = name, cardinality, types
    found.description = call.field("description", default=found.description)
    call.saved()


@operation("DELETE", _CATEGORY + "/{category}", status=204, privileges=("InventoryService.Tagging.DeleteCategory",))
def delete_category(call: Call) -> None:
    """Delete a category with its tags."""
    found = _category(call, call.path["category"])
    for tag in [tag for tag in _tags(call).tags.values() if tag.category == found.id]:
        _tags(call).forget(tag.id)
    del _tags(call).categories[found.id]
    call.saved()


# --- tags ---


@operation("GET", _TAG)
def list_tags(call: Call) -> list[str]:
    """The ids of all tags."""
    return list(_tags(call).tags)


@operation("POST", _TAG + "?action=list-tags-for-category")
@operation("POST", _TAG + "/{category}?action=list-tags-for-category")
def list_tags_of(call: Call) -> list[str]:
    """The ids of a category's tags."""
    category = _category(call, call.path.get("category") or call.field("category_id"))
    return [tag.id for tag in _tags(call).tags.values() if tag.category == category.id]


@operation("GET", _TAG + "/{tag}")
def get_tag(call: Call) -> dict[str, t.Any]:
    """One tag."""
    found = _tag(call, call.path["tag"])
    return {
        "id": found.id,
        "name": found.name,
        "description": found.description,
        "category_id": found.category,
        "used_by": [],
    }


def _siblings(call: Call, category: str) -> dict[str, str]:
    return {tag.id: tag.name for tag in _tags(call).tags.values() if tag.category == category}


@operation("POST", _TAG, status=201, privileges=("InventoryService.Tagging.CreateTag",))
def create_tag(call: Call) -> str:
    """Make a tag and return its id."""
    category = _category(call, call.field("category_id"))
    name = _name(call, _siblings(call, category.id))
    made = Tag(_new_id(call, "Tag"), name, category.id, call.field("description", default=""))
    _tags(call).tags[made.id] = made
    call.saved()
    return made.id


@operation("PATCH", _TAG + "/{tag}", status=204, privileges=("InventoryService.Tagging.EditTag",))
def update_tag(call: Call) -> None:
    """Change a tag's name and description."""
    found = _tag(call, call.path["tag"])
    found.name = _name(call, _siblings(call, found.category), found.id)
    found.description = call.field("description", default=found.description)
    call.saved()


@operation("DELETE", _TAG + "/{tag}", status=204, privileges=("InventoryService.Tagging.DeleteTag",))
def delete_tag(call: Call) -> None:
    """Delete a tag, and take it off everything."""
    _tags(call).forget(_tag(call, call.path["tag"]).id)
    call.saved()


# --- associations ---


def _target(call: Call, value: t.Any) -> str:
    """The id of an object as `{type, id}` names it."""
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        raise invalid("An object is named by its type and id.")
    found = call.ctx.world.objects.get(value["id"])
    if found is None or wsdl_name(found.wsdl) != value.get("type"):
        raise not_found(str(value.get("type")), value["id"])
    return found.moid


def _named(call: Call, moid: str) -> dict[str, str]:
    return {"type": wsdl_name(call.ctx.world.objects[moid].wsdl), "id": moid}


def _attach(call: Call, tag: Tag, moid: str) -> None:
    category = _tags(call).categories[tag.category]
    kind = wsdl_name(call.ctx.world.objects[moid].wsdl)
    if category.types and kind not in category.types:
        raise invalid(f"Tags of the category {category.name} cannot be attached to a {kind}.")
    others = [one for one in _tags(call).of(moid) if one != tag.id and _tags(call).tags[one].category == category.id]
    if category.cardinality == "SINGLE" and others:
        raise invalid(f"The object has a tag of the category {category.name} already.")
    holders = _tags(call).attached.setdefault(tag.id, [])
    if moid not in holders:
        holders.append(moid)


def _detach(call: Call, tag: Tag, moid: str) -> None:
    holders = _tags(call).attached.get(tag.id, [])
    if moid in holders:
        holders.remove(moid)


def _require(call: Call) -> None:
    world = call.ctx.world
    world.authorization.require(call.ctx.session, world.root, "InventoryService.Tagging.AttachTag")


@operation("POST", _ASSOCIATION + "/{tag}?action=attach", status=204)
@operation("POST", _ASSOCIATION + "/{tag}?action=detach", status=204)
def change_one(call: Call) -> None:
    """Attach a tag to an object, or detach it; both may be done twice."""
    _require(call)
    tag, moid = _tag(call, call.path["tag"]), _target(call, call.field("object_id", dict))
    (_attach if call.query["action"] == ["attach"] else _detach)(call, tag, moid)
    call.saved()


def _each(call: Call, pairs: list[tuple[t.Any, t.Any]]) -> dict[str, t.Any]:
    """Change many associations; what fails is reported, the rest is done."""
    _require(call)
    change = _attach if call.query["action"][0].startswith("attach") else _detach
    errors = []
    for tag, target in pairs:
        try:
            change(call, _tag(call, tag), _target(call, target))
        except ApiError as problem:
            errors.append({"id": problem.kind.lower(), "default_message": problem.message, "args": []})
    call.saved()
    return {"success": not errors, "error_messages": errors}


@operation("POST", _ASSOCIATION + "?action=attach-multiple-tags-to-object")
@operation("POST", _ASSOCIATION + "?action=detach-multiple-tags-from-object")
def change_tags_of(call: Call) -> dict[str, t.Any]:
    """Attach many tags to one object, or detach them."""
    target = call.field("object_id", dict)
    return _each(call, [(tag, target) for tag in call.strings("tag_ids")])


@operation("POST", _ASSOCIATION + "/{tag}?action=attach-tag-to-multiple-objects")
@operation("POST", _ASSOCIATION + "/{tag}?action=detach-tag-from-multiple-objects")
def change_objects_of(call: Call) -> dict[str, t.Any]:
    """Attach one tag to many objects, or detach it."""
    return _each(call, [(call.path["tag"], target) for target in call.field("object_ids", list)])


@operation("POST", _ASSOCIATION + "?action=list-attached-tags")
def attached_tags(call: Call) -> list[str]:
    """The tags of an object."""
    return _tags(call).of(_target(call, call.field("object_id", dict)))


@operation("POST", _ASSOCIATION + "?action=list-attached-tags-on-objects")
def attached_tags_of_all(call: Call) -> list[dict[str, t.Any]]:
    """The tags of each of many objects; an object without tags is left out."""
    found = []
    for target in call.field("object_ids", list):
        moid = _target(call, target)
        if tags := _tags(call).of(moid):
            found.append({"object_id": _named(call, moid), "tag_ids": tags})
    return found


@operation("POST", _ASSOCIATION + "/{tag}?action=list-attached-objects")
def attached_objects(call: Call) -> list[dict[str, str]]:
    """The objects that have a tag."""
    tag = _tag(call, call.path["tag"])
    return [_named(call, moid) for moid in _tags(call).objects_of(tag.id, call.ctx.world)]


@operation("POST", _ASSOCIATION + "?action=list-attached-objects-on-tags")
def attached_objects_of_all(call: Call) -> list[dict[str, t.Any]]:
    """The objects that have each of many tags; a tag of nothing is left out."""
    found = []
    for tag in call.strings("tag_ids"):
        moids = _tags(call).objects_of(_tag(call, tag).id, call.ctx.world)
        if moids:
            found.append({"tag_id": tag, "object_ids": [_named(call, moid) for moid in moids]})
    return found


@operation("POST", _ASSOCIATION + "?action=list-attachable-tags")
def attachable_tags(call: Call) -> list[str]:
    """The tags that an object could be given."""
    moid = _target(call, call.field("object_id", dict))
    kind = wsdl_name(call.ctx.world.objects[moid].wsdl)
    held = {_tags(call).tags[tag].category: tag for tag in _tags(call).of(moid)}
    found = []
    for tag in _tags(call).tags.values():
        category = _tags(call).categories[tag.category]
        single = category.cardinality == "SINGLE" and category.id in held
        if (
            (not category.types or kind in category.types)
            and not single
            and moid not in _tags(call).attached.get(tag.id, ())
        ):
            found.append(tag.id)
    return found
