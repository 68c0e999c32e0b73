# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files of harvesting on the controller."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import tempfile
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.history import (
    History,
    HistoryError,
    from_text,
)


def read_history(path: str) -> History:
    """What is remembered; nothing where the file is not there yet. Raises HistoryError, which names the file."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return History()
    except (OSError, UnicodeDecodeError) as error:
        raise HistoryError(f"{path} cannot be read: {error}.") from error
    try:
        return from_text(text)
    except HistoryError as error:
        raise HistoryError(f"{path}: {error}. Move it away; what it remembered is learnt anew.") from error


def write_whole(path: str, text: str, mode: int) -> None:
    """Write a file whole or not at all, also where the machine stops. Raises OSError."""
    place = pathlib.Path(path)
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        pathlib.Path(name).chmod(mode)
        pathlib.Path(name).replace(place)
    except BaseException:
        with contextlib.suppress(OSError):
            pathlib.Path(name).unlink()
        raise


def json_text(data: t.Any) -> str:
    """Data as people and programs read it."""
    return json.dumps(data, indent=1) + "\n"
