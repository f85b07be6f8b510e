package reactor_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"ticketgate/engine/reactor"
)

// TestBatchesAtRandom plays a script of random clients against handlers that do random things to their own sockets and to
// others, on a twin with batches and on one without. Whatever happens, of each socket: Data sees what its client has sent,
// each byte until it was used, and in order; the client gets what was written to it, in order and, unless it was cut off, all
// of it; Closed comes once and says why; nothing stays behind. A failing seed is repeated by itself.
func TestBatchesAtRandom(t *testing.T) {
	batches, puts := 0, 0
	for seed := range uint64(300) {
		batched, single := play(t, seed, false), play(t, seed, true)
		if batched.echoes {
			sameEcho(t, seed, batched, single)
		}
		for i := range batched.calls {
			batches += len(batched.calls[i].ReadMany)
			puts += len(batched.calls[i].WriteMany)
			if n := len(single.calls[i].ReadMany) + len(single.calls[i].WriteMany); n != 0 {
				t.Fatalf("seed %d: %d calls for many sockets without batches", seed, n)
			}
		}
	}
	if batches < 1000 || puts < 1000 {
		t.Errorf("only %d batches of reads and %d of writes: the script does not test them", batches, puts)
	}
}

// sameEcho: what clients of an echo get does not depend on batches. What was left over when FIN came is lost.
func sameEcho(t *testing.T, seed uint64, batched, single *world) {
	t.Helper()
	for i, p := range batched.peers {
		if q := single.peers[i]; !p.cut && !q.cut && !p.early && !bytes.Equal(p.got, q.got) {
			t.Fatalf("seed %d, %s: an echo of %d bytes with batches, %d without", seed, p.name, len(p.got), len(q.got))
		}
	}
}

func play(t *testing.T, seed uint64, single bool) *world {
	t.Helper()
	w := newWorld(t, seed, single)
	for i := 0; i < w.rounds && w.wrong == ""; i++ {
		w.round()
	}
	if w.wrong == "" {
		w.finish()
	}
	if w.wrong != "" {
		t.Fatalf("seed %d, single %v: %s", seed, single, w.wrong)
	}
	return w
}

// A world is one machine, its clients and what its handlers have done.
type world struct {
	script *rand.Rand // what clients do
	moods  *rand.Rand // what handlers do
	m      *reactor.Memory
	calls  []*reactor.Calls // by loop
	peers  []*peer
	byID   map[reactor.ID]*peer
	next   []*peer // by loop: whose Data must be called next

	echoes  bool // handlers only echo, and never all at once
	flips   bool // some sockets have a filter
	calm    bool // handlers only take what they get
	unit    int  // bytes of a slot
	clients int
	rounds  int
	dialing *peer
	panics  uint64
	wrong   string // what was wrong first
}

// A peer is one socket, and both ends' view of it.
type peer struct {
	name string
	pipe *reactor.Pipe
	id   reactor.ID

	sent  []byte // by the far end
	used  int    // bytes of sent that Data has used,
	seen  int    // and has been shown
	wrote []byte // by handlers
	got   []byte // by the far end

	flip    bool // its bytes are turned over on the wire
	shut    bool // the far end sends no more,
	early   bool // not only at the end,
	gone    bool // reads no more,
	reset   bool // or has sent RST
	refused bool // a dial that fails
	opened  bool
	over    bool // a handler has ended it
	cut     bool // what was written may get lost
	paused  bool
	asked   bool // Rerun, Yield or Resume since all was at rest
	closed  int
}

// noise is what clients and handlers send pieces of.
var noise = func() []byte {
	rnd := seeded(1)
	b := make([]byte, 1<<18)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}()

func seeded[T int | uint64](seed T) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 2)) }

func pick[T any](rnd *rand.Rand, list ...T) T { return list[rnd.IntN(len(list))] }

