package limiter_test

import (
	"sync/atomic"
	"testing"
	"time"

	"ticketgate/limiter"
	"ticketgate/ticket"
)

func BenchmarkTake(b *testing.B) {
	for _, c := range []struct {
		name, rate string
		n          int64
	}{{"message", "100000000/1second", 1}, {"bytes", "1GiB/1second", 1500}, {"refused", "1/1hour", 1}} {
		b.Run(c.name, func(b *testing.B) {
			m := limiter.NewMeter(rate(b, c.rate), 0)
			var tat int64
			now := noon
			for b.Loop() {
				now += 1000
				m.Take(&tat, now, c.n)
			}
		})
	}
}

func BenchmarkTakeShared(b *testing.B) {
	m := limiter.NewMeter(rate(b, "100000000/1second"), 0)
	b.Run("1 goroutine", func(b *testing.B) {
		var tat atomic.Int64
		now := noon
		for b.Loop() {
			now += 1000
			m.TakeShared(&tat, now, 1)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		var tat atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			now := noon
			for pb.Next() {
				now += 1000
				m.TakeShared(&tat, now, 1)
			}
		})
	})
}

func BenchmarkMessage(b *testing.B) {
	const fast = "100000000/1second"
	for _, c := range []struct{ name, limits string }{
		{"no limits", "{}"},
		{"one own", "messages-in: { rate: " + fast + " }"},
		{"one shared", "messages-in: { rate: " + fast + ", per: client }"},
		{"two own", "messages-in: { rate: " + fast + " }\nbytes-in: { rate: 4GiB/1second }"},
		{"two shared", "messages-in: { rate: " + fast + ", per: client }\nbytes-in: { rate: 4GiB/1second, per: client }"},
		{"flood refused", "messages-in: { rate: 1/1hour, when_exceeded: drop-newest }\nbytes-in: { rate: 4GiB/1second }"},
		{"pause", "bytes-in: { rate: 4GiB/1second, when_exceeded: pause }"},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := plan(b, c.limits)
			tb, clk := newTable(4)
			s := open(b, p, tb, "ann")
			now := clk.Now()
			for b.Loop() {
				now += 1000
				p.Message(&s.row, tb, limiter.In, true, 1500, now)
			}
		})
	}
	b.Run("one shared, parallel", func(b *testing.B) {
		p := plan(b, "messages-in: { rate: "+fast+", per: client }")
		tb, clk := newTable(4)
		b.RunParallel(func(pb *testing.PB) {
			s := open(b, p, tb, "ann")
			now := clk.Now()
			for pb.Next() {
				now += 1000
				p.Message(&s.row, tb, limiter.In, true, 1500, now)
			}
		})
	})
}

func BenchmarkTally(b *testing.B) {
	p := plan(b, "messages-in: { rate: 100000000/1second }\nbytes-in: { rate: 4GiB/1second }")
	tb, clk := newTable(4)
	s := open(b, p, tb, "ann")
	v := s.message(limiter.In, true, 1500, clk.Now())
	for b.Loop() {
		p.Tally(s.ds, limiter.In, true, v)
	}
}

func BenchmarkBind(b *testing.B) {
	p := plan(b, "messages-in: { rate: 3/1minute, per: client }\nbytes-in: { rate: 64KiB/1second, per: client }")
	tb, _ := newTable(1 << 16)
	var r limiter.Row
	for b.Loop() {
		if p.Bind(&r, tb, limiter.Who{Client: "user-42"}) != nil {
			b.Fatal("no room")
		}
		p.Unbind(&r, tb)
	}
}

// BenchmarkTableFull is the attack: ever new names, each of which takes another's place.
func BenchmarkTableFull(b *testing.B) {
	tb, clk := newTable(1 << 16)
	m := limiter.NewMeter(rate(b, "3/1minute"), 0)
	key := uint64(0)
	for b.Loop() {
		key++
		clk.Advance(time.Millisecond)
		r, ok := tb.Hold(key * 0x9e3779b97f4a7c15)
		if !ok {
			b.Fatal("no room")
		}
		m.TakeShared(tb.At(r), clk.Now(), 3)
		tb.Release(r)
	}
}

// BenchmarkCount opens and closes a socket; the clock stands still, so that only the table is measured.
func BenchmarkCount(b *testing.B) {
	subject := func(i uint64) ticket.Subject { return ticket.Subject(i * 0xbf58476d1ce4e5b9 % 100_000) }
	b.Run("100000 subjects", func(b *testing.B) {
		c, _ := newCount()
		for i := uint64(0); b.Loop(); i++ {
			c.Add(subject(i))
			c.Done(subject(i))
		}
	})
	b.Run("100000 subjects, parallel", func(b *testing.B) {
		c, _ := newCount()
		var loop atomic.Uint64
		b.RunParallel(func(pb *testing.PB) {
			for i := loop.Add(1 << 32); pb.Next(); i++ {
				c.Add(subject(i))
				c.Done(subject(i))
			}
		})
	})
	b.Run("one subject, parallel", func(b *testing.B) {
		c, _ := newCount()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c.Add(1)
				c.Done(1)
			}
		})
	})
}

func BenchmarkParseRate(b *testing.B) {
	for b.Loop() {
		if _, err := limiter.ParseRate("3/1minute"); err != nil {
			b.Fatal(err)
		}
	}
}
