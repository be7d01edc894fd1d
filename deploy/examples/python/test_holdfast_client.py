"""Whether holdfast_client does what proto/README.md says, against a server that refuses on purpose.

    python -m unittest
"""

import collections
import json
import unittest
from concurrent import futures

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

import holdfast_client
from holdfast.v1 import admin_service_pb2, map_service_pb2, owner_service_pb2, storage_service_pb2
from holdfast.v1.storage_service_pb2 import GetRequest, GetResponse, UpdateRequest, UpdateResponse
from holdfast.v1.storage_service_pb2_grpc import (
    StorageServiceServicer,
    StorageServiceStub,
    add_StorageServiceServicer_to_server,
)
from holdfast_client import Budget, Refusal, Retries, connect


def refusal(code: grpc.StatusCode, reason: str, retry_ms: int | None = None, domain: str = "holdfast"):
    details = [error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata={"worker": "1"})]
    if retry_ms is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=retry_ms * 1_000_000)))
    packed = [any_pb2.Any() for _ in details]
    for any_detail, detail in zip(packed, details):
        any_detail.Pack(detail)
    return rpc_status.to_status(status_pb2.Status(code=code.value[0], message=reason, details=packed))


OVERLOADED = refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_ms=20)
LOCK_TIMEOUT = refusal(grpc.StatusCode.UNAVAILABLE, "LOCK_TIMEOUT", retry_ms=20)


class Refusing(StorageServiceServicer):
    """Answers each call with the next of its refusals, and when they are used up, well."""

    def __init__(self):
        self.refusals = collections.deque()
        self.calls = 0

    def _answer(self, context, response):
        self.calls += 1
        if self.refusals:
            refused = self.refusals.popleft()
            if isinstance(refused, grpc.StatusCode):
                context.abort(refused, "somebody in between")
            context.abort_with_status(refused)
        return response

    def Get(self, request, context):
        return self._answer(context, GetResponse(version=1))

    def Update(self, request, context):
        return self._answer(context, UpdateResponse(version=1))


class Retrying(unittest.TestCase):
    def setUp(self):
        self.refusing = Refusing()
        server = grpc.server(futures.ThreadPoolExecutor(1))
        add_StorageServiceServicer_to_server(self.refusing, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(lambda: server.stop(grace=None).wait())
        channel = connect(f"127.0.0.1:{port}")
        self.addCleanup(channel.close)
        self.storage = StorageServiceStub(channel)

    def update(self, *refusals, timeout=5):
        self.refusing.refusals.extend(refusals)
        return self.storage.Update(UpdateRequest(), timeout=timeout)

    def fails(self, *refusals, timeout=5) -> grpc.RpcError:
        with self.assertRaises(grpc.RpcError) as raised:
            self.update(*refusals, timeout=timeout)
        return raised.exception

    def test_what_may_pass_is_tried_again(self):
        self.assertEqual(self.update(OVERLOADED, LOCK_TIMEOUT).version, 1)
        self.assertEqual(self.refusing.calls, 3)

    def test_the_last_refusal_is_told_with_all_it_says(self):
        refusal = Refusal.of(self.fails(*[OVERLOADED] * 9))
        self.assertEqual(self.refusing.calls, Retries.ATTEMPTS)
        self.assertEqual((refusal.code, refusal.reason), (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"))
        self.assertEqual((refusal.metadata, refusal.fields, refusal.retry_after), ({"worker": "1"}, {}, 0.02))

    def test_what_cannot_pass_is_not_tried_again(self):
        for refused in (
            refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "MAP_FULL"),
            refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "MAP_FULL", retry_ms=1),  # not in the table
            refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),  # no RetryInfo
            refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_ms=1, domain="example.com"),
            grpc.StatusCode.UNAVAILABLE,  # of a mutation: nobody knows whether it has happened
        ):
            with self.subTest(refused=refused):
                before = self.refusing.calls
                self.fails(refused)
                self.assertEqual(self.refusing.calls, before + 1)

    def test_an_error_of_somebody_else_is_no_refusal(self):
        self.assertIsNone(Refusal.of(self.fails(grpc.StatusCode.UNAVAILABLE)))
        foreign = refusal(grpc.StatusCode.NOT_FOUND, "MAP_NOT_FOUND", domain="example.com")
        self.assertIsNone(Refusal.of(self.fails(foreign)))

    def test_no_retry_begins_after_the_deadline(self):
        slow = refusal(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", retry_ms=900)
        self.assertEqual(Refusal.of(self.fails(slow, timeout=0.8)).reason, "SHUTTING_DOWN")
        self.assertEqual(self.refusing.calls, 1)

    def test_the_budget_ends_retries(self):
        self.refusing.refusals.extend([OVERLOADED] * 1000)
        for _ in range(10):
            self.fails()
        # 10 calls, the 10 retries saved up, and at most one more for each five calls.
        self.assertLessEqual(self.refusing.calls, 10 + Budget.SAVED + 10 * Budget.PER_CALL)
        self.assertGreater(self.refusing.calls, 10 + Budget.SAVED - 1)

    def test_the_service_config_repeats_a_plain_read(self):
        self.refusing.refusals.extend([grpc.StatusCode.UNAVAILABLE] * 2)
        self.assertEqual(self.storage.Get(GetRequest(), timeout=5).version, 1)
        self.assertEqual(self.refusing.calls, 3)


class ServiceConfig(unittest.TestCase):
    def test_it_names_every_read_and_nothing_else(self):
        config = json.loads(holdfast_client.SERVICE_CONFIG.read_text())
        named = {(name["service"], name["method"]) for entry in config["methodConfig"] for name in entry["name"]}
        files = (admin_service_pb2, map_service_pb2, owner_service_pb2, storage_service_pb2)
        reads = {
            (service.full_name, method.name)
            for file in files
            for service in file.DESCRIPTOR.services_by_name.values()
            for method in service.methods
            if method.name.startswith(("Get", "List"))
        }
        self.assertEqual(named, reads)


if __name__ == "__main__":
    unittest.main()
