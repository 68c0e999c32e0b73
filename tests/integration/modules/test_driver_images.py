# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Drivers by a cluster's image: whose drafts there are, what a failure says, and who is where meanwhile."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.client import Client
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.images import read_images
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import ConnectionOptions
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.progress import DIRECTORY
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.rest import Rest
from ansible_collections.gpuops.vsphere.plugins.modules import esxi_driver
from in_process import run
from simulated import PASSWORD, USERNAME, StartVcenter, Vcenter, fleet

ONE, TWO = "esx-001.lab", "esx-002.lab"
VERSION, DEPOT = "17.1", "https://depot.lab/vgpu-17.1.zip"
AGENT, AGENT_DEPOT = "other-agent", "https://depot.lab/agent.zip"
PLANNER = "planner@vsphere.local"
CLUSTER = "/api/esx/settings/clusters/{cluster}/software"
DRAFTS = CLUSTER + "/drafts"
DRAFT = DRAFTS + "/{draft}/software/components"
EXISTS = {
    "method": f"POST {DRAFTS}",
    "nth": 2,  # the first is the test's own
    "fault": {"type": "vim.fault.DuplicateName", "message": "There is already a draft created by this user."},
}


def site(*users: str, **more: Any) -> dict[str, Any]:
    model = fleet(2, timings={"maintenance": 1, "boot": 20, "install": 30}) | more
    model["clusters"][0]["image"] = {}
    model["depots"] = {
        DEPOT: [{"version": VERSION, "vgpu_manager": VERSION}],
        AGENT_DEPOT: [{"name": AGENT, "version": "1.0", "vendor": "Example"}],
    }
    model["users"] = [{"name": name, "password": PASSWORD, "role": "Admin"} for name in users]
    return model


def wanted(*names: str) -> list[dict[str, Any]]:
    """The option `hosts`, whole."""
    defaults = {key: one.get("default") for key, one in esxi_driver.argument_spec()["hosts"]["options"].items()}
    return [{**defaults, "name": name, "version": VERSION, "bundle": DEPOT} for name in names or (ONE,)]


class Editor:
    """Somebody who edits the cluster's image."""

    def __init__(self, rest: Rest, moid: str) -> None:
        self.rest = rest
        self.moid = moid

    def draft(self, **components: str) -> str:
        """A new draft with these components; `_` for `-` in a name."""
        draft = str(self.rest.call("POST", DRAFTS, cluster=self.moid))
        self.edit(draft, **components)
        return draft

    def edit(self, draft: str, **components: str) -> None:
        """Set components in a draft."""
        body = {"components_to_set": {name.replace("_", "-"): version for name, version in components.items()}}
        self.rest.call("PATCH", DRAFT, body, cluster=self.moid, draft=draft)

    def drafts(self) -> dict[str, list[str]]:
        """Names of the components of each draft."""
        found = self.rest.get(DRAFTS, cluster=self.moid)
        return {key: sorted(self.rest.get(DRAFT, cluster=self.moid, draft=key)) for key in found}

    def discard(self, draft: str) -> None:
        """Drop a draft."""
        self.rest.call("DELETE", DRAFTS + "/{draft}", cluster=self.moid, draft=draft)

    def commit(self, **components: str) -> None:
        """Have components in the image."""
        path = DRAFTS + "/{draft}?action=commit&vmw-task=true"
        task = self.rest.start("POST", path, {"message": "mine"}, cluster=self.moid, draft=self.draft(**components))
        self.rest.finish(task, timeout=30, doing="commit")

    def image(self) -> list[str]:
        """Names of the components of the image."""
        return sorted(self.rest.get(CLUSTER + "/components", cluster=self.moid))


@contextlib.contextmanager
def editor(vcenter: Vcenter, username: str = USERNAME) -> Iterator[Editor]:
    given = vcenter.options(username=username, session_dir=str(vcenter.session_dir) + "-editors")
    with Client.open(ConnectionOptions.from_params({"validate_certs": True, "thumbprint": None, **given})) as client:
        rest = Rest(client)
        try:
            yield Editor(rest, read_images(client, rest, ["gpu"])["gpu"].moid)
        finally:
            rest.close()


