# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import pathlib
import tempfile


def write_whole(path: str, text: str, mode: int) -> None:
    """Replace a file in one step, so that no reader sees half of it, also where the machine stops. Raises OSError.

    Bytes as they are in the text: no line end is translated. A link is followed.
    """
    target = pathlib.Path(path).resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        pathlib.Path(name).replace(target)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise
