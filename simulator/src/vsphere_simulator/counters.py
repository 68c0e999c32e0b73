"""Counts of what clients asked for, by which tests assert what a module costs."""

from __future__ import annotations

import collections
import typing as t


class Counters:
    """Requests by WSDL method (property getters count as `Fetch`), and logins."""

    def __init__(self) -> None:
        self.requests: collections.Counter[str] = collections.Counter()
        self.logins = 0

    def reset(self) -> None:
        """Start again from zero."""
        self.requests.clear()
        self.logins = 0

    def as_dict(self) -> dict[str, t.Any]:
        """Return the counts as plain data, methods in alphabetical order."""
        return {
            "requests": dict(sorted(self.requests.items())),
            "total": self.requests.total(),
            "logins": self.logins,
        }
