# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import itertools

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.assign import Demand, assign
from hypothesis import given
from hypothesis import strategies as st


def anything(_demand: Demand, _address: str) -> bool:
    return True


def demands(*candidates: str) -> list[Demand]:
    return [Demand("vm", index, tuple(each)) for index, each in enumerate(candidates)]


def most_served(wanted: list[Demand]) -> int:
    choices = [[*demand.candidates, None] for demand in wanted]
    return max(
        (
            len([address for address in chosen if address])
            for chosen in itertools.product(*choices)
            if len({address for address in chosen if address}) == len([address for address in chosen if address])
        ),
        default=0,
    )


@given(st.lists(st.text("abcd", max_size=3).map(lambda text: "".join(sorted(set(text)))), max_size=5))
def test_serves_as_many_as_can_be_served_each_with_its_own(candidates: list[str]) -> None:
    wanted = demands(*candidates)
    result = assign(wanted, [anything])
    assert len(result.given) == most_served(wanted)
    assert len(set(result.given.values())) == len(result.given)
    assert all(address in demand.candidates for demand, address in result.given.items())
    assert set(result.given) | set(result.missing) == set(wanted)


def test_earlier_phases_are_preferred_and_nobody_moves_without_need() -> None:
    first, second = demands("ab", "ab")
    result = assign([first, second], [lambda demand, address: demand is second and address == "a", anything])
    assert result.given == {first: "b", second: "a"}


def test_one_moves_where_another_could_not_be_served_otherwise() -> None:
    first, second = demands("ab", "a")
    assert assign([first, second], [anything]).given == {first: "b", second: "a"}


def test_contenders_are_reached_in_turn() -> None:
    first, second, third, apart = demands("ab", "b", "a", "c")
    result = assign([first, second, third, apart], [anything])
    assert result.missing == (third,)
    assert set(result.contenders(third)) == {first, second}
