package main

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/tools/rig"
)

func init() {
	tests[9] = test{"inflate bomb: 1009 with the byte that passes the limit, bounded memory, honest sockets as before", inflateBomb}
}

const (
	bombers        = 200
	packedSockets  = 500
	bombTime       = 30 * time.Second
	bombEvery      = time.Second // from one salvo to the next
	bombLimit      = 64 << 10    // websocket.max_message
	bombInflates   = 64 << 20
	bombSlack      = 4 << 10 // what may be inflated over the limit
	bombWithin     = 50 * time.Millisecond
	bombGrowth     = 32 << 20 // resident memory may grow by so much
	bombFragment   = 1 << 10
	bombTextLength = 48 << 10 // what is honest of a bomb, at most
	bombCharges    = 40       // bombs that differ
)

// inflateBomb measures honest clients that compress, alone and beside salvos of bombs.
func inflateBomb(ctx context.Context, x *exam) error {
	c, err := start(ctx, x, clusterOptions{memory: true, yaml: "websocket: { compression: on }\n"})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	c.packs = true
	sockets, err := c.openMany(ctx, x.n(packedSockets, 50), "echo")
	defer closeAll(sockets)
	if err != nil {
		return err
	}
	a := &salvos{c: c, n: x.n(bombers, 20)}
	for range min(a.n, bombCharges) {
		a.charges = append(a.charges, newCharge(x.rnd))
	}
	b, err := c.baseline(ctx, x, sockets)
	if err != nil {
		return err
	}
	before, err := residentBytes(c.nodes[0].PID())
	if err != nil {
		return err
	}
	peak, stop := watchMemory(c.nodes[0].PID())
	h := c.honest(ctx, sockets)
	err = a.fire(ctx, x, x.lasting(bombTime))
	h.end()
	stop()
	if err != nil {
		return err
	}
	a.judge(x)
	grown := peak.Load() - before
	x.figure("resident memory %+.1f MiB at its peak", float64(grown)/(1<<20))
	x.want(grown <= bombGrowth, "memory grew by %d bytes, want at most %d", grown, bombGrowth)
	h.judge(x, b)
	return nil
}

// salvos are the bombs that go off at once, again and again.
type salvos struct {
	c       *cluster
	n       int // bombs of one
	charges []*charge

	mu    sync.Mutex
	fired int
	most  int                         // bytes that the bytes sent up to the verdict inflate to
	took  [len(bombs)][]time.Duration // from the last byte needed to the close frame
}

// fire lets salvos off for d.
func (a *salvos) fire(ctx context.Context, x *exam, d time.Duration) error {
	until := time.Now().Add(d)
	for n := 0; n == 0 || time.Now().Before(until); n++ {
		next := time.Now().Add(bombEvery)
		if err := a.salvo(ctx, x); err != nil {
			return err
		}
		if err := rest(ctx, time.Until(next)); err != nil {
			return err
		}
	}
	return nil
}

func (a *salvos) salvo(ctx context.Context, x *exam) error {
	sockets, err := a.c.openMany(ctx, a.n, "echo")
	defer closeAll(sockets)
	if err != nil {
		return err
	}
	var ready, done sync.WaitGroup
	ready.Add(len(sockets))
	for i, s := range sockets {
		done.Go(func() {
			way, g := i%len(bombs), a.charges[i/len(bombs)%len(a.charges)]
			code, took, err := bombs[way].play(s, g, &ready)
			a.mu.Lock()
			defer a.mu.Unlock()
			x.want(err == nil, "%s: %v", bombs[way].name, err)
			x.want(err != nil || code == frame.CloseTooBig, "%s: closed with %d, want %d", bombs[way].name, code, frame.CloseTooBig)
			a.fired++
			a.most = max(a.most, g.least)
			a.took[way] = append(a.took[way], took)
		})
	}
	done.Wait()
	return nil
}

func (a *salvos) judge(x *exam) {
	x.figure("%d bombs in salvos of %d: what was sent up to the byte that passes the limit inflates to %d bytes at most", a.fired, a.n, a.most)
	x.want(a.most <= bombLimit+bombSlack, "%d bytes inflated, want at most %d", a.most, bombLimit+bombSlack)
	for way := range bombs {
		slowest := quantile(a.took[way], 1)
		x.figure("%s: close frame %v to %v after that byte", bombs[way].name, quantile(a.took[way], 0.5).Round(time.Microsecond), slowest.Round(time.Microsecond))
		x.wantTime(slowest <= bombWithin, "%s: a close took %v, want at most %v", bombs[way].name, slowest, bombWithin)
	}
}

// A charge is a compressed text: an honest beginning, and then the same letter, a thousand to a byte.
type charge struct {
	wire  []byte
	fuse  int // bytes of wire that inflate to more than the limit, and not one byte fewer does
	least int // what they inflate to
}

