# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import errors
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import from_fault, is_fault
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import vim, vmodl

HOST = vim.HostSystem("host-7", None)


@pytest.mark.parametrize(
    ("fault", "kind", "code", "says"),
    [
        (vim.fault.InvalidLogin(msg="Cannot complete login."), errors.AuthenticationError, "invalid_login", "password"),
        (
            vim.fault.NotAuthenticated(msg="x", object=HOST, privilegeId="System.View"),
            errors.AuthenticationError,
            "not_authenticated",
            "run again",
        ),
        (
            vmodl.fault.ManagedObjectNotFound(msg="gone", obj=HOST),
            errors.ObjectGoneError,
            "object_gone",
            "removed meanwhile",
        ),
        (
            vim.fault.DuplicateName(msg="The name 'a' already exists.", name="a"),
            errors.OperationFailedError,
            "duplicate_name",
            "'a' already exists",
        ),
        (vim.fault.ConcurrentAccess(msg="x"), errors.OperationFailedError, "changed_meanwhile", "Somebody else"),
        (
            vim.fault.InsufficientGraphicsResourcesFault(msg="x"),
            errors.OperationFailedError,
            "gpu_shortage",
            "Free a GPU",
        ),
        (
            vim.fault.InsufficientMemoryResourcesFault(msg="x"),
            errors.OperationFailedError,
            "no_resources",
            "Free resources",
        ),
        (vim.fault.InvalidPowerState(msg="x"), errors.OperationFailedError, "invalid_power_state", "InvalidPowerState"),
        (vim.fault.InvalidState(msg="x"), errors.OperationFailedError, "invalid_state", "InvalidState"),
        (vim.fault.TaskInProgress(msg="x"), errors.OperationFailedError, "busy", "Another task"),
        (vim.fault.Timedout(msg="x"), errors.OperationTimeoutError, "timeout", "gave up"),
        (vmodl.fault.HostNotConnected(msg="x"), errors.OperationFailedError, "host_not_connected", "Reconnect"),
        (vmodl.fault.MethodNotFound(msg="x"), errors.OperationFailedError, "not_supported", "too old"),
        (
            vmodl.fault.SystemError(msg="internal", reason="r"),
            errors.OperationFailedError,
            "operation_failed",
            "internal",
        ),
        (
            vim.fault.GenericVmConfigFault(reason="Module 'DevicePowerOn' power on failed."),
            errors.OperationFailedError,
            "operation_failed",
            "GenericVmConfigFault",
        ),
    ],
)
def test_faults_become_errors_that_say_what_to_do(fault: Any, kind: type[Exception], code: str, says: str) -> None:
    error = from_fault(fault, object="esx-1", doing="reboot")
    assert type(error) is kind
    assert error.code == code
    assert error.fault == type(fault).__name__.rsplit(".", 1)[-1]
    assert error.object == "esx-1"
    assert error.msg.startswith("esx-1: could not reboot: ")
    assert says in error.msg
    assert error.failure == {"code": code, "object": "esx-1", "fault": error.fault}


def test_a_missing_privilege_is_named_with_its_object() -> None:
    fault = vim.fault.NoPermission(msg="Permission denied", object=HOST, privilegeId="Host.Config.PciPassthru")
    error = from_fault(fault, object="esx-1", doing="set passthrough", names={"host-7": "esx-1.example.org"})
    assert isinstance(error, errors.PermissionMissingError)
    assert error.privilege == "Host.Config.PciPassthru"
    assert error.code == "no_permission"
    assert "the privilege Host.Config.PciPassthru on esx-1.example.org, which is needed to set passthrough" in error.msg
    unnamed = from_fault(fault, doing="set passthrough")
    assert "on HostSystem host-7" in unnamed.msg


def test_a_missing_privilege_without_details_is_still_an_error() -> None:
    error = from_fault(vim.fault.NoPermission(msg="Permission denied"))
    assert error.code == "no_permission"
    assert "on the vCenter" in error.msg


def test_details_of_a_fault_are_told_once() -> None:
    fault = vmodl.fault.SystemError(
        msg="A general error.",
        reason="r",
        faultMessage=[
            vmodl.LocalizableMessage(key="k", message="The disk is on fire."),
            vmodl.LocalizableMessage(key="k", message="A general error"),
        ],
    )
    assert from_fault(fault, object="a", doing="b").msg == (
        "a: could not b: A general error The disk is on fire (SystemError)."
    )


def test_faults_are_recognised_by_their_ancestors() -> None:
    fault = vim.fault.InsufficientMemoryResourcesFault()
    assert is_fault(fault, "InsufficientResourcesFault")
    assert not is_fault(fault, "InvalidState")
    assert is_fault(vim.fault.NotAuthenticated(), "NoPermission")
