# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What else the fleet page may show, from JSON that other playbooks write: jobs, the doctor's findings, a plan, charts.

The shapes are in docs/fleet_page.md. Whatever is not of that shape is a `ShapeError` that names the place.
"""

from __future__ import annotations

import datetime
import itertools
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page import slurm_jobs
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.build import GivenPlan
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.fleet_page.model import (
    Chart,
    ChartKind,
    Job,
    Kind,
    Mark,
    Point,
    Series,
    Step,
)

_KINDS: t.Final[dict[str, ChartKind]] = {"lines": "lines", "stacked": "stacked", "bars": "bars"}
_CHECKS: t.Final[dict[str, Kind]] = {"licence": "licence", "driver": "driver", "nouveau": "driver"}


class ShapeError(ValueError):
    """Data that is not of the documented shape; the message names the place and what belongs there."""


def jobs(data: t.Any, shards_per_gpu: int = 10) -> tuple[Job, ...]:
    """The pool's jobs: `{"jobs": [...]}`, or what `squeue --json` prints. Raises ShapeError."""
    if slurm_jobs.is_queue(data):
        data = slurm_jobs.jobs(data, shards_per_gpu)
    found = []
    for where, item in _items(data, "jobs"):
        gpus = item.get("gpus", 0)
        if isinstance(gpus, bool) or not isinstance(gpus, (int, float)) or gpus < 0:
            raise ShapeError(f"{where}.gpus: {gpus!r} is no number of GPUs, 0.5 would be half of one")
        found.append(
            Job(
                id=_text(item, "id", where, required=True),
                name=_text(item, "name", where),
                user=_text(item, "user", where),
                tenant=_text(item, "tenant", where),
                state=_text(item, "state", where) or "running",
                vms=_texts(item, "vms", where),
                gpus=float(gpus),
                since=_text(item, "since", where),
            )
        )
    return tuple(found)


def findings(data: t.Any) -> tuple[Point, ...]:
    """What the role gpu_doctor wrote: by guest its diagnosis, empty for one not read. Raises ShapeError."""
    found = []
    for guest, diagnosis in _mapping(data, "the file").items():
        if not diagnosis:
            found.append(Point("health", str(guest), "The guest could not be read.", "see that it answers ssh"))
            continue
        for where, item in _items(diagnosis, "findings", str(guest)):
            if _text(item, "status", where, required=True) == "FAIL":
                check = _text(item, "check", where, required=True)
                text = f"{check}: {_text(item, 'message', where)}"
                found.append(Point(_CHECKS.get(check, "health"), str(guest), text, _text(item, "mend", where)))
    return tuple(found)


def plan(data: t.Any) -> GivenPlan:
    """What the module gpu_plan returned (`gpu_fleet_plan_file`). Raises ShapeError."""
    steps = tuple(
        Step(
            action=_text(item, "action", where, required=True),
            object=_text(item, "object", where, required=True),
            what=_text(item, "what", where),
            reason=_text(item, "reason", where),
            vms=_texts(item, "vms", where),
            jobs=_texts(item, "jobs", where),
            needs=_texts(item, "needs", where),
        )
        for where, item in _items(data, "steps")
    )
    objects = _mapping(data.get("objects") or {}, "objects")
    return GivenPlan(
        steps=steps,
        where=_names(data, "where"),
        moves=_names(data, "moves"),
        removed=_texts(data, "removed", "the file"),
        warnings=_texts(data, "warnings_of_plan", "the file"),
        problems=tuple(
            str(entry.get("msg") or f"{name}: failed")
            for name, entry in objects.items()
            if isinstance(entry, t.Mapping) and entry.get("failed")
        ),
    )


def charts(data: t.Any) -> tuple[Chart, ...]:
    """Charts to draw: `{"charts": [...]}`. Raises ShapeError."""
    return tuple(_chart(item, where) for where, item in _items(data, "charts"))


_USES: t.Final = (
    ("desktops_in_use", "desktops in use"),
    ("compute", "compute"),
    ("desktops_idle", "idle desktops"),
    ("other", "others"),
    ("empty", "nobody"),
)


