# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a machine is to have, by what its vGPUs must have, beside what it has."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_wants import differences, own_machine
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.placement.site import Rules
from gpu_builders import host, vgpu, vm


@pytest.mark.parametrize(
    ("asked", "has", "differs"),
    [
        ({"at_least_gb": 10}, ["nvidia_a100-10c"], False),
        ({"at_least_gb": 10}, ["nvidia_a100-20c"], False),
        ({"at_least_gb": 10}, ["nvidia_a100-8c"], True),
        ({"at_least_gb": 10}, ["nvidia_a100-10q"], True),
        ({"at_least_gb": 10, "profile_class": "workstation"}, ["nvidia_a100-10q"], False),
        ({"at_least_gb": 10}, ["nvidia_a100-10c", "nvidia_a100-10c"], True),
        ({"migrate": True}, [], True),
    ],
)
def test_a_vgpu_that_is_large_enough_is_no_difference(asked: dict[str, t.Any], has: list[str], differs: bool) -> None:
    item = {"name": "v", "gpus": [{"mode": "vgpu", **asked}]}
    now = vm("v", *(vgpu(profile, 13000 + key) for key, profile in enumerate(has)))
    assert bool(differences(item, now, Rules())) == differs


def test_what_its_host_has_to_choose_is_not_counted() -> None:
    offers = host("a", vgpu_types=("nvidia_a100-10c",))
    item = {"name": "v", "gpus": [{"mode": "vgpu", "at_least_gb": 4}]}
    assert not own_machine(item, offers, Rules(), prepared=True).counted
    item = {"name": "v", "gpus": [{"mode": "vgpu", "profile": "nvidia_a100-10c"}]}
    assert own_machine(item, offers, Rules(), prepared=True).counted
