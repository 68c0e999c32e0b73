# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.places import (
    HostPlaces,
    Place,
    PlaceError,
    find,
    find_datastore,
)

FOLDERS = [Place("0", ""), Place("1", "gpu"), Place("2", "gpu/servers"), Place("3", "old"), Place("4", "old/servers")]
HERE = HostPlaces((Place("a", "nvme-01"), Place("b", "shared-01"), Place("c", "twin"), Place("d", "twin")), (), ())


@pytest.mark.parametrize(
    ("wanted", "moid"),
    [("", "0"), ("/", "0"), ("gpu", "1"), ("/gpu/", "1"), ("gpu/servers", "2"), ("/old/servers", "4"), ("old", "3")],
)
def test_found(wanted: str, moid: str) -> None:
    assert find("folder", wanted, FOLDERS).moid == moid


@pytest.mark.parametrize(
    ("wanted", "code", "text"),
    [
        ("servers", "folder_ambiguous", "gpu/servers, old/servers. Give the whole path."),
        ("gpu/server", "folder_not_found", "Did you mean gpu/servers?"),
        ("zzz", "folder_not_found", "There are: gpu, gpu/servers, old, old/servers."),
    ],
)
def test_not_found(wanted: str, code: str, text: str) -> None:
    with pytest.raises(PlaceError) as caught:
        find("folder", wanted, FOLDERS)
    assert caught.value.code == code
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "code", "text"),
    [
        ("twin", "datastore_ambiguous", "several datastores named twin"),
        ("remote-01", "datastore_not_on_host", "Accessible there: nvme-01, shared-01, twin, twin."),
        ("shared-1", "datastore_not_found", "Did you mean shared-01?"),
    ],
)
def test_datastores(wanted: str, code: str, text: str) -> None:
    assert find_datastore("nvme-01", "esx", HERE, ["remote-01"]).moid == "a"
    with pytest.raises(PlaceError) as caught:
        find_datastore(wanted, "esx", HERE, ["remote-01"])
    assert caught.value.code == code
    assert text in str(caught.value)
