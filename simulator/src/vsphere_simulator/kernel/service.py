"""The service instance and the managers that belong to the server as a whole."""

from __future__ import annotations

import typing as t
import uuid

from vsphere_simulator.kernel.authorization_manager import AuthorizationManager
from vsphere_simulator.kernel.history import EventManager, TaskHistoryCollector
from vsphere_simulator.kernel.objects import Context, ManagedObject, method, prop
from vsphere_simulator.kernel.property_collector import PropertyCollector
from vsphere_simulator.kernel.sessions import SessionManager
from vsphere_simulator.kernel.views import ViewManager
from vsphere_simulator.vmomi import make, vim

if t.TYPE_CHECKING:
    import datetime as dt

    from vsphere_simulator.kernel.registry import World

DEFAULT_API_VERSION = "8.0.3.0"


def about_info(api_version: str = DEFAULT_API_VERSION, instance_uuid: str | None = None) -> t.Any:
    """Return the `AboutInfo` of a vCenter of an API version such as `8.0.3.0`."""
    version = ".".join(api_version.split(".")[:3])
    return make(
        vim.AboutInfo,
        name="VMware vCenter Server",
        fullName=f"VMware vCenter Server {version} build-24022515",
        vendor="VMware, Inc.",
        version=version,
        build="24022515",
        localeVersion="INTL",
        localeBuild="000",
        osType="linux-x64",
        productLineId="vpx",
        apiType="VirtualCenter",
        apiVersion=api_version,
        instanceUuid=instance_uuid or str(uuid.uuid5(uuid.NAMESPACE_DNS, "vsphere-simulator")),
        licenseProductName="VMware VirtualCenter Server",
        licenseProductVersion=api_version.split(".")[0] + ".0",
    )


class ServiceInstance(ManagedObject):
    """Where every client starts."""

    wsdl = vim.ServiceInstance
    volatile = True

    def __init__(self, world: World, moid: str, about: t.Any) -> None:
        super().__init__(world, moid)
        self.about = about

    @prop("content")
    def content(self) -> t.Any:
        """Return the managers there are; those that are not supported stay unset."""
        return make(
            vim.ServiceInstanceContent,
            about=self.about,
            **{name: obj.ref for name, obj in self.world.content.items()},
        )

    @prop("serverClock")
    def _server_clock(self) -> dt.datetime:
        return self.world.clock.now()

    @prop("capability")
    def _capability(self) -> t.Any:
        return make(vim.Capability, provisioningSupported=True, multiHostSupported=True, userShellAccessSupported=False)

    @method("RetrieveServiceContent")
    def retrieve_content(self) -> t.Any:
        """Return the managers there are."""
        return self.content()

    @method("CurrentTime")
    def current_time(self) -> dt.datetime:
        """Return simulated time."""
        return self.world.clock.now()


class TaskManager(ManagedObject):
    """Lists the recent tasks."""

    wsdl = vim.TaskManager
    volatile = True

    @prop("recentTask")
    def _recent_task(self) -> list[ManagedObject]:
        return self.world.tasks.recent()

    @prop("maxCollector")
    def _max_collector(self) -> int:
        return 32

    @method("CreateCollectorForTasks")
    def create_collector(self, ctx: Context, filter: t.Any) -> ManagedObject:
        """Make a collector of tasks."""
        return self.world.add(TaskHistoryCollector(self.world, ctx.session, "task-collector", filter))


def install_services(world: World, about: t.Any | None = None) -> ServiceInstance:
    """Register the service instance and the managers that every world has.

    The managers of the simulated inventory (search index, custom fields, …) are added to
    `world.content` by who builds the world, as is its root folder.
    """
    world.content["propertyCollector"] = world.add(PropertyCollector(world, "propertyCollector"))
    world.content["viewManager"] = world.add(ViewManager(world, "ViewManager"))
    world.content["sessionManager"] = world.add(SessionManager(world, "SessionManager"))
    world.content["authorizationManager"] = world.add(AuthorizationManager(world, "AuthorizationManager"))
    world.content["eventManager"] = world.add(EventManager(world, "EventManager"))
    world.content["taskManager"] = world.add(TaskManager(world, "TaskManager"))
    about = about or about_info()
    world.authorization.has_images = int(about.apiVersion.partition(".")[0]) >= 7
    return world.add(ServiceInstance(world, "ServiceInstance", about))
