"""Simulated time: real time, multiplied."""

from __future__ import annotations

import asyncio
import datetime as dt
import time


class Clock:
    """Simulated clock that starts now and runs `scale` times as fast as the real one.

    Tasks and boots live on it. What concerns the client's own patience (`maxWaitSeconds`, idle
    sessions, maintenance timeouts) uses real time instead: see `real_seconds`.
    """

    def __init__(self, scale: float = 1.0) -> None:
        if not scale > 0:
            raise ValueError(f"time scale must be positive, not {scale}")
        self.scale = scale
        self._origin = dt.datetime.now(dt.UTC)
        self._started = time.monotonic()

    def now(self) -> dt.datetime:
        """Return simulated UTC time."""
        return self._origin + dt.timedelta(seconds=self.real_seconds() * self.scale)

    def real_seconds(self) -> float:
        """Return real seconds since the clock was made."""
        return time.monotonic() - self._started

    async def sleep(self, simulated_seconds: float) -> None:
        """Wait for so many simulated seconds."""
        await asyncio.sleep(max(0.0, simulated_seconds) / self.scale)
