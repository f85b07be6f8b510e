package relay_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/feed/feedtest"
	"ticketgate/feed/relay"
)

const accept = "Sec-WebSocket-Accept: "

func TestNewTellsAllProblems(t *testing.T) {
	for _, x := range []struct {
		name   string
		change func(*relay.Options)
		want   []string // parts of the error; none: no error
	}{
		{"good", func(*relay.Options) {}, nil},
		{"good name, port and query", func(o *relay.Options) { o.Targets = []string{"ws://[::1]/", "ws://10.1.2.3", "ws://10.1.2.3:9?x=1"} }, nil},
		{"no targets", func(o *relay.Options) { o.Targets = nil }, []string{"no targets"}},
		{"scheme", func(o *relay.Options) { o.Targets = []string{"http://h/"} }, []string{`scheme "http", want ws`}},
		{"secure", func(o *relay.Options) { o.Targets = []string{"wss://h/"} }, []string{`scheme "wss", want ws`}},
		{"no host", func(o *relay.Options) { o.Targets = []string{"ws:///x"} }, []string{"want ws://host:port/path"}},
		{"user", func(o *relay.Options) { o.Targets = []string{"ws://u:p@h/"} }, []string{"without user"}},
		{"fragment", func(o *relay.Options) { o.Targets = []string{"ws://h/#"} }, []string{"fragment"}},
		{"port", func(o *relay.Options) { o.Targets = []string{"ws://h:0/", "ws://h:65536/"} }, []string{`port "0"`, `port "65536"`}},
		{"not a URL", func(o *relay.Options) { o.Targets = []string{"ws://h:port/"} }, []string{"invalid port"}},
		{"host that cannot be sent", func(o *relay.Options) { o.Targets = []string{"ws://h!h/"} }, []string{"cannot be sent"}},
		{"too many", func(o *relay.Options) { o.Targets = slices.Repeat([]string{"ws://10.0.0.1/"}, 1025) }, []string{"1025 targets"}},
		{"limits", func(o *relay.Options) { o.MaxMessage, o.MaxFragments = 0, 0 }, []string{"message limit 0 bytes in 0 fragments"}},
		{"timeouts", func(o *relay.Options) { o.DialTimeout = -1 }, []string{"timeouts -1ns"}},
		{"kind", func(o *relay.Options) { o.Kind = 0 }, []string{"kind 0"}},
		{"headers", func(o *relay.Options) { o.ForwardHeaders = []string{"X-Ok", "Host", "Sec-WebSocket-Key", "a b"} },
			[]string{`header "Host"`, `header "Sec-WebSocket-Key"`, `header "a b"`}},
		{"several", func(o *relay.Options) { o.Kind, o.Targets = 0, []string{"ftp://x"} }, []string{"kind 0", "ftp"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			r, err := relay.New(options(x.change))
			if len(x.want) == 0 {
				if err != nil {
					t.Fatalf("New: %v", err)
				}
				r.Close()
				return
			}
			if err == nil {
				r.Close()
				t.Fatal("New took it")
			}
			for _, part := range append(x.want, `backend "pool"`) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
			if strings.Contains(err.Error(), "X-Ok") {
				t.Errorf("error %q blames a good header", err)
			}
		})
	}
}

