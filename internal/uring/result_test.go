package uring

import (
	"syscall"
	"testing"
)

// What the ring had no room for is not the socket's fault, and has to be done by a call of its own.
func TestResult(t *testing.T) {
	for _, c := range []struct {
		res   int32
		n     int
		errno syscall.Errno
		ok    bool
	}{
		{0, 0, 0, true},
		{17, 17, 0, true},
		{-int32(syscall.EAGAIN), 0, syscall.EAGAIN, true},
		{-int32(syscall.ECONNRESET), 0, syscall.ECONNRESET, true},
		{-int32(syscall.EINTR), 0, syscall.EINTR, true},
		{-int32(syscall.ENOMEM), 0, syscall.ENOMEM, false},
		{-int32(syscall.ENOBUFS), 0, syscall.ENOBUFS, false},
		{-int32(syscall.EBUSY), 0, syscall.EBUSY, false},
		{-int32(syscall.ECANCELED), 0, syscall.ECANCELED, false},
		{untaken, 0, 0, false},
	} {
		r := &Ring{}
		r.results[3] = c.res
		if n, errno, ok := r.Result(3); n != c.n || errno != c.errno || ok != c.ok {
			t.Errorf("%d: %d bytes, %v, %v", c.res, n, errno, ok)
		}
	}
}
