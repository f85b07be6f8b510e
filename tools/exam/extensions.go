package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"ticketgate/engine/frame"
	"ticketgate/tools/rig"
)

func init() {
	tests[8] = test{"extension negotiation: bad offers declined or 400, no context taken over, RSV1 only where agreed", extensions}
}

const (
	randomOffers = 2000
	offersAtOnce = 16
)

// offered is what a client says in Sec-WebSocket-Extensions, a line for each part, and whether it may be agreed to.
type offered struct {
	name string
	good bool
	text string // lines are parted by '|'
}

// offers are rows of RFC 7692 sections 5 and 7.1, and of RFC 6455 section 9.1.
var offers = []offered{
	{"bare", true, "permessage-deflate"},
	{"as browsers do", true, "permessage-deflate; client_max_window_bits"},
	{"all four parameters", true, "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10; client_max_window_bits=10"},
	{"window bits 8", true, "permessage-deflate; server_max_window_bits=8"},
	{"window bits 9", true, "permessage-deflate; server_max_window_bits=9"},
	{"window bits 12", true, "permessage-deflate; server_max_window_bits=12; client_max_window_bits=8"},
	{"window bits 15", true, "permessage-deflate; server_max_window_bits=15; client_max_window_bits=15"},
	{"window bits quoted", true, `permessage-deflate; server_max_window_bits="12"`},
	{"window bits quoted, with an escape", true, `permessage-deflate; client_max_window_bits="1\2"`},
	{"behind one that is bad", true, "permessage-deflate; server_max_window_bits=7, permessage-deflate"},
	{"behind another extension", true, `x-own; a="b", permessage-deflate; server_max_window_bits=11`},
	{"on the second line", true, "x-own|permessage-deflate; client_no_context_takeover"},
	{"the last of 50", true, strings.Repeat("permessage-deflate; server_max_window_bits=16, ", 49) + "permessage-deflate"},
	{"the last on 50 lines", true, strings.Repeat("x-own; a=b|", 49) + "permessage-deflate"},
	{"behind 4 KiB of others", true, strings.Repeat("x-own; parameter=value, ", 170) + "permessage-deflate"},
	{"empty", false, ""},
	{"window bits 7", false, "permessage-deflate; server_max_window_bits=7"},
	{"window bits 16", false, "permessage-deflate; server_max_window_bits=16"},
	{"window bits 0", false, "permessage-deflate; server_max_window_bits=0"},
	{"window bits -9", false, "permessage-deflate; server_max_window_bits=-9"},
	{"window bits 09", false, "permessage-deflate; server_max_window_bits=09"},
	{"window bits 9.0", false, "permessage-deflate; server_max_window_bits=9.0"},
	{"window bits 2^32+9", false, "permessage-deflate; server_max_window_bits=4294967305"},
	{"window bits nine", false, "permessage-deflate; server_max_window_bits=nine"},
	{"window bits empty", false, "permessage-deflate; server_max_window_bits="},
	{"window bits without a value", false, "permessage-deflate; server_max_window_bits"},
	{"window bits quoted and empty", false, `permessage-deflate; server_max_window_bits=""`},
	{"window bits quoted, with a space", false, `permessage-deflate; server_max_window_bits=" 9"`},
	{"window bits quoted, 16", false, `permessage-deflate; server_max_window_bits="16"`},
	{"window bits quoted, no end", false, `permessage-deflate; server_max_window_bits="9`},
	{"window bits repeated", false, "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9"},
	{"client's window bits 7", false, "permessage-deflate; client_max_window_bits=7"},
	{"client's window bits 16", false, "permessage-deflate; client_max_window_bits=16"},
	{"client's window bits empty", false, "permessage-deflate; client_max_window_bits="},
	{"client's window bits repeated", false, "permessage-deflate; client_max_window_bits; client_max_window_bits"},
	{"a flag repeated", false, "permessage-deflate; server_no_context_takeover; server_no_context_takeover"},
	{"a flag with a value", false, "permessage-deflate; client_no_context_takeover=true"},
	{"a flag with an empty value", false, "permessage-deflate; client_no_context_takeover="},
	{"unknown parameter", false, "permessage-deflate; server_window=9"},
	{"unknown parameter with a quoted value", false, `permessage-deflate; server_window="9"`},
	{"another extension", false, "permessage-bzip2"},
	{"WebKit's old one", false, "x-webkit-deflate-frame"},
	{"name cut short", false, "permessage-deflat"},
	{"no name", false, "; server_no_context_takeover"},
	{"no parameter", false, "permessage-deflate;"},
	{"two semicolons", false, "permessage-deflate;; client_max_window_bits"},
	{"commas", false, ",,,,,,,,"},
	{"a space in the name", false, "permessage deflate"},
	{"a slash", false, "permessage/deflate"},
	{"a quoted name", false, `"permessage-deflate"`},
	{"50 bad ones", false, strings.Repeat("permessage-deflate; server_max_window_bits=16, ", 49) + "permessage-deflate; server_max_window_bits=7"},
	{"4 KiB of bad ones", false, strings.Repeat("permessage-deflate; client_max_window_bits=7, ", 90) + "x"},
	{"4 KiB of one value", false, "permessage-deflate; server_max_window_bits=" + strings.Repeat("1", 4<<10)},
	{"4 KiB of escapes", false, `permessage-deflate; server_max_window_bits="` + strings.Repeat(`\1`, 2<<10) + `"`},
	{"4 KiB of parameters", false, "permessage-deflate" + strings.Repeat("; client_max_window_bits", 170)},
	{"4 KiB of semicolons", false, "permessage-deflate" + strings.Repeat(";", 4<<10)},
}