func newWorld(t *testing.T, seed uint64, single bool) *world {
	w := &world{
		script: seeded(seed), moods: seeded(^seed),
		byID: map[reactor.ID]*peer{},
	}
	o := reactor.Options{Single: single, Work: work, WriteStall: time.Hour, Linger: time.Hour}
	o.Loops = pick(w.script, 1, 1, 2)
	o.ReadBuffer = pick(w.script, 64, 700, 700, 4096, 2*reactor.RecordMax+100, 64<<10)
	o.LeftoverMax = pick(w.script, 100, 5000, 20<<10)
	o.QueueMax = pick(w.script, 3*o.ReadBuffer, 256<<10)
	w.echoes = seed%4 == 0
	w.flips = o.ReadBuffer > 2*reactor.RecordMax && !w.echoes
	w.unit = min(o.ReadBuffer, reactor.SlotBytes)
	w.clients, w.rounds = pick(w.script, 2, 5, 12, 45), 4+w.script.IntN(16)
	h := &script{open: w.open, data: w.data, drained: w.drained, timer: w.timer, closed: w.closed, fault: w.fault}
	w.m, _ = twin(t, o, h)
	w.m.OnDial(w.onDial)
	w.next = make([]*peer, o.Loops)
	for i := range o.Loops {
		w.calls = append(w.calls, w.m.Reactor().Observe(i))
	}
	return w
}

func (w *world) fail(p *peer, format string, args ...any) {
	if w.wrong == "" {
		w.wrong = p.name + ": " + fmt.Sprintf(format, args...)
	}
}

// What clients do.

// round lets clients do some things at once, and then the loops turn.
func (w *world) round() {
	if len(w.peers) < w.clients {
		for range 1 + w.script.IntN(w.clients) {
			w.connect()
		}
	}
	for _, p := range w.peers {
		if !p.refused && w.script.IntN(3) > 0 {
			w.move(p)
		}
	}
	if w.script.IntN(4) == 0 {
		w.m.Advance(30 * time.Millisecond)
	}
	w.rest()
}

// rest lets the loops do all that there is to do.
func (w *world) rest() {
	w.m.Run()
	for _, p := range w.peers {
		p.asked = false
	}
	clear(w.next)
}

func (w *world) connect() {
	n := len(w.peers) + 1
	p := &peer{name: fmt.Sprintf("client %d", n)}
	p.pipe = w.m.Connect(netip.AddrPortFrom(client.Addr(), uint16(n)))
	w.peers = append(w.peers, p)
	p.flip = w.flips && w.script.IntN(5) == 0
	if w.script.IntN(2) == 0 {
		w.send(p)
	}
}

// move is one thing that a client does.
func (w *world) move(p *peer) {
	switch n := w.script.IntN(40); {
	case n < 24:
		w.send(p)
	case n < 30:
		w.take(p)
	case n < 36:
		p.pipe.Window(pick(w.script, 0, 1, 100, w.unit/2, w.unit, 256<<10))
	case n < 37:
		p.pipe.CloseWrite()
		p.shut, p.early = true, true
	case n < 38:
		p.pipe.Close()
		p.shut, p.gone, p.cut = true, true, true
	case n < 39:
		p.pipe.Reset()
		p.shut, p.reset, p.cut = true, true, true
	}
}

// sentMax keeps what one client sends below what a closing socket may still be sent.
func (w *world) sentMax() int { return 6*w.unit + 2000 }

func (w *world) send(p *peer) {
	n := pick(w.script, 1, 7, 40, 300, 1+w.script.IntN(300), 1+w.script.IntN(w.unit), w.unit, w.unit+1, w.unit+w.script.IntN(2*w.unit))
	b := some(w.script, n)
	if len(p.sent)+n > w.sentMax() || p.shut || p.pipe.Closed() {
		return
	}
	p.sent = append(p.sent, b...)
	p.pipe.Write(p.wire(b))
}

func some(rnd *rand.Rand, n int) []byte {
	from := rnd.IntN(len(noise)/2 + 1)
	b := noise[from:min(from+n, len(noise))]
	for len(b) < n {
		b = slices.Concat(b, noise[:min(n-len(b), len(noise))])
	}
	return slices.Clip(b)
}

