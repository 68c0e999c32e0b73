# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from simulated import StartVcenter, Vcenter

ONE, TWO = "esx-001.lab", "esx-002.lab"
OLD, NEW = "16.4", "17.1"
DEPOTS = {version: f"https://depot.lab/vgpu-{version}.zip" for version in (OLD, NEW)}
UNPACKED = {version: f"https://depot.lab/vgpu-{version}/metadata.zip" for version in (OLD, NEW)}
CLUSTER = "/api/esx/settings/clusters/{cluster}/software"


def site(count: int = 2, *, image: bool = False, **more: Any) -> dict[str, Any]:
    host = {"name": f"esx-[001:{count:03}].lab", "gpus": [{"gpu": "A100-40"}], "graphics_type": "sharedDirect"}
    cluster: dict[str, Any] = {"name": "gpu", "hosts": [host]}
    if image:
        cluster["image"] = {}
    return {
        "datacenter": "lab",
        "datastores": [{"name": "shared-01"}],
        "networks": [{"name": "VM Network"}],
        "clusters": [cluster],
        "depots": {
            url: [{"version": version, "vgpu_manager": version}]
            for urls in (DEPOTS, UNPACKED)
            for version, url in urls.items()
        },
    } | more


def wanted(*names: str, version: str | None = NEW, **more: Any) -> list[dict[str, Any]]:
    if version is None:
        return [{"name": name, "state": "absent", **more} for name in names or (ONE,)]
    entry = {"version": version, "bundle": DEPOTS[version]} | more
    return [{"name": name, **entry} for name in names or (ONE,)]


def patched(*names: str, version: str | None = NEW, **more: Any) -> list[dict[str, Any]]:
    bundle = {} if version is None else {"bundle": UNPACKED[version]}
    return wanted(*names, version=version, method="patch", **bundle, **more)


def roll(vcenter: Vcenter, hosts: list[dict[str, Any]]) -> dict[str, Any]:
    """Maintenance mode, driver, reboot where it is due, and back."""
    names = [host["name"] for host in hosts]
    vcenter.ok("esxi_maintenance", hosts=names, state="entered")
    result = vcenter.ok("esxi_driver", hosts=hosts)
    vcenter.ok("esxi_power", hosts=names)
    vcenter.ok("esxi_maintenance", hosts=names, state="left")
    return result


def report(vcenter: Vcenter, hosts: list[dict[str, Any]]) -> dict[str, Any]:
    result = vcenter.ok("esxi_driver", hosts=hosts, outside_maintenance="report")
    assert result["changed"] is False
    objects: dict[str, Any] = result["objects"]
    return objects


@pytest.mark.parametrize("image", [False, True], ids=["patch", "image"])
def test_check_install_repeat_upgrade_downgrade_remove(start_vcenter: StartVcenter, image: bool) -> None:
    asked = wanted if image else patched
    vcenter = start_vcenter(site(image=image))
    assert "missing required arguments: hosts" in vcenter.run("esxi_driver").result["msg"]
    refused = vcenter.fails("esxi_driver", hosts=asked(ONE, TWO, version=OLD))
    assert refused["failure"]["code"] == "not_in_maintenance"
    entry = report(vcenter, asked(version=OLD))[ONE]
    assert entry["maintenance_required"] is True
    assert entry["pending"][-1] == f"install vGPU manager ({OLD}, {'by the cluster' if image else 'host patch'}" + (
        "'s image)" if image else ")"
    )
    vcenter.ok("esxi_maintenance", hosts=[ONE, TWO], state="entered")
    before = vcenter.settled_state()

    vcenter = start_vcenter(site(image=image), directory=vcenter.directory)
    planned = vcenter.ok("esxi_driver", check=True, diff=True, hosts=asked(ONE, TWO, version=OLD))
    assert vcenter.settled_state() == before

    vcenter = start_vcenter(site(image=image), directory=vcenter.directory)
    done = vcenter.ok("esxi_driver", diff=True, hosts=asked(ONE, TWO, version=OLD))
    for key in ("changed", "objects", "predicted", "diff"):
        assert done[key] == planned[key]
    assert done["objects"][ONE]["reboot_required"] is not image
    rebooted = vcenter.ok("esxi_power", hosts=[ONE, TWO])
    assert rebooted["changed"] is not image
    vcenter.ok("esxi_maintenance", hosts=[ONE, TWO], state="left")
    host = vcenter.host(ONE)
    assert host["vgpu_types"]
    assert host["intent"] is None
    assert host["in_maintenance"] is False
    entry = report(vcenter, asked(version=OLD))[ONE]
    assert (entry["installed"], entry["loaded"], entry["pending"]) == (OLD, True, [])

    assert "upgrade vGPU manager" in roll(vcenter, asked(ONE, TWO, version=NEW))["objects"][TWO]["actions"][-1]
    assert report(vcenter, asked(version=NEW))[ONE]["installed"] == NEW
    assert "downgrade vGPU manager" in roll(vcenter, asked(ONE, TWO, version=OLD))["objects"][TWO]["actions"][-1]
    assert report(vcenter, asked(version=OLD))[ONE]["installed"] == OLD
    assert "remove vGPU manager" in roll(vcenter, asked(ONE, TWO, version=None))["objects"][TWO]["actions"][-1]
    assert vcenter.host(ONE)["vgpu_types"] == []
    assert report(vcenter, asked(version=None))[ONE]["installed"] is None


