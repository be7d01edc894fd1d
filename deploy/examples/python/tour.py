"""The tour of Holdfast: what an agent does with it, call by call, and what it must expect to be told.

    python tour.py [--drain PID] [TARGET]

TARGET is 127.0.0.1:7411 (the default) or unix:///run/holdfast/holdfast.sock, and on this machine, since the tour
starts a process and tags it. It exits with 0 only if everything was as expected.
"""

import argparse
import contextlib
import os
import pathlib
import signal
import struct
import subprocess
import sys

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from holdfast.v1.admin_service_pb2 import GetInfoRequest
from holdfast.v1.admin_service_pb2_grpc import AdminServiceStub
from holdfast.v1.map_service_pb2 import CreateMapRequest, FreeMapRequest
from holdfast.v1.map_service_pb2_grpc import MapServiceStub
from holdfast.v1.storage_service_pb2 import CreateRequest, GetRequest, ListElementsRequest, UpdateRequest
from holdfast.v1.storage_service_pb2_grpc import StorageServiceStub
from holdfast.v1.types_pb2 import MAP_KIND_CGROUP, MAP_KIND_TASK, CgroupRef, TaskRef
from holdfast_client import Refusal, connect

# A value is bytes; what they mean is the map's `value_type`, here u64: 8 bytes, little endian.
U64 = struct.Struct("<Q")

# Seconds that a call may take. After them it ends with DEADLINE_EXCEEDED, whatever the server does.
TIMEOUT = 2.0


class Unexpected(Exception):
    """Something was other than the tour promises."""


def expect(what: str, actual, expected):
    if actual != expected:
        raise Unexpected(f"{what}: {actual!r}, expected {expected!r}")


@contextlib.contextmanager
def refused(reason: str):
    """The block must be refused by the server, for this reason. Gives a list that will hold the refusal."""
    refusals = []
    try:
        yield refusals
    except grpc.RpcError as error:
        refusal = Refusal.of(error)
        if refusal is None:
            raise  # not said by Holdfast, and so unknown whether it has happened
        expect("the reason of the refusal", refusal.reason, reason)
        print(f"  refused   {refusal.code.name} {refusal.reason}: {refusal.message}")
        refusals.append(refusal)
    else:
        raise Unexpected(f"a call went through, expected it to be refused with {reason}")


def check_server(channel):
    """Asks before anything else: is it up, and are its pids mine?"""
    print("health and identity")
    answer = HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service="holdfast.v1.StorageService"), timeout=TIMEOUT
    )
    expect("health", answer.status, health_pb2.HealthCheckResponse.SERVING)
    info = AdminServiceStub(channel).GetInfo(GetInfoRequest(), timeout=TIMEOUT)
    # Remember the instance_id: when it changes, the server was restarted and every map and value is gone.
    print(f"  holdfastd {info.version}, instance {info.instance_id}, {len(info.workers)} workers: SERVING")
    if info.HasField("pid_namespace_inode"):
        mine = os.stat("/proc/self/ns/pid").st_ino
        expect("the server's pid namespace (run the tour beside the server)", info.pid_namespace_inode, mine)


def add(storage, map_name: str, task: TaskRef, amount: int) -> int:
    """Adds to a counter that others change too: compare and swap, until nobody came in between.

    Every retry of the loop reads again first, which is what VERSION_MISMATCH asks for.
    """
    while True:
        read = storage.Get(GetRequest(map=map_name, task=task), timeout=TIMEOUT)
        total = U64.unpack(read.value)[0] + amount
        try:
            storage.Update(
                UpdateRequest(map=map_name, task=task, value=U64.pack(total), expected_version=read.version),
                timeout=TIMEOUT,
            )
        except grpc.RpcError as error:
            refusal = Refusal.of(error)
            if refusal is None or refusal.reason != "VERSION_MISMATCH":
                raise
        else:
            return total


def elements(storage, map_name: str, page_size: int = 0):
    """All elements of a map, page by page. A page may be short or empty before the end; only the token tells."""
    token = ""
    while True:
        page = storage.ListElements(
            ListElementsRequest(map=map_name, page_size=page_size, page_token=token), timeout=TIMEOUT
        )
        yield from page.elements
        token = page.next_page_token
        if not token:
            return


