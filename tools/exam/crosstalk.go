package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ticketgate/engine/frame"
)

func init() {
	tests[7] = test{"no cross-talk: every byte on the right socket, in order, once, beside clients that come and break off", crossTalk}
	roles["talker"] = talkBack
}

// Two ends of a relay talk to each other without listening: what either says next is a function of the socket's number, the
// direction and the number of the message, so the other knows every byte that must come.

const (
	talkSockets = 5000
	talkTime    = 10 * time.Minute
	talkRate    = 1250 // messages a second, over all sockets and each way
	talkChurn   = 200  // sockets that come, and break off in the middle of a message, a second
	talkEnds    = 30 * time.Second
	talkMost    = 64 << 10 // bytes of a message: the limit
	talkPieces  = 8        // frames of a message at most, and writes of about as many
	passers     = 1 << 32  // from this number on sockets are of those who break off
)

// side is a direction: who says it.
type side uint64

const (
	fromClient side = iota
	fromBackend
)

// script is what all sockets say.
type script struct {
	seed  uint64
	table []byte // letters and figures, of which messages are parts
}

func newScript(seed uint64) *script {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	s := &script{seed: seed, table: make([]byte, 2*talkMost)}
	rnd := rand.New(rand.NewPCG(seed, 7))
	for i := range s.table {
		s.table[i] = letters[rnd.IntN(len(letters))]
	}
	return s
}

// headSize is the length of "socket, message, checksum" in hexadecimal. Shorter messages do without, except for the first.
const headSize = 16 + 16 + 8

// line is message n of a socket, counted from 0, appended to b.
func (s *script) line(b []byte, socket uint64, by side, n uint64) (frame.Op, []byte) {
	rnd := rand.New(rand.NewPCG(s.seed^socket, uint64(by)<<63|n))
	op := frame.Text
	if rnd.IntN(2) == 0 {
		op = frame.Binary
	}
	size := rnd.IntN(1 + []int{125, 4 << 10, 16 << 10, talkMost}[rnd.IntN(4)])
	if rnd.IntN(50) == 0 {
		size = rnd.IntN(2) * talkMost
	}
	if n == 0 {
		size = max(size, headSize)
	}
	from := rnd.IntN(talkMost)
	if size < headSize {
		return op, append(b, s.table[from:from+size]...)
	}
	rest := s.table[from : from+size-headSize]
	b = fmt.Appendf(b, "%016x%016x%08x", socket, n, crc32.Checksum(rest, castagnoli))
	return op, append(b, rest...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// wrongs count what must not happen, on one or both sides.
type wrongs struct {
	Foreign, Repeated, Lost, Reordered, Altered, Half int64
	Samples                                           []string
	Messages, Bytes, Sockets, Broken                  int64 // what did happen; Broken: sockets that broke off
}

const samplesMax = 10

func (w *wrongs) add(v *wrongs) {
	w.Foreign += v.Foreign
	w.Repeated += v.Repeated
	w.Lost += v.Lost
	w.Reordered += v.Reordered
	w.Altered += v.Altered
	w.Half += v.Half
	w.Samples = append(w.Samples, v.Samples...)
}

// ledger collects wrongs of many goroutines.
type ledger struct {
	mu sync.Mutex
	wrongs
}

func (l *ledger) count(f func(w *wrongs), sample string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.wrongs)
	if sample != "" && len(l.Samples) < samplesMax {
		l.Samples = append(l.Samples, sample)
	}
}

// judge compares what came with what had to come as message n.
func (l *ledger) judge(s *script, socket uint64, by side, n uint64, op frame.Op, got []byte) {
	l.count(func(w *wrongs) { w.Messages++; w.Bytes += int64(len(got)) }, "")
	wantOp, want := s.line(nil, socket, by, n)
	if op == wantOp && string(got) == string(want) {
		return
	}
	sample := fmt.Sprintf("socket %x, side %d, message %d of %d bytes: got opcode %d, %d bytes, %.48q", socket, by, n, len(want), op, len(got), got)
	whose, which, ok := headOf(got)
	l.count(func(w *wrongs) {
		switch {
		case len(got) < len(want) && strings.HasPrefix(string(want), string(got)):
			w.Half++
		case ok && whose != socket:
			w.Foreign++
		case ok && which < n:
			w.Repeated++
		case ok && which == n+1:
			w.Lost++
		case ok && which > n:
			w.Reordered++
		default:
			w.Altered++
		}
	}, sample)
}

// headOf reads whose and which message b is, if its checksum is right.
func headOf(b []byte) (socket, n uint64, ok bool) {
	if len(b) < headSize {
		return 0, 0, false
	}
	var sum uint32
	if _, err := fmt.Sscanf(string(b[:headSize]), "%16x%16x%8x", &socket, &n, &sum); err != nil {
		return 0, 0, false
	}
	return socket, n, sum == crc32.Checksum(b[headSize:], castagnoli)
}

// A mouth says the lines of one side of a socket, cut in random ways.
type mouth struct {
	*socket
	script *script
	number uint64
	by     side
	rnd    *rand.Rand

	mu   sync.Mutex // a message, or a pong, is under way
	said uint64
	wire []byte
	text []byte
}

func newMouth(s *socket, script *script, number uint64, by side) *mouth {
	return &mouth{socket: s, script: script, number: number, by: by, rnd: rand.New(rand.NewPCG(script.seed^number, 1+uint64(by)))}
}

// say sends the next line.
func (m *mouth) say() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var op frame.Op
	op, m.text = m.script.line(m.text[:0], m.number, m.by, m.said)
	m.wire = m.frames(m.wire[:0], op, m.text)
	m.said++
	return m.cut(m.wire)
}

