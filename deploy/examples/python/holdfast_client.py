"""What a Python agent wants around the generated stubs: refusals it can read, and retries that do no harm.

    with connect("127.0.0.1:7411") as channel:
        storage = StorageServiceStub(channel)
        try:
            storage.Get(GetRequest(map="tenant", task=TaskRef(pid=4711)), timeout=1)
        except grpc.RpcError as error:
            refusal = Refusal.of(error)

Copy it and change it: nothing here is more than a reading of proto/README.md.
"""

import dataclasses
import pathlib
import random
import threading
import time
import typing

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

DOMAIN = "holdfast"
SERVICE_CONFIG = pathlib.Path(__file__).resolve().parent.parent / "service_config.json"

# A call without a deadline may wait for ever, so here every call has one.
DEFAULT_TIMEOUT = 5.0  # seconds


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What the server says when it refuses. It also promises that nothing has changed."""

    code: grpc.StatusCode
    reason: str  # a name of holdfast.v1.Reason without REASON_: branch on this, not on the code or the message
    message: str  # for people
    metadata: dict[str, str]  # facts for programs, such as current_version
    fields: dict[str, str]  # from BadRequest: the request's field, and what was expected of it
    retry_after: float | None  # from RetryInfo, in seconds; None: do not retry

    @classmethod
    def of(cls, error: grpc.RpcError) -> typing.Self | None:
        """None if the error did not come from Holdfast itself: then nobody knows whether the call has happened."""
        # The details travel as a google.rpc.Status in the trailer grpc-status-details-bin.
        try:
            status = rpc_status.from_call(error)
        except ValueError:  # a Status that contradicts the code: something in between has rewritten the error
            return None
        if status is None:
            return None
        info = fields = retry_after = None
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = _unpack(detail, error_details_pb2.ErrorInfo())
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad = _unpack(detail, error_details_pb2.BadRequest())
                fields = {violation.field: violation.description for violation in bad.field_violations}
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                delay = _unpack(detail, error_details_pb2.RetryInfo()).retry_delay
                retry_after = delay.seconds + delay.nanos / 1e9
        if info is None or info.domain != DOMAIN:
            return None
        return cls(error.code(), info.reason, status.message, dict(info.metadata), fields or {}, retry_after)


def _unpack(detail, message):
    detail.Unpack(message)
    return message


class Budget:
    """How many retries a client may spend: one for every five calls, and ten saved up.

    Without it, every client would answer an overloaded server with four times the load.
    """

    SAVED = 10.0
    PER_CALL = 0.2

    def __init__(self):
        self._lock = threading.Lock()
        self._tokens = self.SAVED

    def deposit(self):
        with self._lock:
            self._tokens = min(self.SAVED, self._tokens + self.PER_CALL)

    def withdraw(self) -> bool:
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class _Details(typing.NamedTuple):
    """grpc.ClientCallDetails is read-only and has no constructor; this is what it must look like."""

    method: str
    timeout: float | None
    metadata: typing.Any
    credentials: typing.Any
    wait_for_ready: bool | None
    compression: typing.Any


class Retries(grpc.UnaryUnaryClientInterceptor):
    """Tries again what the table of proto/README.md allows, within the deadline of the call.

    Only on the server's own ErrorInfo, since then nothing has happened and even a mutation can be repeated. A bare
    UNAVAILABLE is left to the caller (and, for plain reads, to service_config.json). It sleeps in the calling
    thread: meant for blocking calls.
    """

    REASONS = frozenset({"LOCK_DEADLOCK_ABBA", "LOCK_TIMEOUT", "OVERLOADED", "SHUTTING_DOWN", "STORAGE_BUSY"})
    ATTEMPTS = 4
    MAX_DELAY = 5.0  # seconds, unless the server asks for more

    def __init__(self):
        self._budget = Budget()

    def intercept_unary_unary(self, continuation, details, request):
        deadline = time.monotonic() + (DEFAULT_TIMEOUT if details.timeout is None else details.timeout)
        self._budget.deposit()
        attempt = 1
        while True:
            left = deadline - time.monotonic()
            call = continuation(
                _Details(
                    details.method,
                    left,
                    details.metadata,
                    details.credentials,
                    getattr(details, "wait_for_ready", None),
                    getattr(details, "compression", None),
                ),
                request,
            )
            delay = self._delay(call, attempt)
            # A retry that would begin after the deadline is not worth the wait, nor a token.
            if delay is None or time.monotonic() + delay >= deadline or not self._budget.withdraw():
                return call
            # Meanwhile a server that is SHUTTING_DOWN sends the connection away, so that the channel dials anew.
            time.sleep(delay)
            attempt += 1

    def _delay(self, call, attempt: int) -> float | None:
        """How long to wait before the next try; None: no further try."""
        if call.exception() is None or attempt >= self.ATTEMPTS:
            return None
        refusal = Refusal.of(call)
        if refusal is None or refusal.reason not in self.REASONS or refusal.retry_after is None:
            return None
        asked = refusal.retry_after
        grown = min(asked * 2 ** (attempt - 1), max(asked, self.MAX_DELAY))
        # Up to half as long again, so that clients refused together do not come back together.
        return grown * random.uniform(1.0, 1.5)


def connect(target: str, *, retries: bool = True) -> grpc.Channel:
    """A channel to `127.0.0.1:7411` or `unix:///run/holdfast/holdfast.sock`. Make one and share it: it is
    thread-safe, and connects and reconnects by itself."""
    options = [("grpc.service_config", SERVICE_CONFIG.read_text())]
    if target.startswith("unix:"):
        # Else grpcio sends the socket's path as HTTP/2's :authority, percent-encoded, which is no valid one: the
        # server's HTTP/2 resets such calls (RST_STREAM with error code 1).
        options.append(("grpc.default_authority", "localhost"))
    channel = grpc.insecure_channel(target, options=options)
    return grpc.intercept_channel(channel, Retries()) if retries else channel
