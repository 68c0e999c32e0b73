"""What all tests need."""

from __future__ import annotations

import signal

# A run in the background (nohup, some CI systems) inherits an ignored SIGINT, and so would every program that a test
# interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