// last is what a side says when it has said n lines; no line begins so.
const last = "END "

// end says that all is said.
func (m *mouth) end() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wire = m.frames(m.wire[:0], frame.Text, fmt.Appendf(nil, "%s%016x %d", last, m.number, m.said))
	return m.cut(m.wire)
}

// breakOff sends a part of the next line and ends the connection, by RST or by FIN.
func (m *mouth) breakOff() {
	m.mu.Lock()
	defer m.mu.Unlock()
	op, text := m.script.line(nil, m.number, m.by, m.said)
	wire := m.frames(nil, op, text)
	_ = m.cut(wire[:m.rnd.IntN(len(wire))]) // the connection ends either way
	if t, ok := m.Conn.(*net.TCPConn); ok && m.rnd.IntN(4) > 0 {
		_ = t.SetLinger(0)
	}
	_ = m.Close()
}

// pong answers a ping between messages.
func (m *mouth) pong(payload []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.Write(m.frame(nil, frame.Header{Fin: true, Op: frame.Pong}, payload))
	return err
}

func (m *mouth) frame(b []byte, h frame.Header, payload []byte) []byte {
	if m.by == fromClient {
		return appendMasked(b, h, payload)
	}
	h.Len = int64(len(payload))
	return append(frame.Append(b, h), payload...)
}

// frames cuts a message into fragments, some of them empty, with now and then a ping between.
func (m *mouth) frames(b []byte, op frame.Op, text []byte) []byte {
	n := 1
	if m.rnd.IntN(2) == 0 {
		n += m.rnd.IntN(talkPieces)
	}
	for n--; n > 0; n-- {
		k := m.rnd.IntN(len(text) + 1)
		b = m.frame(b, frame.Header{Op: op}, text[:k])
		op, text = frame.Continuation, text[k:]
		if m.rnd.IntN(20) == 0 {
			b = m.frame(b, frame.Header{Fin: true, Op: frame.Ping}, []byte("between"))
		}
	}
	return m.frame(b, frame.Header{Fin: true, Op: op}, text)
}

// cut writes b whole, in a few pieces, or with a run of single bytes at its beginning.
func (m *mouth) cut(b []byte) error {
	switch m.rnd.IntN(10) {
	case 0:
		for range min(len(b), 1+m.rnd.IntN(20)) {
			if _, err := m.Write(b[:1]); err != nil {
				return err
			}
			b = b[1:]
		}
	case 1, 2, 3, 4:
		for range m.rnd.IntN(talkPieces) {
			k := m.rnd.IntN(len(b) + 1)
			if _, err := m.Write(b[:k]); err != nil {
				return err
			}
			b = b[k:]
		}
	}
	_, err := m.Write(b)
	return err
}

// keepOn says a line at random moments, every on the average, until ctx ends.
func (m *mouth) keepOn(ctx context.Context, every time.Duration) error {
	for rest(ctx, time.Duration(m.rnd.Int64N(2*int64(every)+1))) == nil {
		if err := m.say(); err != nil {
			return err
		}
	}
	return nil
}

// An ear hears the other side of a mouth's socket.
type ear struct {
	*mouth
	ledger *ledger
	heard  uint64
}

// hear reads until the other side has said all, or the socket ends: then err says how.
func (e *ear) hear(other side) error {
	var op frame.Op
	var text []byte
	for {
		f, err := e.read()
		switch {
		case err != nil:
			return err
		case f.op == frame.Close:
			return fmt.Errorf("closed with %d", f.code())
		case f.op == frame.Ping:
			if err := e.pong(f.payload); err != nil {
				return err
			}
			continue
		case f.op.Control():
			continue
		case f.op != frame.Continuation:
			op, text = f.op, text[:0]
		}
		text = append(text, f.payload...)
		if !f.fin {
			continue
		}
		if rest, ok := strings.CutPrefix(string(text), last); ok {
			e.allSaid(rest)
			return nil
		}
		e.ledger.judge(e.script, e.number, other, e.heard, op, text)
		e.heard++
	}
}

