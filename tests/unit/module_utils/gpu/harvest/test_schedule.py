# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import datetime
from typing import Any

import pytest
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.harvest.schedule import (
    Schedule,
    ScheduleError,
    hours_at,
    schedule_from,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def office(**changes: Any) -> Schedule:
    return schedule_from("office", {"timezone": "Europe/Berlin", "ready_by": "07:30", "lend_from": "19:00", **changes})


def utc(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("now", "working", "since", "until"),
    [
        # Wednesday in winter: 07:30 is 06:30 UTC.
        ("2026-01-14T05:00", False, "2026-01-13T18:00", "2026-01-14T06:30"),
        ("2026-01-14T06:30", True, "2026-01-14T06:30", "2026-01-14T18:00"),
        ("2026-01-14T17:59", True, "2026-01-14T06:30", "2026-01-14T18:00"),
        ("2026-01-14T18:00", False, "2026-01-14T18:00", "2026-01-15T06:30"),
        # From Friday evening to Monday morning, over the night in which the clock goes forward.
        ("2026-03-28T12:00", False, "2026-03-27T18:00", "2026-03-30T05:30"),
        # And back.
        ("2026-10-24T12:00", False, "2026-10-23T17:00", "2026-10-26T06:30"),
    ],
)
def test_a_moment_is_within_working_hours_or_between_them(now: str, working: bool, since: str, until: str) -> None:
    hours = hours_at([office()], utc(now))
    assert (hours.working, hours.since, hours.until) == (working, utc(since), utc(until))


@pytest.mark.parametrize(
    ("ready_by", "lend_from", "now", "since", "until"),
    [
        # 02:30 does not exist on 2026-03-29 in Berlin, and is between 00:30 and 01:30 UTC: desktops have the earlier.
        ("02:30", "23:00", "2026-03-28T23:30", "2026-03-28T22:00", "2026-03-29T00:30"),
        # 02:30 is twice on 2026-10-25: 00:30 and 01:30 UTC. Ready by the first ...
        ("02:30", "23:00", "2026-10-24T23:30", "2026-10-24T21:00", "2026-10-25T00:30"),
        # ... lent from the second.
        ("22:00", "02:30", "2026-10-25T02:00", "2026-10-25T01:30", "2026-10-25T21:00"),
    ],
)
def test_the_hour_that_is_skipped_or_repeated_never_costs_a_desktop_time(
    ready_by: str, lend_from: str, now: str, since: str, until: str
) -> None:
    every_day = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    hours = hours_at([office(days=every_day, ready_by=ready_by, lend_from=lend_from)], utc(now))
    assert (hours.working, hours.since, hours.until) == (False, utc(since), utc(until))


def test_a_night_shift_works_past_midnight() -> None:
    shift = office(ready_by="22:00", lend_from="06:00", days=["fri"])
    assert hours_at([shift], utc("2026-01-17T03:00")) == hours_at([shift], utc("2026-01-16T22:00"))
    assert hours_at([shift], utc("2026-01-17T03:00")).working
    assert not hours_at([shift], utc("2026-01-17T05:00")).working


def test_holidays_have_no_working_hours() -> None:
    hours = hours_at([office(holidays=["2026-01-14", datetime.date(2026, 1, 15)])], utc("2026-01-14T12:00"))
    assert not hours.working
    assert hours.until == utc("2026-01-16T06:30")


def test_the_next_working_day_may_be_far_and_may_never_come() -> None:
    summer = [datetime.date(2026, 6, 1) + datetime.timedelta(days=day) for day in range(60)]
    assert hours_at([office(holidays=summer)], utc("2026-06-10T00:00")).until == utc("2026-07-31T05:30")
    ages = [datetime.date(2026, 1, 1) + datetime.timedelta(days=day) for day in range(600)]
    assert hours_at([office(holidays=ages)], utc("2026-03-01T00:00")).until is None


def test_who_follows_two_schedules_is_lent_only_between_both() -> None:
    early, late = office(ready_by="05:00", lend_from="14:00"), office(ready_by="13:00", lend_from="22:00")
    for time in ("08:00", "13:30", "20:00"):
        hours = hours_at([late, early], utc(f"2026-01-14T{time}"))
        assert (hours.working, hours.since, hours.until) == (True, utc("2026-01-14T04:00"), utc("2026-01-14T21:00"))
    assert hours_at([early, late], utc("2026-01-14T21:00")).until == utc("2026-01-15T04:00")


@settings(deadline=None)
@given(
    now=st.datetimes(datetime.datetime(2025, 1, 1), datetime.datetime(2027, 12, 31)),
    ready_by=st.times().map(lambda time: time.replace(microsecond=0)),
    lend_from=st.times().map(lambda time: time.replace(microsecond=0)),
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"]),
)
def test_hours_surround_the_moment_and_follow_each_other(
    now: datetime.datetime, ready_by: datetime.time, lend_from: datetime.time, zone: str
) -> None:
    schedule = office(timezone=zone, ready_by=ready_by.isoformat(), lend_from=lend_from.isoformat())
    moment = now.replace(tzinfo=datetime.UTC)
    hours = hours_at([schedule], moment)
    assert hours.since is not None
    assert hours.until is not None
    assert hours.since <= moment < hours.until
    following = hours_at([schedule], hours.until)
    assert following.working is not hours.working
    assert following.since == hours.until


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"timezone": "Middle/Earth"}, "office: timezone 'Middle/Earth' is unknown here"),
        ({"timezone": None}, "office: timezone None is unknown here"),
        ({"timezone": "../etc/passwd"}, "is unknown here"),
        ({"days": ["mon", "noday"]}, "not noday"),
        ({"days": []}, "not none"),
        ({"ready_by": 450}, "ready_by 450 is not a time of day. Write it as a quoted"),
        ({"lend_from": "25:00"}, "lend_from '25:00' is not a time of day"),
        ({"lend_from": "19:00+02:00"}, "has a time zone of its own"),
        ({"holidays": ["xmas"]}, "holiday 'xmas' is not a date"),
        ({"lunch": "12:00"}, "office: lunch is not a key of a schedule"),
    ],
)
def test_what_is_not_a_schedule_is_said(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ScheduleError) as error:
        office(**changes)
    assert says in str(error.value)


def test_without_a_schedule_nothing_is_decided() -> None:
    with pytest.raises(ScheduleError):
        hours_at([], utc("2026-01-14T12:00"))
