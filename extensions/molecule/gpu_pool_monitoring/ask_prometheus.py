# Copyright: (c) 2026, The gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every expression of the dashboard has an answer, with the labels that its legend names; so has each rule's metric."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARIABLES = {"$__rate_interval": "20s", "$instance": ".*"}
MACHINES = ["client-01:9100", "pool-01:9100"]
PATIENCE_S = 120
# Metrics that have no samples while all is well or nothing runs are looked up by name only.
NAME = re.compile(r"\b(?:gpu_(?:pool|device)|node)_[a-z0-9_]+\b")


def get(path: str, **query: str) -> Any:
    address = f"http://127.0.0.1:9090/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(address, timeout=20) as answer:
        return json.load(answer)["data"]


def expressions(dashboard: Any) -> Iterator[tuple[str, str, str]]:
    """(panel, expression, legend) of everything that is asked."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield panel["title"], expression, target["legendFormat"]


def trouble(expression: str, legend: str) -> str:
    """What is wrong with the answer; nothing where it is right."""
    try:
        found = get("query", query=expression)["result"]
    except OSError as error:
        return str(error)
    if not found:
        return "no answer"
    labels = set(re.findall(r"\{\{(\w+)\}\}", legend))
    missing = [label for label in labels if any(label not in one["metric"] for one in found)]
    return f"no label {missing}" if missing else ""


def values_of(variable: str) -> list[str]:
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable).groups()  # type: ignore[union-attr]
    return sorted({series[label] for series in get("series", **{"match[]": metric})})


dashboard = json.loads(Path("/srv/grafana/gpu-pool.json").read_text())
wanted = list(expressions(dashboard))
variables = [one["definition"] for one in dashboard["templating"]["list"] if one["type"] == "query"]


def all_troubles() -> Iterator[str]:
    for panel, expression, legend in wanted:
        if why := trouble(expression, legend):
            yield f"{panel}: {expression}: {why}"
    for variable in variables:
        if (found := values_of(variable)) != MACHINES:
            yield f"{variable}: {found}"
    known = set(get("label/__name__/values"))
    for rule in rules():
        missing = set(NAME.findall(rule["query"])) - known
        if missing or (rule["health"], rule["state"]) != ("ok", "inactive"):
            yield f"{rule['name']}: {rule['health']}, {rule['state']}, without {missing}"


def rules() -> list[Any]:
    return [rule for group in get("rules")["groups"] for rule in group["rules"]]


end = time.monotonic() + PATIENCE_S
while bad := list(all_troubles()):
    assert time.monotonic() < end, "\n".join(bad)
    time.sleep(1)
print(f"{len(wanted)} expressions of {len(dashboard['panels'])} panels have answers")
print(f"{len(rules())} rules, all of known metrics, none fires")

held = {
    series["metric"]["gpu"]: float(series["value"][1])
    for series in get("query", query="gpu_pool_gpu_used_ratio")["result"]
}
assert held == {"0": 0.4, "1": 0.0}, held
tenants = get("query", query="gpu_pool_tenant_gpus_used")["result"]
assert [(one["metric"]["tenant"], float(one["value"][1])) for one in tenants] == [("research", 0.4)], tenants
reasons = get("query", query="gpu_pool_pending_jobs")["result"]
assert [(one["metric"]["reason"], one["value"][1]) for one in reasons] == [("BeginTime", "1")], reasons
