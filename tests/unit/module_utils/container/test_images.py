"""Versions of images: their names, the index, what is pruned."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.container import images
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.errors import ContainerError
from ansible_collections.gpuops.vsphere.plugins.module_utils.container.images import Index, Version
from hypothesis import given
from hypothesis import strategies as st

SHA = "a" * 64
NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,8}", fullmatch=True)


def version(name: str, **more: t.Any) -> Version:
    return Version(name, SHA, 7, **more)


def test_what_decides_on_a_rebuild() -> None:
    base = images.definition_hash("Bootstrap: x", "20261101", "b")
    assert base == images.definition_hash("Bootstrap: x", "20261101", "b")
    others = [("Bootstrap: y", "20261101", "b"), ("Bootstrap: x", "20261102", "b"), ("Bootstrap: x", "20261101", "c")]
    assert len({base, *(images.definition_hash(*other) for other in others)}) == 4


def test_a_version_is_named_by_date_and_hash() -> None:
    assert images.version_of("0123456789abcdef", "20261101") == "20261101-0123456789ab"
    assert images.version_of("0123456789abcdef", "") == "undated-0123456789ab"


def test_labels_are_a_section_of_their_own() -> None:
    text = images.labelled("Bootstrap: scratch\n\n%post\n    true\n\n", {"b": "2", "a": "1"})
    assert text == "Bootstrap: scratch\n\n%post\n    true\n\n%labels\n    a 1\n    b 2\n"


@given(st.lists(NAMES, unique=True, max_size=5))
def test_the_index_survives_its_json(names: list[str]) -> None:
    index = Index("torch")
    for name in names:
        index = index.with_current(version(name, definition_hash="d", package_date="20261101"))
    assert images.parse_index(index.to_json(), "torch", "here") == index
    assert index.current == (names[-1] if names else "")


def test_a_version_built_again_is_listed_once_and_last() -> None:
    index = Index("x").with_current(version("1")).with_current(version("2")).with_current(version("1"))
    assert [entry.version for entry in index.versions] == ["2", "1"]
    assert [entry.version for entry in index.without({"2"}).versions] == ["1"]


def _broken(**changes: t.Any) -> str:
    content = json.loads(Index("x").with_current(version("1")).to_json())
    content.update(changes)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<html>", "bad_index"),
        ("[]", "bad_index"),
        (_broken(format=2), "bad_index"),
        (_broken(name="y"), "bad_index"),
        (_broken(versions=[{"version": "1"}]), "bad_index"),
        (_broken(versions=[{"version": "../../etc", "sha256": SHA, "size": 1}]), "bad_version"),
        (_broken(versions=[{"version": "1", "sha256": "short", "size": 1}]), "bad_checksum"),
    ],
)
def test_an_index_that_is_none_is_refused_and_its_place_named(text: str, code: str) -> None:
    with pytest.raises(ContainerError) as caught:
        images.parse_index(text, "x", "https://images.example.org/x/index.json")
    assert caught.value.code == code


def test_choosing_a_version() -> None:
    index = Index("x").with_current(version("1")).with_current(version("2"))
    assert images.choose(index, "", "The source").version == "2"
    assert images.choose(index, "1", "The source").version == "1"
    with pytest.raises(ContainerError, match="has no version '3' of x; it has: 1, 2"):
        images.choose(index, "3", "The source")


@pytest.mark.parametrize("name", ["", "Torch", "a/b", "-a", "..", "a" * 64, "a b", "a\n"])
def test_names_that_cannot_be_a_directory_and_a_tag(name: str) -> None:
    with pytest.raises(ContainerError, match="is no name for an image"):
        images.checked_name(name)


@pytest.mark.parametrize(("given_", "wanted"), [("A" * 64, "a" * 64), (f"sha256:{SHA}", SHA), (f" {SHA}\n", SHA)])
def test_checksums_are_read_as_people_write_them(given_: str, wanted: str) -> None:
    assert images.checked_sha256(given_, "x") == wanted


@pytest.mark.parametrize("date", ["2026-11-01", "today", "20261101T0000Z", "2026110"])
def test_dates_that_no_snapshot_has(date: str) -> None:
    with pytest.raises(ContainerError):
        images.checked_date(date)


@given(st.lists(NAMES, unique=True, max_size=8), st.integers(0, 9), st.data())
def test_pruning_keeps_enough_the_newest_and_what_is_protected(
    names: list[str], keep: int, data: st.DataObject
) -> None:
    protected = data.draw(st.sets(st.sampled_from(names))) if names else set()
    gone = images.prunable(names, keep, protected)
    left = [name for name in names if name not in gone]
    assert not protected & set(gone)
    assert len(left) >= min(len(names), max(keep, 1))
    if gone:
        assert all(name in protected or name in gone for name in names[: names.index(gone[-1])])
