"""The execution environment's definition: ansible-builder takes it, and every dependency is listed."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

TOP = Path(__file__).resolve().parents[3]
BUILDER = Path(sys.executable).parent / "ansible-builder"
PACKAGES = {"pyVmomi": "pyvmomi", "pyVim": "pyvmomi", "vmware": "pyvmomi"}
"""Packages whose import name differs."""


def requirements() -> dict[str, str]:
    lines = (TOP / "meta" / "ee-requirements.txt").read_text().split()
    return {re.split("[<>=]", line, maxsplit=1)[0]: line for line in lines}


def imported() -> set[str]:
    names: set[str] = set()
    for path in (TOP / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"ansible", "ansible_collections", "yaml"}


def test_every_import_of_the_plugins_is_listed_as_the_project_wants_it() -> None:
    listed = requirements()
    assert {PACKAGES.get(name, name) for name in imported()} <= set(listed)
    wanted = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["dependencies"]
    assert set(listed.values()) <= set(wanted)


def test_ansible_builder_takes_the_definition(tmp_path: Path) -> None:
    for name in ("execution-environment.yml", "requirements.yml"):
        shutil.copy2(TOP / name, tmp_path)
    shutil.copytree(TOP / "meta", tmp_path / "meta")
    release = tmp_path / "build" / "release"
    release.mkdir(parents=True)
    (release / "gpuops-vsphere-0.0.1.tar.gz").touch()
    result = subprocess.run([BUILDER, "create"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    context = tmp_path / "context" / "_build"
    assert (context / "requirements.txt").read_text() == (TOP / "meta" / "ee-requirements.txt").read_text()
    assert yaml.safe_load((context / "requirements.yml").read_text()) == yaml.safe_load(
        (TOP / "requirements.yml").read_text()
    )
    assert (context / "release" / "gpuops-vsphere-0.0.1.tar.gz").is_file()
    assert "gpuops-vsphere-*.tar.gz" in (tmp_path / "context" / "Containerfile").read_text()


def test_ansible_builder_finds_the_dependencies_in_the_installed_collection() -> None:
    result = subprocess.run([BUILDER, "introspect", TOP / "collections"], capture_output=True, text=True, check=True)
    found = yaml.safe_load(result.stdout)
    assert {line.split()[0] for line in found["python"]} == set(requirements().values())
    assert any(line.startswith("openssh-client ") for line in found["system"])
