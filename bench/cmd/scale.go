package main

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"ticketgate/bench"
	"ticketgate/internal/mono"
	"ticketgate/internal/offheap"
	"ticketgate/limiter"
)

// scaleSizes are how many clients there are; the first is what the others are compared with.
var scaleSizes = []int{1000, 10_000, 100_000, 1_000_000}

func (r *runner) scaleSizes() []int {
	if r.each > 0 {
		return []int{100, r.each}
	}
	return scaleSizes
}

// scaleEach is how many checks a round has at each size.
func (r *runner) scaleEach() int {
	switch {
	case r.each > 0:
		return r.each
	case r.short:
		return 100_000
	default:
		return 1_000_000
	}
}

// redisSizes are those of scaleSizes to which a Redis is filled: the last takes a minute.
func (r *runner) redisSizes() []int {
	if r.short && r.each == 0 {
		return scaleSizes[:3]
	}
	return r.scaleSizes()
}

// A row of the bare array is as long as a bucket, and found by a number that is found first: as few places as a look-up by hash can do with.
type bareRow struct {
	word atomic.Uint64
	_    [3]uint64
}

// A population is n clients in the tables of a gateway, each with a socket.
type population struct {
	n     int
	count *limiter.Count
	held  *limiter.Table // buckets of clients with a socket
	refs  []limiter.Ref
	kept  *limiter.Table // buckets of clients that had one
	at    []uint32       // the bare array: which row is whose
	rows  []bareRow
}

// tableSeed is that of the tables: their keys here are numbers that nobody aims.
const tableSeed = 1

func populate(n int) (*population, error) {
	p := &population{n: n, count: limiter.NewCount(mono.System, time.Hour), held: limiter.NewTable(n, tableSeed, mono.System), kept: limiter.NewTable(n, tableSeed, mono.System), refs: make([]limiter.Ref, n)}
	p.at, p.rows = offheap.Make[uint32](p, n), offheap.Make[bareRow](p, n)
	for i := range n {
		p.count.Add(subject(i))
		var ok, more bool
		var r limiter.Ref
		if p.refs[i], ok = p.held.Hold(uint64(subject(i))); ok {
			r, more = p.kept.Hold(uint64(subject(i)))
		}
		if !ok || !more {
			return nil, fmt.Errorf("%w: no bucket for client %d of %d", errUnmeasured, i, n)
		}
		lasting.TakeShared(p.kept.At(r), mono.System.Now(), 1)
		p.kept.Release(r)
		p.at[i] = uint32(i)
	}
	for i := range p.at { // in no order, as rows that came with the clients are for the next one who asks
		k := int(mix(uint64(i)) % uint64(n))
		p.at[i], p.at[k] = p.at[k], p.at[i]
	}
	return p, nil
}

var (
	endless = limiter.NewMeter(limiter.Rate{N: 100_000_000, Per: time.Second}, 0) // never empty here
	lasting = limiter.NewMeter(limiter.Rate{N: 1, Per: time.Hour}, 1<<20)         // what is taken is not back before the end: the bucket has to be kept
)

// random is the client whose turn is the ith.
func (p *population) random(i int) int { return int(mix(uint64(i)) % uint64(p.n)) }

// The checks, each of one client. What belongs to one says so.
var scaleChecks = []struct {
	name string
	do   func(p *population, i int) bool
}{
	{"a bare array: a number, and the row that it names", func(p *population, i int) bool {
		p.rows[p.at[p.random(i)]].word.Add(1) // a look-up ends before the next begins, as under a lock
		return true
	}},
	{"count: a socket more and one less (Count)", func(p *population, i int) bool {
		s := subject(p.random(i))
		n, _ := p.count.Add(s)
		m, _ := p.count.Done(s)
		return n == m+1
	}},
	{"bucket of a message (Meter, Table)", func(p *population, i int) bool {
		ok, _ := endless.TakeShared(p.held.At(p.refs[p.random(i)]), mono.Time(i), 1)
		return ok
	}},
	{"bucket of a ticket or a new socket: found, taken from, given back (Table)", func(p *population, i int) bool {
		r, ok := p.kept.Hold(uint64(subject(p.random(i))))
		if ok {
			ok, _ = lasting.TakeShared(p.kept.At(r), mono.System.Now(), 1)
			p.kept.Release(r)
		}
		return ok
	}},
}

