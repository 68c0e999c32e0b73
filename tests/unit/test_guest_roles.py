"""Roles for guests, where no guest is needed: the shipped image definitions and the variables of each distribution."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.filter.core import FilterModule
from jinja2 import Environment, FileSystemLoader, StrictUndefined

TOP = Path(__file__).resolve().parents[2]
ROLES = TOP / "roles"
TEMPLATES = ROLES / "singularity_image" / "templates"
DEFINITIONS = sorted(path.name.removesuffix(".def.j2") for path in (TEMPLATES / "definitions").glob("*.def.j2"))
SHELL_SECTIONS = {"post", "test", "environment", "runscript"}


def variables(path: Path) -> dict[str, Any]:
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def sections(name: str, **image: Any) -> dict[str, str]:
    """Render a definition as the role does and return its sections; the header is the section ''."""
    environment = Environment(  # noqa: S701 - no HTML
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    filters = FilterModule().filters()
    environment.filters.update({name: filters[name] for name in ("mandatory", "quote")})
    text = environment.get_template(f"definitions/{name}.def.j2").render(
        image={"name": name, **image},
        image_date="20261101T000000Z",
        image_mirror="http://archive.example.org/{date}",
        **{
            key: value
            for key, value in variables(ROLES / "singularity_image" / "defaults" / "main.yml").items()
            if "{{" not in str(value)
        },
    )
    parts = re.split(r"(?m)^%(\w+)\n", text)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(ROLES.glob("*/tasks/*.yml")) if "cache_valid_time" in path.read_text("utf-8")],
    ids=str,
)
def test_package_lists_that_are_empty_are_read_whatever_their_age(path: Path) -> None:
    age = re.search(r"(?m)^ *cache_valid_time: (.*)$", path.read_text("utf-8"))
    lists = re.search(r"(?m)^ *register: (\w+_lists)$", path.read_text("utf-8"))
    assert age
    assert lists
    assert f"{lists[1]}.matched" in age[1]


def test_the_shipped_definitions_are_those_of_the_role() -> None:
    shipped = variables(ROLES / "singularity_image" / "vars" / "main.yml")["__singularity_image_shipped"]
    assert sorted(shipped) == DEFINITIONS
    assert {"python-base", "pytorch-cpu", "pytorch-cuda", "tensorflow"} <= {*DEFINITIONS}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_section_of_a_definition_is_shell(name: str) -> None:
    rendered = sections(name, packages=["one-more"], test="python3 -c 'import one'")
    assert {"post", "runscript", "test"} <= rendered.keys() <= {"", *SHELL_SECTIONS}
    assert rendered[""].startswith("#")
    for section in SHELL_SECTIONS & rendered.keys():
        checked = subprocess.run(["sh", "-n"], input=rendered[section], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, f"{name} %{section}: {checked.stderr}"
    assert "one-more" in rendered[""] + rendered["post"]
    assert "python3 -c 'import one'" in rendered["test"]


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_test_of_a_definition_asserts_something_of_its_payload(name: str) -> None:
    payload = {"pytorch-cpu": "torch", "pytorch-cuda": "torch", "tensorflow": "tensorflow"}.get(name, "sys")
    programs = [
        words[words.index("-c") + 1]
        for line in sections(name)["test"].splitlines()
        if "-c" in (words := shlex.split(line))
    ]
    assert programs
    for program in programs:
        compile(program, f"{name} %test", "exec")
        assert "assert " in program
        assert re.search(rf"\bimport .*\b{payload}\b", program)


@pytest.mark.parametrize(
    ("name", "version", "wanted"),
    [
        ("pytorch-cuda", {"torch_version": "2.5.1"}, "torch==2.5.1"),
        ("tensorflow", {"tensorflow_version": "2.19.0"}, "'tensorflow[and-cuda]==2.19.0'"),
    ],
)
def test_the_version_of_a_payload_is_the_entrys(name: str, version: dict[str, str], wanted: str) -> None:
    install = next(line for line in sections(name, **version)["post"].splitlines() if "pip install" in line)
    assert wanted in install
    assert re.search(r"==\d", next(line for line in sections(name)["post"].splitlines() if "pip install" in line))


@pytest.mark.parametrize(
    ("directory", "files"),
    [
        ("grid_guest_driver/vars", ["Debian.yml", "Ubuntu.yml", "RedHat.yml"]),
        (
            "singularity/vars/os",
            ["Debian-12.yml", "Debian-13.yml", "EL-8.yml", "EL-9.yml", "Ubuntu-22.04.yml", "Ubuntu-24.04.yml"],
        ),
    ],
)
def test_every_distribution_says_all_that_a_role_needs(directory: str, files: list[str]) -> None:
    said = {file: variables(ROLES / directory / file) for file in files}
    common = set.intersection(*({*keys} for keys in said.values()))
    own = {"__singularity_ppa", "__grid_guest_driver_architecture", "__grid_guest_driver_flavour"}
    for file, found in said.items():
        assert {*found} - common <= own, f"{file} lacks or has what the others do not"
    needs = {key for file in files for key in said[file] if key.endswith(("_needs", "_build_packages"))}
    assert all(said[file][key] for file in files for key in needs)


def test_the_runtime_knows_the_systems_that_its_variables_are_for() -> None:
    supported = variables(ROLES / "singularity" / "vars" / "main.yml")["__singularity_supported"]
    assert sorted(supported) == sorted(path.stem for path in (ROLES / "singularity" / "vars" / "os").glob("*.yml"))


def test_the_driver_knows_the_systems_that_its_variables_are_for() -> None:
    supported = variables(ROLES / "grid_guest_driver" / "vars" / "main.yml")["__grid_guest_driver_supported"]
    assert supported == {"Debian": ["12", "13"], "Ubuntu": ["22", "24"], "RedHat": ["8", "9"]}
    for family in supported:
        assert (ROLES / "grid_guest_driver" / "vars" / f"{family}.yml").is_file()
