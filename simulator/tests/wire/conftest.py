"""Servers for the wire's tests."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from served import Served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("server"))
    yield served
    served.close()


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[t.Callable[..., Served]]:
    """Start servers with options of their own; all are stopped after the test."""
    running: list[Served] = []

    def launch(*options: str, directory: pathlib.Path | None = None) -> Served:
        running.append(Served(directory or tmp_path_factory.mktemp("server"), *options))
        return running[-1]

    yield launch
    for served in running:
        served.close()


@pytest.fixture
def client(server: Served) -> t.Any:
    return server.connect()
