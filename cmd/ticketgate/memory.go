package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"os"
	"runtime/debug"
	"time"

	"ticketgate/internal/config"
	"ticketgate/internal/mono"
	"ticketgate/internal/pressure"
	"ticketgate/limiter"
)

// headsMax is how many unfinished request heads a loop may have.
const headsMax = 16 << 10

// buildMemory makes what watches over the memory. The engine it cuts is there before the watch is stepped.
func (g *gateway) buildMemory() {
	limit := int64(config.MemoryLimit(g.c.Memory.Limit, os.DirFS("/")))
	o := pressure.Options{
		RefuseAt: g.c.Memory.RefuseAt, CutAt: g.c.Memory.CutAt, Clock: mono.System,
		Read: pressure.NewMemory(os.DirFS("/"), limit, os.Getpagesize()).Read,
		Free: debug.FreeOSMemory, Heap: pressure.Heap, Need: pressure.Need,
		Cut:  func(ctx context.Context, bytes int64) int64 { return g.engine.Cut(ctx, bytes) },
		Room: func(bytes int64) { g.engine.Room(bytes) },
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		o.Soft = func(bytes int64) { debug.SetMemoryLimit(bytes) }
	}
	g.memory = pressure.New(o)
}

// watchMemory steps the watch until ctx ends.
func (g *gateway) watchMemory(ctx context.Context) {
	t := time.NewTicker(pressure.Every)
	defer t.Stop()
	was, fails := pressure.Calm, uint64(0)
	for {
		if is := g.memory.Step(ctx); is != was {
			var s pressure.Stats
			g.memory.Stats(&s)
			g.log.Warn("memory", "state", is.String(), "before", was.String(), "used", s.Used, "limit", s.Limit, "cut", s.Cut)
			was = is
		}
		var s pressure.Stats
		if g.memory.Stats(&s); s.Fails > 0 && fails == 0 {
			g.log.Error("memory cannot be read, and is not watched until it can", "file", "/proc/self/statm")
		}
		fails = s.Fails
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// addresses are the limits of what nobody knows yet. There are seats for four times as many addresses as may have an
// unfinished head.
func addresses(p *config.PerAddress, loops int) (*limiter.Addresses, error) {
	var seed [16]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return nil, err
	}
	return limiter.NewAddresses(limiter.AddressOptions{Rate: p.Rate, Burst: uint64(p.Burst), Unauthenticated: p.Unauthenticated, Exempt: p.Exempt},
		4*headsMax*loops, [2]uint64{binary.LittleEndian.Uint64(seed[:]), binary.LittleEndian.Uint64(seed[8:])}), nil
}
