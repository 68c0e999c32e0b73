# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Choosing a vGPU profile from what is needed: "at least 10 GB, at most half a GPU, it must be able to move"."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import typing as t

from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.catalog import Catalog
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.facts import HostFacts
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.selection import normalise_address
from ansible_collections.gpuops.vsphere.plugins.module_utils.gpu.vgpu import (
    MIG_MODE,
    MIG_SLICES,
    Profile,
    parse_profile,
    plain,
)

ProfileClass = t.Literal["compute", "workstation"]

SERIES: dict[ProfileClass, str] = {"compute": "c", "workstation": "q"}


@dataclasses.dataclass(frozen=True, slots=True)
class Needs:
    """What a profile must have; None and False ask for nothing."""

    at_least_gb: float | None = None
    """Framebuffer."""
    at_most_gpu: float | None = None
    """Share of one GPU, for example 0.5."""
    migrate: bool = False
    """It must be able to move by vMotion."""
    suspend: bool = False
    profile_class: ProfileClass = "compute"

    def __str__(self) -> str:
        parts = [f"{self.profile_class} class"]
        if self.at_least_gb is not None:
            parts.append(f"at least {self.at_least_gb:g} GB")
        if self.at_most_gpu is not None:
            parts.append(f"at most {self.at_most_gpu:g} of a GPU")
        parts += [text for wanted, text in ((self.migrate, "vMotion"), (self.suspend, "suspend")) if wanted]
        return ", ".join(parts)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """The profile chosen, or why there is none."""

    profile: str | None
    reason: str
    """What it is and why, or what could be had instead; one or two sentences."""
    wrong_mode: bool = False
    """Whether nothing but the mode of the GPUs, MIG or not, stands in the way."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Offer:
    profile: Profile
    share: float | None
    """Of one GPU; None when the board is not known."""
    migrate: bool
    suspend: bool

    def __str__(self) -> str:
        share = f", {self.share:.3g} of a GPU" if self.share is not None else ""
        return f"{self.profile.name} ({self.profile.size_gb} GB{share})"


def choose(needs: Needs, host: HostFacts, catalog: Catalog, *, has: collections.abc.Collection[str] = ()) -> Choice:
    """The smallest profile of the host that meets the needs; one of `has` (already attached) if it does.

    Of profiles of one size that with the smaller share of its GPU, then by name. A MIG-backed profile needs a GPU in
    MIG mode, a time-sliced one a GPU that is not: others of the host's list are left out.
    """
    listed = _offers(host, catalog)
    if not listed:
        return Choice(None, f"{host.name} offers no vGPU profile now.")
    modes = _modes(host, catalog)
    offers = [offer for offer in listed if _takes(modes[offer.profile.board], offer.profile)]
    fitting = sorted((o for o in offers if not _lacks(o, needs)), key=_rank)
    mine = {plain(name) for name in has}
    for offer in fitting:
        if plain(offer.profile.name) in mine:
            return Choice(offer.profile.name, f"{offer}: already attached, meets {needs}")
    if fitting:
        return Choice(fitting[0].profile.name, f"{fitting[0]}: the smallest of {host.name} with {needs}")
    elsewhere = min((o for o in listed if o not in offers and not _lacks(o, needs)), key=_rank, default=None)
    if elsewhere is not None:
        return Choice(None, _mode_text(elsewhere.profile, host), wrong_mode=True)
    return Choice(None, f"No vGPU profile of {host.name} has {needs}. {_instead(offers, needs, host)}")


def wrong_mode(profile: Profile, host: HostFacts, catalog: Catalog) -> str | None:
    """Why the mode of the host's GPUs, MIG or not, keeps a profile away, and what to do; None when it does not.

    The host's list of profiles has both kinds, whatever mode its GPUs are in.
    """
    modes = _modes(host, catalog)[profile.board]
    known = modes and None not in modes
    return _mode_text(profile, host) if known and not _takes(modes, profile) else None


def _modes(host: HostFacts, catalog: Catalog) -> t.Mapping[str, list[str | None]]:
    """The modes of the GPUs that are set up for vGPUs, by board (HostGraphicsInfo.vgpuMode, None before API 8.0.3)."""
    ids = {normalise_address(function.address) or function.address: function.id for function in host.devices}
    modes: dict[str, list[str | None]] = collections.defaultdict(list)
    for device in host.graphics:
        model = catalog.get(ids.get(device.address, ""))
        if device.graphics_type == "sharedDirect" and model is not None and model.board is not None:
            modes[model.board].append(device.vgpu_mode)
    return modes


def _takes(modes: t.Sequence[str | None], profile: Profile) -> bool:
    """Whether a GPU in one of these modes takes the profile. Where no GPU is seen, time-sliced ones are expected."""
    if profile.slices is not None:
        return MIG_MODE in modes
    return not modes or any(mode != MIG_MODE for mode in modes)


def _mode_text(profile: Profile, host: HostFacts) -> str:
    board = profile.board
    if profile.slices is not None:
        return (
            f"{profile.name} is MIG-backed, and no {board} of {host.name} is in MIG mode. Turn MIG on (role"
            " esxi_graphics, esxi_graphics_mig), or ask for a time-sliced profile."
        )
    return (
        f"{profile.name} is time-sliced, and every {board} of {host.name} is in MIG mode. Turn MIG off (role"
        " esxi_graphics, esxi_graphics_mig), or ask for a MIG-backed profile."
    )


def _offers(host: HostFacts, catalog: Catalog) -> list[_Offer]:
    found = []
    for name in host.vgpu_types:
        profile = parse_profile(name)
        if profile is None:
            continue
        model = catalog.of_board(profile.board)
        share = None
        if model is not None and model.framebuffer_gb:
            share = max(profile.size_gb / model.framebuffer_gb, (profile.slices or 0) / MIG_SLICES)
        found.append(_Offer(profile, share, name in host.vgpu_migrate, name in host.vgpu_suspend))
    return found


def _rank(offer: _Offer) -> tuple[float, float, str]:
    return (offer.profile.size_gb, offer.share if offer.share is not None else 1, offer.profile.name)


def _lacks(offer: _Offer, needs: Needs) -> tuple[str, ...]:
    """Which of the needs the offer does not meet."""
    lacking = []
    if offer.profile.series != SERIES[needs.profile_class]:
        lacking.append("profile_class")
    if needs.at_least_gb is not None and offer.profile.size_gb < needs.at_least_gb:
        lacking.append("at_least_gb")
    if needs.at_most_gpu is not None and (offer.share is None or offer.share > needs.at_most_gpu):
        lacking.append("at_most_gpu")
    if needs.migrate and not offer.migrate:
        lacking.append("migrate")
    if needs.suspend and not offer.suspend:
        lacking.append("suspend")
    return tuple(lacking)


def _instead(offers: list[_Offer], needs: Needs, host: HostFacts) -> str:
    """What could be had by giving up one of the needs."""
    best: dict[str, _Offer] = {}
    for offer in offers:
        lacking = _lacks(offer, needs)
        if len(lacking) == 1:
            kind = lacking[0]
            held = best.get(kind)
            # The most memory below what is asked; otherwise the smallest.
            better = held is None or (
                offer.profile.size_gb > held.profile.size_gb if kind == "at_least_gb" else _rank(offer) < _rank(held)
            )
            if better:
                best[kind] = offer
    if best:
        return "To be had: " + "; ".join(f"{offer} without {kind}" for kind, offer in sorted(best.items())) + "."
    return "It offers " + ", ".join(str(offer) for offer in sorted(offers, key=_rank)[:8]) + f" on {host.name}."
