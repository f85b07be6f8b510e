package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"ticketgate/bench"
)

func TestClassOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&bench.StatusError{Status: 429}, "http_429"},
		{&bench.StatusError{Status: 503, Body: "busy"}, "http_503"},
		{&bench.CloseError{Code: 1013}, "close_1013"},
		{&bench.CloseError{Code: 1005}, "close_1005"},
		{bench.ErrEcho, "wrong_answer"},
		{bench.ErrHead, "protocol"},
		{bench.ErrAccept, "protocol"},
		{bench.ErrMasked, "protocol"},
		{bench.ErrLength, "protocol"},
		{bench.ErrAnswer, "protocol"},
		{bench.ErrTicket, "protocol"},
		{bench.ErrLeftover, "protocol"},
		{bench.ErrUnsent, "unsent"},
		{errLate, "timeout"},
		{io.EOF, "ended"},
		{io.ErrUnexpectedEOF, "ended"},
		{syscall.ECONNREFUSED, "refused"},
		{syscall.ECONNRESET, "reset"},
		{syscall.EPIPE, "reset"},
		{syscall.ETIMEDOUT, "timeout"},
		{syscall.EHOSTUNREACH, "timeout"},
		{syscall.ENETUNREACH, "timeout"},
		{syscall.EADDRNOTAVAIL, "no_port"},
		{syscall.EADDRINUSE, "no_port"},
		{syscall.EMFILE, "no_file"},
		{syscall.ENFILE, "no_file"},
		{syscall.EINVAL, "other"},
		{errSecure, "tls"},
		{&net.DNSError{Err: "no such host", Name: "gate"}, "dns"},
		{context.Canceled, "other"},
	} {
		for _, err := range []error{c.err, fmt.Errorf("bench: read: %w", c.err), errors.Join(c.err, nil)} {
			if got := classOf(err); got != c.want {
				t.Errorf("%v: %s, want %s", err, got, c.want)
			}
		}
	}
}