// wire is b as it looks on p's wire.
func (p *peer) wire(b []byte) []byte {
	if p.flip {
		return turn(b)
	}
	return b
}

// take reads what has come for the client.
func (w *world) take(p *peer) int {
	b := p.wire(p.pipe.Read())
	end := len(p.got) + len(b)
	if end > len(p.wrote) || !bytes.Equal(b, p.wrote[len(p.got):end]) {
		w.fail(p, "after %d bytes it gets %d that were not written to it", len(p.got), len(b))
	}
	p.got = append(p.got, b...)
	return len(b)
}

// What handlers do.

func (w *world) open(l *reactor.Loop, id reactor.ID) {
	p := w.byID[id]
	if p == nil {
		p = w.peers[l.Peer(id).Port()-1]
		p.id, w.byID[id] = id, p
	}
	w.enter(p)
	p.opened = true
	if p.flip {
		l.SetFilter(id, &flip{})
	}
	w.act(l, p, nil)
}

// enter is the beginning of every callback.
func (w *world) enter(p *peer) {
	if p.closed > 0 {
		w.fail(p, "a callback after Closed")
	}
}

func (w *world) data(l *reactor.Loop, id reactor.ID, in []byte) int {
	p := w.byID[id]
	w.enter(p)
	end := p.used + len(in)
	p.seen = max(p.seen, end)
	next := w.next[l.Index()]
	w.next[l.Index()] = nil
	switch {
	case end > len(p.sent) || !bytes.Equal(in, p.sent[p.used:end]):
		w.fail(p, "after %d bytes Data sees %d that were not sent", p.used, len(in))
	case p.over:
		w.fail(p, "Data after a handler has ended it")
	case p.paused && !p.asked:
		w.fail(p, "Data while it is paused")
	case next != nil && next != p && next.closed == 0 && !next.cut:
		w.fail(p, "Data, though %s has left bytes because it would be read on at once", next.name)
	}
	if w.wrong != "" {
		return len(in)
	}
	used := w.uses(in)
	if w.echoes {
		w.write(l, p, in[:used], true)
	} else {
		w.act(l, p, in)
	}
	p.used += used
	if rest := len(in) - used; rest > 0 && l.ReadsOn(rest) && !p.paused && !p.asked && !p.over {
		w.next[l.Index()] = p
	}
	return used
}

// uses is how many bytes of in the handler uses: mostly all of them.
func (w *world) uses(in []byte) int {
	switch n := w.moods.IntN(8); {
	case w.calm || n > 1:
		return len(in)
	case n == 1:
		return len(in) - min(len(in), 1+w.moods.IntN(40))
	default:
		return w.moods.IntN(len(in) + 1)
	}
}

// act does a few things. in is what Data was given, in other callbacks nil.
func (w *world) act(l *reactor.Loop, p *peer, in []byte) {
	if w.calm || w.echoes {
		return
	}
	for range w.moods.IntN(4) {
		to := p
		if w.moods.IntN(3) == 0 {
			to = w.another(l, p)
		}
		if w.moods.IntN(8) < 5 {
			w.answer(l, to, in)
		} else {
			w.meddle(l, to)
		}
	}
	if w.moods.IntN(100) == 0 {
		w.panics++
		w.next[l.Index()] = nil
		panic("a bad day")
	}
}

// another is a socket of the same loop.
func (w *world) another(l *reactor.Loop, p *peer) *peer {
	for range 5 {
		if q := pick(w.moods, w.peers...); q.id != 0 && q.id.Loop() == l.Index() {
			return q
		}
	}
	return p
}

// answer writes what came, or a part of it, or something else.
func (w *world) answer(l *reactor.Loop, to *peer, in []byte) {
	if len(in) == 0 || w.moods.IntN(3) == 0 {
		w.write(l, to, some(w.moods, 1+w.moods.IntN(pick(w.moods, 20, 20, 20, w.unit, 3*w.unit))), false)
		return
	}
	from := pick(w.moods, 0, 0, w.moods.IntN(len(in)))
	w.write(l, to, in[from:], true)
}

