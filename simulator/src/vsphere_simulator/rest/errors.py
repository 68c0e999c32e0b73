"""Errors as vAPI clients know them."""

from __future__ import annotations

import typing as t

from vsphere_simulator.vmomi import vim, vmodl

STATUS: t.Final[dict[str, int]] = {
    "ALREADY_EXISTS": 400,
    "ERROR": 500,
    "INVALID_ARGUMENT": 400,
    "INTERNAL_SERVER_ERROR": 500,
    "NOT_ALLOWED_IN_CURRENT_STATE": 400,
    "NOT_FOUND": 404,
    "RESOURCE_IN_USE": 400,
    "SERVICE_UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
    "UNAUTHORIZED": 403,
    "UNSUPPORTED": 400,
}
"""HTTP status of each kind of error."""

_FAULTS: t.Final[tuple[tuple[t.Any, str], ...]] = (
    (vim.fault.NotAuthenticated, "UNAUTHENTICATED"),
    (vim.fault.NoPermission, "UNAUTHORIZED"),
    (vmodl.fault.ManagedObjectNotFound, "NOT_FOUND"),
    (vim.fault.NotFound, "NOT_FOUND"),
    (vim.fault.DuplicateName, "ALREADY_EXISTS"),
    (vmodl.fault.NotSupported, "UNSUPPORTED"),
    (vmodl.fault.InvalidArgument, "INVALID_ARGUMENT"),
    (vim.fault.ResourceInUse, "RESOURCE_IN_USE"),
    (vim.fault.InvalidState, "NOT_ALLOWED_IN_CURRENT_STATE"),
    (vmodl.fault.HostNotConnected, "SERVICE_UNAVAILABLE"),
)


class ApiError(Exception):
    """What a call answers instead of a result."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        """A key of `STATUS`."""
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.kind]

    def body(self, *, old: bool) -> dict[str, t.Any]:
        """The JSON body, for `/api` or for the older `/rest`."""
        messages = [{"id": f"com.vmware.vapi.{self.kind.lower()}", "default_message": self.message, "args": []}]
        if old:
            return {"type": f"com.vmware.vapi.std.errors.{self.kind.lower()}", "value": {"messages": messages}}
        return {"error_type": self.kind, "messages": messages}


def of_fault(fault: t.Any) -> ApiError:
    """The error for a fault of the SOAP API."""
    text = fault.msg or type(fault).__name__
    if isinstance(fault, vim.fault.NoPermission) and not isinstance(fault, vim.fault.NotAuthenticated):
        where = f" on {fault.object._GetMoId()}" if fault.object is not None else ""
        text = f"{text} Privilege {fault.privilegeId} is missing{where}."
    return ApiError(next((kind for cls, kind in _FAULTS if isinstance(fault, cls)), "ERROR"), text)


def not_found(what: str, identifier: str) -> ApiError:
    """The error for an identifier of nothing."""
    return ApiError("NOT_FOUND", f"There is no {what} with id {identifier}.")


def invalid(message: str) -> ApiError:
    """The error for a request that makes no sense."""
    return ApiError("INVALID_ARGUMENT", message)
