"""Read a model file; every mistake in it is one line of a `ModelError`, with path, line and what to write instead."""

from __future__ import annotations

import difflib
import types
import typing as t
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from vsphere_simulator.model.schema import Model

_Loc = tuple[int | str, ...]


class ModelError(Exception):
    """A model that cannot be used; `str()` is a text of one line a problem, fit to print as it is."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        super().__init__(
            "\n".join([f"{source}: {len(problems)} problem(s) in the model", *(f"  {p}" for p in problems)])
        )


def load_model(path: Path) -> Model:
    """The model in a YAML file. Raises ModelError with all problems at once."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ModelError(str(path), [f"cannot be read: {reason}"]) from error
    return parse_model(text, str(path))


def parse_model(text: str, source: str = "model") -> Model:
    """The model in a YAML text; `source` is what messages call it. Raises ModelError."""
    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ModelError(source, [f"{where}not YAML: {getattr(error, 'problem', None) or error}"]) from error
    if not isinstance(root, yaml.MappingNode):
        raise ModelError(source, ["a model is a mapping that has at least datacenter, datastores and networks"])
    problems = _repeated_keys(root, ())
    data = yaml.load(text, Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)  # noqa: S506 - safe
    try:
        model = Model.model_validate(data)
    except ValidationError as error:
        problems += [_readable(root, dict(item)) for item in error.errors(include_url=False)]
    if problems:
        raise ModelError(source, problems)
    return model


def _readable(root: yaml.Node, error: dict[str, t.Any]) -> str:
    loc: _Loc = error["loc"]
    path, node = _locate(root, loc)
    where = f"line {node.start_mark.line + 1}: {path}: " if path else ""
    match error["type"]:
        case "extra_forbidden":
            return f"{where}unknown key{_nearest(str(loc[-1]), loc[:-1])}"
        case "missing":
            return f"{where}{loc[-1]} is missing"
        case "value_error":
            return where + str(error["ctx"]["error"])
        case _:
            message = str(error["msg"])
            value = error.get("input")
            shown = f" (is {value!r})" if isinstance(value, str | int | float | bool) else ""
            return f"{where}{message[0].lower()}{message[1:]}{shown}"


def _nearest(key: str, parent: _Loc) -> str:
    model = _model_at(Model, parent)
    if model is None:
        return ""
    known = list(model.model_fields)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}"


def _model_at(annotation: t.Any, loc: _Loc) -> type[BaseModel] | None:
    """The class that describes the mapping at a place in the model."""
    origin = t.get_origin(annotation)
    if origin is t.Annotated:
        return _model_at(t.get_args(annotation)[0], loc)
    if origin in (t.Union, types.UnionType):
        members = [member for member in t.get_args(annotation) if isinstance(member, type)]
        if len(models := [member for member in members if issubclass(member, BaseModel)]) == 1:
            return _model_at(models[0], loc)  # optional
        tagged = [m for m in members if loc and _tag(m) == loc[0]]
        return _model_at(tagged[0], loc[1:]) if tagged else None
    if origin is list and loc:
        return _model_at(t.get_args(annotation)[0], loc[1:])
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return None
    if not loc:
        return annotation
    field = annotation.model_fields.get(str(loc[0]))
    return _model_at(field.annotation, loc[1:]) if field is not None else None


def _tag(member: type) -> str | None:
    """The `mode` that selects a member of a union."""
    field = member.model_fields.get("mode") if issubclass(member, BaseModel) else None
    return t.get_args(field.annotation)[0] if field is not None else None


def _locate(root: yaml.Node, loc: _Loc) -> tuple[str, yaml.Node]:
    """Path as a reader writes it (`clusters[0].name`) and the YAML node there, or the nearest above it."""
    node, path = root, ""
    for step in loc:
        child: yaml.Node | None = None
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            child = node.value[step]
            path += f"[{step}]"
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(step):
                    child = value if isinstance(value, yaml.MappingNode | yaml.SequenceNode) else key
                    path += f".{step}" if path else str(step)
                    break
        if child is not None:
            node = child
    return path, node


def _repeated_keys(node: yaml.Node, seen: tuple[int, ...]) -> list[str]:
    problems: list[str] = []
    if id(node) in seen:
        return problems
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in lines:
                problems.append(f"line {line}: {key.value}: the key is there already, on line {lines[key.value]}")
            elif isinstance(key, yaml.ScalarNode):
                lines[key.value] = line
            problems += _repeated_keys(value, (*seen, id(node)))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            problems += _repeated_keys(value, (*seen, id(node)))
    return problems
