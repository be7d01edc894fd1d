package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// A call without a deadline may wait for ever, so here every call has one.
const defaultTimeout = 5 * time.Second

// connect makes a client connection to "127.0.0.1:7411" or "unix:///run/holdfast/holdfast.sock". Make one and share
// it: it is safe for concurrent use, and connects and reconnects by itself. Further options come last and win.
func connect(target, serviceConfig string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	config, err := os.ReadFile(serviceConfig)
	if err != nil {
		return nil, fmt.Errorf("service config (give its place with -service-config): %w", err)
	}
	return grpc.NewClient(target, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(string(config)),
	}, options...)...)
}

// What retries do: the reasons that the table of proto/README.md allows, and how often and how slowly.
const (
	maxAttempts = 4
	maxDelay    = 5 * time.Second // unless the server asks for more
	savedTokens = 10.0
	tokensACall = 0.2
)

var retriedReasons = map[string]bool{
	"LOCK_DEADLOCK_ABBA": true,
	"LOCK_TIMEOUT":       true,
	"OVERLOADED":         true,
	"SHUTTING_DOWN":      true,
	"STORAGE_BUSY":       true,
}

// retries tries again what the table allows, within the deadline of the call.
//
// Only on the server's own ErrorInfo, since then nothing has happened and even a mutation can be repeated. A bare
// UNAVAILABLE is left to the caller (and, for plain reads, to service_config.json).
//
// The budget is one retry for every five calls, and ten saved up: without it, every client would answer an overloaded
// server with four times the load.
type retries struct {
	mu     sync.Mutex
	tokens float64
}

func newRetries() *retries {
	return &retries{tokens: savedTokens}
}

// unary is a grpc.UnaryClientInterceptor.
func (r *retries) unary(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultTimeout)
		defer cancel()
	}
	r.deposit()
	for attempt := 1; ; attempt++ {
		err := invoke(ctx, method, request, reply, conn, options...)
		delay, ok := retryDelay(err, attempt)
		deadline, _ := ctx.Deadline()
		// A retry that would begin after the deadline is not worth the wait, nor a token.
		if !ok || delay >= time.Until(deadline) || !r.withdraw() {
			return err
		}
		// Meanwhile a server that is SHUTTING_DOWN sends the connection away, so that gRPC dials anew.
		select {
		case <-time.After(delay):
		case <-ctx.Done(): // the caller has lost interest; the refusal says more than "canceled"
			return err
		}
	}
}

// retryDelay tells how long to wait before the next try; false: no further try.
func retryDelay(err error, attempt int) (time.Duration, bool) {
	refusal, ok := asRefusal(err)
	if !ok || attempt >= maxAttempts || !retriedReasons[refusal.Reason] || refusal.RetryAfter == nil {
		return 0, false
	}
	asked := *refusal.RetryAfter
	grown := min(asked<<(attempt-1), max(asked, maxDelay))
	// Up to half as long again, so that clients refused together do not come back together.
	return time.Duration(float64(grown) * (1 + rand.Float64()/2)), true
}

func (r *retries) deposit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens = min(savedTokens, r.tokens+tokensACall)
}

func (r *retries) withdraw() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tokens < 1 {
		return false
	}
	r.tokens--
	return true
}
