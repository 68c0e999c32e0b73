"""What a caller may ask of tools/guest, and how a wrong request is answered."""

from __future__ import annotations

import copy
import io
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestlib import cli
from guestlib.errors import SpecError
from guestlib.recipe import Recipe, recipe_hash
from guestlib.spec import parse_create, parse_names, parse_recipe

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ops@lab"
REQUEST: dict[str, Any] = {
    "instance": "lab",
    "guests": [
        {
            "name": "gpu-vm-01",
            "hostname": "gpu-vm-01.lab",
            "image": {"suite": "bookworm", "packages": ["slurm-wlm", "curl"]},
            "authorized_keys": [KEY],
            "volumes": [{"source": "/srv/data", "target": "/data", "read_only": True}],
            "environment": {"TOKEN": "s3cret"},
            "memory_mb": 4096,
            "cpus": 2,
        }
    ],
}


def changed(path: list[str | int], value: object) -> dict[str, Any]:
    request = copy.deepcopy(REQUEST)
    place: Any = request
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return request


def test_a_full_request_is_read() -> None:
    request = parse_create(REQUEST)
    guest = request.guests[0]
    assert (request.instance, request.owner_pid, request.timeout_s) == ("lab", None, 120.0)
    assert (guest.name, guest.hostname, guest.memory_mb, guest.cpus) == ("gpu-vm-01", "gpu-vm-01.lab", 4096, 2.0)
    assert guest.recipe == Recipe("bookworm", ("curl", "slurm-wlm"), ("main",))
    assert guest.volumes[0].read_only


def test_what_may_be_left_out() -> None:
    guest = parse_create({"instance": "a", "guests": [{"name": "GPU_vm.1"}]}).guests[0]
    assert guest.hostname == "gpu-vm.1"
    assert guest.recipe == Recipe("trixie")
    assert (guest.authorized_keys, guest.volumes, guest.environment, guest.memory_mb) == ((), (), {}, None)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["instance"], None, "'instance' is missing"),
        (["instance"], "Lab.1", "instance name 'Lab.1'"),
        (["guests"], None, "'guests' is missing"),
        (["guests"], [], "'guests' is empty"),
        (["guests"], "gpu-vm-01", "'guests' must be a list"),
        (["guests", 0], "gpu-vm-01", "guests[0] must be an object"),
        (["guests", 0, "nmae"], "x", "'guests[0].nmae'; did you mean 'name'?"),
        (["guests", 0, "name"], "../etc", "guests[0].name '../etc'"),
        (["guests", 0, "hostname"], "gpu vm", "host name"),
        (["guests", 0, "image"], "sid", "guests[0].image.suite 'sid'"),
        (["guests", 0, "image", "packages"], ["--help"], "'--help' is not a package name"),
        (["guests", 0, "image", "components"], ["contrib"], "lacks 'main'"),
        (["guests", 0, "image", "components"], ["main", "universe"], "'universe' is not known"),
        (["guests", 0, "authorized_keys"], ["-----BEGIN OPENSSH PRIVATE KEY-----"], "not an OpenSSH public key"),
        (["guests", 0, "authorized_keys"], [f"{KEY}\nx"], "not an OpenSSH public key"),
        (["guests", 0, "volumes", 0, "source"], "data", "guests[0].volumes[0].source 'data'"),
        (["guests", 0, "volumes", 0, "target"], "/a,ro", "guests[0].volumes[0].target '/a,ro'"),
        (["guests", 0, "volumes", 0, "read_only"], "yes", "must be true or false"),
        (["guests", 0, "environment"], {"A-B": "c"}, "environment.A-B"),
        (["guests", 0, "environment"], {"A": 1}, "must be an object of strings"),
        (["guests", 0, "memory_mb"], "4096", "must be a whole number of at least 64"),
        (["guests", 0, "memory_mb"], True, "must be a whole number"),
        (["guests", 0, "cpus"], -1, "must be a number"),
        (["owner_pid"], 0, "'owner_pid' must be a whole number of at least 1"),
        (["timeout_s"], 0, "'timeout_s' must be a number of at least 1"),
    ],
)
def test_a_wrong_request_names_the_place(path: list[str | int], value: object, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_create(changed(path, value))
    assert words in caught.value.line()
    assert "\n" not in caught.value.line()


@pytest.mark.parametrize("key", ["name", "hostname"])
def test_guests_must_differ(key: str) -> None:
    second = {**REQUEST["guests"][0], "name": "other", "hostname": "other", key: REQUEST["guests"][0][key]}
    with pytest.raises(SpecError, match=rf"{key} .* twice"):
        parse_create({"instance": "lab", "guests": [REQUEST["guests"][0], second]})


def test_names_request() -> None:
    assert parse_names({"instance": "lab", "names": ["a", "b"]}).names == ("a", "b")
    assert parse_names({"instance": "lab"}).names == ()
    with pytest.raises(SpecError, match=r"names 'a/b'"):
        parse_names({"instance": "lab", "names": ["a/b"]})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hostname", "other.lab"),
        ("authorized_keys", []),
        ("volumes", []),
        ("environment", {"TOKEN": "other"}),
        ("memory_mb", 8192),
        ("cpus", 4),
        ("image", "trixie"),
    ],
)
def test_the_fingerprint_sees_every_setting(key: str, value: object) -> None:
    before = parse_create(REQUEST).guests[0].fingerprint()
    assert parse_create(copy.deepcopy(REQUEST)).guests[0].fingerprint() == before
    assert parse_create(changed(["guests", 0, key], value)).guests[0].fingerprint() != before


