# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A refused call of the REST API names the privilege that it needs, which a vCenter's own message does not."""

from __future__ import annotations

import json
import types
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import PermissionMissingError
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.rest import Rest

SETTINGS = "/api/esx/settings"
CLUSTER = SETTINGS + "/clusters/{cluster}"
VAGUE = "Unable to authorize user"
ON_ROOT, ON_EITHER = "the root folder", "the root folder or on the cluster"
HEALTH = "VcIntegrity.lifecycleHealth.Read"
CHECK = "VcIntegrity.lifecycleSoftwareRemediation.Read"


class Refusing(Rest):
    """A vCenter that refuses every call."""

    def __init__(self, text: str) -> None:
        client: Any = types.SimpleNamespace(
            options=types.SimpleNamespace(session_dir="/nowhere", endpoint="vc", username="robot")
        )
        super().__init__(client)
        self._text = text

    def _session(self, stale: str | None) -> str:  # noqa: ARG002 - as the class has it
        return "token"

    def _send(self, *_args: Any) -> tuple[int, bytes]:
        body = {"error_type": "UNAUTHORIZED", "messages": [{"default_message": self._text}]}
        return 403, json.dumps(body).encode()


@pytest.mark.parametrize(
    ("verb", "path", "text", "lacking", "where"),
    [
        ("GET", SETTINGS + "/depots/offline", VAGUE, "VcIntegrity.lifecycleSettings.Read", ON_ROOT),
        ("POST", SETTINGS + "/depots/offline?vmw-task=true", VAGUE, "VcIntegrity.lifecycleSettings.Write", ON_ROOT),
        (
            "POST", CLUSTER + "/software/drafts/{draft}?action=commit&vmw-task=true", VAGUE,
            "VcIntegrity.lifecycleSoftwareSpecification.Write", ON_EITHER,
        ),
        ("POST", CLUSTER + "/software?action=check&vmw-task=true", VAGUE, f"{CHECK} or {HEALTH}", ON_EITHER),
        ("POST", CLUSTER + "/software?action=check&vmw-task=true", f"No {HEALTH}", HEALTH, ON_EITHER),
    ],
)  # fmt: skip
def test_the_privilege_is_that_of_the_call(verb: str, path: str, text: str, lacking: str, where: str) -> None:
    with pytest.raises(PermissionMissingError) as caught:
        Refusing(text).call(verb, path, doing="change the image")
    assert caught.value.privilege == lacking
    assert caught.value.msg == (
        f"The user lacks the privilege {lacking} on {where}, which is needed to change the image. "
        "Grant the user a role with it on the root folder, propagating."
    )


def test_without_words_for_what_is_done_the_call_is_named() -> None:
    with pytest.raises(PermissionMissingError, match=f"needed for GET {SETTINGS}/depots/offline[.]"):
        Refusing(VAGUE).get(SETTINGS + "/depots/offline")


def test_a_call_that_the_table_does_not_have_says_what_the_vcenter_says() -> None:
    with pytest.raises(PermissionMissingError, match=f"may not read tags: {VAGUE}[.]"):
        Refusing(VAGUE).call("GET", "/api/cis/tagging/tag", doing="read tags")
