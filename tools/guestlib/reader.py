"""Typed reading of JSON objects, with errors that name the path and the nearest valid key."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

from .errors import SpecError


class Reader:
    """One JSON object being read: each key is taken once, `finish` rejects what is left."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise SpecError(f"{path or 'the spec'} must be an object, not {_kind(value)}", "see tools/README.md")
        self._left: dict[str, Any] = dict(value)
        self._known: list[str] = []
        self._path = path

    def at(self, key: str) -> str:
        """Return the path of a key, for messages."""
        return f"{self._path}.{key}" if self._path else key

    def text(self, key: str, default: str | None = None) -> str:
        """Take a non-empty string; without a default it is required."""
        value = self._take(key, default)
        if not isinstance(value, str) or not value:
            raise self._wrong(key, "a non-empty string", value)
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Take true or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def number(self, key: str, *, minimum: float, default: float | None = None) -> float | None:
        """Take a number of at least `minimum`, or None where it may be left out."""
        value = self._take(key, default, required=False)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or value < minimum:
            raise self._wrong(key, f"a number of at least {minimum:g}", value)
        return float(value)

    def integer(self, key: str, *, minimum: int, default: int | None = None) -> int | None:
        """Take a whole number of at least `minimum`, or None where it may be left out."""
        value = self._take(key, default, required=False)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self._wrong(key, f"a whole number of at least {minimum}", value)
        return value

    def texts(self, key: str, default: Iterable[str] = ()) -> tuple[str, ...]:
        """Take a list of non-empty strings."""
        value = self._take(key, list(default))
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self._wrong(key, "a list of non-empty strings", value)
        return tuple(value)

    def mapping(self, key: str) -> dict[str, str]:
        """Take an object whose values are strings (empty ones included)."""
        value = self._take(key, {})
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise self._wrong(key, "an object of strings", value)
        return dict(value)

    def items(self, key: str, *, required: bool = False) -> list[Any]:
        """Take a list of anything, to be read further by the caller."""
        value = self._take(key, None if required else [])
        if not isinstance(value, list):
            raise self._wrong(key, "a list", value)
        return value

    def raw(self, key: str, default: object) -> object:
        """Take a value of any type."""
        return self._take(key, default)

    def finish(self) -> None:
        """Raise SpecError for the first key that nothing has taken."""
        for key in self._left:
            near = difflib.get_close_matches(key, self._known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(self._known))}"
            raise SpecError(f"unknown key {self.at(key)!r}", hint)

    def _take(self, key: str, default: object, *, required: bool = True) -> Any:
        self._known.append(key)
        value = self._left.pop(key, None)
        if value is not None:
            return value
        if default is None and required:
            raise SpecError(f"{self.at(key)!r} is missing", "add it; see tools/README.md")
        return default

    def _wrong(self, key: str, wanted: str, value: object) -> SpecError:
        return SpecError(f"{self.at(key)!r} must be {wanted}, not {_kind(value)}", "correct it")


def parse_json(text: str, source: str) -> object:
    """Parse JSON text; SpecError names the source, line and column."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(
            f"{source} is not JSON: {error.msg} at line {error.lineno} column {error.colno}", "correct it"
        ) from error


def _kind(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
