package main

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	holdfast "example.com/holdfast-tour/gen/holdfast/v1"
)

// refusing answers its first calls with errors, one after the other, and when they are used up, well.
type refusing struct {
	holdfast.UnimplementedStorageServiceServer
	errors []error
	calls  atomic.Int32
}

func (s *refusing) answer() error {
	if call := int(s.calls.Add(1)); call <= len(s.errors) {
		return s.errors[call-1]
	}
	return nil
}

func (s *refusing) Get(context.Context, *holdfast.GetRequest) (*holdfast.GetResponse, error) {
	return &holdfast.GetResponse{}, s.answer()
}

func (s *refusing) Update(context.Context, *holdfast.UpdateRequest) (*holdfast.UpdateResponse, error) {
	return &holdfast.UpdateResponse{}, s.answer()
}

// refusals starts a server that answers so, and gives a client of it.
func refusals(t *testing.T, errors ...error) (holdfast.StorageServiceClient, *refusing) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, service := grpc.NewServer(), &refusing{errors: errors}
	holdfast.RegisterStorageServiceServer(server, service)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	conn, err := connect(listener.Addr().String(), "../service_config.json", grpc.WithUnaryInterceptor(newRetries().unary))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return holdfast.NewStorageServiceClient(conn), service
}

// refuse makes an error as the server does; retryAfter 0: without RetryInfo.
func refuse(t *testing.T, code codes.Code, domain, reason string, retryAfter time.Duration) error {
	t.Helper()
	details := []protoadapt.MessageV1{
		&errdetails.ErrorInfo{Domain: domain, Reason: reason, Metadata: map[string]string{"worker": "1"}},
	}
	if retryAfter != 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
	}
	s, err := status.New(code, reason).WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	return s.Err()
}

func overloaded(t *testing.T) error {
	return refuse(t, codes.ResourceExhausted, "holdfast", "OVERLOADED", 20*time.Millisecond)
}

func times(count int, err error) (errors []error) {
	for range count {
		errors = append(errors, err)
	}
	return errors
}

func wantCalls(t *testing.T, service *refusing, want int32) {
	t.Helper()
	if calls := service.calls.Load(); calls != want {
		t.Errorf("%d calls reached the server, want %d", calls, want)
	}
}

func TestWhatMayPassIsTriedAgain(t *testing.T) {
	lockTimeout := refuse(t, codes.Unavailable, "holdfast", "LOCK_TIMEOUT", 20*time.Millisecond)
	storage, service := refusals(t, overloaded(t), lockTimeout)
	if _, err := call(storage.Update, &holdfast.UpdateRequest{}); err != nil {
		t.Error(err)
	}
	wantCalls(t, service, 3)
}

func TestTheLastRefusalIsToldWithAllItSays(t *testing.T) {
	storage, service := refusals(t, times(9, overloaded(t))...)
	_, err := call(storage.Update, &holdfast.UpdateRequest{})
	r, ok := asRefusal(err)
	if !ok || r.Code != codes.ResourceExhausted || r.Reason != "OVERLOADED" || r.Metadata["worker"] != "1" ||
		r.RetryAfter == nil || *r.RetryAfter != 20*time.Millisecond {
		t.Errorf("%+v, from %v", r, err)
	}
	wantCalls(t, service, maxAttempts)
}

func TestWhatCannotPassIsNotTriedAgain(t *testing.T) {
	for name, err := range map[string]error{
		"not in the table":        refuse(t, codes.ResourceExhausted, "holdfast", "MAP_FULL", time.Millisecond),
		"no RetryInfo":            refuse(t, codes.ResourceExhausted, "holdfast", "OVERLOADED", 0),
		"of another domain":       refuse(t, codes.ResourceExhausted, "example.com", "OVERLOADED", time.Millisecond),
		"bare, and of a mutation": status.Error(codes.Unavailable, "somebody in between"),
	} {
		t.Run(name, func(t *testing.T) {
			storage, service := refusals(t, err)
			if _, err := call(storage.Update, &holdfast.UpdateRequest{}); err == nil {
				t.Error("the refusal was swallowed")
			}
			wantCalls(t, service, 1)
		})
	}
}

func TestAnErrorOfSomebodyElseIsNoRefusal(t *testing.T) {
	for _, err := range []error{
		nil,
		context.Canceled,
		status.Error(codes.Unavailable, "somebody in between"),
		refuse(t, codes.NotFound, "example.com", "MAP_NOT_FOUND", 0),
	} {
		if r, ok := asRefusal(err); ok {
			t.Errorf("%v was read as %+v", err, r)
		}
	}
}

func TestNoRetryBeginsAfterTheDeadline(t *testing.T) {
	storage, service := refusals(t, refuse(t, codes.Unavailable, "holdfast", "SHUTTING_DOWN", 900*time.Millisecond))
	ctx, cancel := context.WithTimeout(context.Background(), 800*time.Millisecond)
	defer cancel()
	_, err := storage.Update(ctx, &holdfast.UpdateRequest{})
	if r, _ := asRefusal(err); r.Reason != "SHUTTING_DOWN" {
		t.Error(err)
	}
	wantCalls(t, service, 1)
}

func TestTheBudgetEndsRetries(t *testing.T) {
	const calls = 10
	storage, service := refusals(t, times(1000, overloaded(t))...)
	for range calls {
		if _, err := call(storage.Update, &holdfast.UpdateRequest{}); err == nil {
			t.Fatal("the refusal was swallowed")
		}
	}
	// The calls, the retries saved up, and at most one more for each five calls.
	got := float64(service.calls.Load())
	if got < calls+savedTokens-1 || got > calls+savedTokens+calls*tokensACall {
		t.Errorf("%d calls came to the server %v times", calls, got)
	}
}

func TestTheServiceConfigRepeatsAPlainRead(t *testing.T) {
	storage, service := refusals(t, times(2, status.Error(codes.Unavailable, "somebody in between"))...)
	if _, err := call(storage.Get, &holdfast.GetRequest{}); err != nil {
		t.Error(err)
	}
	wantCalls(t, service, 3)
}
