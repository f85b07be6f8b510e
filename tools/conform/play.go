package conform

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"time"
)

// How long what has to come may take: patience, and more for long messages; 16 MiB have 100 s, as in the suite. It is waited
// out only where something is wrong.
const (
	patience     = 20 * time.Second
	patienceAMiB = 5 * time.Second
)

// patience is how long sending p, and what it wants, may take.
func (p *Part) patience() time.Duration {
	var n int
	for i := range p.Frames {
		n += len(p.Frames[i].Payload)
	}
	return patience + time.Duration(n)*patienceAMiB/mib
}

// arrival is what the reading goroutine of a case tells: one of the three.
type arrival struct {
	event  *Event
	closed *closed
	err    error // the end of the connection, or a Breach; always the last
}

// arrivals are buffered so that the examined is read while the tester writes.
const arrivalsBuffered = 1 << 10

// play is one case under way.
type play struct {
	c     *Case
	s     *Socket
	in    chan arrival
	quit  chan struct{} // closed when nobody looks at in any more
	want  []Event       // so far
	got   []Event
	hung  *closed // the examined's close frame
	end   error   // of the connection; nil: open
	sent  int     // parts
	stuck error   // the tester could not write, or waited in vain
	owed  [][]byte
}

// run plays c on an open socket, closes it and returns what came of it.
func run(c *Case, s *Socket) (res Result) {
	begun := time.Now()
	p := &play{c: c, s: s, in: make(chan arrival, arrivalsBuffered), quit: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.listen()
	}()
	p.script()
	p.finish()
	close(p.quit)
	_ = s.conn.Close() // the case is over; a second Close is harmless
	<-done
	res = p.judge()
	if s.ext != nil {
		s.ext.release()
	}
	res.Took = time.Since(begun)
	return res
}

// listen tells of all that comes until the connection ends.
func (p *play) listen() {
	for {
		ev, c, err := p.s.receive()
		a := arrival{err: err}
		switch {
		case err != nil:
		case c != nil:
			a.closed = c
		default:
			a.event = &ev
		}
		select {
		case p.in <- a:
		case <-p.quit:
			return
		}
		if err != nil {
			return
		}
	}
}

// over reports whether the examined has begun to end the connection, or has ended it.
func (p *play) over() bool { return p.hung != nil || p.end != nil }

// script sends the parts in turn, each after what the one before has to bring.
func (p *play) script() {
	for part := range p.c.Parts {
		p.sent++
		p.want = append(p.want, part.Want...)
		if err := p.write(&part); err != nil {
			if p.c.End == ByTester {
				p.stuck = err
			}
			return // closed on us, for which there may be reasons: the reader knows
		}
		if p.await(len(p.want), part.patience()); part.Quiet > 0 {
			p.watch(part.Quiet)
		}
		if p.over() || p.stuck != nil {
			return
		}
		p.forget()
	}
}

// forget drops what has come as it should, so that a thousand long messages need not be kept.
func (p *play) forget() {
	if same(p.want, p.got) {
		p.want, p.got = p.want[:0], p.got[:0]
	}
}

// write sends a part, and pongs that are owed before it.
func (p *play) write(part *Part) error {
	if err := p.s.conn.SetWriteDeadline(time.Now().Add(part.patience())); err != nil {
		return err
	}
	for _, payload := range p.owed {
		if err := p.s.send(&Part{Frames: []Frame{{Fin: true, Op: opPong, Payload: payload}}}); err != nil {
			return err
		}
	}
	p.owed = nil
	return p.s.send(part)
}

// await returns when n events are here, or the connection is ending.
func (p *play) await(n int, within time.Duration) {
	if len(p.got) >= n || p.over() {
		return
	}
	t := time.NewTimer(within)
	defer t.Stop()
	for len(p.got) < n && !p.over() {
		select {
		case a := <-p.in:
			p.note(a)
		case <-t.C:
			p.stuck = fmt.Errorf("%d of %d events within %v", len(p.got), n, within)
			return
		}
	}
}

// watch looks for so long whether the examined ends the connection.
func (p *play) watch(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for !p.over() {
		select {
		case a := <-p.in:
			p.note(a)
		case <-t.C:
			return
		}
	}
}

// note keeps what has arrived.
func (p *play) note(a arrival) {
	switch {
	case a.err != nil:
		p.end = a.err
	case a.closed != nil:
		p.hung = a.closed
	case a.event.Op == opPing:
		p.owed = append(p.owed, a.event.Data)
	default:
		p.got = append(p.got, *a.event)
	}
}

