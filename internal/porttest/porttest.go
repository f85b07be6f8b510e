// Package porttest finds addresses for tests.
package porttest

import (
	"net"
	"testing"
)

// Free is an address (127.0.0.1:port) on which nobody listened a moment ago.
func Free(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
