"""The vAPI REST endpoint: sessions, tags, inventory listings, cluster images; `/api` and the older `/rest`."""

from __future__ import annotations

from vsphere_simulator.rest import depots, drafts, images, inventory, session, tagging, tasks

__all__ = ["depots", "drafts", "images", "inventory", "session", "tagging", "tasks"]
