# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Suggestions for names that are not there."""

from __future__ import annotations

import collections.abc
import difflib


def did_you_mean(name: str, known: collections.abc.Iterable[str]) -> str:
    """A question with the nearest name, ready to follow a sentence; empty when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else ""


def some_of(names: collections.abc.Collection[str], most: int = 5) -> str:
    """Names in one short list, `none` without any."""
    shown = list(names)[:most]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown) + more if shown else "none"
