package main

import (
	"bytes"
	"errors"
	"fmt"

	"ticketgate/bench"
)

// A cell is one load of a matrix.
type cell struct{ sockets, payload, perWrite int }

func (c cell) String() string {
	return fmt.Sprintf("%d sockets, %d B, %d a write", c.sockets, c.payload, c.perWrite)
}

const (
	// burst is how many messages the larger writes have.
	burst = 16

	// inFlightMax is how many bytes of messages all sockets may have under way: 16 KiB times 16 on 10,000 sockets would be
	// 2.4 GiB in the kernel's buffers, and a measurement of those.
	inFlightMax = 512 << 20

	// oneRead is how much the gateway and the bare programs read at once.
	oneRead = 128 << 10
)

// cells are all combinations for n sockets.
func (o options) cells(n int) (all []cell) {
	for _, payload := range o.sizes {
		for _, perWrite := range []int{1, burst} {
			if c := (cell{n, payload, perWrite}); n*payload*perWrite <= inFlightMax {
				all = append(all, c)
			}
		}
	}
	return all
}

// A server is what a load is for.
type server struct {
	name    string
	process bench.Process
	gateway *gateway      // whose tickets open the sockets; nil: no tickets
	to      *bench.Target // without a gateway
	hello   []byte        // what a socket begins with; nil: nothing
	head    []byte        // the upgrade request without a gateway; nil: the server knows no WebSocket
}

// heads are the upgrade requests of n sockets to s.
func (r *runner) heads(l *bench.Loop, s *server, n int) ([][]byte, error) {
	if s.gateway != nil {
		return r.fetch(l, s.gateway, n)
	}
	all := make([][]byte, n)
	for i := range all {
		all[i] = s.head
	}
	return all, nil
}

// gate is where s's sockets connect.
func (s *server) gate() *bench.Target {
	if s.gateway != nil {
		return s.gateway.gate
	}
	return s.to
}

// open opens n sockets to s on a client of its own.
func (r *runner) open(s *server, n int) (*bench.Echo, error) {
	loop, err := r.loop()
	if err != nil {
		return nil, err
	}
	e := bench.NewEcho(loop, nil, 1, s.gateway == nil && s.head == nil)
	if s.gateway == nil && s.head == nil {
		err = r.dial(e, s.to, n)
	} else {
		var heads [][]byte
		if heads, err = r.heads(loop, s, n); err == nil {
			err = r.keep(loop, s.gate(), heads, e.Socket)
		}
	}
	if err == nil && e.Err == nil && e.Ready() != n {
		err = errors.New("some closed again")
	}
	if err := errors.Join(err, e.Err); err != nil {
		return nil, fmt.Errorf("%s: %d of %d sockets open: %w", s.name, e.Ready(), n, err)
	}
	return e, nil
}

// keep opens a socket with each of heads; what socket returns has it from the 101 on.
func (r *runner) keep(l *bench.Loop, gate *bench.Target, heads [][]byte, socket func() bench.Handler) error {
	a := &bench.Admissions{Loop: l, Gate: gate, Heads: heads, Keep: true, Then: socket}
	a.Start(min(lanes, len(heads)))
	return errors.Join(l.RunUntil(r.ctx, giveUp, a.Idle), a.Err)
}

// dial connects n sockets of e, as many at once as keep.
func (r *runner) dial(e *bench.Echo, to *bench.Target, n int) error {
	for opened := 0; opened < n; {
		for range min(lanes, n-opened) {
			if _, err := e.Loop().Dial(to, e.Socket()); err != nil {
				return err
			}
			opened++
		}
		if err := e.Loop().RunUntil(r.ctx, giveUp, func() bool { return e.Err != nil || e.Ready() == opened }); err != nil {
			return err
		}
	}
	return nil
}

// on makes a load of c out of e's sockets.
func (l *load) on(e *bench.Echo, c cell) {
	e.Say(bytes.Repeat([]byte("m"), c.payload), c.perWrite)
	l.loop, l.start, l.stop, l.idle = e.Loop(), e.Start, e.Stop, e.Idle
	l.done, l.latency, l.failed = func() uint64 { return e.Messages }, &e.Latency, func() error { return e.Err }
}

// A matrix is what every cell gave: loads[i] are those of cells[i], one of each server.
type matrix struct {
	cells []cell
	loads [][]*load
}

