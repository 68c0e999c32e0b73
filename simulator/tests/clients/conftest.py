"""A simulator of the clients' model, and their Ansible pointed at it."""

from __future__ import annotations

import typing as t

import pytest
from controller import BIN, HERE, Controller
from serving import Served

if t.TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


@pytest.fixture
def served(tmp_path: pathlib.Path) -> Iterator[Served]:
    server = Served(tmp_path / "server", (HERE / "model.yml").read_text())
    yield server
    server.close()


@pytest.fixture
def controller(served: Served, tmp_path: pathlib.Path) -> Controller:
    if not (BIN / "ansible-playbook").exists():
        pytest.fail("the other projects' environment is missing: run `make fidelity`")
    return Controller(tmp_path, served)