// scaleChecked are what check compares, by their place in scaleChecks.
var scaleChecked = map[int]string{1: "count check", 2: "bucket check, message", 3: "bucket check, new socket"}

// scaledChecks measures each of scaleChecks at each size, in turns: ns by check, size and round.
func scaledChecks(all []*population, rounds, each int) ([][][]float64, error) {
	took := make([][][]float64, len(scaleChecks))
	for k := range took {
		took[k] = make([][]float64, len(all))
	}
	turn := 0
	for range rounds {
		for k, c := range scaleChecks {
			for n, p := range all {
				bad := 0
				ns, err := perCall(each, func(i int) {
					if !c.do(p, turn+i) {
						bad++
					}
				})
				if err == nil && bad > 0 {
					err = fmt.Errorf("%w: %s: %d of %d failed", errUnmeasured, c.name, bad, each)
				}
				if err != nil {
					return nil, err
				}
				took[k][n] = append(took[k][n], ns)
			}
			turn += each
		}
	}
	return took, nil
}

// scale measures what tickets and clients cost as they become more: checks in the gateway and in Redis, and memory of both.
func scale(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	s := new(section)
	if err := r.footprint(s); err != nil { // first: what others leave behind goes when the collector likes
		return nil, err
	}
	r.say("scale: checks")
	var all []*population
	for _, n := range r.scaleSizes() {
		p, err := populate(n)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	took, err := scaledChecks(all, r.rounds, r.scaleEach())
	runtime.KeepAlive(all)
	if err != nil {
		return nil, err
	}
	s.scaledChecks(r.scaleEach(), r.scaleSizes(), took)
	return s, r.scaledRedis(s)
}

// against compares a with b, round by round.
func against(a, b []float64) bench.Spread {
	var all []float64
	for i := range min(len(a), len(b)) {
		all = append(all, a[i]/b[i])
	}
	return bench.SpreadOf(all)
}

func (s *section) scaledChecks(each int, sizes []int, took [][][]float64) {
	t := &bench.Table{
		Title: "Scale: checks in the gateway",
		About: fmt.Sprintf("Tables of as many clients, each with a socket; each of %s checks a round is about a client that chance picks, so that nothing of it is in the processor's caches but what fits there. Processor time of one call, ns; in brackets, against the same with %s clients. "+
			"All sizes take turns. The bare array is what a look-up of two places costs on this machine whatever is done with it: a number that is found first names a row of %d bytes, to which one is added atomically. What a check says beyond that is its own: more places, a lock, arithmetic.",
			bench.Number(float64(each)), bench.Number(float64(sizes[0])), unsafe.Sizeof(bareRow{})),
		Head: []string{"check"},
	}
	for _, n := range sizes {
		t.Head = append(t.Head, bench.Number(float64(n))+" clients")
	}
	last := len(sizes) - 1
	bare := against(took[0][last], took[0][0])
	for k, c := range scaleChecks {
		row := []string{c.name}
		for n := range sizes {
			cell := bench.Number(bench.SpreadOf(took[k][n]).Median)
			if n > 0 {
				cell += fmt.Sprintf(" (%s times)", bench.Number(against(took[k][n], took[k][0]).Median))
			}
			row = append(row, cell)
		}
		t.Rows = append(t.Rows, row)
		if name, ok := scaleChecked[k]; ok {
			grown := against(took[k][last], took[k][0])
			s.compared(fmt.Sprintf("Scale: %s, %s clients against %s", name, bench.Number(float64(sizes[last])), bench.Number(float64(sizes[0]))), grown)
			s.compared(fmt.Sprintf("Scale: %s, %s clients, against a bare array", name, bench.Number(float64(sizes[last]))), against(took[k][last], took[0][last]))
			s.goal(fmt.Sprintf("Scale: %s, %s clients against %s", name, bench.Number(float64(sizes[last])), bench.Number(float64(sizes[0]))), "flat, but for the caches",
				fmt.Sprintf("%s times; a bare array %s times", grown, bare))
		}
	}
	s.tables = append(s.tables, t)
}
