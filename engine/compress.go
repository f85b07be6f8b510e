package engine

import (
	"bytes"
	"sync"

	"ticketgate/engine/deflate"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
)

// Compressed messages (permessage-deflate), in the order of this file:
//
//	negotiate  offers in the head > the answer in the 101; a window of the session says the rest
//	inflate    a compressed message, in whatever parts it comes > the message itself, whole > limits > Stream.Receive
//	deflated   a whole message to one client, if that pays
//	Message    a message to many: compressed once for all of them
//
// Limits, counters and the bound on a message see what is inflated, and what is not compressed yet. What waits for a slow client
// is counted as it is queued.

// A compressor is what a loop needs for compressed messages: about 1 MiB, 3 MiB if clients ask for small windows.
type compressor struct {
	deflater deflate.Deflater
	packed   []byte // a frame being compressed: at most deflate.Max, and its header

	whole    inflating // of a message that is here at once
	inflated []byte    // and that message; spareMax bytes at most are kept

	round   uint64 // the loop's,
	inRound int    // and how many bytes it has inflated in it, with what else inflating has cost

	begun map[uint32]*inflating // by hold: of messages that are not; sockets without one have none
	spare []*inflating          // inflatersKept at most
}

// inflatersKept is how many a loop keeps for the next messages in parts: 400 KiB of them.
const inflatersKept = 64

// An inflating is a compressed message under way. It counts deflate.Size among the bytes that are held for all.
type inflating struct {
	z    deflate.Inflater
	text frame.UTF8
}

// count notes that n bytes were inflated in a round.
func (f *compressor) count(round uint64, n int) {
	if f.round != round {
		f.round, f.inRound = round, 0
	}
	f.inRound += n
}

func newCompressor() *compressor { return &compressor{begun: map[uint32]*inflating{}} }

// offered reads the client's offers in w.req. false: they are malformed, which ends the handshake (RFC 6455 section 9.1). With
// compression off they are not looked at.
func (w *worker) offered() (a deflate.Answer, ok bool) {
	if w.flate == nil {
		return a, true
	}
	for line := range w.req.Extensions {
		if a.Offer(line) != nil {
			return a, false
		}
	}
	return a, true
}

// agree notes what was agreed on with the client.
func (w *worker) agree(s *session, window deflate.Window) {
	s.flags |= flags(window) << windowShift
	if window == deflate.Window15 {
		w.e.compressing.Add(1)
	}
}

// disagree is the end of s.
func (w *worker) disagree(s *session) {
	if s.window() == deflate.Window15 {
		w.e.compressing.Add(-1)
	}
}

func (s *session) window() deflate.Window { return deflate.Window(s.flags >> windowShift) }

// rules are those for frames of s.
func (e *StreamEntry) rules(s *session) *frame.Rules {
	if s.window() != deflate.NoWindow {
		return e.compressed
	}
	return e.Rules
}

// inflate takes a part of a compressed message, and passes the message on when it is whole. The socket is closed with the part
// that breaks the stream, is no UTF-8 or is too much, whatever is still to come.
func (w *worker) inflate(id reactor.ID, s *session, ev *frame.Event) {
	s.last = tickOf(w.l.Now())
	var m *message
	var b []byte
	var code frame.Code
	if ev.First && ev.Last {
		b, code = w.inflateWhole(ev)
	} else {
		m = w.message(s)
		b, code = w.inflatePart(m, ev)
	}
	switch {
	case code != 0:
		w.end(id, s, code, "", ByGateway)
		return
	case !ev.Last:
		return
	}
	*ev = frame.Event{Kind: frame.KindData, Op: ev.Op, First: true, Last: true, Head: true, Tail: true, Fin: true,
		FrameLen: int64(len(b)), Payload: b}
	if w.allowWhole(id, s, w.turn.plan, ev) {
		w.turn.entry.Stream.Receive(Conn{w, id}, ev)
	}
	if m != nil {
		w.dropHold(m)
	}
}

// inflateWhole inflates a message that is here at once. b is good until the next.
func (w *worker) inflateWhole(ev *frame.Event) (b []byte, code frame.Code) {
	f := w.flate
	f.whole.reset()
	b, code = w.add(&f.whole, f.inflated[:0], ev)
	f.inflated = b
	if cap(b) > spareMax {
		f.inflated = nil
	}
	return b, code
}