def harvest(data: t.Any) -> tuple[Chart, ...]:
    """Charts, or the report of harvesting by hand-over: its last nights with samples. Raises ShapeError."""
    report = nights(data)
    if report is None:
        return charts(data)
    found = []
    for where, night in _items(report, "nights"):
        series = [item for _at, item in _items(night, "series", where)]
        if len(series) < 2:
            continue
        figures = (
            f"{_number(night.get('gpu_hours_harvested'), f'{where}.gpu_hours_harvested'):.1f} GPU hours harvested, "
            f"{_number(night.get('desktops_lent'), f'{where}.desktops_lent'):.0f} desktops lent, "
            f"{_number(night.get('desktops_late'), f'{where}.desktops_late'):.0f} late, "
            f"{_number(night.get('jobs_requeued'), f'{where}.jobs_requeued'):.0f} jobs requeued."
        )
        chart = {
            "title": f"GPUs by use, night of {_text(night, 'night', where, required=True)}",
            "kind": "stacked",
            "time": True,
            "x": [item.get("time") for item in series],
            "y_label": "GPUs",
            "series": [{"name": name, "values": [item.get(key) for item in series]} for key, name in _USES],
            "marks": [{"at": night.get("deadline"), "label": "desktops ready"}],
            "note": figures,
        }
        found.append(_chart(chart, where))
    return tuple(found[-_NIGHTS:])


_NIGHTS: t.Final = 3
"""How many of the last nights are drawn."""
_TOTALS: t.Final = (
    "nights",
    "gpu_hours_total",
    "gpu_hours_harvested",
    "utilisation_with",
    "utilisation_without",
    "desktops_lent",
    "desktops_late",
    "jobs_requeued",
)


def nights(data: t.Any) -> t.Mapping[str, t.Any] | None:
    """The report of harvesting by hand-over (`harvest.json`), None for charts. Raises ShapeError."""
    if "nights" not in _mapping(data, "the file"):
        return None
    _check_version(data)
    total = _mapping(data.get("total"), "total")
    for key in _TOTALS:
        _number(total.get(key), f"total.{key}")
    _place(data.get("generated"), "generated", True)
    return t.cast("t.Mapping[str, t.Any]", data)


def day(data: t.Any) -> t.Mapping[str, t.Any]:
    """The report of a day of harvesting by shares, as harvest_report writes it. Raises ShapeError."""
    figures = _mapping(_mapping(data, "the file").get("figures"), "figures")
    _check_version(data)
    for key in _DAY_COUNTS:
        _number(figures.get(key), f"figures.{key}")
    for key in _DAY_SHARES:
        if figures.get(key) is not None:
            _number(figures[key], f"figures.{key}")
    if figures.get("desktops_worst") is not None:
        worst = _mapping(figures["desktops_worst"], "figures.desktops_worst")
        _number(worst.get("share"), "figures.desktops_worst.share")
    _place(data.get("generated"), "generated", True)
    charts(data)
    return {**data, "figures": {**dict.fromkeys((*_DAY_COUNTS, *_DAY_SHARES, "desktops_worst")), **figures}}


_DAY_COUNTS: t.Final = ("desktops", "compute_machines", "harvested_ghz_hours", "capacity_ghz")
_DAY_SHARES: t.Final = ("desktops_got", "compute_got", "utilisation_with", "utilisation_without")


def _check_version(data: t.Mapping[str, t.Any]) -> None:
    if data.get("version") != 1:
        raise ShapeError(f"version: {data.get('version')!r} is none that is known (1)")


