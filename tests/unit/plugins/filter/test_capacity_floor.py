# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpuops.vsphere.plugins.filter.capacity_floor import below_capacity_floor


def host(free: int, used: int = 0, *, model: str | None = "T4", **more: t.Any) -> dict[str, t.Any]:
    pci_id = "10de:1eb8" if model in ("T4", None) else "10de:15f8"
    gpus = [{"id": pci_id, "model": model, "free": number < free} for number in range(free + used)]
    return {"connection": "connected", "in_maintenance": False, "gpus": gpus, **more}


@pytest.mark.parametrize(
    ("hosts", "batch", "floor", "refused"),
    [
        pytest.param({"a": host(2), "b": host(2)}, ["a"], {"T4": 2}, [], id="just enough stay"),
        pytest.param({"a": host(2), "b": host(2)}, ["a"], {"T4": 3}, ["a"], id="one too few"),
        pytest.param({"a": host(2), "b": host(2)}, ["a", "b"], {"T4": 2}, ["b"], id="the second of a batch"),
        pytest.param({"a": host(2), "b": host(2)}, ["b", "a"], {"T4": 2}, ["a"], id="in the order of the batch"),
        pytest.param({"a": host(3), "b": host(1), "c": host(1)}, ["a", "b"], {"T4": 3}, ["a"], id="a smaller one"),
        pytest.param({"a": host(2), "b": host(2)}, ["a", "b"], {"T4": 0}, [], id="nothing need stay"),
        pytest.param({"a": host(2), "b": host(2)}, ["a", "b"], {}, [], id="no floor"),
        pytest.param({"a": host(0, 2), "b": host(1)}, ["a"], {"T4": 5}, [], id="it has none that is free"),
        pytest.param({"a": host(1), "b": host(1, 3)}, ["a"], {"T4": 2}, ["a"], id="used ones are not free"),
        pytest.param({"a": host(2), "b": host(2, model="P100")}, ["b"], {"T4": 5}, [], id="another kind"),
        pytest.param({"a": host(2, model="P100"), "b": host(2)}, ["a", "b"], {"T4": 1, "P100": 0}, ["b"], id="kinds"),
        pytest.param({"a": host(2), "b": host(2)}, ["a"], {"10de:1eb8": 3}, ["a"], id="kind by id"),
        pytest.param({"a": host(2, model=None), "b": host(0)}, ["a"], {"10de:1eb8": 1}, ["a"], id="no catalogue key"),
        pytest.param({"a": host(2), "b": host(2)}, ["a"], {"T4": "3"}, ["a"], id="a number that is text"),
        pytest.param({"a": host(2), "b": host(2, in_maintenance=True)}, ["a"], {"T4": 1}, ["a"], id="out of service"),
        pytest.param(
            {"a": host(2), "b": host(2, connection="notResponding")}, ["a"], {"T4": 1}, ["a"], id="does not answer"
        ),
        pytest.param({"a": host(2, in_maintenance=True), "b": host(2)}, ["a"], {"T4": 9}, [], id="out already"),
        pytest.param(
            {"a": host(2, in_maintenance=True), "b": host(2), "c": host(2)}, ["a", "b"], {"T4": 2}, [], id="is free"
        ),
        pytest.param({"a": host(2)}, ["nobody"], {"T4": 2}, [], id="no facts"),
    ],
)  # fmt: skip
def test_who_may_not_go(
    hosts: dict[str, dict[str, t.Any]], batch: list[str], floor: dict[str, t.Any], refused: list[str]
) -> None:
    assert list(below_capacity_floor(hosts, batch, floor)) == refused


def test_the_reason_counts_what_would_be_left_and_says_what_to_do() -> None:
    hosts = {"a": host(2), "b": host(2), "c": host(1)}
    assert below_capacity_floor(hosts, ["a", "b"], {"T4": 2, "10de:1eb8": 2}) == {
        "b": "b was not begun: without it there would be free 1 T4 (at least 2 are to stay free), 1 10de:1eb8 (at "
        "least 2 are to stay free). Free some elsewhere, lower esxi_rolling_max_unavailable, or lower "
        "esxi_rolling_capacity_floor; then run again."
    }


@pytest.mark.parametrize("number", ["many", None, [1]])
def test_a_floor_that_is_no_number_is_said(number: t.Any) -> None:
    with pytest.raises(AnsibleFilterError, match=r"the capacity floor for T4 is .*, not a number of GPUs"):
        below_capacity_floor({"a": host(2)}, ["a"], {"T4": number})
