package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/feed/echo"
	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/store/memory"
	"ticketgate/ticket"
	"ticketgate/tools/rig"
)

func init() {
	tests[21] = test{"same answer, same time, for what an attacker must not tell apart (in process)", sameTime}
}

const (
	timeSamples = 20_000
	timeT       = 4.5
	timeTries   = 5 // a machine that others use as well disturbs a run now and then; a leak disturbs all of them
)

// sameTime compares refusals from the bytes of the request to the bytes of the answer: at the gate on the in-memory reactor,
// which has no kernel to hide behind, and at the front end over a connection within this process.
func sameTime(ctx context.Context, x *exam) error {
	gate, err := newGateDoor(ctx)
	if err != nil {
		return err
	}
	front, stop, err := newFrontDoor(ctx)
	if err != nil {
		return err
	}
	defer func() { x.want(stop() == nil, "the front end did not stop") }()
	for _, group := range []struct {
		name string
		cs   []contender
		pace pace
	}{
		{"tickets refused without the store", gate.locators(), inRuns},
		{"tickets refused by the store", gate.tickets(), inRuns},
		{"API keys", front.keys(), oneEach},
	} {
		x.compare(group.name, group.cs, group.pace)
	}
	return nil
}

// compare wants the answers of cs to be the same and their times not to be told apart.
func (x *exam) compare(name string, cs []contender, p pace) {
	answers := map[string]bool{}
	for i := range cs {
		cs[i].prepare()
		cs[i].run()
		answers[cs[i].answer()] = true
	}
	x.want(len(answers) == 1, "%s: %d different answers", name, len(answers))
	best := math.Inf(1)
	var what string
	for range timeTries {
		t, pair := worstPair(x.rnd, cs, p, max(2000, x.n(timeSamples, 2000)))
		if t < best {
			best, what = t, pair
		}
		if best <= timeT {
			break
		}
	}
	x.figure("%s: %d kinds of refusal, one answer: %v, largest |t| %.2f (%s)", name, len(cs), len(answers) == 1, best, what)
	x.wantTime(best <= timeT, "%s: |t| %.2f, want at most %.1f (%s)", name, best, timeT, what)
}

// contender is one kind of refusal. prepare is not measured; answer is what the last run got, but for the request id.
type contender struct {
	name    string
	prepare func()
	run     func()
	answer  func() string
}

// Each kind comes in short runs, as an attacker would send it, and the first of a run are not measured: they pay for what
// ran before, which the processor's predictions remember. Behind a kernel that does not show, and drift does: there runs
// are of one.
type pace struct{ warm, measured int }

var (
	inRuns  = pace{4, 8}
	oneEach = pace{0, 1}
)

// worstPair measures all contenders in turn, at least n times each, and returns the largest |t| of any two, with the times.
// The slowest tenth of each is left out: that is the machine.
func worstPair(rnd *mathrand.Rand, cs []contender, p pace, n int) (worst float64, what string) {
	times := make([][]float64, len(cs))
	for len(times[0]) < n {
		for _, i := range rnd.Perm(len(cs)) {
			for k := range p.warm + p.measured {
				cs[i].prepare()
				begun := time.Now()
				cs[i].run()
				if took := time.Since(begun); k >= p.warm {
					times[i] = append(times[i], float64(took))
				}
			}
		}
	}
	for i := range times {
		slices.Sort(times[i])
		times[i] = times[i][:len(times[i])*9/10]
	}
	for i := range cs {
		for j := range i {
			if t := welch(times[i], times[j]); t >= worst {
				a, _ := moments(times[j])
				b, _ := moments(times[i])
				worst, what = t, fmt.Sprintf("%s %.0f ns, %s %.0f ns", cs[j].name, a, cs[i].name, b)
			}
		}
	}
	return worst, what
}

func welch(a, b []float64) float64 {
	ma, va := moments(a)
	mb, vb := moments(b)
	se := math.Sqrt(va/float64(len(a)) + vb/float64(len(b)))
	if se == 0 {
		return 0
	}
	return math.Abs(ma-mb) / se
}

func moments(s []float64) (mean, variance float64) {
	for _, v := range s {
		mean += v
	}
	mean /= float64(len(s))
	for _, v := range s {
		variance += (v - mean) * (v - mean)
	}
	return mean, variance / float64(len(s)-1)
}

// gateDoor is an engine on the in-memory reactor with the memory store.
type gateDoor struct {
	mem    *reactor.Memory
	store  *memory.Store
	minter *ticket.Minter
	epoch  ticket.Epoch
	clock  *mono.Manual
	number uint64

	pipe *reactor.Pipe
	head []byte
	got  []byte
}