// write writes b, which Data was given or not, in one of the ways there are.
func (w *world) write(l *reactor.Loop, to *peer, b []byte, given bool) {
	if len(b) == 0 {
		return
	}
	var err error
	switch n := w.moods.IntN(8); {
	case n < 3 && given:
		err = l.Pass(to.id, b)
	case n < 6:
		err = l.Write(to.id, b)
	case n < 7:
		err = l.WriteLast(to.id, b)
	default:
		var room []byte
		room, err = l.Reserve(to.id, len(b))
		copy(room, b)
	}
	w.written(l, to, b, err)
}

func (w *world) written(l *reactor.Loop, to *peer, b []byte, err error) {
	ended := to.over || to.shut || to.closed > 0 || to.refused
	switch {
	case err == nil && (to.over || to.closed > 0):
		w.fail(to, "it can be written to, though a handler has ended it")
	case err == nil:
		to.wrote = append(to.wrote, b...)
	case errors.Is(err, reactor.ErrGone) && ended:
	case errors.Is(err, reactor.ErrSlow) && w.echoes: // the only one who would notice that the echo has a hole
		to.over, to.cut = true, true
		l.Abort(to.id)
	case errors.Is(err, reactor.ErrSlow):
	default:
		w.fail(to, "a write fails: %v", err)
	}
}

// meddle does something to a socket.
func (w *world) meddle(l *reactor.Loop, p *peer) {
	if p.closed > 0 {
		return
	}
	switch w.moods.IntN(24) {
	case 0, 1, 2, 3:
		l.Pause(p.id)
		p.paused = true
	case 4, 5, 6, 7:
		l.Resume(p.id)
		p.paused, p.asked = false, true
	case 8, 9:
		l.Rerun(p.id)
		p.asked = true
	case 10, 11:
		l.Yield(p.id)
		p.asked = true
	case 12, 13, 14:
		l.Flush(p.id)
	case 15, 16:
		l.Arm(p.id, l.Now().Add(10*time.Millisecond))
	case 17:
		l.Close(p.id)
		p.over, p.cut = true, p.cut || !p.opened // a dial is just given up
	case 18:
		l.Abort(p.id)
		p.over, p.cut = true, true
	case 19:
		w.dial(l)
	}
}

func (w *world) dial(l *reactor.Loop) {
	if len(w.peers) > 3*w.clients {
		return
	}
	id, err := l.Dial(0, client, netip.Addr{})
	p := w.dialing
	if err != nil {
		w.fail(p, "dial: %v", err)
	}
	p.id, w.byID[id] = id, p
	if w.moods.IntN(2) == 0 {
		w.write(l, p, some(w.moods, 1+w.moods.IntN(100)), false)
	}
}

func (w *world) onDial(netip.AddrPort) (*reactor.Pipe, error) {
	p := &peer{name: fmt.Sprintf("backend %d", len(w.peers)+1), pipe: w.m.NewPipe()}
	w.peers = append(w.peers, p)
	w.dialing = p
	if w.moods.IntN(8) == 0 {
		p.refused, p.shut, p.cut = true, true, true
		return nil, errors.New("refused")
	}
	p.sent = some(w.moods, 1+w.moods.IntN(100))
	p.pipe.Write(p.sent)
	return p.pipe, nil
}

func (w *world) drained(l *reactor.Loop, id reactor.ID) {
	p := w.byID[id]
	w.enter(p)
	if n := l.Queued(id); n > 0 || l.Blocked(id) || p.over {
		w.fail(p, "Drained with %d bytes queued, blocked %v, over %v", n, l.Blocked(id), p.over)
	}
	w.act(l, p, nil)
}

func (w *world) timer(l *reactor.Loop, id reactor.ID) {
	p := w.byID[id]
	w.enter(p)
	w.act(l, p, nil)
}

func (w *world) fault(l *reactor.Loop, id reactor.ID, _ any) {
	p := w.byID[id]
	if p.closed > 0 {
		return
	}
	last := []byte("a last word")
	w.written(l, p, last, l.WriteLast(id, last))
	p.over = true
	if w.moods.IntN(4) == 0 {
		w.panics++
		panic("again")
	}
}

