package engine_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

// BenchmarkEcho is what a message costs beside the system calls: parse, unmask, limits both ways, frame, queue. bare is the
// reactor alone with the same bytes, on the same virtual kernel.
func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{32, 1 << 10, 16 << 10} {
		for _, per := range []int{1, 16} {
			wire := bytes.Repeat(client(frame.Binary, true, string(bytes.Repeat([]byte("x"), size))), per)
			b.Run(fmt.Sprintf("%dB/%d a read/bare", size, per), func(b *testing.B) { benchmarkBare(b, wire, per) })
			b.Run(fmt.Sprintf("%dB/%d a read/gate", size, per), func(b *testing.B) { benchmarkGate(b, wire, per) })
		}
	}
}

func benchmarkGate(b *testing.B, wire []byte, per int) {
	l := new(lease)
	r := newRig(b, map[string]limiter.Options{
		"messages-in":  {Rate: rate(b, "1000000000/1second"), Per: limiter.PerClient},
		"bytes-in":     {Rate: rate(b, "4GiB/1second"), Per: limiter.PerConnection},
		"messages-out": {Rate: rate(b, "1000000000/1second"), Per: limiter.PerConnection},
		"bytes-out":    {Rate: rate(b, "4GiB/1second"), Per: limiter.PerConnection},
	}, func(o *engine.Options) { o.Life = l.life })
	l.begin(r.clock.Now(), 1<<60)
	p := r.open(ticket.Claims{})
	p.Window(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		r.clock.Advance(100 * time.Microsecond)
		p.Write(wire)
		r.mem.Run()
		if len(p.Read()) == 0 {
			b.Fatal("no echo")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*per), "ns/message")
}

func benchmarkBare(b *testing.B, wire []byte, per int) {
	m := reactor.NewMemory(reactor.Options{Loops: 1, Handlers: []reactor.Handler{bareEcho{}}}, mono.NewManual(time.Unix(wall, 0)))
	p := m.Connect(netip.MustParseAddrPort("192.0.2.7:4711"))
	p.Window(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		p.Write(wire)
		m.Run()
		if len(p.Read()) == 0 {
			b.Fatal("no echo")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*per), "ns/message")
}

type bareEcho struct{ reactor.Handler }

func (bareEcho) Open(*reactor.Loop, reactor.ID) {}
func (bareEcho) Data(l *reactor.Loop, id reactor.ID, in []byte) int {
	b, _ := l.Reserve(id, len(in)) // Write would send long ones at once, of which the virtual kernel takes a copy
	copy(b, in)
	return len(in)
}
