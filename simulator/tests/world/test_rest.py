"""The REST API over TLS, as clients of either form call it."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import time
import typing as t
import urllib.error
import urllib.request

import pytest
from pyVmomi import vim

DEPOT = "https://depot.lab/nvidia-16.zip"
DRIVER = "NVD-VMware_ESXi_8.0.0_Driver"
MODEL = """
datacenter: dc
datastores: [{name: ds}]
networks: [{name: net}]
clusters:
  - name: c
    image: {}
    drs: {automation: fullyAutomated}
    hosts: [{name: h1, gpus: [{gpu: A100-40, count: 2}]}, {name: h2}]
  - {name: plain, hosts: [{name: h3, connection_state: notResponding}]}
vms: [{name: busy, host: h1, power: "on"}, {name: idle, host: h2}]
templates: [{name: tpl}]
depots:
  https://depot.lab/nvidia-16.zip: [{version: "16.4", vgpu_manager: "16.4"}]
roles: {Tagger: [InventoryService.Tagging.AttachTag], Imager: []}
users:
  - {name: tagger@lab, password: tagging, role: Tagger}
  - {name: imager@lab, password: imaging, role: Imager}
"""


class Rest:
    """A client of the newer form."""

    def __init__(self, server: t.Any, user: str = "admin@lab", password: str = "secret") -> None:  # noqa: S107 - of a test server
        self.server = server
        self.token = ""
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        status, self.token = self("POST", "/api/session", headers={"Authorization": f"Basic {basic}"})
        assert status == 201

    def __call__(
        self, verb: str, path: str, body: t.Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, t.Any]:
        url = f"https://{self.server.ready['hostname']}:{self.server.ready['port']}{path}"
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, method=verb)
        request.add_header("Content-Type", "application/json")
        for name, value in (headers or {"vmware-api-session-id": self.token}).items():
            request.add_header(name, value)
        tls = ssl.create_default_context(cafile=self.server.ready["certificate"])
        try:
            with urllib.request.urlopen(request, context=tls) as reply:  # noqa: S310 - our own server
                status, text = reply.status, reply.read()
        except urllib.error.HTTPError as refusal:
            status, text = refusal.code, refusal.read()
        return status, json.loads(text) if text else None

    def ok(self, verb: str, path: str, body: t.Any = None) -> t.Any:
        status, result = self(verb, path, body)
        assert status < 300, result
        return result

    def task(self, verb: str, path: str, body: t.Any = None) -> dict[str, t.Any]:
        """Start a task and return it once it has ended."""
        status, task = self(verb, path, body)
        assert status == 202, task
        deadline = time.monotonic() + 20
        while (info := self.ok("GET", f"/api/cis/tasks/{task}"))["status"] in ("PENDING", "RUNNING"):
            assert time.monotonic() < deadline, info
            time.sleep(0.02)
        return t.cast("dict[str, t.Any]", info)


@pytest.fixture
def rest(serve: t.Callable[..., t.Any]) -> Rest:
    return Rest(serve(MODEL))


def counts(server: t.Any) -> dict[str, t.Any]:
    with urllib.request.urlopen(server.ready["counts_url"]) as reply:  # noqa: S310 - our own server
        return t.cast("dict[str, t.Any]", json.load(reply))


def test_a_session_begins_with_a_password_and_ends_with_logout(rest: Rest) -> None:
    wrong = {"Authorization": "Basic " + base64.b64encode(b"admin@lab:wrong").decode()}
    for headers in (wrong, {"Authorization": "Basic ?"}, {}):
        status, error = rest("POST", "/api/session", headers={"Accept": "*/*", **headers})
        assert (status, error["error_type"]) == (401, "UNAUTHENTICATED")
    assert rest.ok("GET", "/api/session")["user"] == "admin@lab"
    assert rest("DELETE", "/api/session") == (204, None)
    status, error = rest("GET", "/api/vcenter/vm")
    assert (status, error["error_type"]) == (401, "UNAUTHENTICATED")


def test_idle_sessions_end_as_those_of_soap_do(serve: t.Callable[..., t.Any]) -> None:
    rest = Rest(serve(MODEL, "--session-timeout", "0.2"))
    deadline = time.monotonic() + 10
    while rest("GET", "/api/nothing")[0] != 401:  # which is no use of the session
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_requests_and_logins_are_counted_with_those_of_soap(rest: Rest) -> None:
    rest.ok("GET", "/api/vcenter/vm")
    rest.ok("GET", "/rest/vcenter/vm")
    found = counts(rest.server)
    assert found["requests"]["GET /api/vcenter/vm"] == 2
    assert found["requests"]["POST /api/session"] == 1
    assert found["logins"] == 2


def test_the_privileges_that_were_asked_for_are_counted(rest: Rest) -> None:
    url = rest.server.ready["counts_url"]
    urllib.request.urlopen(urllib.request.Request(f"{url}/reset", method="POST")).close()  # noqa: S310 - our own server
    rest.ok("GET", "/api/esx/settings/depots/offline")
    rest.ok("GET", "/api/esx/settings/depots/offline")
    rest.server.client.content.rootFolder.CreateFolder("new")
    with urllib.request.urlopen(f"{url}/privileges") as reply:  # noqa: S310 - our own server
        asked = json.load(reply)
    assert asked["VcIntegrity.lifecycleSettings.Read"] == 2
    assert asked["Folder.Create"] == 1


def test_listings_and_their_filters(rest: Rest) -> None:
    machines = {one["name"]: one for one in rest.ok("GET", "/api/vcenter/vm")}
    assert {name: one["power_state"] for name, one in machines.items()} == {"busy": "POWERED_ON", "idle": "POWERED_OFF"}
    hosts = {one["name"]: one for one in rest.ok("GET", "/api/vcenter/host")}
    assert hosts["h3"]["connection_state"] == "NOT_RESPONDING"
    assert "power_state" not in hosts["h3"]
    (cluster,) = rest.ok("GET", "/api/vcenter/cluster?names=c")
    assert cluster["drs_enabled"]
    assert not cluster["ha_enabled"]
    inside = rest.ok("GET", f"/api/vcenter/host?clusters={cluster['cluster']}")
    assert [one["name"] for one in inside] == ["h1", "h2"]
    both = rest.ok("GET", f"/api/vcenter/vm?hosts={hosts['h1']['host']},{hosts['h2']['host']}&power_states=POWERED_OFF")
    assert [one["name"] for one in both] == ["idle"]
    old = rest.ok("GET", "/rest/vcenter/vm?filter.names.1=busy")
    assert [one["name"] for one in old["value"]] == ["busy"]
    for kind in ("datacenter", "datastore", "network", "folder", "resource-pool"):
        assert rest.ok("GET", f"/api/vcenter/{kind}")


@pytest.mark.parametrize("old", [False, True])
def test_tags_from_category_to_object_and_back(rest: Rest, old: bool) -> None:
    root, mark, value = ("/rest/com/vmware", "~action", "value") if old else ("/api", "action", None)

    def call(verb: str, path: str, action: str = "", identifier: str = "", body: t.Any = None) -> t.Any:
        where = f"{root}/cis/tagging/{path}" + (f"/{'id:' if old else ''}{identifier}" if identifier else "")
        result = rest.ok(verb, where + (f"?{mark}={action}" if action else ""), body)
        return result["value"] if value and result is not None else result

    category: dict[str, t.Any] = {"name": "tier", "cardinality": "SINGLE", "associable_types": ["HostSystem"]}
    made = call("POST", "category", body={"create_spec": category} if old else category)
    assert made.startswith("urn:vmomi:InventoryServiceCategory:")
    tags = []
    for name in ("gold", "silver"):
        spec = {"name": name, "description": "", "category_id": made}
        tags.append(call("POST", "tag", body={"create_spec": spec} if old else spec))
    assert call("GET", "tag", identifier=tags[0])["name"] == "gold"
    assert call("GET", "category", identifier=made)["associable_types"] == ["HostSystem"]
    (host,) = [one["host"] for one in rest.ok("GET", "/api/vcenter/host?names=h1")]
    target = {"object_id": {"type": "HostSystem", "id": host}}
    call("POST", "tag-association", "attach", tags[0], target)
    call("POST", "tag-association", "attach", tags[0], target)
    assert call("POST", "tag-association", "list-attached-tags", body=target) == [tags[0]]
    objects = call("POST", "tag-association", "list-attached-objects", tags[0])
    assert objects == [target["object_id"]]
    every = call("POST", "tag-association", "list-attached-objects-on-tags", body={"tag_ids": tags})
    assert every == [{"tag_id": tags[0], "object_ids": objects}]
    on_hosts = call("POST", "tag-association", "list-attached-tags-on-objects", body={"object_ids": objects})
    assert on_hosts == [{"object_id": target["object_id"], "tag_ids": [tags[0]]}]
    second = {"tag_ids": [tags[1]], **target}
    refused = call("POST", "tag-association", "attach-multiple-tags-to-object", body=second)
    assert not refused["success"]  # of a SINGLE category
    call("POST", "tag-association", "detach", tags[0], target)
    assert call("POST", "tag-association", "attach-multiple-tags-to-object", body=second)["success"]
    call("DELETE", "category", identifier=made)
    assert call("GET", "tag") == []
    assert call("POST", "tag-association", "list-attached-tags", body=target) == []


def test_errors_have_the_form_of_the_api_that_was_called(rest: Rest) -> None:
    name = {"name": "x", "cardinality": "MULTIPLE", "associable_types": []}
    category = rest.ok("POST", "/api/cis/tagging/category", name)
    cases: list[tuple[str, str, t.Any, int, str]] = [
        ("POST", "/api/cis/tagging/category", name, 400, "ALREADY_EXISTS"),
        ("POST", "/api/cis/tagging/category", {**name, "name": "y", "cardinality": "MANY"}, 400, "INVALID_ARGUMENT"),
        ("POST", "/api/cis/tagging/category", {"name": 5}, 400, "INVALID_ARGUMENT"),
        ("POST", "/api/cis/tagging/category", [], 400, "INVALID_ARGUMENT"),
        ("POST", "/api/cis/tagging/category", b"{", 400, "INVALID_ARGUMENT"),
        ("POST", "/api/cis/tagging/category", b"[" * 100_000, 400, "INVALID_ARGUMENT"),
        ("GET", "/api/cis/tagging/tag/urn:nothing", None, 404, "NOT_FOUND"),
        ("POST", "/api/cis/tagging/tag", {"name": "t", "category_id": "urn:nothing"}, 404, "NOT_FOUND"),
        ("GET", "/api/cis/tasks/task-9999:x", None, 404, "NOT_FOUND"),
        ("GET", "/api/esx/settings/clusters/domain-c999/software", None, 404, "NOT_FOUND"),
        ("GET", "/api/appliance/health", None, 404, "NOT_FOUND"),
        ("PATCH", f"/api/cis/tagging/category/{category}", {"cardinality": "SINGLE"}, 400, "INVALID_ARGUMENT"),
    ]
    for verb, path, body, status, kind in cases:
        found, error = rest(verb, path, body)
        assert (found, error["error_type"]) == (status, kind), (verb, path, error)
    status, error = rest("GET", "/rest/com/vmware/cis/tagging/tag/id:nothing")
    assert (status, error["type"]) == (404, "com.vmware.vapi.std.errors.not_found")
    assert error["value"]["messages"][0]["default_message"]


def test_a_role_may_attach_tags_but_not_make_them(rest: Rest) -> None:
    spec = {"name": "x", "cardinality": "MULTIPLE", "associable_types": []}
    category = rest.ok("POST", "/api/cis/tagging/category", spec)
    tag = rest.ok("POST", "/api/cis/tagging/tag", {"name": "t", "category_id": category})
    tagger = Rest(rest.server, "tagger@lab", "tagging")
    status, error = tagger("POST", "/api/cis/tagging/tag", {"name": "u", "category_id": category})
    assert (status, error["error_type"]) == (403, "UNAUTHORIZED")
    assert "InventoryService.Tagging.CreateTag" in error["messages"][0]["default_message"]
    (host,) = [one["host"] for one in rest.ok("GET", "/api/vcenter/host?names=h1")]
    body = {"object_id": {"type": "HostSystem", "id": host}}
    assert tagger("POST", f"/api/cis/tagging/tag-association/{tag}?action=attach", body)[0] == 204


def cluster_path(rest: Rest, name: str = "c") -> str:
    (found,) = rest.ok("GET", f"/api/vcenter/cluster?names={name}")
    return f"/api/esx/settings/clusters/{found['cluster']}"


def import_driver(rest: Rest) -> None:
    spec = {"source_type": "PULL", "location": DEPOT}
    done = rest.task("POST", "/api/esx/settings/depots/offline?vmw-task=true", spec)
    assert rest.ok("GET", f"/api/esx/settings/depots/offline/{done['result']['depot']}")["location"] == DEPOT


def test_the_vgpu_manager_by_a_cluster_image(rest: Rest) -> None:
    cluster = cluster_path(rest)
    import_driver(rest)
    assert [one["name"] for one in rest.ok("GET", "/api/esx/settings/depot-content/components")] == [DRIVER]
    draft = rest.ok("POST", f"{cluster}/software/drafts")
    status, error = rest("POST", f"{cluster}/software/drafts")
    assert (status, error["error_type"]) == (400, "ALREADY_EXISTS")
    rest.ok("PUT", f"{cluster}/software/drafts/{draft}/software/components/{DRIVER}", {"version": "16.4"})
    assert rest.ok("GET", f"{cluster}/software/components") == {}  # not yet committed
    done = rest.task("POST", f"{cluster}/software/drafts/{draft}?action=commit&vmw-task=true", {"message": "driver"})
    assert done["status"] == "SUCCEEDED", done
    assert rest.ok("GET", f"{cluster}/software/components/{DRIVER}")["version"] == "16.4"
    scanned = rest.task("POST", f"{cluster}/software?action=scan&vmw-task=true")["result"]
    assert scanned["status"] == "NON_COMPLIANT"
    assert len(scanned["non_compliant_hosts"]) == 2
    checked = rest.task("POST", f"{cluster}/software?action=check&vmw-task=true", {})["result"]
    assert checked["status"] == "OK", checked
    host = rest.server.find("dc/host/c/h1")
    before = host.runtime.bootTime
    applied = rest.task("POST", f"{cluster}/software?action=apply&vmw-task=true", {"accept_eula": True})["result"]
    assert applied["status"]["status"] == "OK", applied
    assert host.runtime.bootTime > before
    assert not host.runtime.inMaintenanceMode
    names = [package.name for package in host.configManager.imageConfigManager.FetchSoftwarePackages()]
    assert DRIVER in names
    assert rest.ok("GET", f"{cluster}/software/compliance")["status"] == "COMPLIANT"
    booted = host.runtime.bootTime
    rest.task("POST", f"{cluster}/software?action=apply&vmw-task=true", {})
    assert host.runtime.bootTime == booted  # a compliant host is left alone


READ, WRITE = (f"VcIntegrity.lifecycleSoftwareSpecification.{it}" for it in ("Read", "Write"))
LOOK, IMPORT = (f"VcIntegrity.lifecycleSettings.{it}" for it in ("Read", "Write"))
CHECK, APPLY = (f"VcIntegrity.lifecycleSoftwareRemediation.{it}" for it in ("Read", "Write"))
HEALTH = "VcIntegrity.lifecycleHealth.Read"
SETTINGS, SOFTWARE = "/api/esx/settings", "/api/esx/settings/clusters/{cluster}/software"
IMAGE_CALLS = [
    ("GET", SETTINGS + "/depots/offline", (LOOK,)),
    ("GET", SETTINGS + "/depots/offline/1", (LOOK,)),
    ("GET", SETTINGS + "/depots/offline/1/content", (LOOK,)),
    ("POST", SETTINGS + "/depots/offline?vmw-task=true", (IMPORT,)),
    ("DELETE", SETTINGS + "/depots/offline/1?vmw-task=true", ("VcIntegrity.lifecycleDepots.Delete",)),
    ("GET", SETTINGS + "/depot-content/components", (LOOK,)),
    ("GET", SETTINGS + "/depot-content/base-images", (LOOK,)),
    ("GET", SETTINGS + "/clusters/{cluster}/enablement/software", (LOOK,)),
    ("PUT", SETTINGS + "/clusters/{cluster}/enablement/software?vmw-task=true", (IMPORT,)),
    ("GET", SOFTWARE, (READ,)),
    ("GET", SOFTWARE + "/components", (READ,)),
    ("GET", SOFTWARE + "/components/x", (READ,)),
    ("GET", SOFTWARE + "/compliance", (READ,)),
    ("GET", SOFTWARE + "/drafts", (READ,)),
    ("GET", SOFTWARE + "/drafts/1", (READ,)),
    ("GET", SOFTWARE + "/drafts/1/software/components", (READ,)),
    ("GET", SOFTWARE + "/drafts/1/software/components/x", (READ,)),
    ("GET", SOFTWARE + "/drafts/1/software/base-image", (READ,)),
    ("POST", SOFTWARE + "/drafts/1?action=commit&vmw-task=true", (WRITE,)),
    ("PATCH", SOFTWARE + "/drafts/1/software/components", (WRITE,)),
    ("PUT", SOFTWARE + "/drafts/1/software/components/x", (WRITE,)),
    ("DELETE", SOFTWARE + "/drafts/1/software/components/x", (WRITE,)),
    ("PUT", SOFTWARE + "/drafts/1/software/base-image", (WRITE,)),
    ("POST", SOFTWARE + "/drafts", (WRITE,)),
    ("DELETE", SOFTWARE + "/drafts/1", (WRITE,)),
    ("POST", SOFTWARE + "?action=scan&vmw-task=true", (READ,)),
    ("POST", SOFTWARE + "/drafts/1?action=validate&vmw-task=true", (READ,)),
    ("POST", SOFTWARE + "?action=check&vmw-task=true", (CHECK, HEALTH)),
    ("POST", SOFTWARE + "?action=apply&vmw-task=true", (APPLY, HEALTH)),
]


def test_calls_about_images_ask_for_the_privileges_of_the_api_reference(rest: Rest) -> None:
    manager = rest.server.client.content.authorizationManager
    role = next(one.roleId for one in manager.roleList if one.name == "Imager")
    everything = {privilege for _verb, _path, needed in IMAGE_CALLS for privilege in needed}
    assert everything <= {one.privId for one in manager.privilegeList}
    cluster = next(one["cluster"] for one in rest.ok("GET", "/api/vcenter/cluster") if one["name"] == "c")
    imager = Rest(rest.server, "imager@lab", "imaging")
    for verb, path, needed in IMAGE_CALLS:
        for lacking in needed:
            manager.UpdateAuthorizationRole(role, "Imager", sorted(everything - {lacking}))
            status, error = imager(verb, path.format(cluster=cluster), {})
            assert (status, error["error_type"]) == (403, "UNAUTHORIZED"), path
            assert f"Privilege {lacking} is missing" in error["messages"][0]["default_message"], path
        manager.UpdateAuthorizationRole(role, "Imager", list(needed))
        assert imager(verb, path.format(cluster=cluster), {})[0] not in (403, 500), path


def test_tasks_about_images_are_shown_to_those_who_may_read_them(rest: Rest) -> None:
    manager = rest.server.client.content.authorizationManager
    role = next(one.roleId for one in manager.roleList if one.name == "Imager")
    manager.UpdateAuthorizationRole(role, "Imager", [IMPORT])
    imager = Rest(rest.server, "imager@lab", "imaging")
    spec = {"source_type": "PULL", "location": DEPOT}
    task = imager.ok("POST", SETTINGS + "/depots/offline?vmw-task=true", spec)
    for path in (f"/api/cis/tasks/{task}", f"/api/cis/tasks?tasks={task}"):
        status, error = imager("GET", path)
        assert status == 403
        assert "Privilege VcIntegrity.lifecycleGeneral.Read is missing" in error["messages"][0]["default_message"]
    assert imager.ok("GET", "/api/cis/tasks?tasks=none") == {}
    manager.UpdateAuthorizationRole(role, "Imager", ["VcIntegrity.lifecycleGeneral.Read"])
    assert imager.ok("GET", f"/api/cis/tasks/{task}")["operation"] == "create"


def test_a_vcenter_before_7_knows_no_privileges_about_images(serve: t.Callable[..., t.Any]) -> None:
    manager = serve(MODEL.replace("datacenter", "api_version: 6.7.3\ndatacenter")).client.content.authorizationManager
    assert not [one.privId for one in manager.privilegeList if "lifecycle" in one.privId]


def test_what_is_granted_on_the_root_folder_alone_is_missing_on_the_cluster(rest: Rest) -> None:
    content = rest.server.client.content
    manager = content.authorizationManager
    role = manager.AddAuthorizationRole("Reader of images", [READ])
    permission = vim.AuthorizationManager.Permission(principal="imager@lab", group=False, roleId=role, propagate=False)
    manager.SetEntityPermissions(content.rootFolder, [permission])
    cluster = next(one["cluster"] for one in rest.ok("GET", "/api/vcenter/cluster") if one["name"] == "c")
    status, error = Rest(rest.server, "imager@lab", "imaging")("GET", SOFTWARE.format(cluster=cluster))
    assert status == 403
    assert f"Privilege {READ} is missing on {cluster}" in error["messages"][0]["default_message"]


def test_an_image_with_what_no_depot_has_is_not_committed(rest: Rest) -> None:
    cluster = cluster_path(rest)
    draft = rest.ok("POST", f"{cluster}/software/drafts")
    path = f"{cluster}/software/drafts/{draft}/software/components"
    rest.ok("PATCH", path, {"components_to_set": {DRIVER: "99"}})
    validated = rest.task("POST", f"{cluster}/software/drafts/{draft}?action=validate&vmw-task=true", {})
    done = rest.task("POST", f"{cluster}/software/drafts/{draft}?action=commit&vmw-task=true", {})
    assert done["status"] == "FAILED"
    assert DRIVER in validated["result"]["notifications"]["errors"][0]["message"]["default_message"]
    assert DRIVER in done["error"]["messages"][0]["default_message"]
    assert rest.ok("GET", f"{cluster}/software/components") == {}
    rest.ok("PATCH", path, {"components_to_delete": [DRIVER]})
    assert rest.ok("GET", path) == {}
    rest.ok("DELETE", f"{cluster}/software/drafts/{draft}")
    assert rest("GET", f"{cluster}/software/drafts/{draft}")[0] == 404


def test_what_an_imported_bundle_holds(rest: Rest) -> None:
    import_driver(rest)
    (depot,) = rest.ok("GET", "/api/esx/settings/depots/offline")
    vendors = rest.ok("GET", f"/api/esx/settings/depots/offline/{depot}/content")["metadata_bundles"]
    (bundle,) = vendors["NVIDIA"]
    assert bundle["independent_components"][DRIVER]["versions"] == [{"version": "16.4", "display_version": "16.4"}]
    assert rest("GET", "/api/esx/settings/depots/offline/none/content")[0] == 404


def test_a_bundle_that_is_nowhere_fails_its_task(rest: Rest) -> None:
    spec = {"source_type": "PULL", "location": "https://depot.lab/nothing.zip"}
    done = rest.task("POST", "/api/esx/settings/depots/offline?vmw-task=true", spec)
    assert done["status"] == "FAILED"
    assert rest.ok("GET", "/api/esx/settings/depots/offline") == {}


def test_a_cluster_without_an_image_can_be_given_one(rest: Rest) -> None:
    cluster = cluster_path(rest, "plain")
    assert rest.ok("GET", f"{cluster}/enablement/software") == {"enabled": False}
    assert rest("GET", f"{cluster}/software")[0] == 404
    assert rest.task("PUT", f"{cluster}/enablement/software?vmw-task=true", {})["status"] == "SUCCEEDED"
    assert rest.ok("GET", f"{cluster}/enablement/software") == {"enabled": True}
    assert rest.server.find("dc/host/plain").lifecycleManaged
    unreachable = rest.ok("GET", f"{cluster}/software/compliance")
    assert unreachable["status"] == "UNAVAILABLE"
    again = rest.task("PUT", f"{cluster}/enablement/software?vmw-task=true", {})
    assert again["status"] == "FAILED"


def test_applying_stops_where_a_machine_cannot_move(serve: t.Callable[..., t.Any]) -> None:
    rest = Rest(serve(MODEL.replace("fullyAutomated", "manual")))
    cluster = cluster_path(rest)
    import_driver(rest)
    draft = rest.ok("POST", f"{cluster}/software/drafts")
    rest.ok("PUT", f"{cluster}/software/drafts/{draft}/software/components/{DRIVER}", {})
    rest.task("POST", f"{cluster}/software/drafts/{draft}?action=commit&vmw-task=true", {})
    assert rest.task("POST", f"{cluster}/software?action=check&vmw-task=true")["result"]["status"] == "ERROR"
    applied = rest.task("POST", f"{cluster}/software?action=apply&vmw-task=true", {})["result"]
    assert applied["status"]["status"] == "ERROR"
    assert len(applied["failed_hosts"]) == len(applied["skipped_hosts"]) == 1
    (told,) = applied["host_status"][applied["failed_hosts"][0]]["notifications"]["errors"]
    assert "busy run on it" in told["message"]["default_message"]
    assert told["resolution"]["default_message"]
    assert told["time"].endswith("Z")
    assert applied["status"]["notifications"]["errors"]


def test_tags_and_images_outlive_a_crash(serve: t.Callable[..., t.Any], tmp_path: t.Any) -> None:
    state = tmp_path / "state.json"
    first = serve(MODEL, "--state", str(state))
    rest = Rest(first)
    spec = {"name": "tier", "cardinality": "MULTIPLE", "associable_types": []}
    category = rest.ok("POST", "/api/cis/tagging/category", spec)
    tag = rest.ok("POST", "/api/cis/tagging/tag", {"name": "t", "category_id": category})
    (machine,) = [one["vm"] for one in rest.ok("GET", "/api/vcenter/vm?names=busy")]
    body = {"object_id": {"type": "VirtualMachine", "id": machine}}
    rest.ok("POST", f"/api/cis/tagging/tag-association/{tag}?action=attach", body)
    import_driver(rest)
    draft = rest.ok("POST", f"{cluster_path(rest)}/software/drafts")
    deadline = time.monotonic() + 10
    while (
        machine not in json.dumps(json.loads(state.read_text())["tags"])
        or not json.loads(state.read_text())["images"]["drafts"]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.kill()
    again = Rest(serve(MODEL, "--state", str(state)))
    assert again.ok("POST", "/api/cis/tagging/tag-association?action=list-attached-tags", body) == [tag]
    assert list(again.ok("GET", f"{cluster_path(again)}/software/drafts")) == [draft]
    assert again.ok("GET", f"/api/cis/tagging/tag/{tag}")["category_id"] == category
    assert again.ok("GET", "/api/esx/settings/depot-content/components")


def test_fault_rules_know_rest_calls(serve: t.Callable[..., t.Any], tmp_path: t.Any) -> None:
    rules = tmp_path / "faults.yml"
    rules.write_text(
        '- {method: "GET /api/vcenter/vm", nth: 1, fault: {type: vim.fault.InvalidState, message: busy}}\n'
    )
    rest = Rest(serve(MODEL, "--faults", str(rules)))
    status, error = rest("GET", "/api/vcenter/vm")
    assert (status, error["error_type"]) == (400, "NOT_ALLOWED_IN_CURRENT_STATE")
    assert rest("GET", "/api/vcenter/vm")[0] == 200


def test_the_answer_to_a_rest_call_can_be_lost_and_a_privilege_be_missing(
    serve: t.Callable[..., t.Any], tmp_path: t.Any
) -> None:
    drafts = "POST /api/esx/settings/clusters/{cluster}/software/drafts"
    rules = tmp_path / "faults.yml"
    rules.write_text(
        f'- {{method: "{drafts}", nth: 1, lose_answer: true}}\n'
        '- {method: "GET /api/vcenter/vm", fault: {type: vim.fault.NoPermission, fields: {privilegeId: System.View}}}\n'
    )
    rest = Rest(serve(MODEL, "--faults", str(rules)))
    cluster = cluster_path(rest)
    with pytest.raises((http.client.RemoteDisconnected, urllib.error.URLError)):
        rest("POST", f"{cluster}/software/drafts")
    assert len(rest.ok("GET", f"{cluster}/software/drafts")) == 1  # carried out all the same
    status, error = rest("GET", "/api/vcenter/vm")
    assert (status, error["error_type"]) == (403, "UNAUTHORIZED")
    assert "Privilege System.View is missing." in error["messages"][0]["default_message"]


def test_a_remediation_tells_which_host_it_is_at(rest: Rest) -> None:
    cluster = cluster_path(rest)
    task = rest.ok("POST", f"{cluster}/software?action=apply&vmw-task=true", {})
    rest.task("POST", f"{cluster}/software?action=check&vmw-task=true", {})
    progress = rest.ok("GET", f"/api/cis/tasks/{task}")["progress"]
    assert progress["message"]["default_message"].startswith("Remediating host h")