SOURCES = ["deb http://mirror.example/debian trixie main"]


@given(st.permutations(["curl", "slurm-wlm", "systemd", "curl"]))
def test_the_order_of_packages_does_not_matter(packages: list[str]) -> None:
    recipe = parse_recipe({"suite": "trixie", "packages": packages}, "image")
    expected = Recipe("trixie", ("curl", "slurm-wlm"))
    assert recipe == expected
    assert recipe_hash(recipe, SOURCES, [], "x") == recipe_hash(expected, SOURCES, [], "x")


def test_the_recipe_hash_sees_everything_that_goes_in() -> None:
    hashes = {
        recipe_hash(Recipe("trixie"), SOURCES, [], "x"),
        recipe_hash(Recipe("bookworm"), SOURCES, [], "x"),
        recipe_hash(Recipe("trixie", ("curl",)), SOURCES, [], "x"),
        recipe_hash(Recipe("trixie", (), ("contrib", "main")), SOURCES, [], "x"),
        recipe_hash(Recipe("trixie"), ["deb http://other.example/debian trixie main"], [], "x"),
        recipe_hash(Recipe("trixie"), SOURCES, ['Acquire::Retries "3";'], "x"),
        recipe_hash(Recipe("trixie"), SOURCES, [], "y"),
    }
    assert len(hashes) == 7
    assert all(len(text) == 12 for text in hashes)


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["create"], "{", "standard input is not JSON"),
        (["create"], '{"instance": "lab", "guests": []}', "'guests' is empty"),
        (["create", "--spec", "/nonexistent.json"], "", "cannot read /nonexistent.json"),
        (["freeze", "gpu-vm-01"], "", "no instance is given"),
        (["freeze", "--spec", "-", "gpu-vm-01"], '{"instance": "lab"}', "--spec names the guests already"),
        (["stop", "--instance", "Lab"], "", "instance name 'Lab'"),
        (["list", "--instance", "a.b"], "", "instance name 'a.b'"),
        (["image", "build", "--suite", "sid"], "", "image.suite 'sid'"),
        (["cleanup"], "", "one of the arguments --instance --stale --all is required"),
        (["melt"], "", "invalid choice: 'melt'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    arguments: list[str],
    stdin: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert words in output.err
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["list"], {"guests": []}),
        (["destroy", "--instance", "lab"], {"guests": []}),
        (["cleanup", "--all"], {"removed": {}, "builds": []}),
        (["image", "list"], {"images": []}),
        (["image", "prune"], {"removed": []}),
    ],
)
def test_a_host_without_podman_has_no_guests(
    arguments: list[str],
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert cli.main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == expected


def test_a_reader_that_has_seen_enough_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in `tools/guest image list | head -1`."""
    monkeypatch.setenv("PATH", "/nonexistent")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        monkeypatch.setattr("sys.stdout", gone)
        assert cli.main(["image", "list"]) == 0
    assert capfd.readouterr().err == ""
