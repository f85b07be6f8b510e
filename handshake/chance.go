package handshake

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/internal/mono"
	"ticketgate/ticket"
)

// dice are for ids and for spreading what should not happen at once: nothing that has to stay secret.
type dice struct {
	mu sync.Mutex
	r  *rand.ChaCha8
}

// Read implements io.Reader. Any goroutine may call it; it never fails.
func (d *dice) Read(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.Read(p)
}

// upTo returns a number from 0 to n, which is not negative.
func (d *dice) upTo(n int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int64(d.r.Uint64() % uint64(n+1))
}

func seedOf(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// newID names a request, for its answer and its log line.
func (s *Server) newID() string {
	id, err := ticket.ID("req_", s.o.Clock.Wall(), &s.chance)
	if err != nil {
		panic("handshake: " + err.Error()) // dice never fail
	}
	return id
}

// seconds is the Retry-After for a wait: whole seconds, not less, and up to a quarter more, so that those who were refused
// together do not come back together.
func (s *Server) seconds(wait time.Duration) int {
	whole := int64((wait + time.Second - 1) / time.Second)
	return int(whole + s.chance.upTo(max(whole/4, 1)))
}

// later is a refusal that 1 to 5 s may cure.
func (s *Server) later(reason Reason) *problem {
	return &problem{reason: reason, retry: int(1 + s.chance.upTo(4))}
}

// warned says who was told of lately: each subject once in a minute, of at most so many subjects.
type warned struct {
	mu sync.Mutex
	at map[ticket.Subject]mono.Time

	swept mono.Time // when those of longer ago were forgotten last: a flood does not look at all of them each time
}

const (
	warnEvery = time.Minute
	warnMost  = 4096
)

// first reports whether u was not told of within the last minute, and notes that it is now. When there are too many it is false.
func (w *warned) first(u ticket.Subject, now mono.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, ok := w.at[u]; ok && now.Sub(at) < warnEvery {
		return false
	}
	if len(w.at) >= warnMost && now.Sub(w.swept) >= warnEvery {
		maps.DeleteFunc(w.at, func(_ ticket.Subject, at mono.Time) bool { return now.Sub(at) >= warnEvery })
		w.swept = now
	}
	if len(w.at) >= warnMost {
		return false
	}
	if w.at == nil {
		w.at = map[ticket.Subject]mono.Time{}
	}
	w.at[u] = now
	return true
}

// A throttle lets so many log lines through in each second, and counts the others: a flood of refusals must not become a
// flood of lines.
type throttle struct {
	second  atomic.Int64
	lines   atomic.Int64
	dropped atomic.Uint64
}

const linesPerSecond = 20

// pass reports whether one more line may be written at now, and how many were not since the last that was.
func (t *throttle) pass(now mono.Time) (ok bool, dropped uint64) {
	second := int64(now) / int64(time.Second)
	if old := t.second.Load(); old != second && t.second.CompareAndSwap(old, second) {
		t.lines.Store(0)
	}
	if t.lines.Add(1) > linesPerSecond {
		t.dropped.Add(1)
		return false, 0
	}
	return true, t.dropped.Swap(0)
}