def import_agent(who: Editor) -> None:
    spec = {"source_type": "PULL", "location": AGENT_DEPOT}
    task = who.rest.start("POST", "/api/esx/settings/depots/offline?vmw-task=true", spec)
    who.rest.finish(task, timeout=30, doing="import")


def prepared(start: StartVcenter, model: dict[str, Any], **settings: Any) -> Vcenter:
    vcenter = start(model, **settings)
    vcenter.ok("esxi_maintenance", hosts=[ONE, TWO], state="entered")
    return vcenter


def test_somebody_else_s_draft_is_left_alone(start_vcenter: StartVcenter) -> None:
    vcenter = prepared(start_vcenter, site(PLANNER))
    with editor(vcenter, PLANNER) as planner:
        draft = planner.draft(other_agent="1.0")
        assert vcenter.ok("esxi_driver", hosts=wanted())["changed"]
        assert planner.drafts() == {draft: [AGENT]}
        assert AGENT not in planner.image()


@pytest.mark.parametrize(
    "name", ["ADMINISTRATOR@VSPHERE.LOCAL", "VSPHERE.LOCAL\\Administrator", "vsphere\\Administrator"]
)
def test_an_own_draft_is_known_however_the_vcenter_writes_its_owner(start_vcenter: StartVcenter, name: str) -> None:
    vcenter = prepared(start_vcenter, site(name))
    with editor(vcenter, name) as other:
        other.draft()
        assert vcenter.ok("esxi_driver", hosts=wanted())["changed"]
        assert other.drafts() == {}
    assert vcenter.counts()["requests"][f"POST {DRAFTS}"] == 1


def test_an_own_draft_with_other_edits_is_in_the_way_until_somebody_decides(start_vcenter: StartVcenter) -> None:
    vcenter = prepared(start_vcenter, site())
    with editor(vcenter) as own:
        draft = own.draft(other_agent="1.0")
        failed = vcenter.fails("esxi_driver", hosts=wanted())
        assert failed["failure"]["code"] == "draft_in_the_way"
        for word in ("cluster gpu", USERNAME, f"draft {draft}", "Commit or discard"):
            assert word in failed["msg"]
        assert own.drafts() == {draft: [AGENT]}
        assert own.image() == []
        own.discard(draft)
        assert vcenter.ok("esxi_driver", hosts=wanted())["changed"]
    assert vcenter.ok("esxi_driver", hosts=wanted())["changed"] is False


@pytest.mark.parametrize(("name", "known"), [("LAB\\administrator", True), (PLANNER, False)])
def test_a_draft_that_the_vcenter_says_is_ours_is_looked_for_again(
    start_vcenter: StartVcenter, name: str, known: bool
) -> None:
    vcenter = prepared(start_vcenter, site(name), faults=[EXISTS])
    with editor(vcenter, name) as other:
        draft = other.draft()
        if known:
            assert vcenter.ok("esxi_driver", hosts=wanted())["changed"]
            assert other.drafts() == {}
        else:
            failed = vcenter.fails("esxi_driver", hosts=wanted())
            assert failed["failure"]["code"] == "draft_in_the_way"
            for word in ("cluster gpu", f"draft {draft} of {name}", "Commit or discard"):
                assert word in failed["msg"]
            assert other.drafts() == {draft: []}
            assert vcenter.ok("esxi_driver", hosts=wanted())["changed"]


def before_call(monkeypatch: pytest.MonkeyPatch, path: str, action: Callable[[], None], nth: int = 1) -> None:
    """Do something just before the run's nth call of a path."""
    seen: list[str] = []
    original = Rest.call

    def call(rest: Rest, verb: str, called: str, *arguments: Any, **names: Any) -> Any:
        if f"{verb} {called}" == path:
            seen.append(called)
            if len(seen) == nth:
                monkeypatch.setattr(Rest, "call", original)
                action()
        return original(rest, verb, called, *arguments, **names)

    monkeypatch.setattr(Rest, "call", call)


