package conform_test

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"ticketgate/engine"
	"ticketgate/engine/reactor"
	"ticketgate/feed/echo"
	"ticketgate/feed/feedtest"
	"ticketgate/feed/relay"
	"ticketgate/tools/conform"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The gates of these tests take messages of 4 MiB in 128 fragments.
const (
	maxBytes     = 4 << 20
	maxFragments = 128
	seed         = 1
)

// Long messages that are played too: one of a kind.
var (
	longPlain   = []string{"7.1.6", "9.1.3", "9.2.3", "9.3.8", "9.4.8", "9.5.6", "9.6.6"}
	longDeflate = []string{"12.1.18", "12.5.15", "13.3.18"}
)

// short is the short form of the suite: messages of up to 64 KiB in all, as few as will do, and those of long.
func short(long ...string) []*conform.Case {
	return slices.DeleteFunc(conform.All(0), func(c *conform.Case) bool {
		return c.Frames > maxFragments || c.Bytes > 64<<10 && !slices.Contains(long, c.ID)
	})
}

// target goes to g with a fresh ticket.
func target(t *testing.T, g *feedtest.Gate) conform.Target {
	path, secret := g.Ticket(t)
	return conform.Target{Addr: g.Addr, Path: path, Header: http.Header{"Ticketgate-Secret": {secret}}}
}

// direct opens sockets to g.
func direct(t *testing.T, g *feedtest.Gate) func(context.Context, string) (*conform.Link, error) {
	return func(ctx context.Context, offer string) (*conform.Link, error) {
		s, err := conform.Dial(ctx, target(t, g), offer, seed)
		if err != nil {
			return nil, err
		}
		return &conform.Link{Socket: s}, nil
	}
}

// relayTo returns a gate that relays to url.
func relayTo(t *testing.T, url string, deflate bool) *feedtest.Gate {
	t.Helper()
	r, err := relay.New(relay.Options{Name: "b", Targets: []string{url}, MaxMessage: maxBytes, MaxFragments: maxFragments, Kind: 1})
	if err != nil {
		t.Fatal(err)
	}
	o := feedtest.Options{Stream: r, Handlers: []reactor.Handler{r.Handler()}, MaxMessage: maxBytes, Queue: 2 * maxBytes, Compression: deflate}
	g := feedtest.New(t, o, func(e *engine.Engine) {
		if err := r.Bind(e); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(r.Close)
	return g
}

// judge fails the test for each case that did not go well. NON-STRICT may be those of which may says so.
func judge(t *testing.T, results []conform.Result, may func(*conform.Case) bool) {
	t.Helper()
	for i := range results {
		r := &results[i]
		if r.Verdict == conform.Failed || r.Ending != conform.Clean || r.Verdict == conform.NonStrict && !may(r.Case) {
			t.Error(r.Line())
		}
	}
	var table bytes.Buffer
	conform.Print(&table, results)
	t.Logf("\n%s", table.String())
}

// strict lets no case be NON-STRICT.
func strict(*conform.Case) bool { return false }

// overtaken are the cases whose echo a relay may not have yet when it fails the connection.
func overtaken(c *conform.Case) bool { return c.Loose }

// late are those, and the two whose bad text comes in pieces of one frame: from a backend the relay judges text by pieces
// of 16 KiB or at the frame's end.
func late(c *conform.Case) bool { return c.Loose || c.ID == "6.4.3" || c.ID == "6.4.4" }

// TestEcho plays against a stream that echoes in the gateway, plain and compressed.
func TestEcho(t *testing.T) {
	t.Parallel()
	for _, deflate := range []bool{false, true} {
		g := feedtest.New(t, feedtest.Options{Stream: echo.Echo{}, MaxMessage: maxBytes, Queue: 2 * maxBytes, Compression: deflate}, nil)
		long := longPlain
		if deflate {
			long = longDeflate
		}
		judge(t, conform.Run(t.Context(), short(long...), conform.Options{Open: direct(t, g), Deflate: deflate}), strict)
	}
}

// TestRelay plays against a relay with a backend that echoes, plain and compressed.
func TestRelay(t *testing.T) {
	t.Parallel()
	for _, deflate := range []bool{false, true} {
		g := relayTo(t, echoBackend(t, false).URL(), deflate)
		judge(t, conform.Run(t.Context(), short(), conform.Options{Open: direct(t, g), Deflate: deflate}), overtaken)
	}
}

// TestGorilla lets another library be the client of a compressed relay.
func TestGorilla(t *testing.T) {
	t.Parallel()
	g := relayTo(t, echoBackend(t, false).URL(), true)
	judge(t, conform.RunGorilla(t.Context(), short(), conform.GorillaOptions{Deflate: true,
		Target: func(context.Context) (conform.Target, error) { return target(t, g), nil }}), strict)
}

func echoBackend(t *testing.T, deflate bool) *conform.EchoBackend {
	t.Helper()
	b, err := conform.NewEchoBackend(deflate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// TestBackend plays as the backend of a relay.
func TestBackend(t *testing.T) {
	t.Parallel()
	x, err := conform.NewExaminer(seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	g := relayTo(t, x.URL(), false)
	open := func(ctx context.Context, _ string) (*conform.Link, error) { return x.Open(ctx, target(t, g)) }
	judge(t, conform.Run(t.Context(), short(longPlain...), conform.Options{Open: open, Never: true}), late)
}
