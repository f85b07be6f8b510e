package load

import (
	"fmt"
	"testing"
	"time"

	"ticketgate/bench"
)

// An answer is compared and its latency counted without an allocation: a client that collects garbage meanwhile measures that.
func BenchmarkAnswers(b *testing.B) {
	for _, n := range []int{1, 16} {
		b.Run(fmt.Sprintf("%d_a_read", n), func(b *testing.B) {
			b.ReportAllocs()
			l, err := bench.NewLoop(bench.Options{Now: func() time.Duration { return time.Millisecond }})
			if err != nil {
				b.Fatal(err)
			}
			w := &worker{job: Job{Size: 32, InFlight: n}, loop: l, hists: make(hists)}
			e := newEcho(w)
			s := &echoSocket{e: e}
			s.Opened(nil)
			var read []byte
			for i := range n {
				s.label.next = uint32(i)
				e.expect(&s.label)
				read = append(read, e.want...)
			}
			for b.Loop() {
				s.label.next = 0
				for range n {
					s.due = append(s.due, 0)
				}
				if used := s.Data(nil, read); used != len(read) || len(s.due) > 0 {
					b.Fatalf("%d of %d bytes, %d answers are missing", used, len(read), len(s.due))
				}
			}
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