def test_requests_grow_by_one_call_a_host_and_one_a_cluster_with_an_image(start_vcenter: StartVcenter) -> None:
    for count in (1, 10, 100):
        model = site(count, image=True)
        vcenter = start_vcenter(model)
        names = [f"esx-{number:03}.lab" for number in range(1, count + 1)]
        hosts = wanted(*names, version=None)
        report(vcenter, hosts[:1])
        vcenter.reset_counts()
        result = vcenter.ok("esxi_driver", hosts=hosts)
        reads = {
            "CreateContainerView": 2,
            "CreatePropertyCollector": 1,
            "DestroyPropertyCollector": 1,
            "DestroyView": 2,
            f"GET {CLUSTER}/components": 1,
            "RetrievePropertiesEx": 4,
            "RetrieveServiceContent": 1,
            "fetchSoftwarePackages": count,
        }
        counted = vcenter.counts()
        assert result["requests"] == reads
        assert counted["logins"] == 0
        assert counted["total"] == sum(reads.values())
        vcenter.stop()


def test_what_cannot_be_is_refused_and_the_other_host_served(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(site(6))
    names = [f"esx-{number:03}.lab" for number in range(1, 7)]
    vcenter.ok("esxi_maintenance", hosts=names, state="entered")
    hosts = [
        *patched(names[0]),
        *wanted(names[1], method="image"),
        {"name": names[2], "version": NEW},
        *wanted(names[3], method="patch"),
        *patched(names[4]),
        *patched(names[5]),
    ]
    hosts[4]["bundle"] = UNPACKED[OLD]
    hosts[5]["bundle"] = "https://depot.lab/nothing/metadata.zip"
    objects = vcenter.fails("esxi_driver", hosts=hosts)["objects"]
    assert {name: (objects[name].get("failure") or {}).get("code") for name in names} == dict(
        zip(
            names,
            (
                None,
                "no_cluster_image",
                "bundle_missing",
                "bundle_not_for_method",
                "version_not_in_bundle",
                "operation_failed",
            ),
            strict=True,
        )
    )
    assert OLD in objects[names[4]]["msg"]
    assert objects[names[4]]["changed"] is True
    assert "nothing/metadata.zip" in objects[names[5]]["msg"]
    # Nothing was installed there, so no reboot is due.
    assert vcenter.ok("esxi_power", hosts=[*names[1:4], names[5]])["changed"] is False
    assert vcenter.ok("esxi_power", hosts=[names[0], names[4]])["changed"] is True


def test_a_cluster_image_is_not_bypassed(start_vcenter: StartVcenter) -> None:
    vcenter = start_vcenter(site(image=True))
    vcenter.ok("esxi_maintenance", hosts=[ONE], state="entered")
    result = vcenter.fails("esxi_driver", hosts=patched())
    assert result["failure"]["code"] == "managed_by_image"


def test_a_single_vib_is_a_host_patch(start_vcenter: StartVcenter) -> None:
    url = "https://depot.lab/vgpu.vib"
    model = site(1, depots={url: [{"version": NEW, "vgpu_manager": NEW}]})
    vcenter = start_vcenter(model)
    vcenter.ok("esxi_maintenance", hosts=[ONE], state="entered")
    done = vcenter.ok("esxi_driver", hosts=wanted(bundle=url))["objects"][ONE]
    assert (done["method"], done["changed"]) == ("patch", True)
    assert report(vcenter, wanted(bundle=url))[ONE]["installed"] == NEW
    # No bulletin has brought it, and a patch is removed by its bulletin.
    assert vcenter.ok("esxi_power", hosts=[ONE])["changed"]
    failed = vcenter.fails("esxi_driver", hosts=patched(version=None))
    assert failed["failure"]["code"] == "no_bulletin"
    assert "esxcli" in failed["msg"]
    assert "UninstallHostPatch_Task" not in failed["requests"]
    assert vcenter.ok("esxi_power", hosts=[ONE])["changed"] is False


def test_a_patch_is_removed_by_the_bulletin_it_came_in_and_nothing_else_is(start_vcenter: StartVcenter) -> None:
    model = site(1)
    model["clusters"][0]["hosts"][0]["vgpu_manager"] = NEW
    vcenter = start_vcenter(model)
    vcenter.ok("esxi_maintenance", hosts=[ONE], state="entered")
    done = vcenter.ok("esxi_driver", hosts=patched(version=None))
    assert done["requests"]["QueryHostPatch_Task"] == 1
    assert report(vcenter, patched(version=None))[ONE]["installed"] is None


def test_a_bundle_that_is_nowhere_is_told_before_the_old_driver_is_removed(start_vcenter: StartVcenter) -> None:
    model = site(1)
    model["clusters"][0]["hosts"][0]["vgpu_manager"] = NEW
    del model["depots"][UNPACKED[OLD]]
    vcenter = start_vcenter(model)
    vcenter.ok("esxi_maintenance", hosts=[ONE], state="entered")
    failed = vcenter.fails("esxi_driver", hosts=patched(version=OLD))
    assert UNPACKED[OLD] in failed["msg"]
    assert not {"UninstallHostPatch_Task", "InstallHostPatchV2_Task"} & failed["requests"].keys()
    assert report(vcenter, patched())[ONE]["installed"].startswith(NEW)


def test_esxcli_hands_out_the_commands_and_records_the_reboot(start_vcenter: StartVcenter) -> None:
    model = site()
    model["clusters"][0]["hosts"][0]["vgpu_manager"] = NEW
    vcenter = start_vcenter(model)
    vcenter.ok("esxi_maintenance", hosts=[ONE], state="entered")
    hosts = [{"name": ONE, "version": OLD, "bundle": "/vmfs/volumes/shared-01/vgpu.zip"}]
    entry = vcenter.ok("esxi_driver", hosts=hosts)["objects"][ONE]
    assert entry["method"] == "esxcli"
    assert [command.split(" -")[0] for command in entry["commands"]] == [
        "esxcli software vib remove",
        "esxcli software component apply",
    ]
    assert vcenter.host(ONE)["intent"]["boot_time"] is not None
    assert vcenter.ok("esxi_power", hosts=[ONE])["changed"] is True


def test_a_draft_of_an_interrupted_run_is_taken_up(start_vcenter: StartVcenter) -> None:
    fault = {"type": "vim.fault.InvalidState", "message": "Not now."}
    commit = f"POST {CLUSTER}/drafts/{{draft}}?action=commit&vmw-task=true"
    vcenter = start_vcenter(site(image=True), faults=[{"method": commit, "nth": 1, "fault": fault}])
    vcenter.ok("esxi_maintenance", hosts=[ONE], state="entered")
    failed = vcenter.fails("esxi_driver", hosts=wanted())
    assert "Not now" in failed["msg"]
    assert vcenter.host(ONE)["intent"]["boot_time"] is None
    vcenter.ok("esxi_driver", hosts=wanted())
    assert vcenter.counts()["requests"][f"POST {CLUSTER}/drafts"] == 1


VGPU, AIE, DAEMON = "NVD-VGPU-800", "NVD-AIE-800", "nvd-gpu-mgmt-daemon"
R16, BUILD = "535.154.02", "-1OEM.800.1.0.20613240"
OFFERED = {
    "vgpu": [{"name": VGPU, "version": R16 + BUILD, "vgpu_manager": "16.3"}],
    "aie": [{"name": AIE, "version": R16 + BUILD, "vgpu_manager": "16.3"}],
    "both": [{"name": name, "version": R16 + BUILD, "vgpu_manager": "16.3"} for name in (AIE, VGPU)],
    "esxi": [
        {"name": f"NVD-VGPU-{esxi}", "version": f"{R16}-1OEM.{esxi}.0.0.1", "vgpu_manager": "16.3"}
        for esxi in ("702", "800")
    ],
    "daemon": [
        {"name": VGPU, "version": R16 + BUILD, "vgpu_manager": "16.3"},
        {"name": DAEMON, "version": f"{R16}-0.0.0000"},
    ],
}


def depot(name: str) -> str:
    return f"https://depot.lab/{name}.zip"


@pytest.mark.parametrize(
    ("imported", "asked", "expected"),
    [
        pytest.param(["aie"], {"bundle": "vgpu"}, {VGPU: R16 + BUILD}, id="the bundle's own"),
        pytest.param(["vgpu"], {}, {VGPU: R16 + BUILD}, id="what is imported"),
        pytest.param(["aie", "vgpu"], {"package": ["NVD-VGPU*"]}, {VGPU: R16 + BUILD}, id="by name"),
        pytest.param([], {"bundle": "both", "package": AIE}, {AIE: R16 + BUILD}, id="by a name that is no list"),
        pytest.param([], {"bundle": "esxi"}, {VGPU: f"{R16}-1OEM.800.0.0.1"}, id="for the hosts' ESXi"),
        pytest.param(
            [], {"bundle": "daemon"}, {VGPU: R16 + BUILD, DAEMON: f"{R16}-0.0.0000"}, id="along with the daemon"
        ),
        pytest.param(["aie", "vgpu"], {}, "component_ambiguous", id="two of that version"),
        pytest.param([], {"bundle": "both"}, "component_ambiguous", id="two in the bundle"),
        pytest.param(["aie"], {"bundle": "vgpu", "version": "535.161.05"}, "version_not_in_bundle", id="not in it"),
        pytest.param(["daemon"], {"package": [DAEMON]}, "version_not_in_bundle", id="the daemon is no driver"),
    ],
)
def test_which_component_the_image_gets(
    start_vcenter: StartVcenter, imported: list[str], asked: dict[str, Any], expected: dict[str, str] | str
) -> None:
    model = site(1, image=True)
    model["depots"] = {depot(name): offered for name, offered in OFFERED.items()}
    vcenter = start_vcenter(model)
    vcenter.ok("esxi_maintenance", hosts=[ONE], state="entered")
    for name in imported:
        vcenter.fails("esxi_driver", hosts=[{"name": ONE, "version": "535.1", "bundle": depot(name)}])
    wish = {"name": ONE, "version": R16} | asked
    if "bundle" in wish:
        wish["bundle"] = depot(wish["bundle"])
    if isinstance(expected, str):
        failed = vcenter.fails("esxi_driver", hosts=[wish])
        assert failed["failure"]["code"] == expected
        listed = (AIE, VGPU) if expected == "component_ambiguous" else ()
        assert all(f"{name} {R16}{BUILD}" in failed["msg"] for name in listed)
        return
    vcenter.ok("esxi_driver", hosts=[wish])
    assert vcenter.ok("esxi_driver", hosts=[wish])["changed"] is False
    (image,) = json.loads(vcenter.settled_state())["images"]["of"].values()
    assert image["components"] == expected


def test_the_daemon_of_an_image_stays_when_the_driver_changes_or_goes(start_vcenter: StartVcenter) -> None:
    model = site(1, image=True)
    model["depots"] = {depot(name): offered for name, offered in OFFERED.items()}
    vcenter = start_vcenter(model)
    vcenter.ok("esxi_maintenance", hosts=[ONE], state="entered")
    for wish in (
        {"version": R16, "bundle": depot("daemon")},
        {"version": R16, "bundle": depot("aie"), "package": ["NVD-AIE*"]},
        {"state": "absent", "package": ["NVD-*"]},
    ):
        vcenter.ok("esxi_driver", hosts=[{"name": ONE, **wish}])
    (image,) = json.loads(vcenter.settled_state())["images"]["of"].values()
    assert image["components"] == {DAEMON: f"{R16}-0.0.0000"}


def test_a_vcenter_that_does_not_tell_what_a_bundle_holds_is_asked_for_all(start_vcenter: StartVcenter) -> None:
    missing = {"type": "vim.fault.NotFound", "message": "No such path."}
    content = {"method": "GET /api/esx/settings/depots/offline/{depot}/content", "fault": missing}
    vcenter = start_vcenter(site(1, image=True), faults=[content])
    vcenter.ok("esxi_maintenance", hosts=[ONE], state="entered")
    assert vcenter.ok("esxi_driver", hosts=wanted())["changed"]


def test_a_draft_that_is_gone_meanwhile_is_made_anew(start_vcenter: StartVcenter) -> None:
    """An interrupted run's commit ends just when the next run looks at its draft."""
    drafts = f"{CLUSTER}/drafts/{{draft}}"
    gone = {"method": f"GET {drafts}/software/components", "fault": {"type": "vim.fault.NotFound", "message": "Gone."}}
    vcenter = start_vcenter(site(image=True), faults=[{**gone, "nth": nth} for nth in (1, 2)])
    vcenter.ok("esxi_maintenance", hosts=[ONE], state="entered")
    assert vcenter.ok("esxi_driver", hosts=wanted())["changed"]
    assert vcenter.counts()["requests"][f"GET {drafts}/software/components"] == 5
    lost = start_vcenter(site(image=True), faults=[{**gone, "nth": nth} for nth in (1, 2, 3)])
    lost.ok("esxi_maintenance", hosts=[ONE], state="entered")
    assert "Gone" in lost.fails("esxi_driver", hosts=wanted())["msg"]


@pytest.fixture
def web() -> Iterator[tuple[str, bytes]]:
    content = b"a bundle"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: Any) -> None:
            """Keep quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/vgpu/metadata.zip", content
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_bundle_s_checksum_is_compared_before_anything_is_installed(
    start_vcenter: StartVcenter, web: tuple[str, bytes]
) -> None:
    url, content = web
    model = site(2)
    model["depots"][url] = [{"version": NEW, "vgpu_manager": NEW}]
    vcenter = start_vcenter(model)
    vcenter.ok("esxi_maintenance", hosts=[ONE, TWO], state="entered")
    wrong = vcenter.fails("esxi_driver", hosts=wanted(bundle=url, checksum=f"sha256:{'0' * 64}"))
    assert "Nothing was installed" in wrong["msg"]
    assert not any("Patch" in method for method in wrong["requests"])
    good = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert vcenter.ok("esxi_driver", hosts=wanted(bundle=url, checksum=good))["objects"][ONE]["warnings"] == []
    # depot.lab is reached by hosts only.
    unchecked = vcenter.ok("esxi_driver", hosts=patched(TWO, checksum=good))["objects"][TWO]
    assert "not checked" in unchecked["warnings"][0]
    bad = vcenter.fails("esxi_driver", hosts=wanted(checksum="md5:1"))
    assert bad["failure"]["code"] == "invalid_input"


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"bundle": "/vmfs/volumes/shared-01/vgpu.zip"}, id="a path, which the host reads"),
        pytest.param({"version": None, "state": "absent"}, id="a removal without a bundle"),
        pytest.param({"version": None, "state": "absent", "bundle": "web"}, id="a removal with one"),
    ],
)
def test_a_checksum_is_compared_only_where_a_url_is_to_be_installed(
    start_vcenter: StartVcenter, web: tuple[str, bytes], asked: dict[str, Any]
) -> None:
    url, _content = web
    model = site()
    if asked.get("state"):
        model["clusters"][0]["hosts"][0]["vgpu_manager"] = NEW
    vcenter = start_vcenter(model)
    vcenter.ok("esxi_maintenance", hosts=[ONE], state="entered")
    host = {"name": ONE, "version": NEW, "checksum": f"sha256:{'0' * 64}"} | asked
    if host.get("bundle") == "web":
        host["bundle"] = url
    done = vcenter.ok("esxi_driver", hosts=[{key: value for key, value in host.items() if value is not None}])
    assert (done["changed"], done["objects"][ONE]["warnings"]) == (True, [])


def test_a_privilege_that_cluster_images_need_is_named(start_vcenter: StartVcenter) -> None:
    privileges = [
        "Host.Config.Patch",
        "Host.Config.Image",
        "Host.Config.Maintenance",
        "Global.SetCustomField",
        "Global.ManageCustomFields",
    ]
    model = site(image=True, roles={"half": privileges})
    model["users"] = [{"name": "half", "password": "Half-1-password", "role": "half"}]
    vcenter = start_vcenter(model)
    user = {"username": "half", "password": "Half-1-password"}
    vcenter.ok("esxi_maintenance", hosts=[ONE], state="entered", **user)
    result = vcenter.fails("esxi_driver", hosts=wanted(), **user)
    assert result["failure"]["code"] == "no_permission"
    assert "VcIntegrity" in result["msg"]