// extensions offers all rows, and random ones, to a gate with compression on, and the rows to one with it off.
func extensions(ctx context.Context, x *exam) error {
	for _, on := range []bool{false, true} {
		if err := negotiate(ctx, x, on); err != nil {
			return fmt.Errorf("compression on: %v: %w", on, err)
		}
	}
	return nil
}

func negotiate(ctx context.Context, x *exam, on bool) error {
	setting := map[bool]string{true: "on", false: "off"}[on]
	own := *x
	own.dir = filepath.Join(x.dir, setting)
	if err := os.Mkdir(own.dir, 0o700); err != nil {
		return err
	}
	c, err := start(ctx, &own, clusterOptions{memory: true, yaml: "websocket: { compression: " + setting + " }\n"})
	if err != nil {
		return err
	}
	defer func() { x.want(c.close() == nil, "the node did not stop") }()
	n := &negotiation{c: c, on: on}
	each(offers, offersAtOnce, func(i int, o offered) { n.note(x, &o, n.row(ctx, "c"+strconv.Itoa(i), &o)) })
	x.figure("compression %s: %d rows: agreed %d, declined %d, 400 %d; RSV1 where it was not agreed: 1002 on %d sockets, slowest %v", setting,
		len(offers), n.agreed, n.declined, n.refused, n.closed, n.slowest.Round(time.Microsecond))
	x.wantTime(n.slowest <= closeWithin, "a close took %v, want at most %v", n.slowest, closeWithin)
	if on {
		*n = negotiation{c: c, on: on}
		drawn := make([]offered, x.n(randomOffers, 100))
		for i := range drawn {
			drawn[i] = offered{name: "random", text: randomOffer(x.rnd)}
		}
		each(drawn, offersAtOnce, func(i int, o offered) { n.note(x, &o, n.random(ctx, "r"+strconv.Itoa(i), &o)) })
		x.figure("%d random offers: agreed %d, declined %d, 400 %d", len(drawn), n.agreed, n.declined, n.refused)
		x.want(n.agreed > 0 && n.declined > 0 && n.refused > 0, "random offers are all treated alike")
	}
	panics, err := c.metric(ctx, "ticketgate_panics_total")
	x.want(panics == 0, "%d panics", panics)
	return err
}

// negotiation is what the offers to one gate have come to.
type negotiation struct {
	c  *cluster
	on bool

	mu                                sync.Mutex
	agreed, declined, refused, closed int
	slowest                           time.Duration // close for RSV1
}

func (n *negotiation) note(x *exam, o *offered, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	x.want(err == nil, "%s: %.60q: %v", o.name, o.text, err)
}