func (w *world) closed(l *reactor.Loop, id reactor.ID, why reactor.Cause, err error) {
	p := w.byID[id]
	w.enter(p)
	p.closed++
	ok := false
	switch why {
	case reactor.CauseEOF:
		ok = p.shut && (p.over || p.seen == len(p.sent))
	case reactor.CauseReset:
		ok = p.reset || p.gone
	case reactor.CauseLocal, reactor.CauseFault:
		ok = p.over
	case reactor.CauseDial:
		ok = p.refused
	}
	if !ok {
		w.fail(p, "Closed with %v, %v, after Data has seen %d bytes of %d", why, err, p.seen, len(p.sent))
	}
	w.act(l, w.another(l, p), nil)
}

// What must be in the end.

// finish lets everybody take what there is, and then go.
func (w *world) finish() {
	w.calm = true
	for _, p := range w.peers {
		p.pipe.Window(256 << 10)
	}
	for i := range w.m.Reactor().Loops() {
		w.m.Reactor().Post(i, reactor.Work{P: w.release})
	}
	for taken := 1; taken > 0; {
		w.rest()
		taken = 0
		for _, p := range w.peers {
			taken += w.take(p)
		}
	}
	for _, p := range w.peers {
		w.served(p)
		p.pipe.CloseWrite()
		p.shut = true
	}
	w.rest()
	w.empty()
}

// release lets all sockets of l go on.
func (w *world) release(l *reactor.Loop) {
	for _, p := range w.peers {
		if p.id != 0 && p.id.Loop() == l.Index() {
			l.Resume(p.id)
			l.Rerun(p.id)
			p.paused, p.asked = false, true
		}
	}
}

// served checks what has come of a socket that had time enough.
func (w *world) served(p *peer) {
	if p.cut {
		return
	}
	if !p.over && p.closed == 0 && p.used != len(p.sent) { // EOF ends what was left over, too
		w.fail(p, "%d bytes used of %d that were sent", p.used, len(p.sent))
	}
	if len(p.got) != len(p.wrote) || w.echoes && !bytes.HasPrefix(p.sent, p.got) {
		w.fail(p, "%d bytes came of %d that were written, %d were used", len(p.got), len(p.wrote), p.used)
	}
	if p.over && !p.pipe.Closed() {
		w.fail(p, "no FIN though a handler has ended it")
	}
}

// empty checks what is left of all.
func (w *world) empty() {
	for _, p := range w.peers {
		if p.closed != 1 {
			w.fail(p, "Closed came %d times", p.closed)
		}
	}
	segments, queues, _ := w.m.Held()
	rows, _ := w.m.Linked()
	s := stats(w.m.Reactor())
	if segments+queues+rows != 0 || s.Conns != 0 || s.Queued != 0 || s.Panics != w.panics {
		w.fail(&peer{name: "the reactor"}, "%d segments, %d queues and %d timers are held, %d sockets, %d bytes queued, %d panics of %d",
			segments, queues, rows, s.Conns, s.Queued, s.Panics, w.panics)
	}
}

// flip is a filter that turns all bytes over, both ways.
type flip struct{ in []byte }

func (f *flip) Feed(_ *reactor.Loop, _ reactor.ID, wire []byte) { f.in = append(f.in, turn(wire)...) }

func (f *flip) Read(_ *reactor.Loop, _ reactor.ID, plain []byte) (int, error) {
	n := copy(plain, f.in[:min(len(f.in), 1000)]) // a record, so that some are left when there is no room for a large one
	f.in = f.in[n:]
	return n, nil
}

func (f *flip) Write(l *reactor.Loop, id reactor.ID, plain []byte) error {
	return l.WriteWire(id, turn(plain))
}

func (f *flip) CloseWrite(*reactor.Loop, reactor.ID) {}
func (f *flip) Held() int                            { return len(f.in) }
func (f *flip) Gone(*reactor.Loop, reactor.ID)       {}
