# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tenants and quotas: what sacctmgr must be told so that accounting is as the inventory wants it. Pure.

A tenant is an account, its people are the account's users. A quota is a limit of `billing`, hundredths of a GPU at one
time, on the association (GrpTRES): of the account for all of the tenant, of the user for one of its people.
"""

from __future__ import annotations

import re
import typing as t

_NAME = re.compile(r"[a-z_][a-z0-9_.-]*")
NO_LIMIT = -1


def plan_accounts(
    associations: t.Mapping[str, t.Any],
    tenants: t.Sequence[t.Mapping[str, t.Any]],
    *,
    cluster: str,
    purge: bool = False,
) -> dict[str, t.Any]:
    """`commands` (arguments for sacctmgr, in order) and `problems`.

    `associations`: reply of `sacctmgr show associations --json`. `purge`: people whom a tenant no longer lists, and
    accounts that are no tenant's, are removed.
    """
    problems = _problems(tenants)
    have = {
        (str(entry.get("account")), str(entry.get("user") or "")): entry
        for entry in associations.get("associations", ())
        if entry.get("cluster") == cluster and not entry.get("partition")
    }
    commands: list[list[str]] = []
    wanted: set[tuple[str, str]] = set()
    for tenant in [] if problems else tenants:
        account = str(tenant["name"])
        for user, settings in [("", _settings(tenant, tenant.get("gpus"))), *_people(tenant)]:
            wanted.add((account, user))
            commands += _bring(have.get((account, user)), account, user, settings, cluster)
    if purge and not problems:
        gone = sorted(set(have) - wanted, key=lambda pair: (pair[1] == "", pair))
        commands += [_remove(account, user, cluster) for account, user in gone if account != "root"]
    return {"commands": commands, "problems": problems}


def _problems(tenants: t.Sequence[t.Mapping[str, t.Any]]) -> list[str]:
    found = []
    names = [str(tenant.get("name", "")) for tenant in tenants]
    found += [
        f"{name!r} is twice in gpu_pool_controller_tenants." for name in sorted(set(names)) if names.count(name) > 1
    ]
    for tenant in tenants:
        name = str(tenant.get("name", ""))
        people = [_person(entry) for entry in tenant.get("users") or ()]
        for kind, each in [("tenant", name), *(("user", str(person.get("name", ""))) for person in people)]:
            if not _NAME.fullmatch(each) or (kind, each) == ("tenant", "root"):
                found.append(
                    f"{each!r} cannot be the name of a {kind}: small letters, digits, _ . and -, and not root."
                )
        for whose, value in [
            (f"tenant {name}", tenant.get("gpus")),
            (f"each user of {name}", tenant.get("gpus_per_user")),
            *((f"user {person.get('name')}", person.get("gpus")) for person in people),
        ]:
            if value is not None and _hundredths(value) is None:
                found.append(f"The quota of {whose} is {value!r}; it must be a number of GPUs, for example 1.5.")
    return found


def _person(entry: t.Any) -> t.Mapping[str, t.Any]:
    return entry if isinstance(entry, t.Mapping) else {"name": entry}


def _people(tenant: t.Mapping[str, t.Any]) -> list[tuple[str, dict[str, str]]]:
    people = [_person(entry) for entry in tenant.get("users") or ()]
    quota = tenant.get("gpus_per_user")
    return [(str(person["name"]), _settings(person, person.get("gpus", quota))) for person in people]


def _hundredths(gpus: t.Any) -> int | None:
    try:
        number = float(gpus)
    except (TypeError, ValueError):
        return None
    return round(100 * number) if 0 <= number < 1e6 else None


def _settings(entry: t.Mapping[str, t.Any], gpus: t.Any) -> dict[str, str]:
    """As sacctmgr takes them; what the inventory does not say is Slurm's own value."""
    limit = NO_LIMIT if gpus is None else _hundredths(gpus)
    return {
        "GrpTRES": f"billing={limit}",
        "Fairshare": str(entry.get("shares", 1)),
        "Priority": str(entry.get("priority", NO_LIMIT)),
    }


def _now(entry: t.Mapping[str, t.Any]) -> dict[str, str]:
    total = ((entry.get("max") or {}).get("tres") or {}).get("total") or ()
    limit = next((each.get("count") for each in total if each.get("type") == "billing"), NO_LIMIT)
    priority = entry.get("priority") or {}
    known = isinstance(priority, t.Mapping) and priority.get("set") and not priority.get("infinite")
    return {
        "GrpTRES": f"billing={limit}",
        "Fairshare": str(entry.get("shares_raw", 1)),
        "Priority": str(priority["number"] if known else NO_LIMIT),
    }


def _bring(
    entry: t.Mapping[str, t.Any] | None, account: str, user: str, settings: t.Mapping[str, str], cluster: str
) -> list[list[str]]:
    where = [f"Cluster={cluster}"]
    if entry is None:
        words = [f"{name}={value}" for name, value in settings.items() if not value.endswith(str(NO_LIMIT))]
        if user:
            return [["add", "user", user, f"Account={account}", *where, *words]]
        return [["add", "account", account, *where, *words]]
    now = _now(entry)
    words = [f"{name}={value}" for name, value in settings.items() if now[name] != value]
    if not words:
        return []
    if user:
        return [["modify", "user", "where", f"Name={user}", f"Account={account}", *where, "set", *words]]
    return [["modify", "account", "where", f"Name={account}", *where, "set", *words]]


def _remove(account: str, user: str, cluster: str) -> list[str]:
    if user:
        return ["delete", "user", "where", f"Name={user}", f"Account={account}", f"Cluster={cluster}"]
    return ["delete", "account", "where", f"Name={account}", f"Cluster={cluster}"]
