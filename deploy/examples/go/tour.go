package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	holdfast "example.com/holdfast-tour/gen/holdfast/v1"
)

type tour struct {
	health   health.HealthClient
	admin    holdfast.AdminServiceClient
	maps     holdfast.MapServiceClient
	storage  holdfast.StorageServiceClient
	overUnix bool
}

func newTour(conn *grpc.ClientConn, overUnix bool) *tour {
	return &tour{
		health:   health.NewHealthClient(conn),
		admin:    holdfast.NewAdminServiceClient(conn),
		maps:     holdfast.NewMapServiceClient(conn),
		storage:  holdfast.NewStorageServiceClient(conn),
		overUnix: overUnix,
	}
}

// A value is bytes; what they mean is the map's value_type, here u64: 8 bytes, little endian.
func u64(number uint64) []byte {
	return binary.LittleEndian.AppendUint64(nil, number)
}

// checkServer asks before anything else: is it up, and are its pids mine?
func (t *tour) checkServer() error {
	fmt.Println("health and identity")
	answer, err := call(t.health.Check, &health.HealthCheckRequest{Service: "holdfast.v1.StorageService"})
	if err != nil {
		return err
	}
	if err := expect("health", answer.GetStatus(), health.HealthCheckResponse_SERVING); err != nil {
		return err
	}
	info, err := call(t.admin.GetInfo, &holdfast.GetInfoRequest{})
	if err != nil {
		return err
	}
	// Remember the instance_id: when it changes, the server was restarted and every map and value is gone.
	fmt.Printf("  holdfastd %s, instance %s, %d workers: SERVING\n",
		info.GetVersion(), info.GetInstanceId(), len(info.GetWorkers()))
	if info.PidNamespaceInode == nil {
		return nil
	}
	mine, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return err
	}
	return expect("the server's pid namespace (run the tour beside the server)",
		info.GetPidNamespaceInode(), mine.Sys().(*syscall.Stat_t).Ino)
}

func (t *tour) tasks(name string) (err error) {
	fmt.Printf("a map of tasks: %s\n", name)
	create := &holdfast.CreateMapRequest{Name: name, Kind: holdfast.MapKind_MAP_KIND_TASK, ValueSize: 8, ValueType: "u64"}
	created, err := call(t.maps.CreateMap, create)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.free(name)) }()
	fmt.Printf("  created   map_id %d\n", created.GetMapId())
	_, err = call(t.maps.CreateMap, create)
	if _, err := refused("MAP_EXISTS", err); err != nil {
		return err
	}

	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		return err
	}
	// At the end of a tour that went well both are no-ops.
	defer child.Wait()
	defer child.Process.Kill()
	pid := int32(child.Process.Pid)
	if err := t.value(name, pid); err != nil {
		return err
	}
	if err := t.list(name, pid); err != nil {
		return err
	}

	fmt.Printf("the process %d is killed\n", pid)
	if err := child.Process.Kill(); err != nil {
		return err
	}
	_ = child.Wait() // "signal: killed" is what we asked for
	get := &holdfast.GetRequest{Map: name, Owner: &holdfast.GetRequest_Task{Task: &holdfast.TaskRef{Pid: pid}}}
	_, err = call(t.storage.Get, get)
	if _, err := refused("OWNER_EXITED", err); err != nil {
		return err
	}

	fmt.Println("a call whose deadline has passed")
	ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	_, err = t.storage.Get(ctx, get)
	// Made by the client library: no ErrorInfo. Had it been a mutation, nobody would know whether it happened.
	if err := expect("the code", status.Code(err), codes.DeadlineExceeded); err != nil {
		return err
	}
	if _, ours := asRefusal(err); ours {
		return fmt.Errorf("a refusal by the server, expected none: %w", err)
	}
	fmt.Println("  ended     DEADLINE_EXCEEDED, without a word from the server")
	return nil
}