def test_what_others_commit_after_the_image_was_read_stays_in_it(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    vcenter = prepared(start_vcenter, site(PLANNER))
    with editor(vcenter, PLANNER) as planner:
        import_agent(planner)
        before_call(monkeypatch, f"POST {DRAFTS}", lambda: planner.commit(other_agent="1.0"))
        _planned, done = run(vcenter, esxi_driver, hosts=wanted())
        assert done[ONE].problems == ()
        assert AGENT in planner.image()
        assert len(planner.image()) > 1


def test_what_others_do_to_the_draft_meanwhile_is_not_committed(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    vcenter = prepared(start_vcenter, site())
    with editor(vcenter) as own:
        import_agent(own)
        before_call(monkeypatch, f"PATCH {DRAFT}", lambda: own.edit(next(iter(own.drafts())), other_agent="1.0"))
        _planned, done = run(vcenter, esxi_driver, hosts=wanted())
        (problem,) = done[ONE].problems
        (draft,) = own.drafts()
        assert problem.code == "changed_meanwhile"
        for word in ("cluster gpu", f"draft {draft}", "nothing was committed", "Commit or discard"):
            assert word in problem.msg
        assert own.image() == []
        own.discard(draft)
    assert vcenter.ok("esxi_driver", hosts=wanted())["changed"]


def test_why_a_host_was_not_brought_to_the_image_is_said_and_what_to_do(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    vcenter = prepared(start_vcenter, site(), time_scale=60)
    original = Rest.start

    def start(rest: Rest, verb: str, path: str, *arguments: Any, **names: Any) -> str:
        task = original(rest, verb, path, *arguments, **names)
        if "action=apply" in path:
            monkeypatch.setattr(Rest, "start", original)
            client = rest._client
            (host,) = (one for one in client.view(vim.HostSystem).view if one.name == ONE)
            host.DisconnectHost_Task()
        return task

    monkeypatch.setattr(Rest, "start", start)
    _planned, done = run(vcenter, esxi_driver, hosts=wanted(ONE, TWO))
    (first,), (second,) = done[ONE].problems, done[TWO].problems
    assert "no reason" not in first.msg
    for word in ("disconnected", "Remove the cause", "run again"):
        assert word in first.msg
    assert (first.object, second.object) == (ONE, TWO)
    assert "another host failed before" in second.msg


def test_who_is_where_is_told_while_hosts_are_brought_to_the_image(
    start_vcenter: StartVcenter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vcenter = prepared(start_vcenter, site(), time_scale=60)
    told_to = tmp_path / "progress"
    told_to.mkdir(mode=0o700)
    monkeypatch.setenv(DIRECTORY, str(told_to))
    _planned, done = run(vcenter, esxi_driver, hosts=wanted(ONE, TWO))
    assert all(one.problems == () for one in done.values())
    told = [json.loads(text) for file in told_to.iterdir() for text in file.read_text().splitlines()]
    begun = [(one["name"], one["doing"], one["percent"]) for one in told if not one["ended"]]
    doing = "bring hosts of cluster gpu to its image"
    for at, percent in ((ONE, 0), (TWO, 50)):
        for name in (ONE, TWO):
            assert (name, f"{doing} (Remediating host {at})", percent) in begun
    names = {
        what: {name for name, said, _percent in begun if said.startswith(what)}
        for what in ("import", "change", "check")
    }
    assert names == {"import": {f"127.0.0.1:{vcenter.port}"}, "change": {"gpu"}, "check": {ONE, TWO}}
    last = {one["name"]: one["ended"] for one in told}
    assert last
    assert all(last.values()), "somebody is said to be at something for ever"