// Redeem implements engine.Redeemer: it answers at once.
func (g *gateDoor) Redeem(b *ticket.Batch) {
	b.Answers = slices.Grow(b.Answers, len(b.Reqs))[:len(b.Reqs)]
	for i := range b.Reqs {
		b.Reqs[i].Held.Incarnation = 1
	}
	g.store.Redeem(context.Background(), b.Reqs, b.Answers)
	b.Done(b)
}

// Touch implements engine.Redeemer.
func (g *gateDoor) Touch(ticket.Subject) {}

// Epoch implements engine.Redeemer.
func (g *gateDoor) Epoch(ticket.Subject) ticket.Epoch { return g.epoch }

// StoreTime implements engine.Redeemer.
func (g *gateDoor) StoreTime() time.Time { return g.clock.Wall() }

// Ready implements engine.Redeemer.
func (g *gateDoor) Ready() error { return nil }

func newGateDoor(ctx context.Context) (*gateDoor, error) {
	g := &gateDoor{clock: mono.NewManual(time.Now())}
	ring, err := ticket.NewKeyRing(rand.Reader)
	if err != nil {
		return nil, err
	}
	g.minter = ring.NewMinter(rand.Reader)
	if g.store, err = memory.New(memory.Options{Clock: g.clock, Rand: rand.Reader}); err != nil {
		return nil, err
	}
	view, err := g.store.Renew(ctx, &ticket.RenewRequest{Incarnation: 1, Name: "exam", Lease: time.Hour, Number: 1, Enter: true, Topology: ticket.One.ID})
	if err != nil {
		return nil, err
	}
	g.epoch = view.Seen.Epoch
	plan, problems := limiter.Compile("p", nil, limiter.Defaults{})
	if len(problems) > 0 {
		return nil, fmt.Errorf("plan: %v", problems)
	}
	rules := &frame.Rules{Role: frame.Server, Opcodes: frame.AllowBoth, MaxMessage: 64 << 10, MaxFragments: 128}
	_, g.mem, err = engine.NewMemory(engine.Options{
		Keys: ring, Cache: ticket.NewCache(1), Redeemer: g, Count: limiter.NewCount(g.clock, time.Minute),
		Table:  limiter.NewTable(16, 1, g.clock),
		Policy: engine.NewPolicy([]engine.StreamEntry{{Name: "echo", Stream: echo.Echo{}, Rules: rules}}, []*limiter.Plan{plan}),
		Rand:   rand.Reader, Base: "http://gate.test", Origins: engine.Origins{None: true}, Loops: 1,
		Deadlines: engine.Deadlines{Head: time.Minute, Admit: time.Minute, Ping: time.Minute, PongWait: time.Minute},
		Control:   limiter.Rate{N: 10, Per: time.Second}, Assembly: time.Minute, Queue: 1 << 18, NodeQueue: 1 << 20, HoldMax: 1 << 20,
	}, g.clock)
	return g, err
}

// ready ends the last connection and opens the next.
func (g *gateDoor) ready(path, secret string) {
	if g.pipe != nil {
		g.pipe.Close()
	}
	g.pipe = g.mem.Connect(netip.MustParseAddrPort("203.0.113.9:4711"))
	g.mem.Run()
	g.head = append(g.head[:0], rig.Head("gate.test", path, secret)...)
}

func (g *gateDoor) run() {
	g.pipe.Write(g.head)
	g.mem.Run()
	g.got = g.pipe.Read()
}

func (g *gateDoor) answer() string { return string(g.got) }

// mint makes a ticket that ends at life from now. It does not fail: the random source does not.
func (g *gateDoor) mint(life time.Duration) *ticket.Minted {
	m, err := g.minter.Mint(g.clock.Wall().Add(life), g.epoch, 7, 0)
	if err != nil {
		panic(err)
	}
	return m
}

// locators are forged locators (first, last byte of the MAC) and expired ones.
func (g *gateDoor) locators() []contender {
	secret := "tgs_" + strings.Repeat("A", 43)
	try := func(name string, life time.Duration, at int, flip byte) contender {
		return contender{name, func() {
			m := g.mint(life)
			raw, err := base64.RawURLEncoding.DecodeString(string(m.Text[:]))
			if err != nil {
				panic(err) // just made
			}
			raw[len(raw)-16+at] ^= flip
			g.ready("/t/"+base64.RawURLEncoding.EncodeToString(raw), secret)
		}, g.run, g.answer}
	}
	return []contender{
		try("forged, first byte", time.Minute, 0, 1),
		try("forged, last byte", time.Minute, 15, 1),
		try("expired", -time.Minute, 0, 0),
		try("long expired", -time.Hour, 0, 0),
	}
}