// measure runs all cells for all numbers of sockets, in turns. title names the cells in profiles.
func (r *runner) measure(title string, counts []int, servers []*server) (*matrix, error) {
	m := new(matrix)
	for _, n := range counts {
		first := len(m.cells)
		for _, c := range r.cells(n) {
			var loads []*load
			for _, s := range servers {
				loads = append(loads, &load{name: s.name, server: s.process, title: title + " " + c.String()})
			}
			m.cells, m.loads = append(m.cells, c), append(m.loads, loads)
		}
		turns := r.together
		if len(servers)*n > r.files-filesBeside {
			turns = r.apart
		}
		if err := turns(&matrix{m.cells[first:], m.loads[first:]}, n, servers); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// together holds the sockets of both servers open, and takes turns within a cell.
func (r *runner) together(m *matrix, n int, servers []*server) error {
	var echoes []*bench.Echo
	for _, s := range servers {
		e, err := r.open(s, n)
		if err != nil {
			return err
		}
		echoes = append(echoes, e)
	}
	for i, c := range m.cells {
		r.say("%s", m.loads[i][0].title)
		for j, l := range m.loads[i] {
			l.on(echoes[j], c)
		}
		if err := r.compare(r.timed, m.loads[i]...); err != nil {
			return err
		}
	}
	return r.hangUpAll(servers)
}

// apart has descriptors for the sockets of one server only: in each round a server is opened, does all cells, and is closed
// before the next.
func (r *runner) apart(m *matrix, n int, servers []*server) error {
	for round := range r.rounds {
		r.say("%s, and its other cells, round %d", m.loads[0][0].title, round+1)
		for j, s := range servers {
			e, err := r.open(s, n)
			if err != nil {
				return err
			}
			for i, c := range m.cells {
				l := m.loads[i][j]
				l.on(e, c)
				if err := r.timed(l); err != nil {
					return err
				}
				if r.profile != "" && round+1 == r.rounds {
					if err := r.record(l); err != nil {
						return err
					}
				}
			}
			if err := r.hangUpAll(servers); err != nil {
				return err
			}
		}
	}
	return nil
}

// hangUpAll closes the client's sockets and waits until the servers have closed theirs.
func (r *runner) hangUpAll(servers []*server) error {
	err := r.hangUp()
	for _, s := range servers {
		err = errors.Join(err, r.quiet(s.process))
	}
	return err
}

// section shows m, of the gateway and a bare program: the ratios first, then every figure.
func (m *matrix) section(title, about string) *section {
	ours, bare := m.loads[0][0].name, m.loads[0][1].name
	short := &bench.Table{
		Title: title, About: about,
		Head: []string{"sockets", "bytes", "a write", ours + ", CPU µs/message", bare, "CPU ratio", "rate ratio", ours + ": cheaper than one a write", bare + ": the same"},
	}
	full := &bench.Table{Title: title + ", in full", About: "The same rounds.", Head: append([]string{"what"}, head("message")...)}
	worst, beyond, least := m.cells[0], m.cells[0], cheaper{cell: m.cells[0]}
	var worstRatio, beyondRatio bench.Spread // of what one read holds, and of what it does not
	s := &section{tables: []*bench.Table{short, full}}
	for i, c := range m.cells {
		a, b := m.loads[i][0], m.loads[i][1]
		rate, cpu := ratios(a, b)
		s.compared(title+", "+c.String()+": server CPU against "+bare, cpu)
		if inOne := c.payload*c.perWrite <= oneRead; inOne && cpu.Median > worstRatio.Median {
			worst, worstRatio = c, cpu
		} else if !inOne && cpu.Median > beyondRatio.Median {
			beyond, beyondRatio = c, cpu
		}
		gain := m.cheaper(i)
		if gain.ours > 0 && c.payload*burst <= oneRead && (least.ours == 0 || gain.ours < least.ours) {
			least = gain
		}
		short.Rows = append(short.Rows, []string{
			whole(c.sockets), whole(c.payload), fmt.Sprint(c.perWrite),
			bench.Number(a.cpu().Median), bench.Number(b.cpu().Median), cpu.String(), rate.String(), times(gain.ours), times(gain.bare),
		})
		for _, l := range m.loads[i] {
			full.Rows = append(full.Rows, append([]string{c.String()}, l.row()...))
		}
	}
	s.goal(title+": server CPU per message against "+bare, "at most 1.10", fmt.Sprintf("%s at worst (%s)", worstRatio, worst))
	if beyondRatio.Median > 0 {
		s.goal(title+": the same where a write is more than a read", "at most 1.10", fmt.Sprintf("%s at worst (%s)", beyondRatio, beyond))
	}
	if least.ours > 0 {
		s.goal(title+": a message, 16 in one read against one by one", "10 times cheaper", fmt.Sprintf("%s times at least (%s; %s: %s)",
			bench.Number(least.ours), least.cell, bare, bench.Number(least.bare)))
	}
	return s
}

// cheaper is how many times less a message of a burst costs than one that comes alone; 0 if that is not known.
type cheaper struct {
	cell       cell
	ours, bare float64
}

func (m *matrix) cheaper(i int) cheaper {
	c := m.cells[i]
	for j, one := range m.cells {
		if c.perWrite == burst && one == (cell{c.sockets, c.payload, 1}) {
			gain := func(server int) float64 { return m.loads[j][server].cpu().Median / m.loads[i][server].cpu().Median }
			return cheaper{c, gain(0), gain(1)}
		}
	}
	return cheaper{cell: c}
}

func times(v float64) string {
	if v == 0 {
		return ""
	}
	return bench.Number(v) + " times"
}

// leftOut says that some cells do not exist, if so.
func (m *matrix) leftOut(o options) string {
	if len(m.cells) == 2*len(o.sockets)*len(o.sizes) {
		return ""
	}
	return fmt.Sprintf(" Cells with more than %d MiB of messages under way are left out: they would measure the kernel's buffers.", inFlightMax>>20)
}
