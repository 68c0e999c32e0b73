# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab


@pytest.fixture(scope="module")
def module_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab for all tests of a module, started by the module."""
    lab = Lab(tmp_path_factory.mktemp("lab") / "lab")
    yield lab
    lab.stop()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab for one test, started by the test."""
    lab = Lab(tmp_path / "lab")
    yield lab
    lab.stop()