// tickets are used tickets and right ones with a wrong secret (first, last byte). Before each, as much is done in the
// store.
func (g *gateDoor) tickets() []contender {
	try := func(name string, used bool, spoil int) contender {
		return contender{name, func() {
			m, other := g.mint(time.Minute), g.mint(time.Minute)
			g.issue(m)
			g.issue(other)
			spent := other
			if used {
				spent = m
			}
			g.spend(spent)
			secret := bytes.Clone(m.Secret[:])
			if secret[spoil] == 'A' {
				secret[spoil] = 'B'
			} else {
				secret[spoil] = 'A'
			}
			g.ready("/t/"+string(m.Text[:]), string(secret))
		}, g.run, g.answer}
	}
	return []contender{
		try("used", true, 4),
		try("used, with another wrong secret", true, 45),
		try("wrong secret, first byte", false, 4),
		try("wrong secret, last byte", false, 45), // the very last character carries two bits only
	}
}

func (g *gateDoor) issue(m *ticket.Minted) {
	a, err := g.store.Issue(context.Background(), &ticket.IssueRequest{Ticket: m.Hash, Secret: m.SecretHash, Subject: 7,
		Limit: ticket.NoLimit, Outstanding: math.MaxUint32, Life: 30 * time.Second, Owner: "k", Grant: []byte("grant"), Epoch: g.epoch})
	if err != nil || a.Result != ticket.IssueOK {
		panic(fmt.Sprintf("issue: %+v %v", a, err))
	}
	g.clock.Advance(10 * time.Millisecond) // old tickets are forgotten as time goes on
}

func (g *gateDoor) spend(m *ticket.Minted) {
	g.number++
	q := []ticket.RedeemRequest{{Ticket: m.Hash, Secret: m.SecretHash, Epoch: g.epoch,
		Held: ticket.Held{Subject: 7, Incarnation: 2, Count: 1, Number: g.number}}}
	g.store.Redeem(context.Background(), q, make([]ticket.RedeemAnswer, 1))
}

// frontDoor is a front end and a connection to it.
type frontDoor struct {
	address string
	key     string
	conn    net.Conn
	used    int // requests on conn
	request []byte
	got     []byte
}

func newFrontDoor(ctx context.Context) (*frontDoor, func() error, error) {
	s, key, err := frontEnd(ctx, rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	address, err := s.Listen()
	if err != nil {
		return nil, nil, err
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	f := &frontDoor{address: address.String(), key: key, got: make([]byte, 4096)}
	return f, func() error {
		var err error
		if f.conn != nil {
			err = f.conn.Close()
		}
		over, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return errors.Join(err, s.Shutdown(over), <-served)
	}, nil
}

// perConn is how many requests one connection is used for; the front end allows 100.
const perConn = 90

func (f *frontDoor) ready(key string) {
	if f.conn == nil || f.used == perConn {
		if f.conn != nil {
			_ = f.conn.Close()
		}
		var err error
		if f.conn, err = net.Dial("tcp", f.address); err != nil {
			panic(err)
		}
		f.used = 0
	}
	f.used++
	f.request = fmt.Appendf(f.request[:0], "GET /v1/streams HTTP/1.1\r\nHost: a\r\nX-API-Key: %s\r\n\r\n", key)
}

func (f *frontDoor) run() {
	if _, err := f.conn.Write(f.request); err != nil {
		panic(err)
	}
	n, err := f.conn.Read(f.got[:cap(f.got)])
	if err != nil && !errors.Is(err, io.EOF) {
		panic(err)
	}
	f.got = f.got[:n]
}

// answer is the body without what is different in every answer.
func (f *frontDoor) answer() string {
	_, body, _ := strings.Cut(string(f.got), "\r\n\r\n")
	before, _, _ := strings.Cut(body, `"instance"`)
	return before
}

// keys are unknown key ids and a known one with a wrong secret (first, last byte).
func (f *frontDoor) keys() []contender {
	spoil := func(at int) string {
		b := []byte(f.key)
		if b[at] == 'A' {
			b[at] = 'B'
		} else {
			b[at] = 'A'
		}
		return string(b)
	}
	try := func(name, key string) contender {
		return contender{name, func() { f.ready(key) }, f.run, f.answer}
	}
	return []contender{
		try("unknown id", strings.Replace(f.key, "_exam_", "_none_", 1)),
		try("another unknown id", strings.Replace(f.key, "_exam_", "_else_", 1)),
		try("wrong secret, first byte", spoil(len("tgk_exam_"))),
		try("wrong secret, last byte", spoil(len(f.key)-2)),
	}
}
