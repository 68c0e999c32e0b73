"""Demand over a day, as a model says it."""

from __future__ import annotations

import pytest

from vsphere_simulator.model.demand import Demand
from vsphere_simulator.model.loader import ModelError, parse_model

DAY = [{"at": "08:00", "mhz": 100}, {"at": "12:00", "mhz": 500}, {"at": "20:00", "mhz": 100}]


@pytest.mark.parametrize(
    ("minute", "mhz"), [(480, 100), (600, 300), (720, 500), (960, 300), (1300, 100), (0, 100), (720 + 1440, 500)]
)
def test_straight_lines_between_the_points_of_a_day_that_repeats(minute: int, mhz: float) -> None:
    assert Demand.model_validate(DAY).at(minute) == pytest.approx(mhz)


def test_a_number_is_the_same_all_day() -> None:
    assert {Demand.model_validate(700).at(minute) for minute in (0, 1, 719, 1439)} == {700}


def model(demand: str) -> str:
    return f"""
datacenter: dc
datastores: [{{name: ds}}]
networks: [{{name: net}}]
clusters: [{{name: c, hosts: [{{name: h}}]}}]
vms: [{{name: v, host: h, cpu_demand: {demand}}}]
"""


def test_an_unquoted_time_is_read_as_it_looks() -> None:
    loaded = parse_model(model("[{at: 08:30, mhz: 1}, {at: 12:30, mhz: 2}]")).vms[0].cpu_demand
    assert loaded is not None
    assert [point.at for point in loaded.points] == [510, 750]


@pytest.mark.parametrize(
    ("demand", "said"),
    [
        ("[{at: '25:00', mhz: 1}]", "25:00 is not a time of the day"),
        ("[{at: '08:00', mhz: 1}, {at: '07:00', mhz: 1}]", "in the order of their times"),
        ("[{at: '08:00', mhz: -1}]", "greater than or equal to 0"),
        ("{points: [], jitter_minutes: 3}", "at least 1"),
        ("{points: 5, jiter: 3}", "did you mean jitter_minutes"),
    ],
)
def test_mistakes_are_said_with_their_place(demand: str, said: str) -> None:
    with pytest.raises(ModelError) as refused:
        parse_model(model(demand))
    assert said in str(refused.value)
    assert "cpu_demand" in str(refused.value)
