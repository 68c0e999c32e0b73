# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The search for reference cycles rests for a while, and is as it was afterwards."""

from __future__ import annotations

import gc
import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.garbage import collection_paused


@pytest.fixture(autouse=True)
def _as_it_was() -> t.Iterator[None]:
    was = gc.isenabled()
    yield
    (gc.enable if was else gc.disable)()


@pytest.mark.parametrize("enabled", [True, False])
def test_it_is_as_before_after_an_error(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    during: list[bool] = []

    def read() -> None:
        during.append(gc.isenabled())
        raise ConnectionError

    with pytest.raises(ConnectionError), collection_paused():
        read()
    assert during == [False]
    assert gc.isenabled() is enabled


def test_one_within_another_does_not_end_the_pause() -> None:
    gc.enable()
    with collection_paused():
        with collection_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