// inflatePart inflates a part of m; b is m so far.
func (w *worker) inflatePart(m *message, ev *frame.Event) (b []byte, code frame.Code) {
	had := int64(0)
	if m.hold != 0 {
		had = w.holds.charge(m.hold)
	} else {
		m.hold = w.holds.begin()
		w.holds.room(m.hold, smallHold+1) // how long it gets, nobody knows
		w.flate.begin(m.hold)
		w.e.held.Add(int64(deflate.Size))
	}
	held := &w.holds.all[m.hold-1]
	*held, code = w.add(w.flate.begun[m.hold], *held, ev)
	w.e.held.Add(w.holds.charge(m.hold) - had)
	return *held, code
}

// add appends to b, the message so far, what ev brings. code is what the socket must be closed with, 0 for nothing.
func (w *worker) add(i *inflating, b []byte, ev *frame.Event) (_ []byte, code frame.Code) {
	most := w.turn.entry.Rules.MaxMessage
	left := int64(len(b)) + max(0, w.e.holdMax.Load()-w.e.held.Load()) // of what may be held for all
	had, worked := len(b), i.z.Work()
	b, err := i.z.Inflate(b, ev.Payload, deflate.Limits{Bytes: int(min(most, left)), Ratio: w.e.o.InflateRatio})
	cost := len(b) - had + i.z.Work() - worked
	w.turn.inflated += cost
	w.flate.count(w.l.Round(), cost)
	switch {
	case ev.Op == frame.Text && !i.text.Add(b[had:]): // first, since these bytes come before what err is about
		return b, frame.CloseInvalid
	case err == deflate.ErrTooBig && left < most:
		return b, frame.CloseOverloaded
	case err == deflate.ErrTooBig:
		return b, frame.CloseTooBig
	case err != nil, ev.Last && (i.z.End() != nil || !i.text.Whole()):
		return b, frame.CloseInvalid
	}
	return b, 0
}

// Inflating makes work out of few bytes, so those who send much of it wait for one another, and not the others for them.
const (
	turnInflated  = 1 << 20   // bytes that one socket may have inflated before the others get their turn: about 1 ms
	roundInflated = 128 << 10 // bytes that a loop inflates between two looks at the poller before long messages yield
	longPacked    = 4 << 10   // compressed bytes: a message of one frame up to here does not yield yet
	roundMost     = 1 << 20   // bytes that it inflates before every compressed message yields: 70 bytes can inflate to 64 KiB
)

// inflatesLater reports whether the message that in goes on with, or begins with, has to wait for the loop's next rounds.
func (w *worker) inflatesLater(r *frame.Reader, in []byte) bool {
	f := w.flate
	switch {
	case f.round != w.l.Round() || f.inRound <= roundInflated:
		return false
	case f.inRound <= roundMost:
		return r.Longer(in, longPacked)
	}
	return r.Longer(in, 0)
}

func (i *inflating) reset() {
	i.z.Reset()
	i.text = frame.UTF8{}
}

// begin has an inflating for the message that is held as number hold.
func (f *compressor) begin(hold uint32) {
	var i *inflating
	if n := len(f.spare); n > 0 {
		i, f.spare = f.spare[n-1], f.spare[:n-1]
	} else {
		i = new(inflating)
	}
	f.begun[hold] = i
}

// size is how many bytes what inflates hold counts for.
func (f *compressor) size(hold uint32) int64 {
	if f == nil || f.begun[hold] == nil {
		return 0
	}
	return int64(deflate.Size)
}

// end forgets it, and returns how many bytes it counted.
func (f *compressor) end(hold uint32) int64 {
	if f == nil {
		return 0
	}
	i, ok := f.begun[hold]
	if !ok {
		return 0
	}
	delete(f.begun, hold)
	if len(f.spare) < inflatersKept {
		i.reset()
		f.spare = append(f.spare, i)
	}
	return int64(deflate.Size)
}

// deflated frames the whole message b for s, compressed, if s has agreed to that and it pays. The result is good until the
// next call.
func (w *worker) deflated(s *session, op frame.Op, b []byte) (framed []byte, ok bool) {
	window := s.window()
	if window == deflate.NoWindow || !worth(int64(len(b))) {
		return nil, false
	}
	f := w.flate
	var start int
	f.packed, start = pack(&f.deflater, f.packed, op, b, window)
	return f.packed[start:], start > 0
}

