package main

import (
	"errors"
	"fmt"
	"time"

	"ticketgate/bench"
)

// idlePoints are the numbers of sockets at which memory is read.
func idlePoints(short bool) [2]int {
	if short {
		return [2]int{1000, 3000}
	}
	return [2]int{5000, 15000}
}

const (
	settleStep  = 200 * time.Millisecond
	settleSteps = 25       // 5 s at most
	settled     = 16 << 10 // bytes of change in three steps that count as none
)

// An idleRound is memory per socket, in bytes.
type idleRound struct {
	total, slope, anonymous float64
	kernel                  float64 // of slabs, both ends of a connection together
}

// idle measures what an open socket without traffic costs.
func idle(r *runner) (*bench.Table, error) {
	at := idlePoints(r.short)
	t := &bench.Table{
		Title: "Idle sockets",
		About: fmt.Sprintf("Resident memory of the server (VmRSS), which has opened and closed 200 sockets before, then holds %d and %d open ones, read when it no longer changes; GOGC at its default, "+
			"no forced collection. A new server each round. Bytes per socket; the slope is the growth between the two points, without what the first socket pays for all.", at[0], at[1]),
		Head: []string{"server", fmt.Sprintf("0 to %d", at[1]), fmt.Sprintf("slope %d to %d", at[0], at[1]), "of the total anonymous", "kernel slabs, both ends"},
	}
	rounds := min(r.rounds, 3)
	for _, server := range []struct {
		name  string
		start func(*runner, *bench.Loop) (bench.Process, *bench.Admissions, error)
	}{{"ticketgate", idleGateway}, {"epollaccept", idleBare}} {
		var all []idleRound
		for range rounds {
			r.say("idle: %s", server.name)
			one, err := r.idleRound(at, server.start)
			if err != nil {
				return nil, err
			}
			all = append(all, one)
		}
		t.Rows = append(t.Rows, idleRow(server.name, all))
	}
	if _, err := bench.Slab(); err != nil {
		t.Lines = append(t.Lines, fmt.Sprintf("Kernel memory could not be read: %v.", err))
	} else {
		t.Lines = append(t.Lines, "Kernel slabs are those of the whole machine (/proc/slabinfo) and hold the client's end too, which is about half; buffers with data in them are not slabs.")
	}
	return t, nil
}

func idleRow(name string, all []idleRound) []string {
	over := func(f func(idleRound) float64) string {
		var v []float64
		for _, one := range all {
			v = append(v, f(one))
		}
		return bench.SpreadOf(v).String()
	}
	return []string{
		name,
		over(func(i idleRound) float64 { return i.total }),
		over(func(i idleRound) float64 { return i.slope }),
		over(func(i idleRound) float64 { return i.anonymous }),
		over(func(i idleRound) float64 { return i.kernel }),
	}
}

func idleGateway(r *runner, l *bench.Loop) (bench.Process, *bench.Admissions, error) {
	g, err := r.gatewayWith(memoryStore)
	if err != nil {
		return bench.Process{}, nil, err
	}
	return g.Process, &bench.Admissions{Loop: l, API: g.api, Gate: g.gate, Host: g.host, Mint: g.mint}, nil
}

func idleBare(r *runner, l *bench.Loop) (bench.Process, *bench.Admissions, error) {
	c, to, err := r.peer("epollaccept")
	if err != nil {
		return bench.Process{}, nil, err
	}
	head := bench.AppendUpgrade(nil, "127.0.0.1", []byte("/t/bare"), []byte("tgs_bare"))
	heads := make([][]byte, idlePoints(r.short)[1]+idleWarm)
	for i := range heads {
		heads[i] = head
	}
	return c.Process, &bench.Admissions{Loop: l, Gate: to, Heads: heads}, nil
}

const idleWarm = 200 // sockets opened and closed before

func (r *runner) idleRound(at [2]int, start func(*runner, *bench.Loop) (bench.Process, *bench.Admissions, error)) (_ idleRound, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	l, err := r.loop()
	if err != nil {
		return idleRound{}, err
	}
	server, a, err := start(r, l)
	if err != nil {
		return idleRound{}, err
	}
	if _, _, err := r.hold(server, a, idleWarm); err != nil {
		return idleRound{}, err
	}
	a.Keep = true
	var mem [3]bench.Memory
	var slab [3]int64
	for i, n := range []int{0, at[0], at[1]} {
		if mem[i], slab[i], err = r.hold(server, a, n+idleWarm); err != nil {
			return idleRound{}, err
		}
	}
	n := float64(at[1])
	return idleRound{
		total:     float64(mem[2].Resident-mem[0].Resident) / n,
		slope:     float64(mem[2].Resident-mem[1].Resident) / float64(at[1]-at[0]),
		anonymous: float64(mem[2].Anonymous-mem[0].Anonymous) / n,
		kernel:    float64(slab[2]-slab[0]) / n,
	}, nil
}

// hold brings a to n admissions and reads the server's memory when it is quiet, and the machine's slabs, 0 if unreadable.
func (r *runner) hold(server bench.Process, a *bench.Admissions, n int) (bench.Memory, int64, error) {
	a.Max = n
	a.Start(lanes)
	err := a.Loop.RunUntil(r.ctx, giveUp, a.Idle)
	if err := errors.Join(err, a.Err); err != nil {
		return bench.Memory{}, 0, fmt.Errorf("%d of %d sockets: %w", a.Done, n, err)
	}
	m, err := r.settle(server, a.Loop)
	if err == nil && a.Lost > 0 {
		err = fmt.Errorf("%d of %d sockets did not stay open", a.Lost, n)
	}
	slab, unreadable := bench.Slab()
	if unreadable != nil {
		slab = 0 // idle says so
	}
	return m, slab, err
}

// settle waits until three readings in a row agree.
func (r *runner) settle(server bench.Process, l *bench.Loop) (bench.Memory, error) {
	var last bench.Memory
	for same, step := 0, 0; same < 3 && step < settleSteps; step++ {
		if err := l.RunFor(r.ctx, settleStep); err != nil {
			return last, err
		}
		m, err := server.Memory()
		if err != nil {
			return last, err
		}
		same++
		if d := m.Resident - last.Resident; d > settled || d < -settled {
			same = 0
		}
		last = m
	}
	return last, nil
}