// TestBackendVerdict: only a complete, valid 101 opens the client's socket, and no byte of the client's reaches the backend
// before.
func TestBackendVerdict(t *testing.T) {
	const upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n"
	for _, x := range []struct {
		name   string
		answer string // "KEY" stands for the right Sec-WebSocket-Accept
		end    func(b *feedtest.Peer)
		wait   time.Duration // until the client has its answer
		want   string
		count  string
	}{
		{"200 with Upgrade", "HTTP/1.1 200 OK\r\n" + upgrade + accept + "KEY\r\n\r\n", nil, 0, "502", "rejected"},
		{"101 without Upgrade", "HTTP/1.1 101 Sw\r\nConnection: Upgrade\r\n" + accept + "KEY\r\n\r\n", nil, 0, "502", "rejected"},
		{"101 without Connection", "HTTP/1.1 101 Sw\r\nUpgrade: websocket\r\n" + accept + "KEY\r\n\r\n", nil, 0, "502", "rejected"},
		{"101 without Accept", "HTTP/1.1 101 Sw\r\n" + upgrade + "\r\n", nil, 0, "502", "rejected"},
		{"101 with another Accept", "HTTP/1.1 101 Sw\r\n" + upgrade + accept + "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", nil, 0, "502", "rejected"},
		{"101 with a protocol not offered", "HTTP/1.1 101 Sw\r\n" + upgrade + accept + "KEY\r\nSec-WebSocket-Protocol: chat\r\n\r\n", nil, 0, "502", "rejected"},
		{"101 with an extension", "HTTP/1.1 101 Sw\r\n" + upgrade + accept + "KEY\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", nil, 0, "502", "rejected"},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", nil, 0, "502", "rejected"},
		{"301", "HTTP/1.1 301 Moved\r\nLocation: /x\r\n\r\n", nil, 0, "502", "rejected"},
		{"401", "HTTP/1.1 401 Unauthorized\r\n\r\n", nil, 0, "502", "rejected"},
		{"403", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", nil, 0, "502", "rejected"},
		{"404", "HTTP/1.1 404 Not Found\r\n\r\n", nil, 0, "502", "rejected"},
		{"500", "HTTP/1.1 500 Oops\r\n\r\n", nil, 0, "502", "rejected"},
		{"not HTTP", "\x15\x03\x01\x00\x02\x02\x28", nil, 0, "502", "rejected"},
		{"bare LF", "HTTP/1.1 101 Sw\n" + upgrade + "\n", nil, 0, "502", "rejected"},
		{"1 MiB head", "HTTP/1.1 101 Sw\r\nX: " + strings.Repeat("y", 1<<20), nil, 0, "502", "rejected"},
		{"100-continue for ever", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100), nil, 0, "502", "rejected"},
		{"half a head, then silence", "HTTP/1.1 101 Sw\r\nUpgra", nil, 5 * time.Second, "504", "timeout"},
		{"nothing", "", nil, 5 * time.Second, "504", "timeout"},
		{"half a head, then FIN", "HTTP/1.1 101 Sw\r\nUpgra", func(b *feedtest.Peer) { b.CloseWrite() }, 0, "502", "rejected"},
		{"nothing, then FIN", "", func(b *feedtest.Peer) { b.CloseWrite() }, 0, "502", "rejected"},
		{"nothing, then RST", "", func(b *feedtest.Peer) { b.Reset() }, 0, "502", "rejected"},
	} {
		t.Run(x.name, func(t *testing.T) {
			k := newRig(t, options(), feedtest.Options{})
			c := k.Client(t, "")
			k.Memory.Run()
			b := k.peers[0]
			head := b.Head()
			b.Write([]byte(strings.ReplaceAll(x.answer, "KEY", acceptFor(t, head))))
			if x.end != nil {
				k.Memory.Run()
				x.end(b)
			}
			if x.wait > 0 {
				k.Memory.Advance(x.wait - 50*time.Millisecond)
				if got := c.Raw(); len(got) > 0 {
					t.Fatalf("client had %q before the deadline", got)
				}
				k.Memory.Advance(100 * time.Millisecond)
			}
			if got := c.Status(); got != x.want {
				t.Errorf("client got %s, want %s", got, x.want)
			}
			if got := b.Raw(); len(got) > 0 {
				t.Errorf("backend got %q behind the request", got)
			}
			if got := k.dialled(x.count); got != 1 {
				t.Errorf("%d attempts counted as %s, want 1", got, x.count)
			}
			if k.stats().Up {
				t.Error("the target counts as up")
			}
			k.over(c, b)
		})
	}
}

// acceptFor computes the Sec-WebSocket-Accept for the key in head.
func acceptFor(t *testing.T, head string) string {
	t.Helper()
	_, key, ok := strings.Cut(head, "Sec-WebSocket-Key: ")
	if !ok {
		t.Fatalf("no key in %q", head)
	}
	key, _, _ = strings.Cut(key, "\r\n")
	return feedtest.Accept(key)
}

