"""What the documentation promises: every plugin renders, every example parses and names real options."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (TOP / "plugins" / "modules").glob("*.py") if path.stem != "__init__")
RETURNS_NOTHING = {"gpuops.vsphere.show_text"}
BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | {"ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
TASK_KEYWORDS = {"register", "when", "loop", "vars", "delegate_to", "run_once", "changed_when", "check_mode", "tags"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=TOP,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    result = run("ansible-doc", "--json", *(f"gpuops.vsphere.{module}" for module in MODULES))
    assert result.returncode == 0, result.stderr
    rendered: dict[str, Any] = json.loads(result.stdout)
    return rendered


def test_ansible_doc_renders_every_module(documents: dict[str, Any]) -> None:
    assert set(documents) == {f"gpuops.vsphere.{module}" for module in MODULES}
    for name, document in documents.items():
        assert document["doc"]["short_description"], name
        assert document["examples"], name
        assert document["return"] or name in RETURNS_NOTHING, name


def test_every_module_says_how_it_treats_check_mode_and_diff(documents: dict[str, Any]) -> None:
    for name, document in documents.items():
        attributes = document["doc"].get("attributes", {})
        assert {"check_mode", "diff_mode"} <= set(attributes), name


def test_examples_name_only_options_that_exist(documents: dict[str, Any]) -> None:
    for name, document in documents.items():
        options = set(document["doc"].get("options", {}))
        for task in yaml.safe_load(document["examples"]):
            for module, arguments in task.items():
                if module == name:
                    assert set(arguments or {}) <= options, (name, task)
                else:
                    known = module in TASK_KEYWORDS | {"name"} or "." in module
                    assert known, f"{name}: {module} is neither a module by its full name nor a known keyword"


def test_examples_pass_the_syntax_check(documents: dict[str, Any], tmp_path: Path) -> None:
    plays = [
        {
            "name": f"Examples of {name}",
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": yaml.safe_load(document["examples"]),
        }
        for name, document in documents.items()
    ]
    playbook = tmp_path / "examples.yml"
    playbook.write_text(yaml.safe_dump(plays))
    result = run("ansible-playbook", "-i", "localhost,", "--syntax-check", str(playbook))
    assert result.returncode == 0, result.stdout + result.stderr


def test_action_group_lists_the_modules_that_take_the_connection(documents: dict[str, Any]) -> None:
    runtime = yaml.safe_load((TOP / "meta" / "runtime.yml").read_text())
    connecting = {
        name.rpartition(".")[2]
        for name, document in documents.items()
        if "hostname" in document["doc"].get("options", {})
    }
    assert set(runtime["action_groups"]["vsphere"]) == connecting


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (TOP / "Makefile").read_text(), re.MULTILINE))
    for document in (TOP / "README.md", TOP / "CONTRIBUTING.md", *(TOP / "docs").glob("*.md")):
        for target in re.findall(r"(?:`|\$ )make ([a-z-]+)", document.read_text()):
            assert target in targets, f"{document.name} names `make {target}`"


def test_links_between_documents_lead_somewhere() -> None:
    for document in (
        TOP / "README.md",
        TOP / "CONTRIBUTING.md",
        *(TOP / "docs").glob("*.md"),
        *(TOP / "roles").glob("*/README.md"),
    ):
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.relative_to(TOP)} links to {target}"


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_the_layers_know_only_what_they_may() -> None:
    for path in (TOP / "plugins").rglob("*.py"):
        names = imported(path)
        assert not any(name.startswith("vsphere_simulator") for name in names), path
        if not path.is_relative_to(TOP / "plugins" / "module_utils" / "vsphere"):
            assert not any(name.split(".")[0] in {"pyVmomi", "pyVim"} for name in names), path
        if path.is_relative_to(TOP / "plugins" / "module_utils" / "gpu"):
            assert not any(name.startswith("ansible.") or ".module_utils.vsphere" in name for name in names), path
    for path in (TOP / "simulator").rglob("*.py"):
        assert not any(name.startswith(("ansible_collections", "ansible")) for name in imported(path)), path
