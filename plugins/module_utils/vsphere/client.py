# Copyright: the gpuops.vsphere contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One vCenter connection of one process: session, own property collector, counted requests.

Transient drops: reads are repeated a bounded number of times (`Client.read`); a write is repeated
only where it cannot have reached the vCenter (the session had ended). A session that has ended is
renewed once for each call, transparently.
"""

from __future__ import annotations

import collections
import http.client
import threading
import types
import typing as t
import xml.parsers.expat

from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere import fastxml, transport
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.errors import (
    BadAnswerError,
    ConnectionFailedError,
    ConnectionLostError,
    GpuOpsError,
    LibraryMissingError,
    from_fault,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.options import ConnectionOptions
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.progress import Progress
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.pyvmomi import (
    IMPORT_ERROR,
    SoapResponseDeserializer,
    SoapStubAdapter,
    vim,
    vmodl,
)
from ansible_collections.gpuops.vsphere.plugins.module_utils.vsphere.session import SessionStore, Ticket

T = t.TypeVar("T")

READ_ATTEMPTS = 4
_POOL_SIZE = 32
# They need no session, so they are no occasion to renew it.
_LOGIN_METHODS = ("RetrieveServiceContent", "Login")
# Shorter than any server's keep-alive, so that a write never goes out on a connection the server has just closed.
_POOL_IDLE_S = 30


class SessionRenewed(Exception):  # noqa: N818 - a signal between Client and its readers, never shown
    """The session was renewed, and with the old one went its property collector and views."""


def _of_session(mo: t.Any) -> bool:
    """Whether an object lives only as long as its session."""
    return isinstance(mo, (vmodl.query.PropertyCollector, vmodl.query.PropertyCollector.Filter, vim.view.View))


class _PageArguments(list[t.Any]):
    """Arguments of a call whose answer is a page of objects, and what of it is wanted."""

    def __init__(self, arguments: list[t.Any], keep: fastxml.Keep) -> None:
        super().__init__(arguments)
        self.keep = keep


class Stub(SoapStubAdapter):
    """pyVmomi's SOAP adapter with our connections, counting, session renewal and errors."""

    def __init__(self, client: Client, version: str) -> None:
        options = client.options
        self._base: t.Any = super()
        SoapStubAdapter.__init__(
            self,
            host=options.hostname,
            port=options.port,
            version=version,
            poolSize=_POOL_SIZE,
            connectionPoolTimeout=_POOL_IDLE_S,
        )
        self.scheme: t.Any = client.connect
        self._client = client

    def GetConnection(self) -> t.Any:  # noqa: N802 - pyVmomi's name
        """A pooled or new connection. Raises ConnectionFailedError: nothing has been sent."""
        try:
            return self._base.GetConnection()
        except OSError as error:
            raise transport.connection_error(error, self._client.options) from error

    def InvokeMethod(self, mo: t.Any, info: t.Any, args: t.Any, outerStub: t.Any = None) -> t.Any:  # noqa: N802, N803
        """Call one method. Raises vSphere faults as they are, and GpuOpsError for the connection."""
        used = self._client.generation
        try:
            return self._call(mo, info, args, outerStub)
        except vim.fault.NotAuthenticated:
            if self._client.closing or info.wsdlName in _LOGIN_METHODS:
                raise
        except vmodl.fault.ManagedObjectNotFound as fault:
            # Another call found the session ended and renewed it: what belonged to the old one is gone.
            if used and _of_session(mo) and getattr(fault.obj, "_moId", None) == mo._moId:
                raise SessionRenewed from fault
            raise
        self._client.renew(used)
        if _of_session(mo):
            raise SessionRenewed
        return self._call(mo, info, args, outerStub)

    def bulk(self, collector: t.Any, method: str, arguments: list[t.Any], keep: fastxml.Keep) -> t.Any:
        """Call a method of a property collector that answers with a page of objects, and read that fast.

        Raises as InvokeMethod does.
        """
        return self.InvokeMethod(collector, type(collector)._GetMethodInfo(method), _PageArguments(arguments, keep))

    @property
    def cookie_value(self) -> str:
        """The session's cookie, empty before the first answer."""
        return self._base.GetSessionId() or ""

    def use_cookie(self, value: str) -> None:
        """Send this session cookie from now on; empty sends none."""
        self._base.SetSessionId(value)

    def drop_connections(self) -> None:
        """Close the idle pooled connections."""
        self._base.DropConnections()

    def _page(self, mo: t.Any, info: t.Any, arguments: _PageArguments) -> t.Any:
        connection = self.GetConnection()
        try:
            headers = {"Cookie": self.cookie, "SOAPAction": self.versionId, "Content-Type": "text/xml; charset=utf-8"}
            connection.request("POST", self.path, self._base.SerializeRequest(mo, info, arguments), headers)
            answer = connection.getresponse()
            if answer.status == http.client.OK:
                page = fastxml.read_page(answer, self, arguments.keep)
            elif answer.status == http.client.INTERNAL_SERVER_ERROR:
                page = SoapResponseDeserializer(self).Deserialize(answer.read(), info.result)
            else:
                raise http.client.HTTPException(f"{answer.status} {answer.reason}")  # noqa: TRY301 - as pyVmomi does
        except BaseException:
            # What is left of the answer would be taken for the next one's.
            connection.close()
            raise
        self._base.ReturnConnection(connection)
        if isinstance(page, Exception):
            raise page
        return page

    def _call(self, mo: t.Any, info: t.Any, args: t.Any, outer_stub: t.Any) -> t.Any:
        client = self._client
        client.count(info.wsdlName)
        try:
            if isinstance(args, _PageArguments):
                return self._page(mo, info, args)
            return self._base.InvokeMethod(mo, info, args, outer_stub)
        except xml.parsers.expat.ExpatError as error:
            raise BadAnswerError(
                f"{client.options.endpoint} answered {info.wsdlName} with something that is not SOAP. "
                "Check hostname and port, and that no proxy answers in its place.",
                object=client.options.endpoint,
            ) from error
        except (OSError, http.client.HTTPException) as error:
            status = str(error).split(" ", 1)[0]
            if isinstance(error, http.client.HTTPException) and len(status) == 3 and status.isdigit():
                raise transport.http_status_error(int(status), "/sdk", client.options) from error
            raise ConnectionLostError(
                f"{client.options.endpoint}: the connection dropped during {info.wsdlName} "
                f"({error or type(error).__name__}). Whether it was carried out is unknown; run again.",
                object=client.options.endpoint,
            ) from error


