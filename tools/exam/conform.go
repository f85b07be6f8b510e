package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"ticketgate/tools/conform"
)

func init() {
	tests[1] = test{"conformance: the sections of the Autobahn suite, plain, compressed, and as the backend", conformance}
}

// conformYAML raises the message limit for section 9, whose messages of 4 MiB come in up to 65,536 fragments. The rest is as
// by default, the budget of control frames too.
const conformYAML = "websocket: { max_message: 16MiB, max_fragments: 65536, assembly: 1m, compression: %s, inflate_ratio: 1032 }\n"

// conformAtOnce is how many cases run at a time where the tester is the client: most of them wait for echoes.
const conformAtOnce = 4

// conformance plays all cases in three configurations, one after the other. The size is that of the cases with many messages.
func conformance(ctx context.Context, x *exam) error {
	cases := conform.All(x.size)
	if err := conformClient(ctx, x, "plain", false, cases); err != nil {
		return fmt.Errorf("plain: %w", err)
	}
	if err := conformClient(ctx, x, "compressed", true, cases); err != nil {
		return fmt.Errorf("compressed: %w", err)
	}
	if err := conformBackend(ctx, x, cases); err != nil {
		return fmt.Errorf("as the backend: %w", err)
	}
	return nil
}

// conformNode is a node under examination.
type conformNode struct {
	*cluster
	x       *exam
	clients atomic.Int64
}

// startConform starts a node in a folder of its own.
func startConform(ctx context.Context, x *exam, name string, deflate bool, backend string) (*conformNode, error) {
	own := *x
	own.dir = filepath.Join(x.dir, name)
	if err := os.Mkdir(own.dir, 0o700); err != nil {
		return nil, err
	}
	compression := "off"
	if deflate {
		compression = "on"
	}
	c, err := start(ctx, &own, clusterOptions{memory: true, backend: backend, yaml: fmt.Sprintf(conformYAML, compression)})
	return &conformNode{cluster: c, x: x}, err
}

// target gets a ticket for a socket of a client of its own.
func (n *conformNode) target(ctx context.Context, stream string) (conform.Target, error) {
	t, err := n.issue(ctx, 0, request{Stream: stream, Client: fmt.Sprintf("c%d", n.clients.Add(1))})
	if err != nil {
		return conform.Target{}, err
	}
	return conform.Target{Addr: n.nodes[0].Gate, Path: t.Path(), Header: http.Header{"Ticketgate-Secret": {t.Secret()}}}, nil
}

// open returns what opens sockets of stream.
func (n *conformNode) open(stream string) func(context.Context, string) (*conform.Link, error) {
	return func(ctx context.Context, offer string) (*conform.Link, error) {
		to, err := n.target(ctx, stream)
		if err != nil {
			return nil, err
		}
		s, err := conform.Dial(ctx, to, offer, n.x.seed)
		if err != nil {
			return nil, err
		}
		return &conform.Link{Socket: s}, nil
	}
}

// conformClient plays as the client: against the built-in echo, against a relay with a backend that echoes, and there again
// with the client of another library.
func conformClient(ctx context.Context, x *exam, name string, deflate bool, cases []*conform.Case) error {
	b, err := conform.NewEchoBackend(false)
	if err != nil {
		return err
	}
	defer func() { x.want(b.Close() == nil, "the backend did not stop") }()
	n, err := startConform(ctx, x, name, deflate, b.URL())
	if err != nil {
		return err
	}
	defer func() { x.want(n.close() == nil, "the node did not stop") }()
	for _, stream := range []string{"echo", "relay"} {
		results := conform.Run(ctx, cases, conform.Options{Open: n.open(stream), Deflate: deflate, AtOnce: conformAtOnce})
		x.conform(name+", "+stream, results)
	}
	x.conform(name+", relay, gorilla/websocket as the client", conform.RunGorilla(ctx, cases, conform.GorillaOptions{Deflate: deflate, AtOnce: conformAtOnce,
		Target: func(ctx context.Context) (conform.Target, error) { return n.target(ctx, "relay") }}))
	return nil
}

// conformBackend plays as the backend of a relay, so that the gateway's own client side is examined.
func conformBackend(ctx context.Context, x *exam, cases []*conform.Case) error {
	b, err := conform.NewExaminer(x.seed)
	if err != nil {
		return err
	}
	defer func() { x.want(b.Close() == nil, "the backend did not stop") }()
	n, err := startConform(ctx, x, "backend", false, b.URL())
	if err != nil {
		return err
	}
	defer func() { x.want(n.close() == nil, "the node did not stop") }()
	open := func(ctx context.Context, _ string) (*conform.Link, error) {
		to, err := n.target(ctx, "relay")
		if err != nil {
			return nil, err
		}
		return b.Open(ctx, to)
	}
	x.conform("as the backend", conform.Run(ctx, cases, conform.Options{Open: open, Never: true}))
	return nil
}

// conform prints the table of one pass and what is not strict in it, and notes what is wrong.
func (x *exam) conform(pass string, results []conform.Result) {
	sum := conform.Count(results)
	x.figure("%s: %d cases, %d wrong", pass, sum.Cases, sum.Wrong())
	conform.Print(x.out, results)
	var reasons []string
	lax := map[string][]string{}
	for i := range results {
		r := &results[i]
		if r.Verdict == conform.NonStrict {
			if lax[r.Why] == nil {
				reasons = append(reasons, r.Why)
			}
			lax[r.Why] = append(lax[r.Why], r.Case.ID)
		}
		x.want(r.Verdict != conform.Failed && r.Ending == conform.Clean, "%s: %s", pass, r.Line())
	}
	for _, why := range reasons {
		x.figure("NON-STRICT %s: %s", strings.Join(lax[why], " "), why)
	}
}
