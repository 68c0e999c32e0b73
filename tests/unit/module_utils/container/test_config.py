"""Directives of apptainer.conf."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.config import with_settings
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError

FILE = """\
# MOUNT HOME: [BOOL]
# DEFAULT: yes
mount home = yes

# BIND PATH: [STRING]
#bind path = /opt
bind path = /etc/localtime
bind path = /etc/hosts
# image driver = none
"""


@pytest.mark.parametrize(
    ("settings", "before", "after"),
    [
        ({"mount home": False}, "mount home = yes", "mount home = no"),
        ({"mount home": True}, "", ""),
        ({"bind path": ["/srv"]}, "bind path = /etc/localtime\nbind path = /etc/hosts", "bind path = /srv"),
        ({"bind path": ["/etc/localtime", "/etc/hosts"]}, "", ""),
        ({"bind path": []}, "bind path = /etc/localtime\nbind path = /etc/hosts\n", ""),
        ({"image driver": "squashfuse"}, "# image driver = none", "# image driver = none\nimage driver = squashfuse"),
        ({"max loop devices": 64}, "none\n", "none\nmax loop devices = 64\n"),
    ],
)
def test_a_directive_is_set_where_it_stands(settings: dict[str, t.Any], before: str, after: str) -> None:
    wanted = FILE.replace(before, after) if before else FILE
    assert with_settings(FILE, settings) == wanted
    assert with_settings(wanted, settings) == wanted


@pytest.mark.parametrize(
    "settings", [{"Bind Path": "x"}, {"": "x"}, {"mount home = no\nx": "y"}, {"bind path": ["/a\nmount home = no"]}]
)
def test_what_would_smuggle_in_another_directive(settings: dict[str, t.Any]) -> None:
    with pytest.raises(ContainerError):
        with_settings(FILE, settings)