// allSaid compares the other side's count with ours.
func (e *ear) allSaid(text string) {
	var whose, n uint64
	if _, err := fmt.Sscanf(text, "%16x %d", &whose, &n); err != nil || whose != e.number || n != e.heard {
		e.ledger.count(func(w *wrongs) { w.Lost++ }, fmt.Sprintf("socket %x: %d messages came, the other side says %q", e.number, e.heard, text))
	}
}

// crossTalk is the client's end.
func crossTalk(ctx context.Context, x *exam) error {
	n := x.n(talkSockets, 50)
	every := time.Duration(n) * time.Second / time.Duration(x.n(talkRate, 200))
	backend, err := startRole("talker", nil, strconv.FormatUint(x.seed, 10), every.String())
	if err != nil {
		return err
	}
	defer func() { _ = backend.Kill() }() // it has ended, unless something has failed
	var address string
	if err := hearing(ctx, backend, "%s", &address); err != nil {
		return err
	}
	c, err := start(ctx, x, clusterOptions{memory: true, backend: "ws://" + address + "/"})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	sockets, err := c.openMany(ctx, n, "relay")
	defer closeAll(sockets)
	if err != nil {
		return err
	}
	got := new(ledger)
	t := &conversation{cluster: c, script: newScript(x.seed), every: every, got: got}
	lost := t.hold(ctx, x, sockets)
	told, err := backend.Stop()
	if err != nil || len(told) != 1 {
		return errors.Join(err, fmt.Errorf("the backend tells %q", told))
	}
	theirs := new(wrongs)
	if err := json.Unmarshal([]byte(told[0]), theirs); err != nil {
		return err
	}
	x.figure("%d sockets that stayed: to clients %d messages, %.1f MiB; to the backend %d messages, %.1f MiB (with those of passers-by)", n,
		got.Messages, float64(got.Bytes)/(1<<20), theirs.Messages, float64(theirs.Bytes)/(1<<20))
	x.figure("passers-by: %d came, %d were not let in, the backend saw %d sockets, of which %d broke off", t.came.Load(), t.refused.Load(), theirs.Sockets, theirs.Broken)
	x.want(lost == 0, "%d sockets that should have stayed were lost", lost)
	x.want(t.refused.Load() == 0, "%d passers-by were not let in", t.refused.Load())
	x.want(theirs.Sockets >= int64(n) && theirs.Broken > 0 && got.Messages > 0, "the backend saw too little: nothing is shown")
	got.add(theirs)
	x.figure("foreign %d, repeated %d, lost %d, reordered %d, altered %d, half messages as whole %d", got.Foreign, got.Repeated, got.Lost, got.Reordered,
		got.Altered, got.Half)
	x.want(got.Foreign+got.Repeated+got.Lost+got.Reordered+got.Altered+got.Half == 0, "bytes that should not have come, or did not")
	for _, s := range append(t.notes, got.Samples...) {
		x.want(false, "%s", s)
	}
	return nil
}

// conversation is what the client's end shares.
type conversation struct {
	*cluster
	script        *script
	every         time.Duration
	got           *ledger
	came, refused atomic.Int64

	mu    sync.Mutex
	notes []string // of sockets lost and refused, at most samplesMax
}

func (t *conversation) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.notes) < samplesMax {
		t.notes = append(t.notes, fmt.Sprintf(format, args...))
	}
}

// hold talks on all sockets for the time of the exam, beside passers-by, and returns how many sockets were lost.
func (t *conversation) hold(ctx context.Context, x *exam, sockets []*socket) int64 {
	var lost atomic.Int64
	var done sync.WaitGroup
	talking, stop := context.WithTimeout(ctx, x.lasting(talkTime))
	defer stop()
	for i, s := range sockets {
		done.Go(func() {
			if err := t.stay(talking, s, uint64(i)); err != nil {
				lost.Add(1)
				t.note("socket %x: %v", i, err)
			}
		})
	}
	due(talking, 0, time.Second/time.Duration(x.n(talkChurn, 20)), func(i int, _ time.Time) bool {
		done.Go(func() { t.pass(ctx, passers+uint64(i)) })
		return true
	})
	done.Wait()
	return lost.Load()
}

