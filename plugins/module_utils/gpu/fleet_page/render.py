# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fleet page as one HTML file, and back.

The file asks nobody for anything: its content security policy allows the two scripts and the two style sheets
inside it, by their hash, and nothing else. The data is JSON in a data block, in which nothing can end the block.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import re
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.model import Page, to_dict

ASSETS: t.Final = ("page.html", "page.css", "page.js", "tree.js", "charts.js", "uPlot.min.css", "uPlot.iife.min.js")
"""Files that the page is made of, in one directory."""

_DATA = re.compile(r'<script id="fleet-data" type="application/json">(.*?)</script>', re.DOTALL)
_GENERATED = re.compile(r'<meta name="gpuops-generated" content="([0-9TZ:.+-]+)">')
_HOLE = re.compile(r"@@([a-z_]+)@@")


@dataclasses.dataclass(frozen=True, slots=True)
class Former:
    """What a file that was made before says."""

    generated: str
    data: t.Mapping[str, t.Any]


def render(page: Page, assets: t.Mapping[str, str], generated: str) -> str:
    """The whole file; `generated` is a UTC time in ISO 8601. The same input gives the same text."""
    styles = [assets["uPlot.min.css"], assets["page.css"]]
    scripts = [assets["uPlot.iife.min.js"], "\n".join(assets[name] for name in ("charts.js", "tree.js", "page.js"))]
    return document(assets["page.html"], styles, scripts, to_dict(page), title=page.title, generated=generated)


def document(
    template: str, styles: t.Sequence[str], scripts: t.Sequence[str], data: t.Any, *, title: str, generated: str
) -> str:
    """A template's holes filled: styles and scripts that the page's policy names, and data that stays data."""
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {' '.join(map(_hash, styles))}; script-src {' '.join(map(_hash, scripts))}"
    )
    parts = {
        "title": html.escape(title),
        "policy": html.escape(policy, quote=False),
        "generated": html.escape(generated),
        "styles": "\n".join(f"<style>{text}</style>" for text in styles),
        "data": _inert(data),
        "scripts": "\n".join(f"<script>{text}</script>" for text in scripts),
    }
    return _HOLE.sub(lambda hole: parts[hole[1]], template)


def former(text: str) -> Former | None:
    """What a page made before holds; None for a file that is no fleet page."""
    data, generated = _DATA.search(text), _GENERATED.search(text)
    if data is None or generated is None:
        return None
    try:
        held = json.loads(data[1])
    except ValueError:
        return None
    return Former(generated[1], held) if isinstance(held, dict) and "totals" in held else None


def summary(data: t.Mapping[str, t.Any]) -> dict[str, str]:
    """What a page's data says, by what it says it of: the lines of a diff that a person can read."""
    totals = data.get("totals", {})
    lines = {key: str(totals[key]) for key in ("hosts", "gpus", "vgpus", "vms") if key in totals}
    for row in data.get("capacity", ()):
        lines[f"profile {row['profile']}"] = f"{row['used']} used, {row['free']} free"
    names = [vm["name"] for vm in data.get("vms", ())]
    for host in (host for cluster in data.get("clusters", ()) for host in cluster.get("hosts", ())):
        lines[f"host {host['name']}"] = f"{host['state']}{', needs a reboot' if host.get('reboot') else ''}"
        for gpu in host.get("gpus", ()):
            on = [f"{slot.get('profile', '?')} {_name(names, slot.get('vm'))}" for slot in gpu.get("slots", ())]
            on += [_name(names, vm) for vm in gpu.get("vms", ())]
            lines[f"host {host['name']} {gpu['address']}"] = f"{gpu['model']} {gpu['state']} {', '.join(on)}".rstrip()
    for point in data.get("points", ()):
        lines[f"{point['kind']} {point['object']}"] = point["text"]
    for job in data.get("jobs") or ():
        lines[f"job {job['id']}"] = " ".join([job["state"], *job.get("vms", ())])
    return lines


def _name(names: t.Sequence[str], number: int | None) -> str:
    return names[number] if number is not None and number < len(names) else "?"


def _inert(data: t.Any) -> str:
    """JSON that no parser of HTML can take for markup, whatever names it holds."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), sort_keys=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
