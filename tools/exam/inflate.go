package main

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/tools/rig"
)

func init() {
	tests[9] = test{"inflate bomb: 1009 with the byte that passes the limit, bounded memory, honest sockets as before", inflateBomb}
	roles["bombs"] = bombCrew
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
	b, err := c.baseline(ctx, x, sockets)
	if err != nil {
		return err
	}
	before, err := residentBytes(c.nodes[0].PID())
	if err != nil {
		return err
	}
	peak, stop := watchMemory(c.nodes[0].PID())
	crew, err := startRole("bombs", x.gently(), c.nodes[0].Handshake, c.nodes[0].Gate, c.key.Text, strconv.FormatUint(x.rnd.Uint64(), 10),
		strconv.Itoa(x.n(bombers, 20)), x.lasting(bombTime).String())
	if err != nil {
		return err
	}
	h := c.honest(ctx, sockets)
	line, err := crew.Hear(ctx)
	h.end()
	stop()
	load := cpuSeconds(crew.PID())
	if _, stopped := crew.Stop(); errors.Join(err, stopped) != nil {
		return errors.Join(err, stopped)
	}
	var told bombed
	if err := json.Unmarshal([]byte(line), &told); err != nil {
		return fmt.Errorf("the bombers tell %q: %w", line, err)
	}
	told.judge(x)
	x.figure("the bombers' own processor time: %.1f s", load)
	grown := peak.Load() - before
	x.figure("resident memory %+.1f MiB at its peak", float64(grown)/(1<<20))
	x.wantMemory(grown <= bombGrowth, "memory grew by %d bytes, want at most %d", grown, bombGrowth)
	h.judge(x, b)
	return nil
}

// bombed is what the bombers tell, as JSON.
type bombed struct {
	Bombs int // of one salvo
	Fired int
	Most  int                         // bytes that the bytes sent up to the verdict inflate to
	Took  [len(bombs)][]time.Duration // from the last byte needed to the close frame
	Odd   []string                    // what else happened, oddMax at most
}

func (b *bombed) odd(format string, args ...any) {
	if len(b.Odd) < oddMax {
		b.Odd = append(b.Odd, fmt.Sprintf(format, args...))
	}
}

func (b *bombed) judge(x *exam) {
	for _, odd := range b.Odd {
		x.want(false, "%s", odd)
	}
	x.figure("%d bombs in salvos of %d: what was sent up to the byte that passes the limit inflates to %d bytes at most", b.Fired, b.Bombs, b.Most)
	x.want(b.Fired >= b.Bombs, "%d bombs of %d: there was no whole salvo", b.Fired, b.Bombs)
	x.want(b.Most <= bombLimit+bombSlack, "%d bytes inflated, want at most %d", b.Most, bombLimit+bombSlack)
	for way := range bombs {
		slowest := quantile(b.Took[way], 1)
		x.figure("%s: close frame %v to %v after that byte", bombs[way].name, quantile(b.Took[way], 0.5).Round(time.Microsecond), slowest.Round(time.Microsecond))
		x.wantTime(slowest <= bombWithin, "%s: a close took %v, want at most %v", bombs[way].name, slowest, bombWithin)
	}
}

// bombCrew are the bombers, a process of their own: what it costs to make bombs is not to be had from those who are beside
// them. args: handshake, gate, key, seed, bombs of a salvo, for how long.
func bombCrew(args []string, hear func() (string, bool), say func(string, ...any)) error {
	if len(args) != 6 {
		return errors.New("want: handshake, gate, key, seed, bombs, duration")
	}
	seed, err := strconv.ParseUint(args[3], 10, 64)
	n, err2 := strconv.Atoi(args[4])
	d, err3 := time.ParseDuration(args[5])
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		for _, more := hear(); more; _, more = hear() {
		}
		stop()
	}()
	c := &cluster{nodes: []*rig.Node{{Handshake: args[0], Gate: args[1]}}, key: rig.Key{Text: args[2]}, http: newHTTP(openAtOnce), packs: true}
	a := &salvos{c: c, n: n, told: bombed{Bombs: n}}
	rnd := rand.New(rand.NewPCG(seed, 9))
	for range min(a.n, bombCharges) {
		a.charges = append(a.charges, newCharge(rnd))
	}
	if err := a.fire(ctx, d); err != nil {
		return err
	}
	text, err := json.Marshal(&a.told)
	say("%s", text)
	<-ctx.Done()
	return err
}

// salvos are the bombs that go off at once, again and again.
type salvos struct {
	c       *cluster
	n       int // bombs of one
	charges []*charge

	mu   sync.Mutex
	told bombed
}

// fire lets salvos off for d.
func (a *salvos) fire(ctx context.Context, d time.Duration) error {
	until := time.Now().Add(d)
	for n := 0; n == 0 || time.Now().Before(until); n++ {
		next := time.Now().Add(bombEvery)
		if err := a.salvo(ctx); err != nil {
			return err
		}
		if err := rest(ctx, time.Until(next)); err != nil {
			return err
		}
	}
	return nil
}

func (a *salvos) salvo(ctx context.Context) error {
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
			switch {
			case err != nil:
				a.told.odd("%s: %v", bombs[way].name, err)
			case code != frame.CloseTooBig:
				a.told.odd("%s: closed with %d, want %d", bombs[way].name, code, frame.CloseTooBig)
			}
			a.told.Fired++
			a.told.Most = max(a.told.Most, g.least)
			a.told.Took[way] = append(a.told.Took[way], took)
		})
	}
	done.Wait()
	return nil
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