def tour_of_tasks(channel, name: str, over_unix: bool):
    maps, storage = MapServiceStub(channel), StorageServiceStub(channel)
    with contextlib.ExitStack() as cleanup:
        print(f"a map of tasks: {name}")
        created = maps.CreateMap(
            CreateMapRequest(name=name, kind=MAP_KIND_TASK, value_size=U64.size, value_type="u64"), timeout=TIMEOUT
        )
        cleanup.callback(free, maps, name)
        print(f"  created   map_id {created.map_id}")
        with refused("MAP_EXISTS"):
            maps.CreateMap(CreateMapRequest(name=name, kind=MAP_KIND_TASK, value_size=U64.size), timeout=TIMEOUT)

        child = subprocess.Popen(["sleep", "600"])
        cleanup.callback(child.wait)
        cleanup.callback(child.kill)
        task = TaskRef(pid=child.pid)
        print(f"a value for the process {child.pid}")
        with refused("ELEMENT_NOT_FOUND"):
            storage.Get(GetRequest(map=name, task=task), timeout=TIMEOUT)
        written = storage.Update(UpdateRequest(map=name, task=task, value=U64.pack(42)), timeout=TIMEOUT)
        read = storage.Get(GetRequest(map=name, task=task), timeout=TIMEOUT)
        expect("the value", U64.unpack(read.value), (42,))
        expect("its version", read.version, written.version)
        # From now on the owner can be named by its owner_id: exact, and the fastest.
        expect("the value by owner_id", storage.Get(GetRequest(map=name, owner_id=read.owner_id), timeout=TIMEOUT), read)
        print(f"  read      42, version {read.version}, owner_id {read.owner_id}")

        # Bad input: BadRequest names the field and tells what was expected.
        with refused("INVALID_VALUE") as refusals:
            storage.Update(UpdateRequest(map=name, task=task, value=b"short"), timeout=TIMEOUT)
        expect("the fields of BadRequest", list(refusals[0].fields), ["value"])
        print(f"  field     value: {refusals[0].fields['value']}")

        print("compare and swap")
        storage.Update(UpdateRequest(map=name, task=task, value=U64.pack(43)), timeout=TIMEOUT)
        with refused("VERSION_MISMATCH") as refusals:
            storage.Update(
                UpdateRequest(map=name, task=task, value=U64.pack(0), expected_version=read.version), timeout=TIMEOUT
            )
        # What ErrorInfo's metadata says can be acted on without another call. RetryInfo is absent: not as it is.
        now = storage.Get(GetRequest(map=name, task=task), timeout=TIMEOUT)
        expect("metadata of the refusal", refusals[0].metadata, {"current_version": str(now.version)})
        expect("RetryInfo", refusals[0].retry_after, None)
        expect("the counter", add(storage, name, task, 7), 50)
        print("  added     43 + 7 = 50")

        print("listing, in pages of one")
        # Only over a Unix socket does the kernel tell the server who calls.
        me = TaskRef(self=True) if over_unix else TaskRef(pid=os.getpid())
        storage.Create(CreateRequest(map=name, task=me, value=U64.pack(1)), timeout=TIMEOUT)
        listed = {e.owner.task.pid: U64.unpack(e.value)[0] for e in elements(storage, name, page_size=1)}
        expect("the listing", listed, {child.pid: 50, os.getpid(): 1})
        for pid, value in listed.items():
            print(f"  task {pid:<9} {value}")
        if not over_unix:
            with refused("INVALID_OWNER") as refusals:
                storage.Get(GetRequest(map=name, task=TaskRef(self=True)), timeout=TIMEOUT)
            expect("the fields of BadRequest", list(refusals[0].fields), ["task.self"])

        print(f"the process {child.pid} is killed")
        child.kill()
        child.wait()
        with refused("OWNER_EXITED"):
            storage.Get(GetRequest(map=name, task=task), timeout=TIMEOUT)

        print("a call whose deadline has passed")
        try:
            storage.Get(GetRequest(map=name, task=me), timeout=-1)
        except grpc.RpcError as error:
            # Made by the client library: no ErrorInfo. Had it been a mutation, nobody would know whether it happened.
            expect("the code", error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
            expect("a refusal", Refusal.of(error), None)
            print("  ended     DEADLINE_EXCEEDED, without a word from the server")
        else:
            raise Unexpected("the call was answered after its deadline")


def free(maps, name: str):
    freed = maps.FreeMap(FreeMapRequest(name=name), timeout=TIMEOUT)
    print(f"  freed     {name} and {freed.freed_elements} elements")
    with refused("MAP_NOT_FOUND"):
        maps.FreeMap(FreeMapRequest(name=name), timeout=TIMEOUT)


def tour_of_cgroups(channel, name: str):
    print(f"a map of cgroups: {name}")
    try:
        directory = make_cgroup(name)
    except OSError as error:
        print(f"!!! SKIPPED the cgroup part: {error}")
        return
    maps, storage = MapServiceStub(channel), StorageServiceStub(channel)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(lambda: directory.exists() and directory.rmdir())
        cgroup = CgroupRef(path=str(directory))
        maps.CreateMap(
            CreateMapRequest(name=name, kind=MAP_KIND_CGROUP, value_size=4, value_type="utf8"), timeout=TIMEOUT
        )
        cleanup.callback(free, maps, name)
        # One call for "read it, or make it": `created` tells which.
        read = storage.Get(
            GetRequest(map=name, cgroup=cgroup, create_if_missing=True, initial_value=b"gold"), timeout=TIMEOUT
        )
        expect("created", read.created, True)
        expect("the value", read.value, b"gold")
        print(f"  created   gold for {directory}")
        with refused("INVALID_OWNER_KIND"):
            storage.Get(GetRequest(map=name, task=TaskRef(pid=os.getpid())), timeout=TIMEOUT)
        directory.rmdir()
        with refused("OWNER_EXITED"):
            storage.Get(GetRequest(map=name, cgroup=cgroup), timeout=TIMEOUT)


def make_cgroup(name: str) -> pathlib.Path:
    for mount in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = mount.split(" ")
        if kind == "cgroup2":
            directory = pathlib.Path(point, name)
            directory.mkdir()
            return directory
    raise FileNotFoundError("no cgroup2 is mounted here")


def drain(target: str, pid: int):
    """Ends the server, to see how an agent learns of it: by health, and by a refusal that says when to come back."""
    print(f"the server {pid} is told to end")
    with connect(target, retries=False) as channel:
        watch = HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
        expect("health", next(watch).status, health_pb2.HealthCheckResponse.SERVING)
        os.kill(pid, signal.SIGTERM)
        expect("health", next(watch).status, health_pb2.HealthCheckResponse.NOT_SERVING)
        print("  health    NOT_SERVING")
        with refused("SHUTTING_DOWN") as refusals:
            MapServiceStub(channel).FreeMap(FreeMapRequest(name="any"), timeout=TIMEOUT)
        expect("RetryInfo is there", refusals[0].retry_after is not None, True)
        print(f"  retry     after {refusals[0].retry_after} s, on another connection")


def main() -> int:
    parser = argparse.ArgumentParser(description="The tour of Holdfast from Python.")
    parser.add_argument("target", nargs="?", default="127.0.0.1:7411", help="127.0.0.1:7411 or unix:///PATH")
    parser.add_argument("--drain", type=int, metavar="PID", help="at the end, end the server that has this pid")
    arguments = parser.parse_args()
    name = f"tour-python-{os.getpid()}"
    try:
        with connect(arguments.target) as channel:
            check_server(channel)
            tour_of_tasks(channel, name, over_unix=arguments.target.startswith("unix:"))
            tour_of_cgroups(channel, f"{name}-cgroup")
        if arguments.drain is not None:
            drain(arguments.target, arguments.drain)
    except Unexpected as unexpected:
        print(f"UNEXPECTED {unexpected}", file=sys.stderr)
        return 1
    except grpc.RpcError as error:
        said_by = "" if Refusal.of(error) else " (not said by Holdfast: whether it has happened is unknown)"
        print(f"UNEXPECTED {error.code().name}: {error.details()}{said_by}", file=sys.stderr)
        return 1
    print("the tour is done: everything was as expected")
    return 0


if __name__ == "__main__":
    sys.exit(main())
