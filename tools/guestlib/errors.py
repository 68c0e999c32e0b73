"""What can go wrong, each kind with its own exit code; the message says what to do next."""

from __future__ import annotations

from typing import ClassVar


class GuestError(Exception):
    """Base of all errors that an operator can cause; shown as one line, never as a traceback."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step

    def line(self) -> str:
        """Return the message and the next step as one line of text."""
        text = f"{self}; {self.next_step}" if self.next_step else str(self)
        return " ".join(text.split())


class SpecError(GuestError):
    """The request is malformed: unknown key, wrong type, missing file."""

    exit_code = 2


class HostError(GuestError):
    """The host cannot run guests yet: not root, packages missing, no mirror known."""

    exit_code = 3


class NotFoundError(GuestError):
    """A guest that was named does not exist."""

    exit_code = 4


class ConflictError(GuestError):
    """A guest exists with other settings, is in the wrong state, or is being worked on."""

    exit_code = 5


class CommandError(GuestError):
    """A command of the host (podman, mmdebstrap, apt-get) failed."""

    exit_code = 6


class WaitError(GuestError):
    """Something did not happen within its time limit."""

    exit_code = 7


INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM (what was begun has been undone)."""
