package bench_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"ticketgate/bench"
)

// echoServer answers WebSocket messages with themselves, through a library that is not ours.
func echoServer(seen *atomic.Int64) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := ws.Upgrade(c); err != nil {
			return
		}
		for {
			b, op, err := wsutil.ReadClientData(c)
			if err != nil {
				return
			}
			seen.Add(1) // before the answer, which may end the test
			if wsutil.WriteServerMessage(c, op, b) != nil {
				return
			}
		}
	}
}

func dialEcho(t *testing.T, l *bench.Loop, address string, e *bench.Echo, sockets int) {
	t.Helper()
	head := bench.AppendUpgrade(nil, address, []byte("/t/x"), nil)
	for range sockets {
		if _, err := l.Dial(target(t, address), &bench.Upgrade{Head: head, Then: e.Socket()}); err != nil {
			t.Fatal(err)
		}
	}
	runUntil(t, l, func() bool { return e.Ready() == sockets || e.Err != nil })
}

func TestEcho(t *testing.T) {
	for _, c := range []struct{ sockets, size, inFlight, messages int }{{1, 0, 1, 200}, {20, 32, 1, 500}, {5, 126, 16, 500}, {3, 70000, 2, 20}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			var seen atomic.Int64
			address := serve(t, echoServer(&seen))
			l := bench.OpenLoop(t, bench.Options{})
			e := bench.NewEcho(l, []byte("another message"), 3, false)
			dialEcho(t, l, address, e, c.sockets)
			e.Say([]byte(strings.Repeat("x", c.size)), c.inFlight)
			for range 2 { // a second start goes on where the first one stopped
				before := e.Messages
				e.Start()
				runUntil(t, l, func() bool { return e.Messages >= before+uint64(c.messages) || e.Err != nil })
				e.Stop()
				runUntil(t, l, e.Idle)
			}
			if e.Err != nil || e.Latency.Count() != e.Messages || e.Latency.Max() <= 0 {
				t.Errorf("%d messages, %d latencies, longest %v, %v", e.Messages, e.Latency.Count(), e.Latency.Max(), e.Err)
			}
			if e.Messages%uint64(c.inFlight) != 0 {
				t.Errorf("%d messages are not whole writes of %d", e.Messages, c.inFlight)
			}
			if got := seen.Load(); got != int64(e.Messages) {
				t.Errorf("the server answered %d, the client counts %d", got, e.Messages)
			}
			if l.Open() != c.sockets {
				t.Errorf("%d sockets open", l.Open())
			}
			e.Close()
			if l.Open() != 0 {
				t.Errorf("%d sockets open after Close", l.Open())
			}
		})
	}
}

// slowWriter sends every byte alone.
type slowWriter struct{ net.Conn }

func (s slowWriter) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := s.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// The 101, pings and answers arrive in pieces.
func TestEchoInPieces(t *testing.T) {
	var seen, pongs atomic.Int64
	address := serve(t, func(c net.Conn) {
		s := slowWriter{c}
		if _, err := ws.Upgrade(s); err != nil {
			return
		}
		for {
			f, err := readFrame(s)
			if err != nil {
				return
			}
			if f.Header.OpCode == ws.OpPong {
				if string(f.Payload) != "there?" {
					return
				}
				pongs.Add(1)
				continue
			}
			seen.Add(1)
			answer := append(ws.MustCompileFrame(ws.NewPingFrame([]byte("there?"))), ws.MustCompileFrame(ws.NewTextFrame(f.Payload))...)
			if _, err := s.Write(answer); err != nil {
				return
			}
		}
	})
	l := bench.OpenLoop(t, bench.Options{})
	e := bench.NewEcho(l, []byte(strings.Repeat("piece", 60)), 2, false)
	dialEcho(t, l, address, e, 3)
	e.Start()
	runUntil(t, l, func() bool { return e.Messages >= 50 || e.Err != nil })
	e.Stop()
	runUntil(t, l, func() bool { return e.Idle() && pongs.Load() == seen.Load() })
	if e.Err != nil || seen.Load() != int64(e.Messages) {
		t.Errorf("%d messages, %d seen, %v", e.Messages, seen.Load(), e.Err)
	}
}

// A relay may pass an answer on in fragments, also empty ones, with control frames between them.
func TestEchoInFragments(t *testing.T) {
	address := serve(t, func(c net.Conn) {
		if _, err := ws.Upgrade(c); err != nil {
			return
		}
		for {
			b, _, err := wsutil.ReadClientData(c)
			if err != nil {
				return
			}
			half := len(b) / 2
			for _, f := range []ws.Frame{
				ws.NewFrame(ws.OpText, false, b[:half]), ws.NewPingFrame(nil), ws.NewFrame(ws.OpContinuation, false, nil),
				ws.NewFrame(ws.OpContinuation, false, b[half:]), ws.NewFrame(ws.OpContinuation, true, nil),
			} {
				if ws.WriteFrame(c, f) != nil {
					return
				}
			}
		}
	})
	l := bench.OpenLoop(t, bench.Options{})
	e := bench.NewEcho(l, []byte("a message in fragments"), 4, false)
	dialEcho(t, l, address, e, 2)
	e.Start()
	runUntil(t, l, func() bool { return e.Messages >= 40 || e.Err != nil })
	e.Stop()
	runUntil(t, l, e.Idle)
	if e.Err != nil || e.Messages%4 != 0 {
		t.Errorf("%d messages, %v", e.Messages, e.Err)
	}
}

