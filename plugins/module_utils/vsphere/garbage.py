# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Python's search for reference cycles, out of the way of large answers."""

from __future__ import annotations

import contextlib
import gc
import typing as t


@contextlib.contextmanager
def collection_paused() -> t.Iterator[None]:
    """No search for reference cycles: there are none among millions of new values, and it takes half of the time.

    For one thread at a time; threads that begin and end within are no concern of it.
    """
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()
