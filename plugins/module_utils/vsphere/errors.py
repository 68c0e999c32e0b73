# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one tree of errors, and the translation of vSphere faults into it.

Every error says what failed, where, and what to do about it, and carries a stable `code`. Nothing
here ever holds a password or a session ticket.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim


class GpuOpsError(Exception):
    """Base of all errors an operator can cause or meet.

    `msg`: one or two sentences with the next step. `code`: stable identifier, for example
    `invalid_login`. `object`: name of the endpoint, host or virtual machine. `fault`: name of the
    vSphere fault, where one was raised.
    """

    code: str = "error"

    def __init__(
        self, msg: str, *, code: str | None = None, object: str | None = None, fault: str | None = None
    ) -> None:
        super().__init__(msg)
        self.msg = msg
        self.code = code or type(self).code
        self.object = object
        self.fault = fault

    @property
    def failure(self) -> dict[str, str | None]:
        """The machine-readable part, as modules return it."""
        return {"code": self.code, "object": self.object, "fault": self.fault}


class InputError(GpuOpsError):
    """An option that cannot be right, whatever the vCenter's state."""

    code = "invalid_input"


class LibraryMissingError(GpuOpsError):
    """pyVmomi is not installed for the interpreter that runs the module."""

    code = "library_missing"


class ConnectionFailedError(GpuOpsError):
    """The endpoint could not be reached or trusted; nothing was sent to it."""

    code = "connection_failed"


class ConnectionLostError(GpuOpsError):
    """The connection dropped after a request was sent; whether the vCenter acted on it is unknown."""

    code = "connection_lost"


class BadAnswerError(GpuOpsError):
    """Something answered that is not a vCenter, or not in a state to serve."""

    code = "not_a_vcenter"


class AuthenticationError(GpuOpsError):
    """The vCenter refused the user, the password or the session."""

    code = "invalid_login"


class SessionCacheError(GpuOpsError):
    """The directory of cached sessions is not private to this user."""

    code = "session_dir_unsafe"


class PermissionMissingError(GpuOpsError):
    """The user lacks a privilege on an object."""

    code = "no_permission"

    def __init__(self, msg: str, *, privilege: str, object: str | None = None, fault: str | None = None) -> None:
        super().__init__(msg, object=object, fault=fault)
        self.privilege = privilege


class ObjectGoneError(GpuOpsError):
    """The object was removed while it was worked on."""

    code = "object_gone"


class OperationFailedError(GpuOpsError):
    """The vCenter accepted an operation and it failed, or refused it for the object's state."""

    code = "operation_failed"


class OperationTimeoutError(GpuOpsError):
    """An operation or a wait took longer than the `timeout` option; it may still be running."""

    code = "timeout"


class InterruptedRunError(GpuOpsError):
    """The run was told to stop while the operation was going on; the vCenter carries on with it."""

    code = "interrupted"


# Fault -> (code, what to do). Looked up along the fault's class hierarchy, most specific first.
_ADVICE: dict[str, tuple[str, str]] = {
    "InvalidLogin": ("invalid_login", "Check the options username and password."),
    "NotAuthenticated": ("not_authenticated", "The session has ended; run again to log in anew."),
    "ManagedObjectNotFound": ("object_gone", "It was removed meanwhile; run again to plan from what is there."),
    "DuplicateName": ("duplicate_name", "Another object has this name in the same place."),
    "AlreadyExists": ("duplicate_name", "Another object has this name in the same place."),
    "ConcurrentAccess": (
        "changed_meanwhile",
        "Somebody else changed it meanwhile; run again to plan from what is there.",
    ),
    "TaskInProgress": ("busy", "Another task is working on it; run again when that has ended."),
    "ResourceInUse": ("resource_in_use", "Free it first."),
    "DeviceNotSupported": ("device_not_supported", ""),
    "InsufficientGraphicsResourcesFault": ("gpu_shortage", "Free a GPU on this host or choose another host."),
    "InsufficientResourcesFault": ("no_resources", "Free resources on this host or choose another host."),
    "NoDiskSpace": ("no_disk_space", "Free space on the datastore or choose another one."),
    "HostNotConnected": ("host_not_connected", "Reconnect the host first."),
    "HostCommunication": ("host_not_connected", "The vCenter cannot talk to the host now."),
    "Timedout": ("timeout", "The vCenter gave up waiting for it."),
    "RequestCanceled": ("cancelled", "Somebody cancelled the task."),
    "InvalidPowerState": ("invalid_power_state", ""),
    "InvalidState": ("invalid_state", ""),
    "NotSupported": ("not_supported", "This vCenter or host does not offer the operation."),
    "MethodNotFound": ("not_supported", "This vCenter is too old for the operation."),
    "InvalidArgument": ("invalid_argument", ""),
    "InvalidRequest": ("invalid_argument", ""),
}