def _chart(item: t.Mapping[str, t.Any], where: str) -> Chart:
    kind = _text(item, "kind", where) or "lines"
    if kind not in _KINDS:
        raise ShapeError(f"{where}.kind: {kind!r} is none of {', '.join(_KINDS)}")
    time = item.get("time", False)
    if not isinstance(time, bool):
        raise ShapeError(f"{where}.time: true where x are times, else false")
    places = item.get("x")
    if not isinstance(places, list) or not places:
        raise ShapeError(f"{where}.x: a list of numbers{' or of times in ISO 8601' if time else ''} is needed")
    x = tuple(_place(place, f"{where}.x[{number}]", time) for number, place in enumerate(places))
    if any(after <= before for before, after in itertools.pairwise(x)):
        raise ShapeError(f"{where}.x: places must ascend")
    lines = []
    for at, series in _items(item, "series", where):
        values = series.get("values")
        if not isinstance(values, list) or len(values) != len(x):
            raise ShapeError(f"{at}.values: as many numbers as {where}.x has ({len(x)}) are needed, null for a gap")
        numbers = tuple(
            None if value is None else _number(value, f"{at}.values[{index}]") for index, value in enumerate(values)
        )
        lines.append(Series(_text(series, "name", at, required=True), numbers))
    marks = tuple(
        Mark(_place(mark.get("at"), f"{at}.at", time), _text(mark, "label", at, required=True))
        for at, mark in (_items(item, "marks", where) if "marks" in item else ())
    )
    levels = tuple(
        Mark(_number(level.get("at"), f"{at}.at"), _text(level, "label", at, required=True))
        for at, level in (_items(item, "levels", where) if "levels" in item else ())
    )
    return Chart(
        title=_text(item, "title", where, required=True),
        kind=_KINDS[kind],
        x=x,
        series=tuple(lines),
        time=time,
        timezone=_text(item, "timezone", where) or "UTC",
        x_label=_text(item, "x_label", where),
        y_label=_text(item, "y_label", where),
        marks=marks,
        levels=levels,
        note=_text(item, "note", where),
    )


def _place(value: t.Any, where: str, time: bool) -> float:
    if time and isinstance(value, str):
        try:
            moment = datetime.datetime.fromisoformat(value)
        except ValueError as error:
            raise ShapeError(f"{where}: {value!r} is no time in ISO 8601") from error
        if moment.tzinfo is None:
            raise ShapeError(f"{where}: {value!r} does not say its offset from UTC, such as +01:00 or Z")
        return moment.timestamp()
    return _number(value, where)


def _number(value: t.Any, where: str) -> float:
    # NaN and infinity are no JSON, though Python reads them.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < float("inf"):
        raise ShapeError(f"{where}: {value!r} is no number")
    return float(value)


def _mapping(data: t.Any, where: str) -> t.Mapping[str, t.Any]:
    if not isinstance(data, t.Mapping):
        raise ShapeError(f"{where}: an object is needed, not {_kind(data)}")
    return data


def _items(data: t.Any, key: str, where: str = "") -> list[tuple[str, t.Mapping[str, t.Any]]]:
    """The objects of a list, each with its place."""
    listed = _mapping(data, where or "the file").get(key)
    place = f"{where}.{key}" if where else key
    if not isinstance(listed, list):
        raise ShapeError(f"{place}: a list is needed, not {_kind(listed)}")
    return [(f"{place}[{number}]", _mapping(item, f"{place}[{number}]")) for number, item in enumerate(listed)]


def _text(item: t.Mapping[str, t.Any], key: str, where: str, *, required: bool = False) -> str:
    value = item.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if (value is None and not required) or (isinstance(value, str) and (value or not required)):
        return value or ""
    raise ShapeError(f"{where}.{key}: a text is needed, not {_kind(value)}")


def _texts(item: t.Mapping[str, t.Any], key: str, where: str) -> tuple[str, ...]:
    value = item.get(key) or []
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return tuple(value)
    raise ShapeError(f"{where}.{key}: a list of texts is needed")


def _names(data: t.Mapping[str, t.Any], key: str) -> dict[str, str]:
    value = data.get(key) or {}
    if isinstance(value, t.Mapping) and all(isinstance(text, str) for text in value.values()):
        return dict(value)
    raise ShapeError(f"{key}: an object of texts is needed")


def _kind(value: t.Any) -> str:
    if value is None:
        return "nothing"
    return {dict: "an object", list: "a list", str: "a text", bool: "true or false"}.get(type(value), "a number")
