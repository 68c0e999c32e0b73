"""Servers of whole models for the tests here."""

from __future__ import annotations

import collections.abc
import pathlib
import typing as t

import pytest
from serving import Served


@pytest.fixture
def serve(tmp_path: pathlib.Path) -> collections.abc.Iterator[t.Callable[..., Served]]:
    """Start servers; all that still run are stopped after the test."""
    started: list[Served] = []

    def start(model: str, *options: str) -> Served:
        started.append(Served(tmp_path / f"server-{len(started)}", model, *options))
        return started[-1]

    yield start
    for server in started:
        server.close()
