"""Login, logout, idle sessions, and what a caller may do."""

from __future__ import annotations

import ssl
import typing as t

import pytest
from pyVim.connect import SmartConnect, SmartStubAdapter
from pyVmomi import SoapStubAdapter, vim, vmodl
from served import Served
from wire_helpers import as_dict, finished, machines, object_spec, read, until


def anonymous(server: Served) -> t.Any:
    stub = SmartStubAdapter(host=server.host, port=server.port, sslContext=server.tls)
    return vim.ServiceInstance("ServiceInstance", stub)


def test_the_certificate_is_verified(server: Served) -> None:
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        SmartConnect(
            host=server.host, port=server.port, user="admin@lab", pwd="secret", sslContext=ssl.create_default_context()
        )


def test_the_thumbprint_is_the_certificate_s(server: Served) -> None:
    stub = SoapStubAdapter(
        host=server.host, port=server.port, thumbprint=server.ready["thumbprint"], sslContext=server.tls
    )
    assert vim.ServiceInstance("ServiceInstance", stub).content.about.apiVersion == "8.0.3.0"


def test_negotiation_settles_on_the_server_s_version(server: Served) -> None:
    assert anonymous(server)._stub.version == "vim.version.v8_0_3_0"


@pytest.mark.parametrize(("user", "password"), [("admin@lab", "wrong"), ("nobody@lab", "secret"), ("admin@lab", "")])
def test_bad_credentials_are_an_invalid_login(server: Served, user: str, password: str) -> None:
    before = server.counts()["logins"]
    with pytest.raises(vim.fault.InvalidLogin, match="incorrect user name or password"):
        anonymous(server).content.sessionManager.Login(user, password)
    assert server.counts()["logins"] == before


@pytest.mark.parametrize("user", ["admin@lab", "ADMIN@LAB", "lab\\admin"])
def test_spellings_of_a_user(server: Served, user: str) -> None:
    assert server.connect(user).content.sessionManager.currentSession.userName == user


def test_current_session_needs_no_login_and_is_unset_without_one(server: Served, client: t.Any) -> None:
    assert anonymous(server).content.sessionManager.currentSession is None
    session = client.content.sessionManager.currentSession
    assert (session.userName, session.ipAddress) == ("admin@lab", "127.0.0.1")
    assert "pyvmomi" in session.userAgent


def test_a_session_can_be_used_by_its_ticket_alone(server: Served, client: t.Any) -> None:
    stub = SmartStubAdapter(host=server.host, port=server.port, sslContext=server.tls)
    stub.cookie = client._stub.cookie.partition(";")[0]
    again = vim.ServiceInstance("ServiceInstance", stub)
    assert again.content.sessionManager.currentSession.key == client.content.sessionManager.currentSession.key


def test_a_session_can_travel_in_the_soap_header(server: Served, client: t.Any) -> None:
    token = client._stub.cookie.partition(";")[0].partition("=")[2].strip('"')
    stub = SmartStubAdapter(host=server.host, port=server.port, sslContext=server.tls)
    stub.requestContext = {"vcSessionCookie": token}
    again = vim.ServiceInstance("ServiceInstance", stub)
    assert again.content.sessionManager.currentSession.userName == "admin@lab"


def test_logout_ends_the_session_and_what_it_owned(server: Served) -> None:
    client = server.connect()
    view = client.content.viewManager.CreateListView([])
    other = server.connect()
    client.content.sessionManager.Logout()
    with pytest.raises(vim.fault.NotAuthenticated):
        client.CurrentTime()
    with pytest.raises(vim.fault.NotAuthenticated):
        client.content.rootFolder.name  # noqa: B018 - the getter is the request
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        vim.view.ListView(view._moId, other._stub).DestroyView()