func TestEarlyBytesNeverReachTheBackend(t *testing.T) {
	for _, x := range []struct{ name, early string }{
		{"a frame", "\x81\x81\x00\x00\x00\x00x"},
		{"a second request", "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"64 KiB", strings.Repeat("\x82\x81\x00\x00\x00\x00x", 9362)},
	} {
		t.Run(x.name, func(t *testing.T) {
			k := newRig(t, options(), feedtest.Options{})
			c := k.Client(t, "")
			k.Memory.Run() // the backend is asked and has not answered
			b := k.peers[0]
			b.Head()
			c.Write([]byte(x.early))
			k.Memory.Run()
			b.Write([]byte("HTTP/1.1 101 S\r\n"))
			if got := c.Status(); got != "400" {
				t.Errorf("client got %s, want 400", got)
			}
			if got := b.Raw(); len(got) > 0 {
				t.Errorf("backend got %q", got)
			}
			if got := k.dialled("left"); got != 1 {
				t.Errorf("%d attempts counted as left, want 1", got)
			}
			if !k.stats().Up {
				t.Error("a client that left makes the target count as down")
			}
			k.over(c, b)
		})
	}
}

func TestRequestToTheBackend(t *testing.T) {
	k := newRig(t, options(func(o *relay.Options) { o.ForwardHeaders = []string{"X-Request-Id", "Accept-Language"} }), feedtest.Options{})
	c := k.Client(t, "x-request-ID: 17\r\nX-Other: no\r\nCookie: secret\r\nSec-WebSocket-Protocol: b, ticketgate.v1, c, a\r\n", "a", "b", "ticketgate.v1")
	k.Memory.Run()
	b := k.peers[0]
	head := b.Head()
	key := head[strings.Index(head, "Sec-WebSocket-Key: ")+len("Sec-WebSocket-Key: "):][:24]
	want := "GET /ws?a=b HTTP/1.1\r\nHost: 10.0.0.1:7000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: " + key + "\r\nSec-WebSocket-Protocol: b, a\r\nX-Request-Id: 17"
	if head != want {
		t.Errorf("request\n%q\nwant\n%q", head, want)
	}
	b.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		feedtest.Accept(key) + "\r\nSec-WebSocket-Protocol: a\r\n\r\n"))
	if got := c.Opened(); !strings.Contains(got, "\r\nSec-WebSocket-Protocol: a") {
		t.Errorf("answer %q, want the backend's subprotocol a", got)
	}
	k.over(c, b)
}

// TestBackendSpeaksAtOnce: frames right behind the 101, in the same packet, arrive after the client's own 101, also when the
// backend closes directly after.
func TestBackendSpeaksAtOnce(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{})
	c := k.Client(t, "")
	k.Memory.Run()
	b := k.peers[0]
	b.Answer101("")
	b.Text("hello")
	b.Frame(true, frame.Binary, strings.Repeat("x", 40<<10)) // more than a socket may leave over
	b.CloseFrame(4000, "done")
	b.CloseWrite()
	c.Opened()
	got := c.Messages()
	if len(got) != 3 || got[0].Text != "hello" || len(got[1].Text) != 40<<10 || got[2] != feedtest.Closing(4000, "done") {
		t.Errorf("client got %v", got)
	}
	k.over(c, b)
}

func TestTargetsInTurn(t *testing.T) {
	three := func(o *relay.Options) {
		o.Targets = []string{"ws://10.0.0.1:1/", "ws://10.0.0.2:2/", "ws://10.0.0.3:3/"}
	}
	k := newRig(t, options(three), feedtest.Options{})
	for range 4 {
		k.pair()
	}
	if want := []string{"10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:3", "10.0.0.1:1"}; !slices.Equal(k.dials, want) {
		t.Errorf("dialled %v, want %v", k.dials, want)
	}

	// One that refuses is followed by the next.
	k = newRig(t, options(three), feedtest.Options{})
	k.deny["10.0.0.1:1"], k.deny["10.0.0.2:2"] = true, true
	c, b := k.pair()
	if want := []string{"10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:3"}; !slices.Equal(k.dials, want) {
		t.Errorf("dialled %v, want %v", k.dials, want)
	}
	if k.dialled("refused") != 1 || k.stats().Up {
		t.Errorf("first target: %d refused, up %v", k.dialled("refused"), k.stats().Up)
	}
	k.over(c, b)

	// When all refuse the client hears it, and each was tried once.
	k = newRig(t, options(three), feedtest.Options{})
	k.deny["10.0.0.1:1"], k.deny["10.0.0.2:2"], k.deny["10.0.0.3:3"] = true, true, true
	c = k.Client(t, "")
	if got := c.Status(); got != "502" {
		t.Errorf("client got %s, want 502", got)
	}
	if len(k.dials) != 3 {
		t.Errorf("dialled %v, want each target once", k.dials)
	}
	k.over(c)
}

