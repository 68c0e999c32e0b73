"""Software of a host: what is installed, and installing patches such as the vGPU manager.

As in the vSphere Web Services API reference, HostPatchManager: a patch is the metadata.zip of a depot or a VIB, offline
bundles are "not supported in 5.0 or later", and updates go by the ids of their bulletins.
"""

from __future__ import annotations

import dataclasses
import typing as t
from xml.sax.saxutils import escape

from vsphere_simulator.kernel.objects import ManagedObject, method
from vsphere_simulator.vmomi import make, vim
from vsphere_simulator.world.config_option import filled
from vsphere_simulator.world.entity import invalid_argument, invalid_state

if t.TYPE_CHECKING:
    from vsphere_simulator.kernel.objects import Context
    from vsphere_simulator.kernel.tasks import TaskControl
    from vsphere_simulator.world.host import HostSystem

MANAGER_NAME: t.Final = "NVD-VMware_ESXi_8.0.0_Driver"
_RESULT_VERSION = "1.50"


@dataclasses.dataclass(frozen=True, slots=True)
class Package:
    """A VIB."""

    name: str
    version: str
    vendor: str = "NVIDIA"
    summary: str = ""
    vgpu_manager: str | None = None
    """Release of the vGPU manager that this is, for example `16.4`; None for other software."""
    bare: bool = False
    """Installed as a VIB of its own, which no bulletin has brought."""

    @property
    def id(self) -> str:
        """How esxcli writes it."""
        return f"{self.vendor}_bootbank_{self.name}_{self.version}"

    @property
    def bulletin(self) -> str:
        """Id of the bulletin (component) that it comes in; of a bare VIB its own."""
        return self.id if self.bare else f"{self.name}_{self.version}"


def manager_package(release: str) -> Package:
    """The VIB of a vGPU manager of which only the release is known."""
    return Package(
        MANAGER_NAME, f"{release}-1OEM.800.1.0.20613240", summary="NVIDIA vGPU manager", vgpu_manager=release
    )


class PatchManager(ManagedObject):
    """HostPatchManager: installs what a depot has."""

    wsdl = vim.host.PatchManager

    def __init__(self, host: HostSystem) -> None:
        super().__init__(host.world, f"patchManager-{host.moid.removeprefix('host-')}")
        self.host = host
        self.name = host.name
        self.parent = host

    @method("InstallHostPatchV2_Task")
    def install(
        self,
        ctx: Context,
        meta_urls: list[str] | None = None,
        bundle_urls: list[str] | None = None,
        vib_urls: list[str] | None = None,
    ) -> t.Any:
        """Install all that the depots hold, over what is installed; the host must be in maintenance mode."""

        async def body(control: TaskControl) -> t.Any:
            packages = self._offered(meta_urls, bundle_urls, vib_urls)
            self._require_maintenance()
            await control.work(self.host.site.timings.install)
            self._require_maintenance()
            before = dict(self.host.packages)
            self.host.packages |= {package.name: package for package in packages}
            software_changed(self.host)
            return _result(packages, self.host, before)

        return ctx.world.start_task(self.host, "PatchManager.installV2", body, ctx.session)

    @method("UninstallHostPatch_Task")
    def uninstall(self, ctx: Context, bulletin_ids: list[str] | None = None) -> t.Any:
        """Remove what bulletins have brought; the host must be in maintenance mode."""

        async def body(control: TaskControl) -> t.Any:
            installed = {package.bulletin: package for package in self._in_bulletins()}
            if not bulletin_ids:
                raise invalid_argument("bulletinIds")
            if unknown := sorted(set(bulletin_ids) - installed.keys()):
                raise _failed(f"No bulletin {', '.join(unknown)} is installed.")
            removed = [installed[bulletin] for bulletin in bulletin_ids]
            self._require_maintenance()
            await control.work(self.host.site.timings.install)
            self._require_maintenance()
            before = dict(self.host.packages)
            for package in removed:
                self.host.packages.pop(package.name, None)
            software_changed(self.host)
            return _result(removed, self.host, before)

        return ctx.world.start_task(self.host, "PatchManager.uninstall", body, ctx.session)

    @method("ScanHostPatchV2_Task")
    def scan(self, ctx: Context, meta_urls: list[str] | None = None, bundle_urls: list[str] | None = None) -> t.Any:
        """Say which bulletins of the depots are installed."""
        return self._report(ctx, "PatchManager.scanV2", lambda: self._offered(meta_urls, bundle_urls))

    @method("CheckHostPatch_Task")
    def check(self, ctx: Context, meta_urls: list[str] | None = None, bundle_urls: list[str] | None = None) -> t.Any:
        """Say whether what the depots hold can be installed."""
        return self._report(ctx, "PatchManager.check", lambda: self._offered(meta_urls, bundle_urls))

    @method("QueryHostPatch_Task")
    def query(self, ctx: Context) -> t.Any:
        """Say which bulletins are installed."""
        return self._report(ctx, "PatchManager.query", self._in_bulletins)

    def _in_bulletins(self) -> list[Package]:
        return [package for package in self.host.packages.values() if not package.bare]

    def _report(self, ctx: Context, name: str, packages: t.Callable[[], list[Package]]) -> t.Any:
        async def body(control: TaskControl) -> t.Any:
            self.host.require_connected()
            found = packages()
            await control.work(2.0, steps=1)
            return _result(found, self.host, self.host.packages)

        return ctx.world.start_task(self.host, name, body, ctx.session)

    def _offered(
        self, meta_urls: list[str] | None, bundle_urls: list[str] | None, vib_urls: list[str] | None = None
    ) -> list[Package]:
        self.host.require_connected()
        if bundle_urls:
            raise _failed("bundleUrls are not supported in 5.0 or later.")
        kinds = [(url, "metadata.zip") for url in meta_urls or ()] + [(url, ".vib") for url in vib_urls or ()]
        if not kinds:
            raise invalid_argument("metaUrls")
        packages: list[Package] = []
        for url, kind in kinds:
            if not url.endswith(kind):
                raise _failed(f"{url} is not a {kind}.")
            if url not in self.host.site.depots:
                raise _failed(f"Could not download from depot at {url}.")
            packages += [dataclasses.replace(one, bare=kind == ".vib") for one in self.host.site.depots[url]]
        return packages

    def _require_maintenance(self) -> None:
        self.host.require_connected()
        if not self.host.in_maintenance:
            raise invalid_state("The host must be in maintenance mode to install or remove software.")


