# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The result of the sharing benchmark as one HTML file that asks nobody for anything, with the fleet page's charts."""

from __future__ import annotations

import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.benchmark.report import FORMAT
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.render import document

ASSETS: t.Final = (
    "benchmark.html", "benchmark.css", "benchmark.js",
    "page.css", "charts.js", "tree.js", "uPlot.min.css", "uPlot.iife.min.js",
)  # fmt: skip
"""Files that the page is made of: its own, and those that it has in common with the fleet page."""


def render(report: t.Mapping[str, t.Any], assets: t.Mapping[str, str]) -> str:
    """The file. Raises ValueError for a report or assets that are not ours."""
    if report.get("format") != FORMAT:
        raise ValueError(
            f"a result of the benchmark says that its format is {FORMAT}, this says {report.get('format')!r}"
        )
    missing = [name for name in ASSETS if name not in assets]
    if missing:
        raise ValueError(f"the page is made of {', '.join(ASSETS)}: {', '.join(missing)} missing")
    return document(
        assets["benchmark.html"],
        [assets["uPlot.min.css"], "\n".join(assets[name] for name in ("page.css", "benchmark.css"))],
        [
            assets["uPlot.iife.min.js"],
            "\n".join(assets[name] for name in ("charts.js", "tree.js", "benchmark.js")),
        ],
        report,
        title="GPU sharing benchmark",
        generated=str(report["generated"]),
    )