// A server that does wrong ends the measurement with an error that says what it did.
func TestEchoFailures(t *testing.T) {
	upgraded := func(then func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) {
			if _, err := ws.Upgrade(c); err != nil {
				return
			}
			if _, _, err := wsutil.ReadClientData(c); err == nil {
				then(c)
			}
		}
	}
	raw := func(answer string) func(net.Conn) {
		return func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, answer)
			}
		}
	}
	write := func(b []byte) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Write(b)
			_, _ = io.Copy(io.Discard, c)
		}
	}
	for _, c := range []struct {
		name   string
		server func(net.Conn)
		want   func(error) bool
	}{
		{"close frame", upgraded(write(ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(4429, "limit:messages-in"))))), func(err error) bool {
			var cl *bench.CloseError
			return errors.As(err, &cl) && cl.Code == 4429 && cl.Reason == "limit:messages-in"
		}},
		{"close frame without a code", upgraded(write([]byte{0x88, 0})), func(err error) bool {
			var cl *bench.CloseError
			return errors.As(err, &cl) && cl.Code == 1005
		}},
		{"end of the connection", upgraded(func(net.Conn) {}), is(io.ErrUnexpectedEOF)},
		{"reset", upgraded(func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }), is(syscall.ECONNRESET)},
		{"another message", upgraded(write(ws.MustCompileFrame(ws.NewTextFrame([]byte("hellO"))))), is(bench.ErrEcho)},
		{"one answer too many", upgraded(write([]byte("\x81\x05hello\x81\x05hello"))), is(bench.ErrEcho)},
		{"another message behind a ping", upgraded(write([]byte("\x89\x00\x81\x05hellO"))), is(bench.ErrEcho)},
		{"the end of an answer is another", upgraded(write([]byte("\x81\x05hel\x81\x00"))), is(bench.ErrEcho)},
		{"binary message", upgraded(write([]byte("\x82\x05hello"))), is(bench.ErrEcho)},
		{"fragments that end early", upgraded(write([]byte("\x01\x02he\x80\x02ll"))), is(bench.ErrEcho)},
		{"fragments that go on", upgraded(write([]byte("\x01\x05hello\x80\x01o"))), is(bench.ErrEcho)},
		{"a message within another", upgraded(write([]byte("\x01\x02he\x81\x05hello"))), is(bench.ErrEcho)},
		{"a continuation of nothing", upgraded(write([]byte("\x80\x05hello"))), is(bench.ErrEcho)},
		{"masked frame", upgraded(write(bench.AppendFrame(nil, 1, []byte("other")))), is(bench.ErrMasked)},
		{"401", raw("HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nnope"), func(err error) bool {
			var s *bench.StatusError
			return errors.As(err, &s) && s.Status == 401 && s.Body == "nope"
		}},
		{"wrong accept", raw("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: no\r\n\r\n"), is(bench.ErrAccept)},
		{"not HTTP", raw("SSH-2.0-server\r\n\r\n"), is(bench.ErrHead)},
		{"nothing", raw(""), is(io.ErrUnexpectedEOF)},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := bench.OpenLoop(t, bench.Options{})
			address := serve(t, c.server)
			e := bench.NewEcho(l, []byte("hello"), 1, false)
			t.Cleanup(e.Close)
			dialEcho(t, l, address, e, 1)
			e.Start()
			runUntil(t, l, func() bool { return e.Err != nil })
			if !c.want(e.Err) {
				t.Errorf("%v", e.Err)
			}
			if !e.Idle() {
				t.Error("waits for an answer that cannot come")
			}
		})
	}
}

func is(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }

// The loop and the handlers of an echo allocate nothing once everything is open.
func TestEchoAllocates(t *testing.T) {
	address := serve(t, func(c net.Conn) {
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	})
	l := bench.OpenLoop(t, bench.Options{})
	e := bench.NewEcho(l, []byte("hello"), 4, true)
	for range 4 {
		if _, err := l.Dial(target(t, address), e.Socket()); err != nil {
			t.Fatal(err)
		}
	}
	runUntil(t, l, func() bool { return e.Ready() == 4 })
	e.Start()
	var until uint64
	done := func() bool { return e.Messages >= until || e.Err != nil }
	n := testing.AllocsPerRun(10, func() {
		until = e.Messages + 1000
		if err := l.RunUntil(context.Background(), patience, done); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 || e.Err != nil {
		t.Errorf("%v allocations in 1,000 messages, %v", n, e.Err)
	}
}