// stay talks on s until ctx ends and then hears the other side out.
func (t *conversation) stay(ctx context.Context, s *socket, number uint64) error {
	m := newMouth(s, t.script, number, fromClient)
	e := &ear{mouth: m, ledger: t.got}
	heard := make(chan error, 1)
	go func() {
		err := e.hear(fromBackend)
		if err != nil {
			_ = s.Close() // nobody reads any more: who writes must not wait for that
		}
		heard <- err
	}()
	_ = rest(ctx, time.Duration(m.rnd.Int64N(int64(t.every)+1))) // not all at once
	err := m.say()                                               // the first line says who it is
	if err == nil {
		err = m.keepOn(ctx, t.every)
	}
	if err == nil {
		err = m.end()
	}
	_ = s.SetReadDeadline(time.Now().Add(talkEnds)) // should that fail, so does the reading
	return errors.Join(err, <-heard)
}

// pass opens a socket, says some lines, and breaks off. The other side may break off first.
func (t *conversation) pass(ctx context.Context, number uint64) {
	s, err := t.open(ctx, 0, request{Stream: "relay", Client: "passer" + strconv.FormatUint(number, 10)})
	t.came.Add(1)
	if err != nil {
		t.refused.Add(1)
		t.note("passer-by %x: %v", number, err)
		return
	}
	_ = s.SetDeadline(time.Now().Add(talkEnds)) // should that fail, so does what follows
	m := newMouth(s, t.script, number, fromClient)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		e := &ear{mouth: m, ledger: t.got}
		_ = e.hear(fromBackend) // how it ends is not the point; what comes before is
	}()
	for range 1 + m.rnd.IntN(3) {
		if m.say() != nil || rest(ctx, time.Duration(m.rnd.IntN(500))*time.Millisecond) != nil {
			break
		}
	}
	m.breakOff()
	<-heard
}

// talkBack is the backend's end, a process of its own. It says its address, and at its end what it has counted.
func talkBack(args []string, hear func() (string, bool), say func(string, ...any)) error {
	if len(args) != 2 {
		return errors.New("want: seed, interval")
	}
	seed, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	every, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	say("%s", ln.Addr())
	b := &talkingBackend{script: newScript(seed), every: every}
	go func() { // ends with the process
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.conns.Go(func() { b.serve(c) })
		}
	}()
	for more := true; more; {
		_, more = hear()
	}
	if err := ln.Close(); err != nil {
		return err
	}
	b.got.mu.Lock() // who is still being served counts no more
	defer b.got.mu.Unlock()
	text, err := json.Marshal(&b.got.wrongs)
	say("%s", text)
	return err
}

type talkingBackend struct {
	script *script
	every  time.Duration
	got    ledger
	conns  sync.WaitGroup
}

// serve talks to one client, whom its first line names. Of those who only pass by, some are left in the middle of a message.
func (b *talkingBackend) serve(c net.Conn) {
	defer c.Close()
	s, err := acceptRaw(c)
	if err != nil {
		return
	}
	number, err := b.first(s)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			b.got.count(func(w *wrongs) { w.Broken++ }, "")
		}
		return
	}
	b.got.count(func(w *wrongs) { w.Sockets++ }, "")
	m := newMouth(s, b.script, number, fromBackend)
	ctx, stop := context.WithCancel(context.Background())
	var talks sync.WaitGroup
	talks.Go(func() {
		if number >= passers && m.rnd.IntN(4) == 0 {
			if m.say() == nil {
				m.breakOff()
			}
			return
		}
		_ = m.keepOn(ctx, b.every) // if the client has left, its ear knows
	})
	e := &ear{mouth: m, ledger: &b.got, heard: 1}
	err = e.hear(fromClient)
	stop()
	if err != nil {
		b.got.count(func(w *wrongs) { w.Broken++ }, "")
		_ = c.Close() // its mouth may be waiting for a client that does not listen
	}
	talks.Wait()
	if err == nil {
		_ = m.end() // should that fail, the client misses it
	}
}

// first reads the first line, which says whose socket it is.
func (b *talkingBackend) first(s *socket) (number uint64, err error) {
	var text []byte
	var op frame.Op
	for {
		f, err := s.read()
		switch {
		case err != nil:
			return 0, err
		case f.op == frame.Close:
			return 0, fmt.Errorf("closed with %d", f.code())
		case f.op.Control():
			continue
		case f.op != frame.Continuation:
			op = f.op
		}
		text = append(text, f.payload...)
		if f.fin {
			break
		}
	}
	number, _, ok := headOf(text)
	if !ok {
		b.got.count(func(w *wrongs) { w.Altered++ }, fmt.Sprintf("first line without a head: %.48q", text))
		return 0, http.ErrNotSupported
	}
	b.got.judge(b.script, number, fromClient, 0, op, text)
	return number, nil
}
