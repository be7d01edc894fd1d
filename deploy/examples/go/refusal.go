package main

import (
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// refusal is what the server says when it refuses. It also promises that nothing has changed.
type refusal struct {
	Code       codes.Code
	Reason     string            // a name of holdfast.v1.Reason without REASON_: branch on this, not on code or message
	Message    string            // for people
	Metadata   map[string]string // facts for programs, such as current_version
	Fields     map[string]string // from BadRequest: the request's field, and what was expected of it
	RetryAfter *time.Duration    // from RetryInfo; nil: do not retry
}

// asRefusal reads the details of an error. It answers false if the error did not come from Holdfast itself: then
// nobody knows whether the call has happened.
func asRefusal(err error) (refusal, bool) {
	s, ok := status.FromError(err)
	if !ok || err == nil {
		return refusal{}, false
	}
	r := refusal{Code: s.Code(), Message: s.Message(), Fields: map[string]string{}}
	ours := false
	// The details travel as a google.rpc.Status in the trailer grpc-status-details-bin.
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			ours = detail.GetDomain() == "holdfast"
			r.Reason, r.Metadata = detail.GetReason(), detail.GetMetadata()
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				r.Fields[violation.GetField()] = violation.GetDescription()
			}
		case *errdetails.RetryInfo:
			delay := detail.GetRetryDelay().AsDuration()
			r.RetryAfter = &delay
		}
	}
	return r, ours
}
