# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
import hashlib
import html.parser
import json
import re
from pathlib import Path

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page import files, render
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.model import to_dict
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.whole_file import write_whole
from fleets import ASSETS, GENERATED, small

PARTS = files.assets(str(ASSETS))
EVIL = "</script ></script><script>alert(1)</script><!--<script"


class Tags(html.parser.HTMLParser):
    """Counts elements, and keeps addresses that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]


def tags(text: str) -> Tags:
    parsed = Tags()
    parsed.feed(text)
    return parsed


def test_the_same_page_is_the_same_file_but_for_its_time() -> None:
    page = small().page()
    first, second = (render.render(page, PARTS, generated) for generated in (GENERATED, "2027-01-01T00:00:00Z"))
    assert render.render(small().page(), PARTS, GENERATED) == first
    assert first != second
    assert first.replace(GENERATED, "") == second.replace("2027-01-01T00:00:00Z", "")


def test_a_page_can_be_read_back() -> None:
    page = small(machine=EVIL).page()
    former = render.former(render.render(page, PARTS, GENERATED))
    assert former is not None
    assert former.generated == GENERATED
    assert former.data == json.loads(json.dumps(to_dict(page)))
    for other in ("", "<html></html>", '<script id="fleet-data" type="application/json">{</script>'):
        assert render.former(other) is None


def test_names_cannot_end_the_data_or_begin_markup() -> None:
    plain = tags(render.render(small().page(), PARTS, GENERATED)).names
    text = render.render(small((EVIL, f"&lt;{EVIL}"), EVIL).page(), PARTS, GENERATED)
    assert tags(text).names == plain
    begin = text.index('type="application/json">') + len('type="application/json">')
    assert "<" not in text[begin : text.index("</script>", begin)]
    assert render.former(text).data["vms"][0]["name"].startswith(EVIL)  # type: ignore[union-attr]


def test_the_title_is_text_too() -> None:

    evil = render.render(dataclasses.replace(small().page(), title=EVIL), PARTS, GENERATED)
    assert "<script>alert" not in evil


def test_the_file_names_no_address_to_fetch() -> None:
    text = render.render(small().page(), PARTS, GENERATED)
    assert set(tags(text).addresses) <= {"#tree", "data:,"}
    styles = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    assert "default-src 'none'" in text


def test_what_a_diff_shows() -> None:
    lines = render.summary(to_dict(small().page()))
    assert lines["gpus"] == "6"
    assert lines["host esx-1 0000:3b:00.0"] == "A100-40 full grid_a100-40c train-a"
    assert lines["host esx-2"] == "in service, needs a reboot"
    assert lines["profile grid_a100-10c"] == "1 used, 7 free"


def test_only_a_fleet_page_is_ever_replaced(tmp_path: Path) -> None:
    path = tmp_path / "fleet.html"
    assert files.held(str(path)) is None
    text = render.render(small().page(), PARTS, GENERATED)
    write_whole(str(path), text, 0o640)
    held = files.held(str(path))
    assert held is not None
    assert (held.text, held.mode) == (text, 0o640)
    assert list(tmp_path.iterdir()) == [path]
    for wrong, why in ((tmp_path, "is no file"), (tmp_path / "no" / "where", "does not exist")):
        with pytest.raises(files.RefusedError, match=why):
            files.held(str(wrong))
    path.write_text("somebody's notes")
    with pytest.raises(files.RefusedError, match="no fleet page"):
        files.held(str(path))


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "real.html", tmp_path / "link.html"
    target.write_text("x")
    link.symlink_to(target)
    write_whole(str(link), "y", 0o644)
    assert link.is_symlink()
    assert target.read_text() == "y"


def test_the_charting_library_is_the_one_that_is_recorded() -> None:
    recorded = dict(
        reversed(line.split()) for line in (ASSETS / "VENDORED.sha256").read_text().splitlines() if line[0] != "#"
    )
    assert set(recorded) == {"uPlot.iife.min.js", "uPlot.min.css", "uPlot.LICENSE"}
    for name, digest in recorded.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest
    version = re.search(r"^# uPlot (\S+)", (ASSETS / "VENDORED.sha256").read_text(), re.MULTILINE)
    assert version is not None
    assert f"(v{version[1]})" in PARTS["uPlot.iife.min.js"].splitlines()[0]
    assert "MIT License" in (ASSETS / "uPlot.LICENSE").read_text()
