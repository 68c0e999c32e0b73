# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which job holds what part of which GPU of this server: a file for each job, written by prolog, removed by epilog."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_GRES = re.compile(r"(?P<name>\w+)(?::[^:(),]+)??:\d+\((?P<detail>[^)]*)\)")


@dataclass(frozen=True)
class Holding:
    """What a job has here. `parts`: of each GPU by its number, 1 for a whole one."""

    job: int
    uid: int
    parts: Mapping[int, float]

    @property
    def shared(self) -> tuple[int, ...]:
        """Numbers of the GPUs of which it has a part only."""
        return tuple(sorted(index for index, part in self.parts.items() if part < 1))


def parts_of(detail: str) -> dict[int, float]:
    """`gpu:t4:1(IDX:1)` or `shard:t4:5(5/10,0/10)`, as Slurm tells a job's GPUs on one node."""
    parts: dict[int, float] = {}
    for found in _GRES.finditer(detail):
        if found["name"] == "shard":
            for index, (used, total) in enumerate(re.findall(r"(\d+)/(\d+)", found["detail"])):
                if int(used):
                    parts[index] = int(used) / int(total)
        elif found["name"] == "gpu" and found["detail"].startswith("IDX:"):
            for first, last in re.findall(r"(\d+)(?:-(\d+))?", found["detail"]):
                parts.update(dict.fromkeys(range(int(first), int(last or first) + 1), 1.0))
    return parts


def largest(holdings: Sequence[Holding], gpu: int) -> float:
    """The largest part of a GPU that a job has; 0 if none has a part of it."""
    return max((holding.parts[gpu] for holding in holdings if gpu in holding.shared), default=0.0)


class Register:
    """The files of the holdings, in a directory that does not outlive a boot."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def all(self) -> list[Holding]:
        """Every holding. A file that cannot be read is an error: a fence must not forget a job."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            entry = json.loads(path.read_text(encoding="utf-8"))
            parts = {int(index): float(part) for index, part in entry["parts"].items()}
            found.append(Holding(int(entry["job"]), int(entry["uid"]), parts))
        return found

    def add(self, holding: Holding, environment: Mapping[str, str]) -> None:
        """Note a job, and the variables that its tasks get."""
        self._directory.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"export {name}={value}\n" for name, value in sorted(environment.items()))
        (self._directory / f"{holding.job}.env").write_text(lines, encoding="utf-8")
        temporary = self._directory / f".{holding.job}.new"
        temporary.write_text(json.dumps(asdict(holding)), encoding="utf-8")
        temporary.replace(self._directory / f"{holding.job}.json")

    def remove(self, job: int) -> None:
        """Forget a job; one that is not known is as good as forgotten."""
        for kind in ("json", "env"):
            (self._directory / f"{job}.{kind}").unlink(missing_ok=True)
