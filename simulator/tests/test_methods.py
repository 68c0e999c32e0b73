"""The list of what is supported comes from the code, and the documentation holds it."""

from __future__ import annotations

import pathlib

import pytest

from vsphere_simulator.cli import main
from vsphere_simulator.methods import BEGIN, END, markdown, spliced

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "simulator.md"


def section(name: str) -> str:
    return markdown().partition(f"### {name}\n")[2].partition("\n### ")[0]


def test_the_documentation_is_what_the_code_says() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert spliced(text, markdown()) == text, "the list is stale: run `make simulator-docs`"


def test_methods_are_either_supported_or_refused() -> None:
    host = {line.partition(": ")[0]: line for line in section("HostSystem").splitlines() if line.startswith("- ")}
    assert "`EnterMaintenanceMode_Task`" in host["- Methods"]
    assert "`QueryMemoryOverhead`" in host["- Refused"]
    assert "`EnterMaintenanceMode_Task`" not in host["- Refused"]
    assert "`hardware`" in host["- Properties"]


def test_the_property_collector_has_its_methods() -> None:
    """Their versions are not those of the rest of the API."""
    assert "`RetrievePropertiesEx`" in section("PropertyCollector")
    assert "`WaitForUpdatesEx`" in section("PropertyCollector")
    assert "- Refused" not in section("PropertyCollector")
    assert "- Methods: `DestroyPropertyFilter`" in section("PropertyFilter")


def test_absent_managers_and_rest_calls_are_listed() -> None:
    assert "`licenseManager`" in section("Not there")
    assert "`taskManager`" not in section("Not there")
    assert "| `/api/session` | DELETE, GET, POST |" in section("REST")


def test_the_command_writes_between_the_markers_only(tmp_path: pathlib.Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(f"before\n{BEGIN}\nreplaced text\n{END}\nafter\n")
    assert main(["methods", "--into", str(document)]) == 0
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "replaced text" not in text


def test_a_document_without_markers_is_an_operators_mistake(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "page.md"
    document.write_text("nothing here\n")
    assert main(["methods", "--into", str(document)]) == 2
    assert str(document) in capsys.readouterr().err
    assert document.read_text() == "nothing here\n"