def _failed(text: str) -> Exception:
    """What the host's own updater could not do."""
    fault = vim.fault.PlatformConfigFault(text=text, msg=f"The host returns esxupdate error. {text}")
    return t.cast("Exception", fault)


def software_changed(host: HostSystem) -> None:
    """Have the host run the vGPU manager that is installed now, once it has rebooted, and tell who watches."""
    releases = [p.vgpu_manager for p in host.packages.values() if p.vgpu_manager is not None]
    host.graphics.manager = releases[-1] if releases else None
    host.world.changed(host, "summary.rebootRequired", "config")


def _result(packages: list[Package], host: HostSystem, before: dict[str, Package]) -> t.Any:
    """HostPatchManagerResult: the state of each bulletin now."""
    return make(
        vim.host.PatchManager.Result,
        version=_RESULT_VERSION,
        status=[
            make(
                vim.host.PatchManager.Status,
                id=package.bulletin,
                applicable=before.get(package.name) != package,
                integrity="validated",
                installed=host.packages.get(package.name) == package,
                restartRequired=package.vgpu_manager is not None and host.graphics.waits_for_boot,
                reconnectRequired=False,
                vmOffRequired=True,
            )
            for package in packages
        ],
        xmlResult="<esxupdate-response><version>"
        + _RESULT_VERSION
        + "</version>"
        + "".join(f"<vib><id>{escape(package.id)}</id></vib>" for package in packages)
        + "</esxupdate-response>",
    )


class ImageConfigManager(ManagedObject):
    """HostImageConfigManager: what is installed."""

    wsdl = vim.host.ImageConfigManager

    def __init__(self, host: HostSystem) -> None:
        super().__init__(host.world, f"imageConfigManager-{host.moid.removeprefix('host-')}")
        self.host = host
        self.name = host.name
        self.parent = host

    @method("fetchSoftwarePackages")
    def packages(self) -> list[t.Any]:
        """The installed VIBs: the hypervisor's own, then what was added."""
        self.host.require_connected()
        made = self.host.make
        base = Package("esx-base", f"{made.esxi_version}-0.0.{made.esxi_build}", "VMware", "ESXi base system")
        return [
            filled(
                vim.host.SoftwarePackage,
                name=package.name,
                version=package.version,
                type="bootbank",
                vendor=package.vendor,
                acceptanceLevel="vmware_certified" if package.vendor == "VMware" else "vmware_accepted",
                summary=package.summary,
                description=package.summary,
                maintenanceModeRequired=True,
            )
            for package in (base, *self.host.packages.values())
        ]

    @method("HostImageConfigGetAcceptance")
    def acceptance(self) -> str:
        """The host's acceptance level."""
        return "partner"

    @method("HostImageConfigGetProfile")
    def profile(self) -> t.Any:
        """The image that the host was installed from."""
        made = self.host.make
        name = f"ESXi-{made.esxi_version}-{made.esxi_build}-standard"
        return make(vim.host.ImageConfigManager.ImageProfileSummary, name=name, vendor="VMware, Inc.")