def fault_name(fault: BaseException) -> str:
    """The fault's unqualified type name, for example `InvalidState`."""
    return type(fault).__name__.rsplit(".", 1)[-1]


def fault_text(fault: t.Any) -> str:
    """What the vCenter says about the fault: its message, or those of its details, in one line."""
    texts = [getattr(fault, "msg", None)]
    texts += [message.message for message in getattr(fault, "faultMessage", None) or ()]
    return " ".join(dict.fromkeys(text.strip().rstrip(".") for text in texts if text)) or fault_name(fault)


def from_fault(
    fault: BaseException, *, object: str | None = None, doing: str = "", names: t.Mapping[str, str] | None = None
) -> GpuOpsError:
    """The error for a fault that a call or a task raised.

    `object` is the name of what was worked on, `doing` what was asked of it (`enter maintenance mode`),
    `names` maps managed object ids to names for faults that carry a reference of their own.
    """
    name = fault_name(fault)
    # NotAuthenticated inherits from NoPermission: it must be told apart before.
    if isinstance(fault, vim.fault.NoPermission) and not isinstance(fault, vim.fault.NotAuthenticated):
        return _permission(fault, object, doing, names or {})
    code, advice = "operation_failed", ""
    for cls in type(fault).__mro__:
        entry = _ADVICE.get(cls.__name__.rsplit(".", 1)[-1])
        if entry:
            code, advice = entry
            break
    what = f"{object}: could not {doing}" if object and doing else (object or doing or "The vCenter refused")
    msg = f"{what}: {fault_text(fault)} ({name})."
    if advice:
        msg += f" {advice}"
    error_type = _TYPES.get(code, OperationFailedError)
    return error_type(msg, code=code, object=object, fault=name)


_TYPES: dict[str, type[GpuOpsError]] = {
    "invalid_login": AuthenticationError,
    "not_authenticated": AuthenticationError,
    "object_gone": ObjectGoneError,
    "timeout": OperationTimeoutError,
}


def _permission(fault: t.Any, object: str | None, doing: str, names: t.Mapping[str, str]) -> PermissionMissingError:
    on = None
    if fault.object is not None:
        moid = str(fault.object._moId)
        on = names.get(moid) or f"{type(fault.object).__name__.rsplit('.', 1)[-1]} {moid}"
    privilege = fault.privilegeId or "unknown"
    to = f"to {doing}" if doing else "for this"
    return PermissionMissingError(
        f"The user lacks the privilege {privilege} on {on or object or 'the vCenter'}, which is needed {to}"
        f"{f' on {object}' if object and object != on else ''}. Give the user a role with it there.",
        privilege=privilege,
        object=object or on,
        fault=fault_name(fault),
    )


def is_fault(error: BaseException, *names: str) -> bool:
    """Whether a raised fault is one of the named types, or derives from one (names as in `InvalidState`)."""
    wanted = set(names)
    return any(cls.__name__.rsplit(".", 1)[-1] in wanted for cls in type(error).__mro__)
