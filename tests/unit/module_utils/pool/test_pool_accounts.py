"""Tenants and quotas as arguments for sacctmgr."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.pool.accounts import plan_accounts

TENANTS = [
    {"name": "vision", "gpus": 4, "shares": 10, "gpus_per_user": 1.5, "users": ["alice", {"name": "bob", "gpus": 0.5}]},
    {"name": "guests"},
]


def association(account: str, user: str = "", billing: int | None = None, shares: int = 1) -> dict[str, t.Any]:
    """As `sacctmgr show associations --json` of Slurm 24.11 has it."""
    total = [] if billing is None else [{"type": "billing", "name": "", "id": 5, "count": billing}]
    return {
        "account": account,
        "user": user,
        "cluster": "gpu-pool",
        "partition": "",
        "shares_raw": shares,
        "priority": {"set": False, "infinite": False, "number": 0},
        "max": {"tres": {"total": total}},
    }


def commands(entries: list[dict[str, t.Any]], tenants: list[dict[str, t.Any]], **settings: t.Any) -> list[str]:
    found = plan_accounts({"associations": entries}, tenants, cluster="gpu-pool", **settings)
    assert found["problems"] == []
    return [" ".join(command) for command in found["commands"]]


def test_from_nothing_accounts_come_before_their_users() -> None:
    assert commands([association("root"), association("root", "root")], TENANTS) == [
        "add account vision Cluster=gpu-pool GrpTRES=billing=400 Fairshare=10",
        "add user alice Account=vision Cluster=gpu-pool GrpTRES=billing=150 Fairshare=1",
        "add user bob Account=vision Cluster=gpu-pool GrpTRES=billing=50 Fairshare=1",
        "add account guests Cluster=gpu-pool Fairshare=1",
    ]


def test_what_is_as_wanted_is_left_alone() -> None:
    entries = [
        association("root"),
        association("vision", billing=400, shares=10),
        association("vision", "alice", 150),
        association("vision", "bob", 50),
        association("guests"),
    ]
    assert commands(entries, TENANTS) == []
    assert commands(entries, TENANTS, purge=True) == []


def test_changes_and_limits_that_are_taken_away() -> None:
    entries = [association("vision", billing=400), association("vision", "alice", 150), association("guests")]
    wanted = [{"name": "vision", "priority": 5, "users": ["alice"]}, {"name": "guests", "gpus": 0}]
    assert commands(entries, wanted) == [
        "modify account where Name=vision Cluster=gpu-pool set GrpTRES=billing=-1 Priority=5",
        "modify user where Name=alice Account=vision Cluster=gpu-pool set GrpTRES=billing=-1",
        "modify account where Name=guests Cluster=gpu-pool set GrpTRES=billing=0",
    ]


def test_only_a_purge_removes_and_never_root() -> None:
    entries = [
        association("root"),
        association("root", "root"),
        association("old"),
        association("old", "carol"),
        association("guests"),
        association("guests", "dave"),
        association("elsewhere") | {"cluster": "other"},
    ]
    assert commands(entries, [{"name": "guests"}]) == []
    assert commands(entries, [{"name": "guests"}], purge=True) == [
        "delete user where Name=dave Account=guests Cluster=gpu-pool",
        "delete user where Name=carol Account=old Cluster=gpu-pool",
        "delete account where Name=old Cluster=gpu-pool",
    ]


@pytest.mark.parametrize(
    ("tenants", "says"),
    [
        ([{"name": "a"}, {"name": "a"}], "'a' is twice"),
        ([{"name": "root"}], "'root' cannot be the name of a tenant"),
        ([{"name": "Big Lab"}], "'Big Lab' cannot be the name of a tenant"),
        ([{"name": "a", "users": ["x;y"]}], "'x;y' cannot be the name of a user"),
        ([{"name": "a", "gpus": "many"}], "The quota of tenant a is 'many'"),
        ([{"name": "a", "gpus": -1}], "The quota of tenant a is -1"),
        ([{"name": "a", "gpus_per_user": "x"}], "each user of a"),
        ([{"name": "a", "users": [{"name": "bob", "gpus": "x"}]}], "user bob"),
    ],
)
def test_what_cannot_be_changes_nothing(tenants: list[dict[str, t.Any]], says: str) -> None:
    found = plan_accounts({}, tenants, cluster="gpu-pool")
    assert says in found["problems"][0]
    assert found["commands"] == []