// Compresses reports whether a whole message of n bytes would go to c compressed, if that makes it smaller.
func (c Conn) Compresses(n int64) bool {
	s := c.row()
	return s != nil && s.window() != deflate.NoWindow && worth(n)
}

// Compress queues the whole message b compressed, if the client has agreed to that and it pays: ok says so. Only after Begin
// allowed it. Send, Frame, Pass and PassBody do so by themselves with a message that is one frame.
func (c Conn) Compress(op frame.Op, b []byte) (sent Sent, ok bool) {
	s := c.row()
	if s == nil || s.state != stateOpen || c.w.lost(s) {
		return SentGone, true
	}
	return c.compressed(s, &frame.Header{Fin: true, Op: op}, b)
}

// compressed sends the frame of h and b compressed, if that is a whole message and deflated says so.
func (c Conn) compressed(s *session, h *frame.Header, b []byte) (sent Sent, ok bool) {
	if !h.Fin || h.Op != frame.Text && h.Op != frame.Binary {
		return 0, false
	}
	framed, ok := c.w.deflated(s, h.Op, b)
	if !ok {
		return 0, false
	}
	return c.Body(framed), true
}

// compressedFrame is compressed for a frame with its header, as a backend sent it.
func (c Conn) compressedFrame(s *session, framed []byte) (sent Sent, ok bool) {
	h, n, err := frame.Parse(framed)
	if err != nil || n == 0 || int64(len(framed)-n) != h.Len {
		return 0, false
	}
	return c.compressed(s, &h, framed[n:])
}

// worth reports whether it pays to compress a message of n bytes.
func worth(n int64) bool { return n >= deflate.Min && n <= deflate.Max }

// pack frames b, compressed, into dst from start on: room is left for the longest header. start is 0 if it does not pay.
func pack(d *deflate.Deflater, dst []byte, op frame.Op, b []byte, window deflate.Window) (_ []byte, start int) {
	var room [frame.MaxHeader]byte
	dst, ok := d.Deflate(append(dst[:0], room[:]...), b, window)
	if !ok {
		return dst, 0
	}
	h := frame.Header{Fin: true, Rsv: frame.RSV1, Op: op, Len: int64(len(dst) - frame.MaxHeader)}
	start = frame.MaxHeader - frame.HeaderLen(h)
	frame.PutHead(dst[start:], &h)
	return dst, start
}

// A Message is one that goes to many sockets: framed once, and compressed once for those that have agreed to that. It may be
// copied, and all loops share its bytes.
type Message struct {
	framed []byte
	packed []byte // compressed, nil if nobody wanted that or it does not pay
	n      int64  // bytes of the payload
}

// NewMessage makes a message of payload, which is copied; text must be valid UTF-8. Any goroutine but a loop's may call it.
// Clients that asked for a window under 32 KiB, which no browser does, get it plain.
func (e *Engine) NewMessage(op frame.Op, payload []byte) Message {
	h := frame.Header{Fin: true, Op: op, Len: int64(len(payload))}
	framed := append(frame.Append(make([]byte, 0, frame.HeaderLen(h)+len(payload)), h), payload...)
	m := Message{framed: framed, n: h.Len}
	if worth(h.Len) && e.compressing.Load() > 0 {
		m.packed = e.shared.pack(op, payload)
	}
	return m
}

// Size is how many bytes the message takes.
func (m *Message) Size() int { return len(m.framed) + len(m.packed) }

// SendMessage asks the limits and queues m.
func (c Conn) SendMessage(m *Message) Outbound {
	v := c.Begin(true, m.n)
	if v.Sent > SentHold {
		return v
	}
	b := m.framed
	if s := c.row(); m.packed != nil && s.window() == deflate.Window15 {
		b = m.packed
	}
	if c.Body(b) == SentGone {
		return Outbound{Sent: SentGone}
	}
	return v
}

// sharedCompressor makes the messages that go to many. Who publishes waits for the one before: about 1 ms at most.
type sharedCompressor struct {
	mu       sync.Mutex
	deflater deflate.Deflater
	packed   []byte
}

// pack returns a compressed frame of its own, nil if that does not pay.
func (f *sharedCompressor) pack(op frame.Op, b []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	var start int
	f.packed, start = pack(&f.deflater, f.packed, op, b, deflate.Window15)
	if start == 0 {
		return nil
	}
	return bytes.Clone(f.packed[start:])
}
