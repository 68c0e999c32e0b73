# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files of the fleet page: what it is made of, and the page that is there."""

from __future__ import annotations

import dataclasses
import errno
import json
import pathlib
import stat
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.render import ASSETS, Former, former


class RefusedError(Exception):
    """The file cannot be written, or must not be; the message says why and what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """The page that is there."""

    text: str
    mode: int
    former: Former


def assets(directory: str | None, names: t.Sequence[str] = ASSETS) -> dict[str, str]:
    """The text of each of these files. Raises OSError."""
    if not directory:
        raise FileNotFoundError(errno.ENOENT, "the directory is not known")
    # Bytes as they are: the page's policy names the hashes of what it holds.
    return {name: (pathlib.Path(directory) / name).read_bytes().decode() for name in names}


def text_of(path: str, is_ours: t.Callable[[str], bool]) -> str | None:
    """The text at this path, None where there is nothing. Raises RefusedError for what must not be replaced."""
    found = _read(path)
    if found is not None and not is_ours(found[0]):
        raise RefusedError(f"{path} is there and is no such file. Remove it, or name another file.")
    return found[0] if found is not None else None


def is_json(text: str) -> bool:
    """Whether a file is a JSON object, or empty."""
    try:
        return not text.strip() or isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _read(path: str) -> tuple[str, int] | None:
    """Text and mode of a file, None where there is nothing. Raises RefusedError."""
    file = pathlib.Path(path)
    try:
        if not file.parent.is_dir():
            raise RefusedError(f"the directory {file.parent} does not exist. Make it first.")
        if not file.exists():
            return None
        if not file.is_file():
            raise RefusedError(f"{path} is no file. Name one.")
        return file.read_bytes().decode(errors="replace"), stat.S_IMODE(file.stat().st_mode)
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}.") from error


def held(path: str) -> Held | None:
    """The page at this path, None where there is nothing. Raises RefusedError for anything else."""
    found = _read(path)
    if found is None:
        return None
    text, mode = found
    there = former(text)
    if there is None:
        raise RefusedError(f"{path} is there and is no fleet page. Remove it, or name another file.")
    return Held(text, mode, there)