// value sets, gets, and compares and swaps the value of a process.
func (t *tour) value(name string, pid int32) error {
	fmt.Printf("a value for the process %d\n", pid)
	get := &holdfast.GetRequest{Map: name, Owner: &holdfast.GetRequest_Task{Task: &holdfast.TaskRef{Pid: pid}}}
	_, err := call(t.storage.Get, get)
	if _, err := refused("ELEMENT_NOT_FOUND", err); err != nil {
		return err
	}
	update := func(value []byte, expectedVersion *uint64) (*holdfast.UpdateResponse, error) {
		return call(t.storage.Update, &holdfast.UpdateRequest{
			Map:             name,
			Owner:           &holdfast.UpdateRequest_Task{Task: &holdfast.TaskRef{Pid: pid}},
			Value:           value,
			ExpectedVersion: expectedVersion,
		})
	}
	written, err := update(u64(42), nil)
	if err != nil {
		return err
	}
	// From now on the owner can be named by its owner_id: exact, and the fastest.
	read, err := call(t.storage.Get, &holdfast.GetRequest{
		Map: name, Owner: &holdfast.GetRequest_OwnerId{OwnerId: written.GetOwnerId()},
	})
	if err != nil {
		return err
	}
	if err := errors.Join(
		expect("the value", string(read.GetValue()), string(u64(42))),
		expect("its version", read.GetVersion(), written.GetVersion()),
	); err != nil {
		return err
	}
	fmt.Printf("  read      42, version %d, owner_id %d\n", read.GetVersion(), read.GetOwnerId())

	// Bad input: BadRequest names the field and tells what was expected.
	_, err = update([]byte("short"), nil)
	invalid, err := refused("INVALID_VALUE", err)
	if err != nil {
		return err
	}
	problem, named := invalid.Fields["value"]
	if err := expect("BadRequest names the field value", named, true); err != nil {
		return err
	}
	fmt.Printf("  field     value: %s\n", problem)

	fmt.Println("compare and swap")
	now, err := update(u64(43), nil)
	if err != nil {
		return err
	}
	stale := read.GetVersion()
	_, err = update(u64(0), &stale)
	mismatch, err := refused("VERSION_MISMATCH", err)
	if err != nil {
		return err
	}
	// What ErrorInfo's metadata says can be acted on without another call. RetryInfo is absent: not as it is.
	if err := errors.Join(
		expect("current_version", mismatch.Metadata["current_version"], fmt.Sprint(now.GetVersion())),
		expect("RetryInfo", mismatch.RetryAfter, nil),
	); err != nil {
		return err
	}
	total, err := t.add(name, pid, 7)
	if err != nil {
		return err
	}
	fmt.Printf("  added     43 + 7 = %d\n", total)
	return expect("the counter", total, 50)
}

// add adds to a counter that others change too: compare and swap, until nobody came in between. Every turn of the loop
// reads again first, which is what VERSION_MISMATCH asks for.
func (t *tour) add(name string, pid int32, amount uint64) (uint64, error) {
	for {
		task := &holdfast.TaskRef{Pid: pid}
		read, err := call(t.storage.Get, &holdfast.GetRequest{Map: name, Owner: &holdfast.GetRequest_Task{Task: task}})
		if err != nil {
			return 0, err
		}
		total := binary.LittleEndian.Uint64(read.GetValue()) + amount
		version := read.GetVersion()
		_, err = call(t.storage.Update, &holdfast.UpdateRequest{
			Map:             name,
			Owner:           &holdfast.UpdateRequest_Task{Task: task},
			Value:           u64(total),
			ExpectedVersion: &version,
		})
		if err == nil {
			return total, nil
		}
		if r, ok := asRefusal(err); !ok || r.Reason != "VERSION_MISMATCH" {
			return 0, err
		}
	}
}

