# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options every module shares. Documented by the fragment `gpuops.vsphere.vsphere`."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible.module_utils.basic import env_fallback
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import InputError

SESSION_DIR = "~/.ansible/gpuops/sessions"

Spec = dict[str, dict[str, t.Any]]


def connection_spec() -> Spec:
    """Where the vCenter is, how it is trusted, and as whom to log in."""
    return {
        "hostname": {"type": "str", "required": True, "fallback": (env_fallback, ["VMWARE_HOST"])},
        "port": {"type": "int", "default": 443, "fallback": (env_fallback, ["VMWARE_PORT"])},
        "username": {"type": "str", "required": True, "fallback": (env_fallback, ["VMWARE_USER"])},
        "password": {"type": "str", "required": True, "no_log": True, "fallback": (env_fallback, ["VMWARE_PASSWORD"])},
        "validate_certs": {"type": "bool", "default": True, "fallback": (env_fallback, ["VMWARE_VALIDATE_CERTS"])},
        "ca_file": {"type": "path", "fallback": (env_fallback, ["VMWARE_CA_FILE"])},
        "thumbprint": {"type": "str", "fallback": (env_fallback, ["VMWARE_THUMBPRINT"])},
        "session_dir": {"type": "path", "default": SESSION_DIR},
    }


def bulk_spec() -> Spec:
    """How many objects at once, how long, what is assumed, and what one object's failure means."""
    return {
        "max_parallel": {"type": "int", "default": 16},
        "timeout": {"type": "int", "default": 1800},
        "assume": {
            "type": "dict",
            "options": {"hosts": {"type": "dict", "default": {}}, "vms": {"type": "dict", "default": {}}},
        },
        "object_errors": {"type": "str", "choices": ["fail", "report"], "default": "fail"},
    }


@dataclasses.dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """The connection options of a module, checked."""

    hostname: str
    username: str
    password: str = dataclasses.field(repr=False)
    session_dir: str
    port: int = 443
    validate_certs: bool = True
    ca_file: str | None = None
    thumbprint: str | None = None
    """Lower-case hex without colons, SHA-1 (40) or SHA-256 (64)."""

    @classmethod
    def from_params(cls, params: t.Mapping[str, t.Any]) -> ConnectionOptions:
        """From `module.params`. Raises InputError."""
        for name in ("hostname", "username", "password"):
            if not params[name]:
                raise InputError(f"{name}: is empty.")
        if not 1 <= params["port"] <= 65535:
            raise InputError(f"port: {params['port']} is not a TCP port (1 to 65535).")
        return cls(
            hostname=params["hostname"],
            username=params["username"],
            password=params["password"],
            session_dir=params["session_dir"],
            port=params["port"],
            validate_certs=params["validate_certs"],
            ca_file=params["ca_file"],
            thumbprint=normalise_thumbprint(params["thumbprint"]) if params["thumbprint"] else None,
        )

    @property
    def endpoint(self) -> str:
        """`host:port`, as messages name it."""
        host = f"[{self.hostname}]" if ":" in self.hostname else self.hostname
        return f"{host}:{self.port}"


def normalise_thumbprint(text: str) -> str:
    """`AA:BB:…` or plain hex to lower-case hex. Raises InputError unless it is SHA-1 or SHA-256."""
    plain = re.sub(r"[\s:]", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", plain):
        raise InputError("thumbprint: give the SHA-256 (64 hex digits) or SHA-1 (40) of the certificate, as AA:BB:… .")
    return plain
