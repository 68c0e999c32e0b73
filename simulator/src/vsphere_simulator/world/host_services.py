"""Services of a host, its certificate, and its management network."""

from __future__ import annotations

import datetime as dt
import typing as t

from vsphere_simulator.kernel.objects import ManagedObject, method, prop
from vsphere_simulator.vmomi import make, vim
from vsphere_simulator.world.cluster_admin import thumbprint
from vsphere_simulator.world.devices import mac_address
from vsphere_simulator.world.entity import invalid_argument

if t.TYPE_CHECKING:
    from vsphere_simulator.world.host import HostSystem

POLICIES: t.Final = ("on", "off", "automatic")
KNOWN: t.Final[dict[str, tuple[str, bool, str]]] = {
    "DCUI": ("Direct Console UI", True, "on"),
    "TSM": ("ESXi Shell", False, "off"),
    "TSM-SSH": ("SSH", False, "off"),
    "lbtd": ("Load-Based Teaming Daemon", True, "on"),
    "ntpd": ("NTP Daemon", False, "off"),
    "vmsyslogd": ("Syslog Server", True, "on"),
    "vpxa": ("VMware vCenter Agent", True, "on"),
    "xorg": ("X.Org Server", True, "on"),
}
"""Key -> label, whether it runs on a new host, and its policy there."""


def address(host: HostSystem) -> str:
    """The IPv4 address of a host's management interface, made from its hardware's id."""
    number = int("".join(c for c in host.hardware_id if c.isdigit()) or 0)
    return f"172.{16 + (number >> 16 & 0xF)}.{number >> 8 & 0xFF}.{number & 0xFF}"


def network(host: HostSystem) -> t.Any:
    """HostNetworkInfo: the management interface, on the first two of the host's network adapters."""
    mac = mac_address(host.hardware_id, 0)
    vmk = make(
        vim.host.VirtualNic,
        device="vmk0",
        key="key-vim.host.VirtualNic-vmk0",
        portgroup="Management Network",
        spec=make(
            vim.host.VirtualNic.Specification,
            ip=make(vim.host.IpConfig, dhcp=False, ipAddress=address(host), subnetMask="255.240.0.0"),
            mac=mac,
            portgroup="Management Network",
            mtu=1500,
            tsoEnabled=True,
            netStackInstanceKey="defaultTcpipStack",
        ),
        port="key-vim.host.PortGroup.Port-33554436",
    )
    return make(
        vim.host.NetworkInfo,
        vnic=[vmk],
        dnsConfig=make(
            vim.host.DnsConfig,
            dhcp=False,
            hostName=host.name.partition(".")[0],
            domainName=host.name.partition(".")[2],
        ),
        ipRouteConfig=make(vim.host.IpRouteConfig, defaultGateway="172.16.0.1"),
        ipV6Enabled=False,
        atBootIpV6Enabled=False,
    )


def thumbprint_info(host: HostSystem) -> t.Any:
    """HostSslThumbprintInfo: what the vCenter knows the host by."""
    return make(
        vim.host.SslThumbprintInfo, principal="vpxuser", ownerTag="", sslThumbprints=[thumbprint(host.hardware_id)]
    )


class ServiceSystem(ManagedObject):
    """The services of a host."""

    wsdl = vim.host.ServiceSystem

    def __init__(self, host: HostSystem) -> None:
        super().__init__(host.world, f"serviceSystem-{host.moid.removeprefix('host-')}")
        self.host = host
        self.name = host.name
        self.parent = host

    @prop("serviceInfo")
    def _info(self) -> t.Any:
        return make(vim.host.ServiceInfo, service=[self._service(key) for key in KNOWN])

    def _service(self, key: str) -> t.Any:
        running, policy = self._state(key)
        return make(
            vim.host.Service,
            key=key,
            label=KNOWN[key][0],
            required=False,
            uninstallable=False,
            running=running,
            policy=policy,
        )

    def _state(self, key: str) -> tuple[bool, str]:
        if key not in KNOWN:
            raise vim.fault.NotFound(msg=f"The host has no service {key}.")
        return self.host.services.get(key) or KNOWN[key][1:]

    def _set(self, key: str, state: tuple[bool, str]) -> None:
        self.host.services[key] = state
        if state == KNOWN[key][1:]:
            del self.host.services[key]
        self.world.changed(self, "serviceInfo")

    @method("StartService")
    def start(self, id: str) -> None:
        """Start a service; one that runs goes on running. Raises NotFound."""
        self.host.require_connected()
        self._set(id, (True, self._state(id)[1]))

    @method("StopService")
    def stop(self, id: str) -> None:
        """Stop a service. Raises NotFound."""
        self.host.require_connected()
        self._set(id, (False, self._state(id)[1]))

    @method("RestartService")
    def restart(self, id: str) -> None:
        """Stop and start a service. Raises NotFound."""
        self.start(id)

    @method("UpdateServicePolicy")
    def update_policy(self, id: str, policy: str) -> None:
        """Say whether a service starts with the host. Raises NotFound, or InvalidArgument for another policy."""
        self.host.require_connected()
        if policy not in POLICIES:
            raise invalid_argument("policy")
        self._set(id, (self._state(id)[0], policy))

    @method("RefreshServices")
    def refresh(self) -> None:
        """Read the services again; here the list is never stale."""
        self.host.require_connected()


class CertificateManager(ManagedObject):
    """The certificate of a host."""

    wsdl = vim.host.CertificateManager

    def __init__(self, host: HostSystem) -> None:
        super().__init__(host.world, f"certificateManager-{host.moid.removeprefix('host-')}")
        self.host = host
        self.name = host.name
        self.parent = host

    @prop("certificateInfo")
    def _info(self) -> t.Any:
        since = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        return make(
            vim.host.CertificateManager.CertificateInfo,
            issuer="O=VMware,OU=VMware Engineering,CN=CA",
            notBefore=since,
            notAfter=since + dt.timedelta(days=5 * 365),
            subject=f"OU=VMware Engineering,O=VMware,CN={self.host.name}",
            status="good",
        )