class Client:
    """A vCenter session in use. Use `with Client.open(options) as client`."""

    def __init__(self, options: ConnectionOptions) -> None:
        if IMPORT_ERROR is not None:
            raise LibraryMissingError(
                "pyVmomi is missing for this Python interpreter. Install the package pyvmomi into it, or set "
                "ansible_python_interpreter to the controller's ({{ ansible_playbook_python }})."
            )
        self.options = options
        self.connect = transport.connection_factory(options)
        self.requests: collections.Counter[str] = collections.Counter()
        """SOAP requests of this process by WSDL method name."""
        self.names: dict[str, str] = {}
        """Managed object id -> name, filled by reads, so that errors can name objects."""
        self.generation = 0
        """Counts renewals of the session in this process."""
        self.closing = False
        """Set while this process's objects are destroyed: a session that has ended took them along."""
        self.interrupted = False
        """Set when the run was told to stop: nothing new is begun then."""
        self._cookie = ""
        # The ticket's, as the store knows it: a vCenter may hand out another with an answer to an ended session.
        self._store = SessionStore(options.session_dir, options.endpoint, options.username)
        self._renewing = threading.Lock()
        self._counting = threading.Lock()
        self._collector: vmodl.query.PropertyCollector | None = None
        self.progress = Progress()
        self._views: dict[type, vim.view.ContainerView] = {}
        self.stub: Stub
        self.content: vim.ServiceInstanceContent

    @classmethod
    def open(cls, options: ConnectionOptions) -> Client:
        """Connect with the cached session, or log in. Raises GpuOpsError."""
        client = cls(options)
        try:
            client._open()
        except vmodl.MethodFault as fault:
            raise from_fault(fault, object=options.endpoint, doing=f"log in as {options.username}") from fault
        return client

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Destroy this process's views and collector; the session lives on in the cache."""
        self.closing = True
        try:
            for view in self._views.values():
                view.DestroyView()
            if self._collector is not None:
                self._collector.DestroyPropertyCollector()
        except (vmodl.MethodFault, GpuOpsError, SessionRenewed):
            pass  # they end with the session at the latest
        finally:
            self._views.clear()
            self._collector = None
            self.progress.close()
            self.stub.drop_connections()

    @property
    def api_version(self) -> tuple[int, ...]:
        """The vCenter's API version, for example (8, 0, 3, 0)."""
        return tuple(int(part) for part in str(self.content.about.apiVersion).split(".") if part.isdigit())

    def count(self, method: str) -> None:
        """Count one request. Called by the stub, from any thread."""
        with self._counting:
            self.requests[method] += 1

    @property
    def collector(self) -> vmodl.query.PropertyCollector:
        """This process's own property collector (the session's default one is shared by all its processes)."""
        if self._collector is None:
            self._collector = self.content.propertyCollector.CreatePropertyCollector()
        return self._collector

    def view(self, kind: type) -> vim.view.ContainerView:
        """A container view of all objects of one type, made once for each process."""
        if kind not in self._views:
            manager = t.cast("vim.view.ViewManager", self.content.viewManager)
            self._views[kind] = manager.CreateContainerView(self.content.rootFolder, [kind], True)
        return self._views[kind]

    def ref(self, kind: type[T], moid: str) -> T:
        """The managed object of a known type and id, bound to this connection."""
        return kind(moid, self.stub)  # type: ignore[call-arg]  # pyVmomi's constructors are not in its stubs

    def read(self, body: t.Callable[[], T]) -> T:
        """Run something that only reads, again after a dropped connection or a renewed session.

        `body` must take `collector` and `view` from this client anew on each call.
        Raises GpuOpsError; faults are translated.
        """
        for attempt in range(READ_ATTEMPTS):
            try:
                return body()
            except SessionRenewed:
                self.forget_session_objects()
            except (ConnectionLostError, ConnectionFailedError):
                if attempt == READ_ATTEMPTS - 1:
                    raise
            except vmodl.MethodFault as fault:
                raise from_fault(fault, doing="read the inventory", names=self.names) from fault
        raise ConnectionLostError(
            f"{self.options.endpoint}: the session ended again and again during a read. Run again later.",
            code="not_authenticated",
            object=self.options.endpoint,
        )

    def renew(self, used_generation: int) -> None:
        """Replace the session that a call found ended, unless another thread just did. Raises vSphere faults."""
        with self._renewing:
            if self.generation == used_generation:
                self._log_in(stale=self._cookie)
                self.generation += 1

    def _open(self) -> None:
        ticket = self._store.load(self.options.password)
        if ticket is not None:
            self._use(ticket)
        content = self._log_in(stale=None) if ticket is None else None
        self.content = content or self._retrieve_content()

    def _log_in(self, stale: str | None) -> vim.ServiceInstanceContent | None:
        """Take the ticket another process has just obtained, or log in, store the new one and return the content."""
        with self._store.locked():
            ticket = self._store.load(self.options.password)
            if ticket is not None and ticket.cookie != stale:
                self._use(ticket)
                return None
            version = transport.negotiate_version(self.options, self.connect)
            self._use(Ticket(cookie="", api_version=version))
            content = self._retrieve_content()
            sessions = t.cast("vim.SessionManager", content.sessionManager)
            sessions.Login(self.options.username, self.options.password, None)
            ticket = Ticket(cookie=self.stub.cookie_value, api_version=version)
            self._cookie = ticket.cookie
            self._store.save(ticket, self.options.password)
            return content

    def _use(self, ticket: Ticket) -> None:
        if not hasattr(self, "stub"):
            self.stub = Stub(self, ticket.api_version)
        self._cookie = ticket.cookie
        self.stub.use_cookie(ticket.cookie)

    def _retrieve_content(self) -> vim.ServiceInstanceContent:
        content = vim.ServiceInstance("ServiceInstance", self.stub).RetrieveContent()
        if content.about.apiType != "VirtualCenter":
            raise BadAnswerError(
                f"{self.options.endpoint} is a single ESXi host, not a vCenter ({content.about.fullName}). "
                "Set hostname to the vCenter that manages it.",
                object=self.options.endpoint,
            )
        return content

    def forget_session_objects(self) -> None:
        """Make a new collector and views on the next use: those known belong to a session that has ended."""
        self._collector = None
        self._views.clear()
