"""What a virtual machine asks of the CPUs over a day."""

from __future__ import annotations

import re
import typing as t

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

DAY_MINUTES: t.Final = 24 * 60
_CLOCK = re.compile(r"^([01]?\d|2[0-3]):([0-5]\d)$")


class Point(BaseModel):
    """What it asks for at a time of the day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: t.Annotated[int, Field(ge=0, lt=DAY_MINUTES)]
    """`HH:MM`, UTC; minutes of the day after loading (YAML reads an unquoted 12:30 as that number already)."""
    mhz: t.Annotated[float, Field(ge=0)]

    @field_validator("at", mode="before")
    @classmethod
    def _clock(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        match = _CLOCK.match(value)
        if match is None:
            raise ValueError(f"{value} is not a time of the day such as 08:30")
        return int(match[1]) * 60 + int(match[2])


class Demand(BaseModel):
    """A day of demand that repeats, straight lines between its points. A number is the same all day."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: t.Annotated[list[Point], Field(min_length=1)]
    jitter_minutes: t.Annotated[int, Field(ge=0, le=DAY_MINUTES // 2)] = 0
    """Each machine's day is up to so many minutes earlier or later, always the same for the same name."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"points": [{"at": 0, "mhz": value}]}
        return {"points": value} if isinstance(value, list) else value

    @field_validator("points")
    @classmethod
    def _in_order(cls, value: list[Point]) -> list[Point]:
        times = [point.at for point in value]
        if times != sorted(set(times)):
            raise ValueError("the points of a day come in the order of their times, each time once")
        return value

    def at(self, minute: float) -> float:
        """MHz at a minute of the day, which may lie on a day before or after."""
        minute %= DAY_MINUTES
        points = self.points
        before = next((point for point in reversed(points) if point.at <= minute), points[-1])
        after = next((point for point in points if point.at > minute), points[0])
        length = (after.at - before.at) % DAY_MINUTES
        if not length:
            return before.mhz
        passed = (minute - before.at) % DAY_MINUTES
        return before.mhz + (after.mhz - before.mhz) * passed / length
