# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The examples in the READMEs of roles can be run: roles and variables are there, and the vCenter is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
READMES = sorted((TOP / "roles").glob("*/README.md"))
PREFIX = "gpuops.vsphere."
CONNECTION = {"hostname", "username", "password"}


def plays(readme: Path) -> list[dict[str, Any]]:
    blocks = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", readme.read_text(), re.DOTALL)]
    return [play for block in blocks if isinstance(block, list) for play in block if "hosts" in play]


def given(play: dict[str, Any]) -> set[str]:
    """Names of all variables that a play sets."""
    entries = [role for role in play.get("roles", []) if isinstance(role, dict)]
    entries += play.get("tasks", []) + play.get("pre_tasks", [])
    names = set(play.get("vars", {}))
    for entry in entries:
        names |= set(entry.get("vars", {})) | {key for key in entry if "_" in key}
    return names


def options(role: str) -> set[str]:
    """Names of the variables of a role, of all its entry points."""
    specs = yaml.safe_load((TOP / "roles" / role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    return {name for spec in specs.values() for name in spec.get("options", {})}


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_variables_of_examples_are_variables_of_roles(readme: Path) -> None:
    # The longest name first: gpu_pool_server_gpus is no variable of gpu_pool.
    roles = sorted((path.parent.name for path in READMES), key=len, reverse=True)
    for play in plays(readme):
        for name in sorted(given(play)):
            owner = next((role for role in roles if name.startswith(f"{role}_")), None)
            assert owner is None or name in options(owner), f"{readme.parent.name}: {owner} has no {name}"


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_roles_of_examples_are_there(readme: Path) -> None:
    for play in plays(readme):
        for entry in play.get("roles", []):
            name = entry if isinstance(entry, str) else entry["role"]
            assert (TOP / "roles" / name.removeprefix(PREFIX)).is_dir(), f"{readme.parent.name}: {name}"


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_examples_that_work_through_a_vcenter_say_which(readme: Path) -> None:
    for play in plays(readme):
        if play.get("connection") == "local":
            defaults = play.get("module_defaults", {}).get("group/gpuops.vsphere.vsphere", {})
            assert set(defaults) >= CONNECTION, f"{readme.parent.name}: {play['hosts']}"
