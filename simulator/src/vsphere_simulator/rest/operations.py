"""What the REST endpoint can do: each call declares its verb, path, constant query and privileges."""

from __future__ import annotations

import dataclasses
import typing as t

from vsphere_simulator.rest.errors import ApiError, invalid

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.world.folders import Folder
    from vsphere_simulator.world.site import Site

Json = t.Any
_F = t.TypeVar("_F", bound="Callable[[Call], t.Any]")


@dataclasses.dataclass(slots=True)
class Call:
    """One request, in the form of `/api` whichever form it came in."""

    ctx: Context
    path: dict[str, str]
    """Values of the `{…}` parts of the path."""
    query: dict[str, list[str]]
    body: Json
    """Decoded JSON, None for an empty body."""
    credentials: tuple[str, str] | None = None
    """User and password of basic authentication."""

    @property
    def site(self) -> Site:
        """The vCenter's settings, tags and images."""
        return t.cast("Folder", self.ctx.world.root).site

    def field(self, name: str, kind: type[t.Any] = str, *, default: t.Any = ...) -> t.Any:
        """A field of the body; INVALID_ARGUMENT when it is missing without a default, or of another type."""
        value = self.body.get(name) if isinstance(self.body, dict) else None
        if value is None and default is not ...:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise invalid(f"The field {name} is missing or is not of type {kind.__name__}.")
        return value

    def strings(self, name: str) -> list[str]:
        """A list of strings of the body."""
        value = self.field(name, list)
        if not all(isinstance(item, str) for item in value):
            raise invalid(f"The field {name} is not a list of strings.")
        return list(value)

    def saved(self) -> None:
        """Have the state file written: tags or images have changed."""
        self.ctx.world.changed(self.ctx.world.root, "tag")


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """One call of the REST API."""

    verb: str
    path: str
    """Below the host, with `{…}` for identifiers."""
    query: dict[str, str]
    status: int
    privileges: tuple[str, ...]
    """Needed on the root folder, and on the cluster of the path."""
    anonymous: bool
    function: Callable[[Call], t.Any]

    @property
    def label(self) -> str:
        """How the counts and fault rules name it."""
        constants = "&".join(f"{key}={value}" for key, value in self.query.items())
        return f"{self.verb} {self.path}" + (f"?{constants}" if constants else "")


OPERATIONS: t.Final[list[Operation]] = []


def operation(
    verb: str, path: str, *, status: int = 200, privileges: tuple[str, ...] = (), anonymous: bool = False
) -> Callable[[_F], _F]:
    """Register a function as the answer to a call; `path` may end with a constant query (`?action=x`).

    The function takes the Call and returns plain JSON (plain or async); None with a status of 204 is no body.
    """
    bare, _, constants = path.partition("?")
    query = dict(pair.split("=", 1) for pair in constants.split("&")) if constants else {}

    def register(function: _F) -> _F:
        OPERATIONS.append(Operation(verb, bare, query, status, privileges, anonymous, function))
        return function

    return register


def find(verb: str, path: str, query: dict[str, list[str]]) -> tuple[Operation, dict[str, str]]:
    """The operation for a request and the values of its path; NOT_FOUND when there is none."""
    parts = path.strip("/").split("/")
    best: tuple[Operation, dict[str, str]] | None = None
    for candidate in OPERATIONS:
        if candidate.verb != verb or any(query.get(key) != [value] for key, value in candidate.query.items()):
            continue
        values = _match(candidate.path.strip("/").split("/"), parts)
        if values is not None and (best is None or len(candidate.query) > len(best[0].query)):
            best = candidate, values
    if best is None or ("action" in query and "action" not in best[0].query):
        raise ApiError("NOT_FOUND", f"Cannot find {verb} {path}: the simulator does not support it.")
    return best


def _match(pattern: list[str], parts: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(parts):
        return None
    values = {}
    for wanted, part in zip(pattern, parts, strict=True):
        if wanted.startswith("{"):
            values[wanted.strip("{}")] = part
        elif wanted != part:
            return None
    return values
