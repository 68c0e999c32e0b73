# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one import of pyVmomi, guarded so that a missing library is a message and not a traceback.

Everything else imports `vim`, `vmodl` and friends from here. `IMPORT_ERROR` is the traceback's text
when the library is missing; the module shell reports it before anything else is used.
"""

from __future__ import annotations

import traceback
import typing as t

IMPORT_ERROR: str | None = None

try:
    from pyVmomi import VmomiSupport as support  # noqa: N813 - a module, its name notwithstanding
    from pyVmomi import vim, vmodl
    from pyVmomi.Iso8601 import ParseISO8601 as parse_iso8601  # noqa: N813 - a function
    from pyVmomi.SoapAdapter import SoapResponseDeserializer, SoapStubAdapter
    from pyVmomi.VmomiSupport import versionMap as VERSION_MAP  # noqa: N814 - a table, and constant
except ImportError:
    IMPORT_ERROR = traceback.format_exc()
    if not t.TYPE_CHECKING:
        vim = vmodl = support = parse_iso8601 = SoapResponseDeserializer = None
        SoapStubAdapter = object
        VERSION_MAP = {}

__all__ = [
    "IMPORT_ERROR",
    "VERSION_MAP",
    "SoapResponseDeserializer",
    "SoapStubAdapter",
    "parse_iso8601",
    "support",
    "vim",
    "vmodl",
]
