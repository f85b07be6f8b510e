package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"ticketgate/handshake"
	"ticketgate/handshake/auth"
	"ticketgate/internal/mono"
	"ticketgate/limiter"
	"ticketgate/store/memory"
	"ticketgate/ticket"
	"ticketgate/tools/rig"
)

func init() {
	tests[19] = test{"ticket strength and storage: no repeats, nothing usable in Redis, no ticket without randomness", strength}
}

const (
	strengthTickets = 10_000_000
	strengthStored  = 1000
)

var errTicketForm = errors.New("a ticket is not what it should be")

func strength(ctx context.Context, x *exam) error {
	if err := noRepeats(x); err != nil {
		return err
	}
	if err := stored(ctx, x); err != nil {
		return err
	}
	return noWeakFallback(ctx, x)
}

// noRepeats mints tickets and looks for two with the same random part or the same second secret. It keeps 64 bits of each:
// of ten million true random ones two agree in one run of 370,000.
func noRepeats(x *exam) error {
	ring, err := ticket.NewKeyRing(rand.Reader)
	if err != nil {
		return err
	}
	minter := ring.NewMinter(rand.Reader)
	n := x.n(strengthTickets, 10_000)
	randoms, secrets := make([]uint64, n), make([]uint64, n)
	bits := make([]int, 128+256)
	expiry := time.Now().Add(30 * time.Second)
	for i := range n {
		m, err := minter.Mint(expiry, 1, ticket.Subject(i), 0)
		if err != nil {
			return err
		}
		secret, err := base64.RawURLEncoding.DecodeString(string(m.Secret[4:]))
		if err != nil || len(secret) != 32 {
			return fmt.Errorf("second secret of %d bytes: %w", len(secret), errors.Join(err, errTicketForm))
		}
		randoms[i], secrets[i] = binary.LittleEndian.Uint64(m.Locator.Random[:]), binary.LittleEndian.Uint64(secret)
		if i < 10_000 {
			countBits(bits[:128], m.Locator.Random[:])
			countBits(bits[128:], secret)
		}
	}
	slices.Sort(randoms)
	slices.Sort(secrets)
	a, b := repeats(randoms), repeats(secrets)
	worst := 0.0 // standard deviations by which the share of ones in a bit is off
	sample := min(n, 10_000)
	for _, ones := range bits {
		worst = max(worst, math.Abs(float64(ones)-float64(sample)/2)/math.Sqrt(float64(sample)/4))
	}
	x.figure("%d tickets: repeated random parts %d, repeated second secrets %d, most biased of 384 bits %.1f sigma", n, a, b, worst)
	x.want(a == 0 && b == 0, "%d random parts and %d secrets repeat", a, b)
	x.want(worst < 6, "a bit is off by %.1f sigma", worst)
	return nil
}

func countBits(count []int, b []byte) {
	for i := range count {
		count[i] += int(b[i/8] >> (i % 8) & 1)
	}
}

func repeats(sorted []uint64) (n int) {
	for i := 1; i < len(sorted); i++ {
		if sorted[i] == sorted[i-1] {
			n++
		}
	}
	return n
}

// stored issues tickets at a real node and looks for any of them in all that Redis holds.
func stored(ctx context.Context, x *exam) error {
	c, err := start(ctx, x, clusterOptions{})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	var needles [][]byte
	n := x.n(strengthStored, 50)
	for i := range n {
		t, err := c.issue(ctx, 0, request{Stream: "echo", Client: "c" + strconv.Itoa(i)})
		if err != nil {
			return err
		}
		more, err := traces(t)
		if err != nil {
			return err
		}
		needles = append(needles, more...)
	}
	if err := c.headersOfIssue(ctx, x); err != nil {
		return err
	}
	dump, keys, err := dumpRedis(ctx, c.redis.Addr)
	if err != nil {
		return err
	}
	found := 0
	for _, needle := range needles {
		if bytes.Contains(dump, needle) {
			found++
		}
	}
	x.figure("%d tickets in Redis: %d keys, %d bytes looked at, parts of tickets found %d of %d looked for", n, keys, len(dump), found, len(needles))
	x.want(found == 0, "Redis holds %d parts of tickets", found)
	x.want(keys >= n, "Redis holds %d keys for %d tickets: the dump is not whole", keys, n)
	return nil
}

// traces are the forms in which t could stand somewhere: its texts, and the bytes that they stand for.
func traces(t *rig.Ticket) ([][]byte, error) {
	locator, secret := strings.TrimPrefix(t.Path(), "/t/"), strings.TrimPrefix(t.Secret(), "tgs_")
	raw, err := base64.RawURLEncoding.DecodeString(locator)
	if err != nil || len(raw) < 32 {
		return nil, errors.Join(err, errTicketForm)
	}
	rawSecret, err := base64.RawURLEncoding.DecodeString(secret)
	if err != nil {
		return nil, err
	}
	random, mac := raw[len(raw)-32:len(raw)-16], raw[len(raw)-16:]
	return [][]byte{[]byte(locator), []byte(secret), random, mac, rawSecret, fmt.Appendf(nil, "%x", random), fmt.Appendf(nil, "%x", rawSecret)}, nil
}