// row offers o and looks at the answer and at what the socket can then do.
func (n *negotiation) row(ctx context.Context, client string, o *offered) error {
	s, answer, err := n.offer(ctx, client, o)
	if err != nil {
		return err
	}
	if s == nil {
		if !n.on || o.good {
			return errors.New("400")
		}
		return nil
	}
	defer s.Close()
	switch {
	case n.on && o.good && answer == "":
		return errors.New("declined")
	case answer != "" && (!n.on || !o.good):
		return fmt.Errorf("agreed to as %q", answer)
	case answer != "":
		s.packs = true
		return s.echo(strings.Repeat("this is worth compressing, ", 50))
	}
	if err := s.echo("plain"); err != nil {
		return err
	}
	s.packs = true
	begun := time.Now()
	if err := s.send(frame.Text, []byte("not agreed")); err != nil {
		return err
	}
	code, err := s.untilClose()
	switch {
	case err != nil:
		return fmt.Errorf("RSV1 where nothing was agreed: %w", err)
	case code != frame.CloseProtocol:
		return fmt.Errorf("RSV1 where nothing was agreed: closed with %d", code)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed++
	n.slowest = max(n.slowest, time.Since(begun))
	return nil
}

// random offers o, of which nobody knows whether it is good.
func (n *negotiation) random(ctx context.Context, client string, o *offered) error {
	s, answer, err := n.offer(ctx, client, o)
	if err != nil || s == nil {
		return err
	}
	defer s.Close()
	s.packs = answer != ""
	return s.echo("still here")
}

// offer opens a socket with o. answer is what was agreed to; s is nil if the answer was 400.
func (n *negotiation) offer(ctx context.Context, client string, o *offered) (s *socket, answer string, err error) {
	t, err := n.c.issue(ctx, 0, request{Stream: "echo", Client: client})
	if err != nil {
		return nil, "", err
	}
	s, a, err := offerRaw(ctx, n.c.nodes[0].Gate, t, strings.Split(o.text, "|")...)
	if err != nil {
		return nil, "", err
	}
	values := a.Header.Values("Sec-WebSocket-Extensions")
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case a.StatusCode == http.StatusBadRequest:
		n.refused++
		_, err := io.Copy(io.Discard, s.r) // to its end: the connection must not stay open
		return nil, "", errors.Join(err, s.Close())
	case a.StatusCode != http.StatusSwitchingProtocols:
		return nil, "", errors.Join(errors.New(a.Status), s.Close())
	case len(values) == 0:
		n.declined++
		return s, "", s.SetDeadline(time.Time{})
	}
	n.agreed++
	answer = strings.Join(values, ", ")
	if err := judgeAnswer(answer, o.text); err != nil {
		return nil, "", errors.Join(err, s.Close())
	}
	return s, answer, s.SetDeadline(time.Time{})
}

// offerRaw redeems t with lines of Sec-WebSocket-Extensions, and returns the answer whatever it is.
func offerRaw(ctx context.Context, gate string, t *rig.Ticket, lines ...string) (*socket, *http.Response, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", gate)
	if err != nil {
		return nil, nil, err
	}
	s := &socket{Conn: conn, r: bufio.NewReader(conn)}
	head := strings.TrimSuffix(rig.Head("gate.test", t.Path(), t.Secret()), "\r\n")
	for _, line := range lines {
		head += "Sec-WebSocket-Extensions: " + line + "\r\n"
	}
	if err := s.SetDeadline(time.Now().Add(4 * answerWithin)); err != nil {
		return nil, nil, errors.Join(err, s.Close())
	}
	if _, err := s.Write([]byte(head + "\r\n")); err != nil {
		return nil, nil, errors.Join(err, s.Close())
	}
	a, err := http.ReadResponse(s.r, nil)
	if err != nil {
		return nil, nil, errors.Join(err, s.Close())
	}
	return s, a, nil
}

// agreement is the only form that an answer may have, its parameters in any order.
var agreement = regexp.MustCompile(`^permessage-deflate((?:; (?:(?:server|client)_no_context_takeover|(?:server|client)_max_window_bits=(?:[89]|1[0-5])))*)$`)

// judgeAnswer wants both flags in an answer, once, and no window that was not offered or is larger.
func judgeAnswer(answer, offer string) error {
	m := agreement.FindStringSubmatch(answer)
	if m == nil {
		return fmt.Errorf("agreed to as %q, which is no answer", answer)
	}
	for _, flag := range []string{"server_no_context_takeover", "client_no_context_takeover"} {
		if strings.Count(answer, flag) != 1 {
			return fmt.Errorf("agreed to as %q, without %s", answer, flag)
		}
	}
	unquoted := strings.NewReplacer(`"`, "", `\`, "").Replace(offer)
	for _, side := range []string{"server", "client"} {
		_, bits, ok := strings.Cut(answer, side+"_max_window_bits=")
		bits, _, _ = strings.Cut(bits, ";")
		if ok && !strings.Contains(unquoted, side+"_max_window_bits="+bits) {
			return fmt.Errorf("agreed to as %q, which was not offered", answer)
		}
	}
	return nil
}

// randomOffer strings words together that mean something, and some that do not.
func randomOffer(rnd *rand.Rand) string {
	words := []string{"permessage-deflate", "permessage-deflate", "permessage-deflate; ", ", ", "; ", ";", ",", "=", "server_max_window_bits", "client_max_window_bits",
		"server_max_window_bits=12", "client_max_window_bits=8", "server_no_context_takeover", "client_no_context_takeover", "9", "15", "16", "7", `"`, `"10"`, `\`,
		" ", "\t", "x", "()", "|", "server_max_window_bits=", "\x80"}
	var b strings.Builder
	b.WriteString("permessage-deflate")
	for range rnd.IntN(8) {
		if rnd.IntN(2) == 0 {
			b.WriteString("; ")
		}
		b.WriteString(words[rnd.IntN(len(words))])
	}
	return b.String()
}
