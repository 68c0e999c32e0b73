# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a site sets for its clients: one JSON file that the role gpu_pool_client writes."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .errors import UsageError

DEFAULT_PATH = "/etc/gpurun.json"


@dataclass(frozen=True)
class Settings:
    """`shared`: directories that client and servers have in common. `images`: where image names are looked up.

    `require_signed`: refuse images without a valid signature (the servers' execution control list refuses them too).
    `binds`: what every container gets besides the shared directories. `partition`: None is Slurm's default one.
    """

    shared: tuple[str, ...] = ("/home",)
    images: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    require_signed: bool = False
    partition: str | None = None
    runtime: str = "apptainer"


def load(path: str = DEFAULT_PATH) -> Settings:
    """Settings of a file; the defaults where there is none. Raises UsageError for one that cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path} is not JSON: {error}") from None
    known = {field.name for field in fields(Settings)}
    unknown = sorted(set(given) - known) if isinstance(given, dict) else ["(not an object)"]
    if unknown:
        raise UsageError(f"{path}: unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return Settings(**values)
