package engine_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/feed/echo"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// allLimits are every kind of limit on messages that a socket can have to itself.
func allLimits(t testing.TB) map[string]limiter.Options {
	return map[string]limiter.Options{
		"messages-in":  {Rate: rate(t, "20/1second"), Per: limiter.PerConnection, WhenExceeded: "close"},
		"bytes-in":     {Rate: rate(t, "64KiB/1second"), Per: limiter.PerConnection, WhenExceeded: "close"},
		"messages-out": {Rate: rate(t, "20/1second"), Per: limiter.PerConnection, WhenExceeded: "close"},
		"bytes-out":    {Rate: rate(t, "64KiB/1second"), Per: limiter.PerConnection, WhenExceeded: "close"},
	}
}

// idleRig is a rig for many sockets that do nothing: two loops, the built-in echo.
func idleRig(t testing.TB) *rig {
	return newRig(t, allLimits(t), func(o *engine.Options) {
		plan, problems := limiter.Compile("plan", allLimits(t), limiter.Defaults{})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		rules := &frame.Rules{Role: frame.Server, Opcodes: frame.AllowBoth, MaxMessage: 64 << 10, MaxFragments: 128}
		o.Policy = engine.NewPolicy([]engine.StreamEntry{{Name: "echo", Stream: echo.Echo{}, Rules: rules}}, []*limiter.Plan{plan})
		o.Loops, o.MaxConns = 2, 1<<21
	})
}

// crowd opens n sockets, each of a client of its own, which then only listen.
func (r *rig) crowd(from, n int) {
	r.t.Helper()
	const together = 500
	pipes := make([]*reactor.Pipe, 0, together)
	for i := from; i < from+n; i++ {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], uint32(i))
		p := r.mem.Connect(netip.AddrPortFrom(netip.AddrFrom4(a), 4711))
		p.Write([]byte(head(r.issue(ticket.Claims{Client: "client-" + strconv.Itoa(i)}))))
		if pipes = append(pipes, p); len(pipes) < together && i < from+n-1 {
			continue
		}
		r.mem.Run()
		for _, p := range pipes {
			if answer := string(p.Read()); !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
				r.t.Fatalf("open: %q", answer)
			}
			p.Leave()
		}
		pipes = pipes[:0]
	}
}

// TestIdleSocketsAreNotOnTheHeap, whatever limits they have, and have no more than their rows.
func TestIdleSocketsAreNotOnTheHeap(t *testing.T) {
	r := idleRig(t)
	r.crowd(0, 4000)
	before := heap()
	r.crowd(4000, 12_000)
	after := heap()
	if grown := int64(after.HeapObjects) - int64(before.HeapObjects); grown > 100 {
		t.Errorf("12,000 sockets left %d objects on the heap", grown)
	}
	if s, want := r.engine.Shared(), 16_000+1; s.Names != want || s.Flows+s.Side+s.Parked+s.Holds != 0 {
		t.Errorf("%+v, want %d names (and their key) and nothing else", s, want)
	}
	runtime.KeepAlive(r)
}

func heap() (m runtime.MemStats) {
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}

// TestFlowIsGivenBack: what a socket has taken from its limits is forgotten with the first ping at which it makes no difference.
func TestFlowIsGivenBack(t *testing.T) {
	r := newRig(t, allLimits(t), nil)
	p := r.open(ticket.Claims{})
	flows := func(after string, want int) {
		t.Helper()
		if got := r.engine.Shared().Flows; got != want {
			t.Errorf("%s: %d, want %d", after, got, want)
		}
	}
	pinged := func() {
		t.Helper()
		for range 40 {
			r.mem.Advance(time.Second)
			if got := r.heard(p); got == "ping " {
				return
			}
		}
		t.Fatal("no ping")
	}
	flows("101", 0)
	pinged()
	r.say(p, client(frame.Pong, true, ""))
	flows("the pong that we asked for", 0)
	r.say(p, client(frame.Pong, true, ""))
	flows("a pong that nobody asked for", 1)
	pinged()
	flows("the control bucket is full again", 0)
	r.say(p, client(frame.Pong, true, ""), client(frame.Text, true, "hello"))
	flows("a message", 1)
	pinged()
	flows("25 s later", 0)
	r.say(p, client(frame.Pong, true, ""), client(frame.Text, false, "half"))
	if s := r.engine.Shared(); s.Side != 1 || s.Holds != 1 {
		t.Errorf("half a message: %+v", s)
	}
	r.say(p, client(frame.Continuation, true, "whole"))
	if s := r.engine.Shared(); s.Side != 0 || s.Holds != 0 {
		t.Errorf("the message is whole: %+v", s)
	}
}

