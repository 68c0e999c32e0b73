"""Login and logout of the REST API; sessions live in the same table as those of SOAP."""

from __future__ import annotations

import typing as t

from vsphere_simulator.kernel.sessions import Caller, current_caller
from vsphere_simulator.rest.errors import ApiError
from vsphere_simulator.rest.operations import Call, operation

HEADER: t.Final = "vmware-api-session-id"


@operation("POST", "/api/session", status=201, anonymous=True)
@operation("POST", "/api/cis/session", status=201, anonymous=True)
def create(call: Call) -> str:
    """Open a session for the user of basic authentication."""
    if call.credentials is None or not call.ctx.world.authorization.authenticate(*call.credentials):
        raise ApiError("UNAUTHENTICATED", "Authentication required.")
    caller = current_caller.get() or Caller()
    call.ctx.session = call.ctx.world.sessions.open(
        call.credentials[0], locale="en", ip_address=caller.ip_address, user_agent=caller.user_agent
    )
    return call.ctx.session.token


@operation("GET", "/api/session")
@operation("GET", "/api/cis/session")
@operation("POST", "/api/cis/session?action=get")
def get(call: Call) -> dict[str, t.Any]:
    """Say whose session this is."""
    data = call.ctx.session.as_data() if call.ctx.session is not None else None
    assert data is not None  # noqa: S101 - the endpoint has checked
    return {
        "user": data.userName,
        "created_time": data.loginTime.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "last_accessed_time": data.lastActiveTime.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


@operation("DELETE", "/api/session", status=204)
@operation("DELETE", "/api/cis/session", status=204)
def delete(call: Call) -> None:
    """End the session."""
    if call.ctx.session is not None:
        call.ctx.world.sessions.close(call.ctx.session)
