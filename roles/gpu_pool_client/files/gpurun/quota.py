# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A tenant's limit in hundredths of a GPU.

The role gpu_pool_controller bills a whole GPU as 100 and a shard as its part of that (TRESBillingWeights), and limits
`billing` per user and per account, so that whole GPUs and fractions count against one number. Slurm keeps a job over
such a limit pending for ever without an error, so the client must refuse it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import CredentialError, QuotaError
from .request import Grant


@dataclass(frozen=True)
class Limit:
    """`hundredths` of a GPU at one time; `whose` says whose limit it is."""

    whose: str
    hundredths: int


def read_limits(
    associations: Mapping[str, Any], qos: Mapping[str, Any], user: str, account: str | None = None
) -> list[Limit]:
    """Limits that apply to a user, from `sacctmgr show assoc` and `sacctmgr show qos`, both with --json."""
    own = [
        entry
        for entry in associations.get("associations", ())
        if entry.get("user") == user
        and account in (None, entry.get("account"))
        and (account or entry.get("is_default", True))
    ]
    accounts = {entry.get("account") for entry in own}
    limits = []
    for entry in own:
        limits += _limits(f"user {user}", _path(entry, "max", "tres", "total"))
    for entry in associations.get("associations", ()):
        if not entry.get("user") and entry.get("account") in accounts:
            limits += _limits(f"group {entry['account']}", _path(entry, "max", "tres", "total"))
    names = {
        name
        for entry in own
        for name in [*(entry.get("qos") or ()), _path(entry, "default", "qos")]
        if isinstance(name, str)
    }
    for entry in qos.get("qos", ()):
        if not names or entry.get("name") in names:
            per = _path(entry, "limits", "max", "tres", "per") or {}
            limits += _limits(f"user {user}", per.get("user"))
            limits += _limits(f"group {account or ', '.join(sorted(filter(None, accounts)))}", per.get("account"))
            limits += _limits("one job", per.get("job"))
    return sorted(set(limits), key=lambda limit: (limit.hundredths, limit.whose))


def check_tenant(associations: Mapping[str, Any], user: str, account: str | None) -> None:
    """Raise CredentialError for a user who is in no tenant, or not in the one named."""
    own = sorted(
        {str(entry.get("account")) for entry in associations.get("associations", ()) if entry.get("user") == user}
    )
    if not own:
        raise CredentialError(f"{user} is in no tenant of the pool: ask its operator to add you to one")
    if account is not None and account not in own:
        raise CredentialError(f"{user} is not in the account {account}; use --account {' or '.join(own)}")


def check(grant: Grant, limits: Sequence[Limit]) -> None:
    """Raise QuotaError for a request that no waiting could bring within the limits."""
    for limit in limits:
        if grant.hundredths > limit.hundredths:
            raise QuotaError(
                f"the quota of {limit.whose} is {limit.hundredths / 100:g} GPU at a time, and this asks for "
                f"{grant.hundredths / 100:g}: ask for less, or ask the operator for more"
            )


def _limits(whose: str, tres: Any) -> list[Limit]:
    return [
        Limit(whose, int(entry["count"]))
        for entry in tres or ()
        if entry.get("type") == "billing" and entry.get("count") is not None
    ]


def _path(entry: Mapping[str, Any], *keys: str) -> Any:
    found: Any = entry
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