func TestDialDeadline(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{})
	k.hang["10.0.0.1:7000"] = true
	c := k.Client(t, "")
	k.Memory.Advance(2950 * time.Millisecond)
	if got := c.Raw(); len(got) > 0 {
		t.Fatalf("client had %q before the deadline", got)
	}
	k.Memory.Advance(100 * time.Millisecond)
	if got := c.Status(); got != "504" {
		t.Errorf("client got %s, want 504", got)
	}
	if got := k.dialled("timeout"); got != 1 {
		t.Errorf("%d attempts timed out, want 1", got)
	}
	k.over(c)
}

// TestClientLeavesDuringTheAttempt: the connection to the backend is given up, whatever it was waiting for.
func TestClientLeavesDuringTheAttempt(t *testing.T) {
	for _, hang := range []bool{true, false} {
		k := newRig(t, options(), feedtest.Options{})
		k.hang["10.0.0.1:7000"] = hang
		c := k.Client(t, "")
		k.Memory.Run()
		c.Reset()
		k.Memory.Run()
		if got := k.dialled("left"); got != 1 {
			t.Errorf("hang %v: %d attempts counted as left, want 1", hang, got)
		}
		if len(k.peers) > 0 && !k.peers[0].Closed() {
			t.Errorf("the backend's connection is still open")
		}
		k.over(c)
	}
}

func TestNamesAreLookedUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked int
		answers := [][]netip.Addr{nil, {netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("::ffff:10.9.0.2")}, nil}
		r, err := relay.New(options(func(o *relay.Options) {
			o.Targets = []string{"ws://chat.internal:7000/"}
			o.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
				if host != "chat.internal" {
					t.Errorf("looked up %q", host)
				}
				asked++
				if a := answers[asked-1]; a != nil {
					return a, nil
				}
				return nil, errors.New("no such host")
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var dials []string
		gate := feedtest.NewMemory(t, feedtest.Options{Stream: r, Handlers: []reactor.Handler{r.Handler()}}, func(e *engine.Engine) {
			if err := r.Bind(e); err != nil {
				t.Fatal(err)
			}
		})
		gate.Memory.OnDial(func(to netip.AddrPort) (*reactor.Pipe, error) {
			dials = append(dials, to.String())
			return nil, errors.New("refused")
		})
		for round, want := range [][]string{
			nil, // never resolved: 502 without a dial
			{"10.9.0.1:7000", "10.9.0.2:7000"},
			{"10.9.0.1:7000", "10.9.0.2:7000"}, // a name that is lost keeps its addresses
		} {
			dials = nil
			for range 2 {
				if got := gate.Client(t, "").Status(); got != "502" {
					t.Errorf("round %d: client got %s, want 502", round, got)
				}
			}
			if !slices.Equal(dials, want) {
				t.Errorf("round %d: dialled %v, want %v", round, dials, want)
			}
			if round < 2 {
				<-time.After(30*time.Second + time.Millisecond) // of the bubble's time
				synctest.Wait()
			}
		}
	})
}

// explosive is a handler with a bug.
type explosive struct{ reactor.Handler }

func (x explosive) Data(l *reactor.Loop, id reactor.ID, in []byte) int {
	if bytes.Contains(in, []byte("BOOM")) {
		panic("a bug")
	}
	return x.Handler.Data(l, id, in)
}

func TestAPanicEndsOnePair(t *testing.T) {
	k := newRig(t, options(), feedtest.Options{}, func(h reactor.Handler) reactor.Handler { return explosive{h} })
	c, b := k.pair()
	other, second := k.pair()
	b.Text("BOOM")
	c.Expect(feedtest.Closing(frame.CloseFault, "fault"))
	other.Expect()
	joining := k.Client(t, "")
	k.Memory.Run()
	third := k.peers[2]
	third.Write([]byte("BOOM"))
	if got := joining.Status(); got != "500" {
		t.Errorf("client of a backend that was not open yet got %s, want 500", got)
	}
	second.Text("still here")
	other.Expect(feedtest.Data(frame.Text, "still here", 1))
	k.over(c, b, other, second, joining, third)
}
