// The tour of Holdfast: what an agent does with it, call by call, and what it must expect to be told.
//
//	go run . [-drain PID] [TARGET]
//
// TARGET is 127.0.0.1:7411 (the default) or unix:///run/holdfast/holdfast.sock, and on this machine, since the tour
// starts a process and tags it. It exits with 0 only if everything was as expected.
package main

//go:generate npx --yes @bufbuild/buf@1.75.0 generate ../../../proto

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
)

// How long a call may take. After that it ends with DEADLINE_EXCEEDED, whatever the server does.
const callTimeout = 2 * time.Second

func main() {
	serviceConfig := flag.String("service-config", "../service_config.json", "the gRPC service `file`")
	drained := flag.Int("drain", 0, "at the end, end the server that has this `pid`")
	flag.Parse()
	target := "127.0.0.1:7411"
	if flag.NArg() > 0 {
		target = flag.Arg(0)
	}
	if err := run(target, *serviceConfig, *drained); err != nil {
		saidBy := ""
		if _, ok := asRefusal(err); !ok {
			saidBy = " (not a refusal by Holdfast: if it was a call, whether it has happened is unknown)"
		}
		fmt.Fprintf(os.Stderr, "UNEXPECTED %v%s\n", err, saidBy)
		os.Exit(1)
	}
	fmt.Println("the tour is done: everything was as expected")
}

func run(target, serviceConfig string, drained int) error {
	conn, err := connect(target, serviceConfig, grpc.WithUnaryInterceptor(newRetries().unary))
	if err != nil {
		return err
	}
	defer conn.Close()
	t := newTour(conn, strings.HasPrefix(target, "unix:"))
	name := fmt.Sprintf("tour-go-%d", os.Getpid())
	if err := t.checkServer(); err != nil {
		return err
	}
	if err := t.tasks(name); err != nil {
		return err
	}
	if err := t.cgroups(name + "-cgroup"); err != nil {
		return err
	}
	if drained == 0 {
		return nil
	}
	// Without our retries: this is about the refusal itself.
	plain, err := connect(target, serviceConfig)
	if err != nil {
		return err
	}
	defer plain.Close()
	return newTour(plain, t.overUnix).drain(drained)
}

// call gives one call its deadline. The generated stubs take a context, so every line of the tour begins with it.
func call[Request, Response any](
	method func(context.Context, Request, ...grpc.CallOption) (Response, error), request Request,
) (Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return method(ctx, request)
}

// expect is an error if something is other than the tour promises.
func expect[T comparable](what string, actual, expected T) error {
	if actual != expected {
		return fmt.Errorf("%s: %v, expected %v", what, actual, expected)
	}
	return nil
}

// refused wants the error of a call to be a refusal for this reason, and gives it.
func refused(reason string, err error) (refusal, error) {
	if err == nil {
		return refusal{}, fmt.Errorf("a call went through, expected it to be refused with %s", reason)
	}
	r, ok := asRefusal(err)
	if !ok {
		return refusal{}, err // not said by Holdfast, and so unknown whether it has happened
	}
	if r.Reason != reason {
		return refusal{}, fmt.Errorf("a call was refused with %s (%s), expected %s", r.Reason, r.Message, reason)
	}
	fmt.Printf("  refused   %s %s: %s\n", r.Code, r.Reason, r.Message)
	return r, nil
}
