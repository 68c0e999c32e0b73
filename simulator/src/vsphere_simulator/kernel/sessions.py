"""Sessions: who is logged in, and until when."""

from __future__ import annotations

import dataclasses
import datetime as dt


@dataclasses.dataclass(slots=True)
class Session:
    """One login."""

    key: str
    """Public id of the session (`UserSession.key`)."""
    token: str
    """Secret value of the cookie."""
    user: str
    login_time: dt.datetime
    locale: str = "en"
    ip_address: str = ""
    user_agent: str = ""
    last_active: float = 0.0
    """Real seconds on the world's clock."""