func (c *cluster) headersOfIssue(ctx context.Context, x *exam) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.nodes[0].Handshake+"/v1/tickets", strings.NewReader(`{"stream":"echo"}`))
	if err != nil {
		return err
	}
	r.Header.Set("X-API-Key", c.key.Text)
	r.Header.Set("Content-Type", "application/json")
	a, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	x.want(a.StatusCode == http.StatusCreated, "issue: %s", a.Status)
	x.want(a.Header.Get("Cache-Control") == "no-store", "Cache-Control %q", a.Header.Get("Cache-Control"))
	x.want(a.Header.Get("Referrer-Policy") == "no-referrer", "Referrer-Policy %q", a.Header.Get("Referrer-Policy"))
	x.figure("answer to an issue: Cache-Control %q, Referrer-Policy %q", a.Header.Get("Cache-Control"), a.Header.Get("Referrer-Policy"))
	return nil
}

// dumpRedis is all keys and values.
func dumpRedis(ctx context.Context, address string) (all []byte, keys int, err error) {
	r, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{address}, DisableCache: true})
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	names, err := r.Do(ctx, r.B().Keys().Pattern("*").Build()).AsStrSlice()
	if err != nil {
		return nil, 0, err
	}
	for _, k := range names {
		v, err := r.Do(ctx, r.B().Dump().Key(k).Build()).AsBytes()
		if err != nil && !rueidis.IsRedisNil(err) {
			return nil, 0, err
		}
		all = append(append(all, k...), v...)
	}
	return all, len(names), nil
}

// broken is a random source that fails once it has been told to.
type broken struct{ on bool }

func (b *broken) Read(p []byte) (int, error) {
	if b.on {
		return 0, errors.New("no randomness")
	}
	return rand.Read(p)
}

// alone is a node that is always ready.
type alone struct {
	*memory.Store
	epoch ticket.Epoch
}

func (a alone) Epoch(ticket.Subject) ticket.Epoch { return a.epoch }
func (alone) Number() uint16                      { return 0 }
func (alone) StoreTime() time.Time                { return time.Now() }
func (alone) Ready() error                        { return nil }

// noWeakFallback takes the random source away from a front end: it must refuse with 503, and not issue something weaker.
func noWeakFallback(ctx context.Context, x *exam) error {
	src := new(broken)
	s, key, err := frontEnd(ctx, src)
	if err != nil {
		return err
	}
	address, err := s.Listen()
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	c := newHTTP(1)
	_, before := rig.Issue(ctx, c, address.String(), key, request{Stream: "echo"})
	src.on = true
	_, after := rig.Issue(ctx, c, address.String(), key, request{Stream: "echo"})
	c.CloseIdleConnections()
	var refused *rig.Refused
	ok := errors.As(after, &refused) && refused.Status == http.StatusServiceUnavailable
	x.figure("random source fails: before %v, after %v", before, after)
	x.want(before == nil, "with a random source: %v", before)
	x.want(ok, "without a random source: %v, want 503", after)
	over, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return errors.Join(s.Shutdown(over), <-served)
}

// frontEnd is a handshake server in this process with stream echo, plan p and one key.
func frontEnd(ctx context.Context, src io.Reader) (*handshake.Server, string, error) {
	ring, err := ticket.NewKeyRing(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	text, err := rig.Ring()
	if err != nil {
		return nil, "", err
	}
	hashes, err := auth.ParseRing(text)
	if err != nil {
		return nil, "", err
	}
	key, rec, err := auth.Generate(rand.Reader, "exam", hashes)
	if err != nil {
		return nil, "", err
	}
	rec.Client, rec.Product, rec.Plan = "exam", "all", "p"
	keys, problems := auth.NewKeys([]auth.Record{rec}, hashes)
	if len(problems) > 0 {
		return nil, "", fmt.Errorf("keys: %v", problems)
	}
	plan, wrong := limiter.Compile("p", nil, limiter.Defaults{})
	if len(wrong) > 0 {
		return nil, "", fmt.Errorf("plan: %v", wrong)
	}
	store, err := memory.New(memory.Options{Clock: mono.System, Rand: rand.Reader})
	if err != nil {
		return nil, "", err
	}
	view, err := store.Renew(ctx, &ticket.RenewRequest{Incarnation: 1, Name: "exam", Lease: time.Minute, Number: 1, Enter: true, Topology: ticket.One.ID})
	if err != nil {
		return nil, "", err
	}
	policy := &handshake.Policy{
		Streams:  map[string]handshake.Stream{"echo": {Name: "echo"}},
		Plans:    map[string]*limiter.Plan{"p": plan},
		Products: map[string]handshake.Product{"all": {Streams: []string{"echo"}, Plans: []string{"p"}}},
		Keys:     keys,
	}
	s, err := handshake.New(handshake.Options{
		Address: "127.0.0.1:0", GateURL: "ws://gate.test", Keys: ring, Node: alone{store, view.Seen.Epoch},
		Policy: func() *handshake.Policy { return policy }, Clock: mono.System, Rand: src, Log: slog.New(slog.DiscardHandler),
	})
	return s, key, err
}
