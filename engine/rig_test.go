package engine_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/store/memory"
	"ticketgate/ticket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an engine on the in-memory reactor with the real memory store: whole sessions, without sockets and without waiting.
type rig struct {
	t       testing.TB
	clock   *mono.Manual
	mem     *reactor.Memory
	engine  *engine.Engine
	store   *memory.Store
	ring    *ticket.KeyRing
	count   *limiter.Count
	stream  *stream
	desk    *desk
	options engine.Options
	asked   int    // by ask
	node    uint16 // in locators
}

// desk is a Redeemer that answers at once, or when the test lets it.
type desk struct {
	store   ticket.Store
	clock   mono.Clock
	epoch   ticket.Epoch
	asked   []ticket.Subject // for their epoch
	down    bool             // not ready
	doubt   bool             // answers are lost
	keep    bool             // answers wait for release
	kept    []*ticket.Batch
	touched []ticket.Subject
}

func (d *desk) Redeem(b *ticket.Batch) {
	for range b.Reqs {
		b.Answers = append(b.Answers, ticket.RedeemAnswer{Result: ticket.RedeemDoubt})
	}
	for i := range b.Reqs {
		b.Reqs[i].Held.Incarnation = 1
	}
	if !d.doubt {
		d.store.Redeem(context.Background(), b.Reqs, b.Answers)
	}
	if d.keep {
		d.kept = append(d.kept, b)
		return
	}
	b.Done(b)
}

func (d *desk) Touch(s ticket.Subject) { d.touched = append(d.touched, s) }
func (d *desk) Epoch(s ticket.Subject) ticket.Epoch {
	d.asked = append(d.asked, s)
	return d.epoch
}
func (d *desk) StoreTime() time.Time { return d.clock.Wall() }
func (d *desk) Ready() error {
	if d.down {
		return errors.New("down")
	}
	return nil
}

// stream is a Stream that echoes and remembers.
type stream struct {
	hold   bool // Join does not answer
	refuse *engine.Refusal
	panics bool
	joined []engine.Conn
	parts  int
	ends   []engine.End

	onJoin    func(engine.Conn, *engine.Join) // nil: accept
	onReceive func(engine.Conn, *frame.Event) // nil: echo
	onDrained func(engine.Conn)               // nil: nothing
	onGone    func(engine.Conn, engine.End)   // nil: nothing
}

func (s *stream) Join(c engine.Conn, j *engine.Join) {
	s.joined = append(s.joined, c)
	switch {
	case s.onJoin != nil:
		s.onJoin(c, j)
	case s.refuse != nil:
		c.Refuse(s.refuse)
	case !s.hold:
		c.Accept(nil)
	}
}

func (s *stream) Receive(c engine.Conn, ev *frame.Event) {
	if s.panics {
		panic("stream")
	}
	s.parts++
	if s.onReceive != nil {
		s.onReceive(c, ev)
		return
	}
	if ev.First && ev.Last {
		c.Send(ev.Op, ev.Payload)
	}
}

func (s *stream) Drained(c engine.Conn) {
	if s.onDrained != nil {
		s.onDrained(c)
	}
}

func (s *stream) Gone(c engine.Conn, end engine.End) {
	s.ends = append(s.ends, end)
	if s.onGone != nil {
		s.onGone(c, end)
	}
}

const wall = 1_800_000_000 // seconds; any moment will do

