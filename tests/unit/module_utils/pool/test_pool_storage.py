"""What the file server exports and what each machine mounts."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.filter.pool_storage import pool_storage
from ansible_collections.gpuops.vsphere.plugins.module_utils.pool.storage import plan_storage, unit_name

HOSTS = ["ctl-01", "gpu-01", "ws-01"]
HOME = {"path": "/home", "source": "/export/home"}
STATE = {"path": "/srv/gpu-pool", "hosts": ["ctl-01"], "root": True, "options": "hard,sync"}


def plan(*directories: dict[str, Any], host: str = "gpu-01", **changed: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "host": host,
        "kind": "nfs",
        "server": "files-01",
        "exported": True,
        "hosts": HOSTS,
        "addresses": {"files-01": "10.0.0.9", "ctl-01": "10.0.0.1"},
    }
    return plan_storage(directories, **(given | changed))


def test_the_server_exports_to_the_machines_that_mount_and_to_nobody_else() -> None:
    found = plan(HOME, STATE, host="files-01")
    assert found["exports"] == [
        "/export/home 10.0.0.1(rw,sync,no_subtree_check,root_squash) gpu-01(rw,sync,no_subtree_check,root_squash) "
        "ws-01(rw,sync,no_subtree_check,root_squash)",
        "/srv/gpu-pool 10.0.0.1(rw,sync,no_subtree_check,no_root_squash)",
    ]
    assert [source["path"] for source in found["sources"]] == ["/export/home", "/srv/gpu-pool"]
    assert found["mounts"] == []


def test_a_machine_mounts_what_is_for_it() -> None:
    (home,) = plan(HOME, STATE)["mounts"]
    assert home == {
        "path": "/home",
        "unit": "home.mount",
        "what": "10.0.0.9:/export/home",
        "type": "nfs4",
        "options": "hard,_netdev",
    }
    _home, state = plan(HOME, STATE, host="ctl-01")["mounts"]
    assert (state["what"], state["options"]) == ("10.0.0.9:/srv/gpu-pool", "hard,sync")


def test_a_file_server_of_the_pool_itself_has_its_files_under_the_same_name() -> None:
    found = plan(HOME, {"path": "/data"}, host="ctl-01", server="ctl-01")
    assert found["mounts"] == [
        {"path": "/home", "unit": "home.mount", "what": "/export/home", "type": "none", "options": "bind"}
    ]
    assert found["paths"] == ["/home", "/data"]
    assert "10.0.0.1(" not in "".join(found["exports"])


def test_of_a_server_that_is_not_ours_nothing_is_exported() -> None:
    found = plan(HOME, host="gpu-01", server="nas.example.org", exported=False, addresses={})
    assert (found["exports"], found["mounts"][0]["what"]) == ([], "nas.example.org:/export/home")


def test_bind_takes_the_machines_own_directory_and_none_mounts_nothing() -> None:
    (mount,) = plan({"path": "/home", "source": "/mnt/share/home"}, kind="bind", server="")["mounts"]
    assert (mount["what"], mount["type"], mount["options"]) == ("/mnt/share/home", "none", "bind")
    found = plan(HOME, kind="none", server="")
    assert (found["mounts"], found["paths"], found["problems"]) == ([], ["/home"], [])


@pytest.mark.parametrize(
    ("directory", "changed", "words"),
    [
        (HOME, {"kind": "smb"}, "must be one of nfs, bind, none"),
        (HOME, {"server": ""}, "gpu_pool_storage_server is empty"),
        ({"path": "home"}, {}, "'home' is no absolute path"),
        ({"path": "/"}, {}, "'/' is no absolute path"),
        ({"path": "/a/../etc"}, {}, "is no absolute path"),
        ({"path": "/home", "source": "/x *(rw)"}, {}, "the source '/x *(rw)'"),
        ({"path": "/home", "options": "rw\nExec=x"}, {}, "strange character"),
        ({"path": "/home"}, {"kind": "bind"}, "has no source"),
        ({}, {}, "the path ''"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_planned(
    directory: dict[str, Any], changed: dict[str, Any], words: str
) -> None:
    found = plan(directory, **changed)
    assert words in " ".join(found["problems"])
    assert not found["mounts"] + found["exports"] + found["sources"]


def test_a_directory_named_twice_is_refused() -> None:
    assert "names /home twice" in " ".join(plan(HOME, HOME)["problems"])


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/home", "home.mount"),
        ("/srv/gpu-pool/state", "srv-gpu\\x2dpool-state.mount"),
        ("/.hidden/.x", "\\x2ehidden-.x.mount"),
    ],
)
def test_a_unit_has_the_name_that_systemd_wants(path: str, unit: str) -> None:
    assert unit_name(path) == unit
    escape = shutil.which("systemd-escape")
    if escape:
        told = subprocess.run([escape, "--path", "--suffix=mount", path], capture_output=True, text=True, check=True)
        assert told.stdout.strip() == unit


def test_the_filter_takes_addresses_from_the_inventory() -> None:
    hostvars = {"files-01": {"ansible_host": "10.0.0.9"}, "gpu-01": {}}
    found = pool_storage([HOME], hostvars, "files-01", "nfs", "files-01", ["gpu-01"])
    assert found["exports"] == ["/export/home gpu-01(rw,sync,no_subtree_check,root_squash)"]
    assert pool_storage([HOME], hostvars, "gpu-01", "nfs", "files-01", ["gpu-01"])["mounts"][0]["what"] == (
        "10.0.0.9:/export/home"
    )
