# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ranges of subordinate ids in /etc/subuid and /etc/subgid, see subuid(5). Pure."""

from __future__ import annotations

import collections.abc
import dataclasses

from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError

FIRST = 100_000
"""Where useradd(8) begins to hand out ranges (SUB_UID_MIN)."""
LAST = 600_100_000
"""Where it ends (SUB_UID_MAX)."""
MINIMUM = 65_536
"""What a container with all of an ordinary system's ids needs."""


@dataclasses.dataclass(frozen=True)
class Range:
    """`count` ids from `start`, owned by a user's name or number."""

    owner: str
    start: int
    count: int

    @property
    def end(self) -> int:
        """First id after the range."""
        return self.start + self.count


def parse(text: str, path: str) -> list[Range]:
    """Read a file; an error names the line."""
    ranges = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split(":")]
        if not (len(fields) == 3 and fields[0] and fields[1].isdigit() and fields[2].isdigit()):
            raise ContainerError("bad_subid_file", f"{path}, line {number}: {line!r} is not name:start:count; mend it.")
        ranges.append(Range(fields[0], int(fields[1]), int(fields[2])))
    return ranges


def usable(ranges: collections.abc.Iterable[Range], owners: collections.abc.Collection[str]) -> bool:
    """Whether one of the owner's names has a range that is large enough."""
    return any(entry.owner in owners and entry.count >= MINIMUM for entry in ranges)


def first_free(ranges: collections.abc.Iterable[Range], count: int) -> int:
    """Lowest start of `count` free ids."""
    start = FIRST
    for entry in sorted(ranges, key=lambda entry: entry.start):
        if entry.start >= start + count:
            break
        start = max(start, entry.end)
    if start + count > LAST:
        raise ContainerError("no_free_subids", f"No {count} subordinate ids are free below {LAST}; remove old ranges.")
    return start


def with_ranges(
    text: str, path: str, users: collections.abc.Iterable[tuple[str, str]], count: int, *, present: bool
) -> str:
    """The file's text with a range for each user (name, number), or without any of theirs.

    A range that is there and large enough stays as it is.
    """
    for name, number in users:
        owners = {name, number} - {""}
        ranges = parse(text, path)
        if not present:
            text = "".join(
                line
                for line in text.splitlines(keepends=True)
                if line.startswith("#") or line.partition(":")[0] not in owners
            )
        elif not usable(ranges, owners):
            newline = "" if not text or text.endswith("\n") else "\n"
            text = f"{text}{newline}{name}:{first_free(ranges, count)}:{count}\n"
    return text