func newCharge(rnd *rand.Rand) *charge {
	var text bytes.Buffer
	for honest := rnd.IntN(bombTextLength); text.Len() < honest; {
		fmt.Fprintf(&text, `{"n":%d}`, rnd.Uint32())
	}
	beginning := pack(text.Bytes())
	g := &charge{wire: append(append(append([]byte(nil), beginning...), "\x00\x00\xff\xff"...), letters()...)}
	low, high := 0, len(g.wire) // inflate to at most the limit, and to more
	for high-low > 1 {
		if n := (low + high) / 2; inflated(g.wire[:n]) > bombLimit {
			high = n
		} else {
			low = n
		}
	}
	g.fuse, g.least = high, inflated(g.wire[:high])
	return g
}

// letters is 64 MiB of one letter, compressed.
var letters = sync.OnceValue(func() []byte { return pack(bytes.Repeat([]byte{'b'}, bombInflates)) })

// inflated is how many bytes the beginning of a stream gives, at most a little more than the limit.
func inflated(wire []byte) int {
	n, _ := io.Copy(io.Discard, io.LimitReader(flate.NewReader(bytes.NewReader(wire)), 2*bombLimit))
	return int(n)
}

// bombWay is one way to let a charge off on a socket, when all are ready. took is from the byte that passes the limit.
type bombWay struct {
	name string
	play func(s *socket, g *charge, ready *sync.WaitGroup) (code frame.Code, took time.Duration, err error)
}

var bombs = [...]bombWay{
	{"whole, in one write", bombWhole},
	{"a frame of which only so much comes", bombFrame},
	{"in fragments, all of them", bombFragments},
	{"in fragments, up to the byte", bombFuse},
}

// goOff writes b when all are ready, and waits for the close frame, which may come while most of b has not gone out.
func (s *socket) goOff(b []byte, ready *sync.WaitGroup) (frame.Code, time.Duration, error) {
	ready.Done()
	ready.Wait()
	if err := s.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	var writing sync.WaitGroup
	writing.Go(func() { _, _ = s.Write(b) }) // it may be cut off: what counts is the close frame
	code, err := s.untilClose()
	took := time.Since(begun)
	writing.Wait()
	return code, took, err
}

func bombWhole(s *socket, g *charge, ready *sync.WaitGroup) (frame.Code, time.Duration, error) {
	return s.goOff(appendMasked(nil, frame.Header{Fin: true, Rsv: frame.RSV1, Op: frame.Text}, g.wire[:min(len(g.wire), bombLimit)]), ready)
}

func bombFrame(s *socket, g *charge, ready *sync.WaitGroup) (frame.Code, time.Duration, error) {
	all := appendMasked(nil, frame.Header{Fin: true, Rsv: frame.RSV1, Op: frame.Text}, g.wire[:min(len(g.wire), bombLimit)])
	return s.goOff(all[:len(all)-min(len(g.wire), bombLimit)+g.fuse], ready)
}

func bombFragments(s *socket, g *charge, ready *sync.WaitGroup) (frame.Code, time.Duration, error) {
	return s.goOff(fragmented(g.wire, len(g.wire), bombFragment), ready)
}

// bombFuse sends all but the last byte, hears that the socket is still open, and sends that byte.
func bombFuse(s *socket, g *charge, ready *sync.WaitGroup) (frame.Code, time.Duration, error) {
	_, err := s.Write(fragmented(g.wire, g.fuse-1, bombFragment))
	if err == nil {
		err = s.stillOpen()
	}
	if err != nil {
		ready.Done()
		return 0, 0, err
	}
	return s.goOff(appendMasked(nil, frame.Header{Op: frame.Continuation}, g.wire[g.fuse-1:g.fuse]), ready)
}

// fragmented is the first n bytes of a compressed text in fragments, none of which is the last.
func fragmented(wire []byte, n, size int) (all []byte) {
	h := frame.Header{Rsv: frame.RSV1, Op: frame.Text}
	for from := 0; from == 0 || from < n; from += size {
		all = appendMasked(all, h, wire[from:min(n, from+size)])
		h = frame.Header{Op: frame.Continuation}
	}
	return all
}

// dialPacked redeems t at gate, agreeing to compression.
func dialPacked(ctx context.Context, gate string, t *rig.Ticket) (*socket, error) {
	s, a, err := offerRaw(ctx, gate, t, "permessage-deflate; client_max_window_bits")
	if err != nil {
		return nil, err
	}
	if answer := a.Header.Get("Sec-WebSocket-Extensions"); a.StatusCode != http.StatusSwitchingProtocols || answer == "" {
		return nil, errors.Join(fmt.Errorf("upgrade: %s, extensions %q", a.Status, answer), s.Close())
	}
	s.packs = true
	return s, s.SetDeadline(time.Time{})
}

// packers are compressors that have nothing to do: each is 1 MiB.
var packers = sync.Pool{New: func() any {
	w, err := flate.NewWriter(nil, flate.DefaultCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

// pack compresses a message, by another library than the gateway's.
func pack(message []byte) []byte {
	var b bytes.Buffer
	w := packers.Get().(*flate.Writer)
	defer packers.Put(w)
	w.Reset(&b)
	_, _ = w.Write(message) // a bytes.Buffer takes everything
	_ = w.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}

// unpack inflates a message of the gateway's.
func unpack(wire []byte) ([]byte, error) {
	return io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(wire), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
}
