# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files of harvesting on the controller."""

from __future__ import annotations

import json
import pathlib
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.history import (
    History,
    HistoryError,
    from_text,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.whole_file import write_whole


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


def write_file(path: str, text: str, mode: int) -> None:
    """Write a file, in a directory that is made where it is missing. Raises OSError."""
    pathlib.Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_whole(path, text, mode)


def json_text(data: t.Any) -> str:
    """Data as people and programs read it."""
    return json.dumps(data, indent=1) + "\n"