// newRig builds a rig; change may alter options and limits before the engine is made.
func newRig(t testing.TB, limits map[string]limiter.Options, change func(*engine.Options)) *rig {
	t.Helper()
	r := &rig{t: t, clock: mono.NewManual(time.Unix(wall, 0)), stream: new(stream)}
	var err error
	if r.ring, err = ticket.NewKeyRing(rand.Reader); err != nil {
		t.Fatal(err)
	}
	if r.store, err = memory.New(memory.Options{Clock: r.clock, Rand: rand.Reader}); err != nil {
		t.Fatal(err)
	}
	view, err := r.store.Renew(t.Context(), &ticket.RenewRequest{Incarnation: 1, Name: "rig", Lease: 24 * time.Hour, Number: 1, Enter: true, Topology: ticket.One.ID})
	if err != nil {
		t.Fatal(err)
	}
	r.desk = &desk{store: r.store, clock: r.clock, epoch: view.Seen.Epoch}
	r.count = limiter.NewCount(r.clock, time.Minute)
	plan, problems := limiter.Compile("plan", limits, limiter.Defaults{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	rules := &frame.Rules{Role: frame.Server, Opcodes: frame.AllowBoth, MaxMessage: 64 << 10, MaxFragments: 128}
	r.options = engine.Options{
		Keys: r.ring, Cache: ticket.NewCache(1024), Redeemer: r.desk, Count: r.count,
		Table:  limiter.NewTable(1024, 1, r.clock),
		Policy: engine.NewPolicy([]engine.StreamEntry{{Name: "echo", Stream: r.stream, Rules: rules}}, []*limiter.Plan{plan}),
		Rand:   rand.Reader, Base: "https://rt.example.com", Origins: engine.Origins{None: true, List: []string{"https://app.example.com"}},
		Loops:     1,
		Deadlines: engine.Deadlines{Head: 5 * time.Second, Admit: 10 * time.Second, Ping: 25 * time.Second, PongWait: 10 * time.Second},
		Control:   limiter.Rate{N: 10, Per: time.Second}, ControlBurst: 20,
		Assembly: 10 * time.Second, Queue: 256 << 10, NodeQueue: 64 << 20, HoldMax: 64 << 20,
	}
	if change != nil {
		change(&r.options)
	}
	if r.engine, r.mem, err = engine.NewMemory(r.options, r.clock); err != nil {
		t.Fatal(err)
	}
	return r
}

// issue puts a ticket for client into the store.
func (r *rig) issue(c ticket.Claims) *ticket.Minted {
	r.t.Helper()
	if c.Client == "" {
		c.Client = "ann"
	}
	c.Plan, c.Stream = "plan", "echo"
	if c.SessionEnd.IsZero() {
		c.SessionEnd = r.clock.Wall().Add(12 * time.Hour)
	}
	c.IssuedAt = r.clock.Wall()
	subject := r.ring.Subject("client", c.Client)
	m, err := r.ring.NewMinter(rand.Reader).Mint(r.clock.Wall().Add(30*time.Second), r.desk.epoch, subject, r.node)
	if err != nil {
		r.t.Fatal(err)
	}
	a, err := r.store.Issue(r.t.Context(), &ticket.IssueRequest{Ticket: m.Hash, Secret: m.SecretHash, Subject: subject,
		Limit: 10, Outstanding: 20, Life: 30 * time.Second, Owner: "k", Grant: ticket.AppendClaims(nil, &c), Epoch: r.desk.epoch})
	if err != nil || a.Result != ticket.IssueOK {
		r.t.Fatalf("issue: %+v, %v", a, err)
	}
	return m
}

// head is the upgrade request for m; extra are further lines.
func head(m *ticket.Minted, extra ...string) string {
	return rawHead("/t/"+string(m.Text[:]), append(extra, "Ticketgate-Secret: "+string(m.Secret[:]))...)
}

func rawHead(target string, extra ...string) string {
	return "GET " + target + " HTTP/1.1\r\n" + strings.Join(append([]string{"Host: rt.example.com", "Upgrade: websocket",
		"Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"}, extra...), "\r\n") + "\r\n\r\n"
}

var somebody = netip.MustParseAddrPort("203.0.113.9:4711")

// send connects, writes text and returns the connection and what came back.
func (r *rig) send(text string) (*reactor.Pipe, string) {
	p := r.mem.Connect(somebody)
	p.Write([]byte(text))
	r.mem.Run()
	return p, string(p.Read())
}

// open opens a socket with a fresh ticket.
func (r *rig) open(c ticket.Claims, extra ...string) *reactor.Pipe {
	r.t.Helper()
	p, answer := r.send(head(r.issue(c), extra...))
	if !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
		r.t.Fatalf("open: %q", answer)
	}
	return p
}

// client frames b as a client does, masked.
func client(op frame.Op, fin bool, b string) []byte {
	h := frame.Header{Fin: fin, Op: op, Masked: true, Mask: [4]byte{1, 2, 3, 4}, Len: int64(len(b))}
	out := frame.Append(nil, h)
	n := len(out)
	out = append(out, b...)
	frame.Mask(out[n:], h.Mask, 0)
	return out
}

// frames takes apart what the server sent.
func frames(t testing.TB, b []byte) (all []string) {
	t.Helper()
	for len(b) > 0 {
		h, n, err := frame.Parse(b)
		if err != nil || n == 0 || int64(len(b)-n) < h.Len || h.Masked {
			t.Fatalf("server's frame %+v: %v, in %q", h, err, b)
		}
		payload := b[n : n+int(h.Len)]
		b = b[n+int(h.Len):]
		switch h.Op {
		case frame.Close:
			if len(payload) == 0 {
				all = append(all, "close")
				continue
			}
			all = append(all, "close "+itoa(binary.BigEndian.Uint16(payload))+" "+string(payload[2:]))
		case frame.Ping:
			all = append(all, "ping "+string(payload))
		case frame.Pong:
			all = append(all, "pong "+string(payload))
		default:
			all = append(all, string(payload))
		}
	}
	return all
}

func itoa(n uint16) string {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	return string(b)
}

// say writes frames to an open socket and returns the answer's frames, joined by |.
func (r *rig) say(p *reactor.Pipe, frame ...[]byte) string {
	r.t.Helper()
	p.Write(bytes.Join(frame, nil))
	r.mem.Run()
	return r.heard(p)
}

func (r *rig) heard(p *reactor.Pipe) string {
	r.t.Helper()
	return strings.Join(frames(r.t, p.Read()), "|")
}

// plan is one limit per connection, for newRig.
func plan(t testing.TB, name, text, action string) map[string]limiter.Options {
	t.Helper()
	return map[string]limiter.Options{name: {Rate: rate(t, text), Per: limiter.PerConnection, WhenExceeded: action}}
}

// drain begins a drain: what Drain then waits for, the test brings about.
func (r *rig) drain(over time.Duration) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.engine.Drain(ctx, over); !errors.Is(err, context.Canceled) {
		r.t.Errorf("drain: %v", err)
	}
	r.mem.Run()
}

// held is the count of slots that the engine claims for client.
func (r *rig) held(client string) uint32 {
	n, _, _ := r.count.Held(r.ring.Subject("client", client))
	return n
}

func dial(t testing.TB, address string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// until waits for what another goroutine brings about.
func until(t testing.TB, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); !is(); runtime.Gosched() {
		if time.Now().After(limit) {
			t.Fatal("it does not happen")
		}
	}
}