// TestSharedBucketsStay bound while the socket is open, full or not.
func TestSharedBucketsStay(t *testing.T) {
	r := newRig(t, map[string]limiter.Options{"messages-in": {Rate: rate(t, "3/1second"), Per: limiter.PerClient, WhenExceeded: "close"}}, nil)
	p := r.open(ticket.Claims{})
	r.mem.Advance(26 * time.Second)
	r.say(p, client(frame.Pong, true, ""))
	if s := r.engine.Shared(); s.Flows != 1 {
		t.Errorf("%+v", s)
	}
	text := client(frame.Text, true, "x")
	if got := r.say(p, text, text, text, text); got != "x|x|x|close 4429 limit:messages-in" {
		t.Errorf("%q", got)
	}
	r.mem.Advance(10 * time.Second)
	r.gone()
}

// TestHeadInPieces keeps 16 bytes for a head that has not arrived whole, and forgets them.
func TestHeadInPieces(t *testing.T) {
	r := newRig(t, nil, nil)
	whole := head(r.issue(ticket.Claims{}))
	p, _ := r.send(whole[:50])
	if s := r.engine.Shared(); s.Side != 1 {
		t.Errorf("half a head: %+v", s)
	}
	p.Write([]byte(whole[50:]))
	r.mem.Run()
	if s := r.engine.Shared(); s.Side != 0 || !strings.HasPrefix(string(p.Read()), "HTTP/1.1 101 ") {
		t.Errorf("the head is whole: %+v", s)
	}
	for _, end := range []func(*reactor.Pipe){(*reactor.Pipe).Close, (*reactor.Pipe).Reset, func(*reactor.Pipe) { r.mem.Advance(6 * time.Second) }} {
		p, _ := r.send(whole[:50])
		end(p)
		r.mem.Run()
		if s := r.engine.Shared(); s.Side != 0 {
			t.Errorf("a head that never came: %+v", s)
		}
	}
}

// BenchmarkMillionSockets is one collection with a million admitted sockets at rest: at most 10 ms of processor time. With
// -short it is 100,000. The far ends of the virtual kernel cost 8 bytes each, outside of what the collector looks at.
func BenchmarkMillionSockets(b *testing.B) {
	const most = 10 * time.Millisecond
	n := 1_000_000
	if testing.Short() {
		n = 100_000
	}
	r := idleRig(b)
	r.crowd(0, 1000)
	before, resident := heap(), residentBytes(b)
	r.crowd(1000, n)
	after, full := heap(), residentBytes(b)
	cycles, used, gc := uint64(0), cpuTime(b), gcTime()
	for b.Loop() {
		runtime.GC()
		cycles++
	}
	took := (cpuTime(b) - used) / time.Duration(cycles)
	b.ReportMetric(float64(took.Microseconds())/1e3, "cpu-ms/cycle")
	b.ReportMetric((gcTime()-gc)*1e3/float64(cycles), "gc-ms/cycle")
	b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/float64(n), "heap-B/socket")
	b.ReportMetric(float64(full-resident)/float64(n), "resident-B/socket")
	b.ReportMetric(float64(after.HeapAlloc)/(1<<20), "heap-MiB")
	if took > most {
		b.Errorf("a collection with %d sockets takes %v of processor time, want at most %v", n, took, most)
	}
	if s := r.engine.Stats(); s.Live != int64(n)+1000 {
		b.Errorf("%d sockets are open", s.Live)
	}
}

// cpuTime is what the process has used, all threads, in the kernel as well.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// gcTime is what the runtime says that collections have used, in seconds; it counts a preempted worker as one that works.
func gcTime() float64 {
	s := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
	metrics.Read(s)
	return s[0].Value.Float64()
}

func residentBytes(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var all, pages int
	if _, err := fmt.Sscan(string(b), &all, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