// finish ends the connection: the tester's close frame if it is its turn, its answer if not, then the end of TCP, which
// is the server's to begin (7.1.1).
func (p *play) finish() {
	if p.stuck != nil {
		return
	}
	if p.c.End == ByTester && !p.over() {
		p.say(closeFrame(codeNormal, ""))
	}
	p.lookFor(func() bool { return p.over() })
	if p.hung != nil && p.c.End == ByExamined {
		p.say(answerTo(p.hung.code))
	}
	if tcp, ok := p.s.conn.(*net.TCPConn); ok && !p.s.client && p.hung != nil {
		_ = tcp.CloseWrite() // it may be closed already
	}
	p.lookFor(func() bool { return p.end != nil })
}

// say sends a frame; if the connection is gone the reader says so.
func (p *play) say(f Frame) {
	if p.s.pieces == nil { // inside a frame there is no place for another
		_ = p.write(&Part{Frames: []Frame{f}})
	}
}

// lookFor takes arrivals until done, or as long as patience lasts.
func (p *play) lookFor(done func() bool) {
	t := time.NewTimer(patience)
	defer t.Stop()
	for !done() && p.end == nil {
		select {
		case a := <-p.in:
			p.note(a)
		case <-t.C:
			return
		}
	}
}

// judge says what came of the case.
func (p *play) judge() Result {
	res := Result{Case: p.c}
	res.Verdict, res.Why = p.behaviour()
	var why string
	if res.Ending, why = p.ending(); why != "" && res.Why != "" {
		res.Why += "; "
	}
	res.Why += why
	if p.c.Open && res.Verdict != Failed {
		res.Verdict = Informational
	}
	return res
}

// behaviour judges all but the end.
func (p *play) behaviour() (Verdict, string) {
	var breach Breach
	switch c := p.c; {
	case errors.As(p.end, &breach):
		return Failed, breach.Error()
	case c.Open:
		return Informational, fmt.Sprintf("%d of %d events came", len(p.got), len(p.want))
	case c.Fast > 0 && p.sent < c.Fast:
		return Failed, "the connection was failed before there was a reason"
	case c.End == ByExamined && !p.over():
		return Failed, fmt.Sprintf("the connection was not failed within %v", patience)
	case !same(p.want, p.got):
		return p.missing()
	case p.stuck != nil:
		return Failed, p.stuck.Error()
	case c.Fast > 0 && p.sent > c.Fast:
		return NonStrict, "the connection was failed only when the whole message was here"
	default:
		return OK, ""
	}
}

// missing judges events that are not those that were wanted.
func (p *play) missing() (Verdict, string) {
	if p.c.Loose && p.over() && len(p.got) < len(p.want) && same(p.want[:len(p.got)], p.got) {
		return NonStrict, fmt.Sprintf("the connection was failed before the echo was back (%d of %d events)", len(p.got), len(p.want))
	}
	return Failed, "got " + describe(p.got) + ", want " + describe(p.want)
}

// ending judges the end of the connection.
func (p *play) ending() (Ending, string) {
	codes := p.c.codes(p.s.ext != nil)
	switch {
	case p.hung == nil && p.end == nil:
		return Unclean, "no close frame and no end of TCP"
	case p.hung == nil:
		return Unclean, fmt.Sprintf("no close frame, then %v", p.end)
	case !slices.Contains(codes, p.hung.code):
		return WrongCode, fmt.Sprintf("closed with %d, want %v", p.hung.code, codes)
	case p.end == nil:
		return Unclean, fmt.Sprintf("TCP still open %v after the close frame", patience)
	case p.end != io.EOF && (p.c.End == ByTester || !errors.Is(p.end, syscall.ECONNRESET)):
		return Unclean, fmt.Sprintf("a close frame, then %v", p.end)
	default:
		return Clean, ""
	}
}

// same compares events.
func same(a, b []Event) bool {
	return slices.EqualFunc(a, b, func(x, y Event) bool { return x.Op == y.Op && bytes.Equal(x.Data, y.Data) })
}

// describe is a list of events in few words.
func describe(all []Event) string {
	if len(all) == 0 {
		return "nothing"
	}
	var b bytes.Buffer
	for i, e := range all {
		if i == 3 {
			fmt.Fprintf(&b, ", and %d more", len(all)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "opcode %d %d bytes %.24q", e.Op, len(e.Data), e.Data)
	}
	return b.String()
}