// list tags the tour itself too, and lists both in pages of one. A page may be short or empty before the end: only the
// token tells.
func (t *tour) list(name string, child int32) error {
	fmt.Println("listing, in pages of one")
	own := int32(os.Getpid())
	// Only over a Unix socket does the kernel tell the server who calls.
	self := &holdfast.TaskRef{Self: true}
	me := self
	if !t.overUnix {
		_, err := call(t.storage.Get, &holdfast.GetRequest{Map: name, Owner: &holdfast.GetRequest_Task{Task: self}})
		if _, err := refused("INVALID_OWNER", err); err != nil {
			return err
		}
		me = &holdfast.TaskRef{Pid: own}
	}
	if _, err := call(t.storage.Create, &holdfast.CreateRequest{
		Map: name, Owner: &holdfast.CreateRequest_Task{Task: me}, Value: u64(1),
	}); err != nil {
		return err
	}
	listed := map[int32]uint64{}
	for token := ""; ; {
		page, err := call(t.storage.ListElements, &holdfast.ListElementsRequest{Map: name, PageSize: 1, PageToken: token})
		if err != nil {
			return err
		}
		for _, element := range page.GetElements() {
			pid, value := element.GetOwner().GetTask().GetPid(), binary.LittleEndian.Uint64(element.GetValue())
			fmt.Printf("  task %-9d %d\n", pid, value)
			listed[pid] = value
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	return errors.Join(
		expect("the number of elements", len(listed), 2),
		expect("the child's value", listed[child], 50),
		expect("the tour's own value", listed[own], 1),
	)
}

func (t *tour) free(name string) error {
	freed, err := call(t.maps.FreeMap, &holdfast.FreeMapRequest{Name: name})
	if err != nil {
		return err
	}
	fmt.Printf("  freed     %s and %d elements\n", name, freed.GetFreedElements())
	_, err = call(t.maps.FreeMap, &holdfast.FreeMapRequest{Name: name})
	_, err = refused("MAP_NOT_FOUND", err)
	return err
}

func (t *tour) cgroups(name string) (err error) {
	fmt.Printf("a map of cgroups: %s\n", name)
	directory, err := makeCgroup(name)
	if err != nil {
		fmt.Printf("!!! SKIPPED the cgroup part: %v\n", err)
		return nil
	}
	defer os.Remove(directory) // gone already after a tour that went well
	if _, err := call(t.maps.CreateMap, &holdfast.CreateMapRequest{
		Name: name, Kind: holdfast.MapKind_MAP_KIND_CGROUP, ValueSize: 4, ValueType: "utf8",
	}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.free(name)) }()
	cgroup := &holdfast.CgroupRef{Ref: &holdfast.CgroupRef_Path{Path: directory}}
	// One call for "read it, or make it": Created tells which.
	get := &holdfast.GetRequest{
		Map: name, Owner: &holdfast.GetRequest_Cgroup{Cgroup: cgroup}, CreateIfMissing: true, InitialValue: []byte("gold"),
	}
	read, err := call(t.storage.Get, get)
	if err != nil {
		return err
	}
	if err := errors.Join(
		expect("created", read.GetCreated(), true), expect("the value", string(read.GetValue()), "gold"),
	); err != nil {
		return err
	}
	fmt.Printf("  created   gold for %s\n", directory)
	_, err = call(t.storage.Get, &holdfast.GetRequest{
		Map: name, Owner: &holdfast.GetRequest_Task{Task: &holdfast.TaskRef{Pid: int32(os.Getpid())}},
	})
	if _, err := refused("INVALID_OWNER_KIND", err); err != nil {
		return err
	}
	if err := os.Remove(directory); err != nil {
		return err
	}
	_, err = call(t.storage.Get, &holdfast.GetRequest{Map: name, Owner: &holdfast.GetRequest_Cgroup{Cgroup: cgroup}})
	_, err = refused("OWNER_EXITED", err)
	return err
}

func makeCgroup(name string) (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for mount := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(mount); len(fields) > 2 && fields[2] == "cgroup2" {
			directory := filepath.Join(fields[1], name)
			return directory, os.Mkdir(directory, 0o755)
		}
	}
	return "", errors.New("no cgroup2 is mounted here")
}

// drain ends the server, to see how an agent learns of it: by health, and by a refusal that says when to come back.
func (t *tour) drain(pid int) error {
	fmt.Printf("the server %d is told to end\n", pid)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	watch, err := t.health.Watch(ctx, &health.HealthCheckRequest{})
	if err != nil {
		return err
	}
	next := func(expected health.HealthCheckResponse_ServingStatus) error {
		answer, err := watch.Recv()
		if err != nil {
			return err
		}
		return expect("health", answer.GetStatus(), expected)
	}
	if err := next(health.HealthCheckResponse_SERVING); err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	if err := next(health.HealthCheckResponse_NOT_SERVING); err != nil {
		return err
	}
	fmt.Println("  health    NOT_SERVING")
	_, err = call(t.maps.FreeMap, &holdfast.FreeMapRequest{Name: "any"})
	r, err := refused("SHUTTING_DOWN", err)
	if err != nil {
		return err
	}
	if r.RetryAfter == nil {
		return errors.New("SHUTTING_DOWN came without RetryInfo")
	}
	fmt.Printf("  retry     after %v, on another connection\n", *r.RetryAfter)
	return nil
}
