# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A day of harvesting by shares as one HTML file, with the fleet page's charts."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.render import document

ASSETS: t.Final = (
    "day.html", "day.css", "day.js",
    "page.css", "charts.js", "tree.js", "uPlot.min.css", "uPlot.iife.min.js",
)  # fmt: skip
"""Files that the page is made of: its own, and those that it has in common with the fleet page."""
_DATA: t.Final = '<script id="day-data" type="application/json">'


def render(report: t.Mapping[str, t.Any], assets: t.Mapping[str, str], title: str) -> str:
    """The file for a report of `harvest_day.report`."""
    return document(
        assets["day.html"],
        [assets["uPlot.min.css"], "\n".join(assets[name] for name in ("page.css", "day.css"))],
        [assets["uPlot.iife.min.js"], "\n".join(assets[name] for name in ("charts.js", "tree.js", "day.js"))],
        report,
        title=title,
        generated=str(report["generated"]),
    )


def is_page(text: str) -> bool:
    """Whether a file is such a page."""
    return _DATA in text
