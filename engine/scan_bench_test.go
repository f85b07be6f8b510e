package engine_test

import (
	"testing"

	"ticketgate/engine"
)

// BenchmarkScan looks at 4,000 sockets, by a name that none has.
func BenchmarkScan(b *testing.B) {
	const sockets = 4_000
	r := newRig(b, nil, quiet)
	r.mixed(sockets)
	for name, sel := range map[string]engine.Selector{"stream": {Stream: "chat"}, "client": {Client: "nobody"}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				r.engine.Count(sel, func(int) {})
				r.mem.Run()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/sockets, "ns/socket")
		})
	}
}