def test_without_a_session_properties_are_missing_not_faults(server: Served, client: t.Any) -> None:
    machine = machines(client)[0]
    content = anonymous(server).content.propertyCollector.RetrieveProperties([object_spec(machine, ["name"])])[0]
    assert not content.propSet
    assert [(missing.path, type(missing.fault)) for missing in content.missingSet] == [
        ("name", vim.fault.NotAuthenticated)
    ]


def test_session_is_active(client: t.Any) -> None:
    manager = client.content.sessionManager
    key = manager.currentSession.key
    assert manager.SessionIsActive(key, "admin@lab") is True
    assert manager.SessionIsActive(key, "other@lab") is False
    assert manager.SessionIsActive("unknown", "admin@lab") is False


def test_terminating_another_session(server: Served, client: t.Any) -> None:
    other = server.connect()
    client.content.sessionManager.TerminateSession([other.content.sessionManager.currentSession.key])
    with pytest.raises(vim.fault.NotAuthenticated):
        other.CurrentTime()
    with pytest.raises(vim.fault.NotFound):
        client.content.sessionManager.TerminateSession(["unknown"])


def test_an_idle_session_ends(start: t.Callable[..., Served]) -> None:
    server = start("--session-timeout", "1.5")
    idle, busy = server.connect(), server.connect()
    key = idle.content.sessionManager.currentSession.key
    manager = busy.content.sessionManager
    until(lambda: not manager.SessionIsActive(key, "admin@lab"))
    with pytest.raises(vim.fault.NotAuthenticated):
        idle.CurrentTime()


def test_a_missing_privilege_is_named_with_its_object(server: Served) -> None:
    reader = server.connect("reader@lab", "reading")
    machine = machines(reader)[0]
    assert machine.name
    with pytest.raises(vim.fault.NoPermission) as caught:
        machine.PowerOnVM_Task()
    assert (caught.value.privilegeId, caught.value.object._moId) == ("VirtualMachine.Interact.PowerOn", machine._moId)


def test_a_role_allows_what_it_lists(server: Served) -> None:
    switcher = server.connect("switcher@lab", "switching")
    machine = machines(switcher)[1]
    assert finished(machine.PowerOnVM_Task()).state == "success"
    with pytest.raises(vim.fault.NoPermission) as caught:
        machine.Destroy_Task()
    assert caught.value.privilegeId == "VirtualMachine.Inventory.Delete"


def test_a_permission_reaches_down_only(server: Served) -> None:
    local = server.connect("folder@lab", "folding")
    machine = vim.VirtualMachine("vm-1", local._stub)
    assert machine.effectiveRole == [-1]
    with pytest.raises(vim.fault.NoPermission):
        local.content.rootFolder.CreateFolder("elsewhere")


def test_who_may_not_read_gets_missing_properties(server: Served, client: t.Any) -> None:
    blind = server.connect("blind@lab", "blind")
    spec = object_spec(machines(client)[0], ["name", "runtime.powerState"])
    content = read(blind, spec)[0]
    assert {missing.path: missing.fault.privilegeId for missing in content.missingSet} == {
        "name": "System.View",
        "runtime.powerState": "System.Read",
    }
    assert as_dict(content) == {}


def test_asking_for_privileges(server: Served, client: t.Any) -> None:
    manager = client.content.authorizationManager
    root = client.content.rootFolder
    reader = server.connect("reader@lab", "reading")
    session = reader.content.sessionManager.currentSession.key
    answer = manager.HasPrivilegeOnEntities([root], session, ["System.Read", "Folder.Create"])
    assert [(one.privId, one.isGranted) for one in answer[0].privAvailability] == [
        ("System.Read", True),
        ("Folder.Create", False),
    ]
    held = manager.FetchUserPrivilegeOnEntities([root], "reader@lab")[0].privileges
    assert sorted(held) == ["System.Anonymous", "System.Read", "System.View"]
    assert "Host.Config.PciPassthru" in manager.FetchUserPrivilegeOnEntities([root], "admin@lab")[0].privileges
    assert {role.name for role in manager.roleList} >= {"Admin", "ReadOnly", "NoAccess", "Switcher"}
