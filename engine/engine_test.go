package engine_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/engine/reactor"
	"ticketgate/limiter"
	"ticketgate/ticket"
)

func TestOpenAndEcho(t *testing.T) {
	r := newRig(t, nil, nil)
	p, answer := r.send(head(r.issue(ticket.Claims{})))
	const want = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" // RFC 6455 section 1.3
	if !strings.HasPrefix(answer, "HTTP/1.1 101 ") || !strings.Contains(answer, want) || strings.Contains(answer, "tgs_") {
		t.Fatalf("upgrade: %q", answer)
	}
	if got := r.say(p, client(frame.Text, true, "hello"), client(frame.Binary, true, "world")); got != "hello|world" {
		t.Errorf("echo: %q", got)
	}
	if r.held("ann") != 1 {
		t.Errorf("held: %d", r.held("ann"))
	}
	if got := r.say(p, client(frame.Close, true, "\x03\xe8bye")); got != "close 1000 " {
		t.Errorf("close: %q", got)
	}
	p.CloseWrite()
	r.mem.Run()
	if !p.Closed() || r.held("ann") != 0 || len(r.desk.touched) != 1 {
		t.Errorf("after close: closed %v, held %d, touched %d", p.Closed(), r.held("ann"), len(r.desk.touched))
	}
	if want := (engine.End{By: engine.ByClient, Code: 1000, Reason: "bye"}); len(r.stream.ends) != 1 || r.stream.ends[0] != want {
		t.Errorf("ends: %+v", r.stream.ends)
	}
}

func TestSubprotocol(t *testing.T) {
	for _, c := range []struct {
		name    string
		ticket  []string
		offered string
		want    string
	}{
		{"none offered", nil, "", ""},
		{"ours", nil, "ticketgate.v1, SECRET", "ticketgate.v1"},
		{"secret alone", nil, "SECRET", ""},
		{"the application's", []string{"chat"}, "ticketgate.v1, chat, SECRET", "chat"},
		{"not the ticket's", []string{"chat"}, "other, SECRET", ""},
	} {
		r := newRig(t, nil, nil)
		m := r.issue(ticket.Claims{Protocols: c.ticket})
		var extra []string
		if c.offered == "" {
			extra = []string{"Ticketgate-Secret: " + string(m.Secret[:])}
		} else {
			extra = []string{"Sec-WebSocket-Protocol: " + strings.ReplaceAll(c.offered, "SECRET", string(m.Secret[:]))}
		}
		_, answer := r.send(rawHead("/t/"+string(m.Text[:]), extra...))
		_, got, _ := strings.Cut(answer, "Sec-WebSocket-Protocol: ")
		got, _, _ = strings.Cut(got, "\r\n")
		if !strings.HasPrefix(answer, "HTTP/1.1 101 ") || got != c.want {
			t.Errorf("%s: selected %q of %q, want %q", c.name, got, answer, c.want)
		}
	}
}

func TestRefusedTickets(t *testing.T) {
	r := newRig(t, nil, nil)
	used := r.issue(ticket.Claims{})
	if _, a := r.send(head(used)); !strings.HasPrefix(a, "HTTP/1.1 101 ") {
		t.Fatal(a)
	}
	burnt := r.issue(ticket.Claims{})
	wrong := rawHead("/t/"+string(burnt.Text[:]), "Ticketgate-Secret: tgs_"+strings.Repeat("A", 43))
	_, want := r.send(wrong)
	if !strings.HasPrefix(want, "HTTP/1.1 401 ") {
		t.Fatalf("wrong secret: %q", want)
	}
	expired := r.issue(ticket.Claims{})
	origin := r.issue(ticket.Claims{Origin: "https://app.example.com"})
	address := r.issue(ticket.Claims{Addr: netip.MustParseAddr("203.0.113.1")})
	for _, c := range []struct{ name, request string }{
		{"used", head(used)},
		{"burnt", head(burnt)},
		{"no secret", rawHead("/t/" + string(r.issue(ticket.Claims{}).Text[:]))},
		{"malformed", rawHead("/t/x")},
		{"empty", rawHead("/t/")},
		{"with a query", rawHead("/t/"+string(r.issue(ticket.Claims{}).Text[:])+"?a=b", "Ticketgate-Secret: tgs_x")},
		{"other origin", head(origin)},
		{"right origin after another", head(origin, "Origin: https://app.example.com")},
		{"other address", head(address)},
	} {
		if _, got := r.send(c.request); got != want {
			t.Errorf("%s: %q, want %q", c.name, got, want)
		}
	}
	r.clock.Advance(31 * time.Second)
	if _, got := r.send(head(expired)); got != want {
		t.Errorf("expired: %q", got)
	}
	if r.held("ann") != 1 {
		t.Errorf("held %d slots, want the one that opened", r.held("ann"))
	}
}

func TestRefusedRequests(t *testing.T) {
	r := newRig(t, nil, nil)
	fresh := func() *ticket.Minted { return r.issue(ticket.Claims{}) }
	for _, c := range []struct {
		name, request, status string
	}{
		{"no route", rawHead("/"), "404"},
		{"not an upgrade", "GET /t/x HTTP/1.1\r\nHost: a\r\n\r\n", "426"},
		{"foreign origin", head(fresh(), "Origin: https://evil.example.com"), "403"},
		{"null origin", head(fresh(), "Origin: null"), "403"},
		{"origin of another case", head(fresh(), "Origin: https://App.example.com"), "403"},
		{"early bytes", head(fresh()) + "GET / HTTP/1.1\r\n\r\n", "400"},
		{"malformed", "GET /t/x HTTP/1.1\r\nHost : a\r\n\r\n", "400"},
	} {
		p, got := r.send(c.request)
		if !strings.HasPrefix(got, "HTTP/1.1 "+c.status+" ") || strings.Count(got, "HTTP/1.1") != 1 {
			t.Errorf("%s: %q, want %s once", c.name, got, c.status)
		}
		if !p.Closed() {
			t.Errorf("%s: not closed", c.name)
		}
		p.CloseWrite()
		r.mem.Run()
	}
	if r.held("ann") != 0 {
		t.Errorf("held %d", r.held("ann"))
	}
	m := fresh()
	if _, got := r.send(head(m, "Origin: https://evil.example.com")); !strings.HasPrefix(got, "HTTP/1.1 403 ") {
		t.Fatal(got)
	}
	if _, got := r.send(head(m, "Origin: https://app.example.com")); !strings.HasPrefix(got, "HTTP/1.1 101 ") {
		t.Errorf("a foreign origin must leave the ticket unspent: %q", got)
	}
}

func TestStoreTrouble(t *testing.T) {
	r := newRig(t, nil, nil)
	m := r.issue(ticket.Claims{})
	r.desk.down = true
	if _, got := r.send(head(m)); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "\r\nRetry-After: ") {
		t.Errorf("store down: %q", got)
	}
	r.desk.down, r.desk.doubt = false, true
	if _, got := r.send(head(m)); !strings.HasPrefix(got, "HTTP/1.1 503 ") {
		t.Errorf("doubt: %q", got)
	}
	if r.held("ann") != 0 || len(r.desk.touched) != 1 {
		t.Errorf("after doubt: held %d, touched %d", r.held("ann"), len(r.desk.touched))
	}
}

// TestLeavesWhileAsked: whoever goes away while the store is asked gives back the slot that the store has given.
func TestLeavesWhileAsked(t *testing.T) {
	r := newRig(t, nil, nil)
	r.desk.keep = true
	p, got := r.send(head(r.issue(ticket.Claims{})))
	if got != "" || r.held("ann") != 1 {
		t.Fatalf("asked: %q, held %d", got, r.held("ann"))
	}
	p.Reset()
	r.mem.Run()
	if r.held("ann") != 1 {
		t.Fatal("the redemption under way no longer counts")
	}
	other, _ := r.send(rawHead("/")) // may take the row
	for _, b := range r.desk.kept {
		b.Done(b)
	}
	r.mem.Run()
	if r.held("ann") != 0 || len(r.desk.touched) != 1 || len(r.stream.joined) != 0 {
		t.Errorf("held %d, touched %d, joined %d", r.held("ann"), len(r.desk.touched), len(r.stream.joined))
	}
	other.Close()
}

func TestEarlyBytesWhileAsked(t *testing.T) {
	r := newRig(t, nil, nil)
	r.desk.keep = true
	p, _ := r.send(head(r.issue(ticket.Claims{})))
	p.Write([]byte("x"))
	r.mem.Run()
	if got := string(p.Read()); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
		t.Errorf("bytes before the 101: %q", got)
	}
	for _, b := range r.desk.kept {
		b.Done(b)
	}
	r.mem.Run()
	if r.held("ann") != 0 {
		t.Errorf("held %d", r.held("ann"))
	}
}

func TestStreamDecides(t *testing.T) {
	r := newRig(t, nil, nil)
	r.stream.refuse = engine.ErrBackend
	p, got := r.send(head(r.issue(ticket.Claims{})))
	if !strings.HasPrefix(got, "HTTP/1.1 502 ") || len(r.stream.ends) != 1 {
		t.Errorf("refused by the stream: %q, ends %d", got, len(r.stream.ends))
	}
	p.CloseWrite()
	r.stream.refuse, r.stream.hold = nil, true
	p, got = r.send(head(r.issue(ticket.Claims{})))
	if got != "" {
		t.Fatalf("before the stream answered: %q", got)
	}
	r.engine.Do(0, func(*reactor.Loop) { r.stream.joined[1].Accept([]byte("chosen")) })
	r.mem.Run()
	if got = string(p.Read()); !strings.HasPrefix(got, "HTTP/1.1 101 ") || !strings.Contains(got, "Sec-WebSocket-Protocol: chosen\r\n") {
		t.Errorf("accepted later: %q", got)
	}
	p, _ = r.send(head(r.issue(ticket.Claims{})))
	r.mem.Advance(9900 * time.Millisecond)
	if got = string(p.Read()); got != "" {
		t.Errorf("before the time to admit is over: %q", got)
	}
	r.mem.Advance(200 * time.Millisecond)
	if got = string(p.Read()); !strings.HasPrefix(got, "HTTP/1.1 504 ") {
		t.Errorf("a stream that never answers: %q", got)
	}
}

func TestDeadlines(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { o.Deadlines.Idle = time.Minute })
	dribbles := r.mem.Connect(somebody)
	for _, b := range []byte(rawHead("/t/x"))[:49] {
		dribbles.Write([]byte{b})
		r.mem.Advance(100 * time.Millisecond)
	}
	if got := dribbles.Read(); len(got) > 0 {
		t.Errorf("head deadline came early: %q", got)
	}
	r.mem.Advance(200 * time.Millisecond)
	if got := string(dribbles.Read()); !strings.HasPrefix(got, "HTTP/1.1 408 ") {
		t.Errorf("a head dribbled over 5 s: %q", got)
	}

	p := r.open(ticket.Claims{})
	r.mem.Advance(20 * time.Second)
	r.mem.Advance(5 * time.Second)
	if got := r.heard(p); got != "ping " {
		t.Errorf("after 25 s: %q", got)
	}
	r.mem.Advance(10400 * time.Millisecond) // rounded up to the grid of 2,048 ms, so that many are looked at together
	if !p.Closed() {
		t.Error("no pong within 10 s: still open")
	}

	p = r.open(ticket.Claims{})
	for range 5 {
		r.mem.Advance(10 * time.Second)
		r.say(p, client(frame.Pong, true, ""))
	}
	r.mem.Advance(9900 * time.Millisecond)
	if got := r.heard(p); strings.Contains(got, "close") {
		t.Errorf("idle for less than a minute: %q", got)
	}
	r.mem.Advance(200 * time.Millisecond)
	if got := r.heard(p); !strings.HasSuffix(got, "close 4408 idle") {
		t.Errorf("idle for a minute: %q", got)
	}

	p = r.open(ticket.Claims{SessionEnd: r.clock.Wall().Add(3 * time.Second)})
	r.mem.Advance(2900 * time.Millisecond)
	if got := r.heard(p); got != "" {
		t.Errorf("before the session's end: %q", got)
	}
	r.mem.Advance(200 * time.Millisecond)
	if got := r.heard(p); got != "close 4401 session-expired" {
		t.Errorf("session end: %q", got)
	}

	p = r.open(ticket.Claims{})
	r.say(p, client(frame.Text, false, "begun"))
	r.mem.Advance(9900 * time.Millisecond)
	if got := r.heard(p); got != "" {
		t.Errorf("before the assembly deadline: %q", got)
	}
	r.mem.Advance(200 * time.Millisecond)
	if got := r.heard(p); got != "close 1008 guard:frame.assembly" {
		t.Errorf("assembly: %q", got)
	}
}

func TestMessages(t *testing.T) {
	r := newRig(t, nil, nil)
	p := r.open(ticket.Claims{})
	if got := r.say(p, client(frame.Text, false, "a"), client(frame.Ping, true, "x"), client(frame.Continuation, false, "b"),
		client(frame.Continuation, true, "c")); got != "pong x|abc" {
		t.Errorf("fragments with a ping between: %q", got)
	}
	if r.stream.parts != 1 {
		t.Errorf("a fragmented text came in %d parts", r.stream.parts)
	}
	whole := client(frame.Text, true, "byte by byte \u20ac")
	for i := range whole {
		p.Write(whole[i : i+1])
		r.mem.Run()
	}
	if got := r.heard(p); got != "byte by byte \u20ac" || r.stream.parts != 2 {
		t.Errorf("dribbled: %q in %d parts", got, r.stream.parts)
	}
	if got := r.say(p, client(frame.Binary, false, "a"), client(frame.Continuation, true, "b")); got != "ab" || r.stream.parts != 3 {
		t.Errorf("binary in two frames: %q in %d parts", got, r.stream.parts-2)
	}
	once := client(frame.Binary, true, "ab")
	p.Write(once[:len(once)-1])
	r.mem.Run()
	p.Write(once[len(once)-1:])
	r.mem.Run()
	if r.stream.parts != 5 {
		t.Errorf("binary in one frame that came in two parts: %d parts", r.stream.parts-3)
	}
	if got := r.say(p, client(frame.Text, false, "\xe2\x82"), client(frame.Continuation, true, "(")); got != "close 1007 " {
		t.Errorf("bad UTF-8 over two fragments: %q", got)
	}
	if r.stream.parts != 5 {
		t.Error("a part of a bad text reached the stream")
	}
}

func TestControlBudget(t *testing.T) {
	r := newRig(t, nil, nil)
	p := r.open(ticket.Claims{})
	var flood []byte
	for range 21 {
		flood = append(flood, client(frame.Ping, true, "")...)
	}
	if got := r.say(p, flood); !strings.HasSuffix(got, "|close 4429 limit:control") || strings.Count(got, "pong") != 20 {
		t.Errorf("21 pings at once: %q", got)
	}
}

func rate(t testing.TB, text string) *limiter.Rate {
	t.Helper()
	v, err := limiter.ParseRate(text)
	if err != nil {
		t.Fatal(err)
	}
	return &v
}

func TestLimits(t *testing.T) {
	text := func(s string) []byte { return client(frame.Text, true, s) }
	three := func(action string, more ...func(*limiter.Options)) map[string]limiter.Options {
		o := limiter.Options{Rate: rate(t, "3/1minute"), Per: limiter.PerConnection, WhenExceeded: action}
		for _, f := range more {
			f(&o)
		}
		return map[string]limiter.Options{"messages-in": o}
	}
	t.Run("close", func(t *testing.T) {
		r := newRig(t, three("close"), nil)
		p := r.open(ticket.Claims{})
		if got := r.say(p, text("1"), text("2"), text("3"), text("4"), text("5")); got != "1|2|3|close 4429 limit:messages-in" {
			t.Errorf("%q", got)
		}
	})
	t.Run("drop with notice", func(t *testing.T) {
		r := newRig(t, three("drop-newest"), quiet)
		p := r.open(ticket.Claims{}, "Sec-WebSocket-Protocol: ticketgate.v1")
		if got := r.say(p, text("1"), text("2"), text("3"), text("4")); got != `1|2|3|{"$tg":"limit","name":"messages-in","retry_after_ms":20001}` {
			t.Errorf("%q", got)
		}
		r.mem.Advance(20 * time.Second)
		if got := r.say(p, text("5"), client(frame.Binary, false, "6"), client(frame.Continuation, true, "6")); !strings.HasPrefix(got, "5|{") {
			t.Errorf("a token later: %q", got)
		}
		if r.stream.parts != 4 {
			t.Errorf("the stream saw %d parts, want 4: a dropped message is dropped whole", r.stream.parts)
		}
	})
	t.Run("pause", func(t *testing.T) {
		r := newRig(t, three("pause"), quiet)
		p := r.open(ticket.Claims{})
		if got := r.say(p, text("1"), text("2"), text("3"), text("4"), text("5")); got != "1|2|3|4" {
			t.Errorf("%q", got)
		}
		r.mem.Advance(19 * time.Second)
		if got := r.heard(p); got != "" {
			t.Errorf("too early: %q", got)
		}
		r.mem.Advance(1100 * time.Millisecond)
		if got := r.heard(p); got != "5" {
			t.Errorf("after the pause: %q", got)
		}
	})
	t.Run("warn", func(t *testing.T) {
		r := newRig(t, three("warn"), nil)
		p := r.open(ticket.Claims{})
		if got := r.say(p, text("1"), text("2"), text("3"), text("4")); got != "1|2|3|4" {
			t.Errorf("%q", got)
		}
		if n := r.engine.Stats().Limits[0].Soft; n != 1 {
			t.Errorf("soft decisions: %d", n)
		}
	})
	t.Run("out", func(t *testing.T) {
		r := newRig(t, map[string]limiter.Options{"messages-out": {Rate: rate(t, "2/1minute"), Per: limiter.PerClient, WhenExceeded: "drop-newest"}}, nil)
		p := r.open(ticket.Claims{})
		if got := r.say(p, text("1"), text("2"), text("3")); got != "1|2" {
			t.Errorf("%q", got)
		}
		again := r.open(ticket.Claims{})
		if got := r.say(again, text("4")); got != "" {
			t.Errorf("the client's other socket: %q", got)
		}
		other := r.open(ticket.Claims{Client: "bob"})
		if got := r.say(other, text("5")); got != "5" {
			t.Errorf("another client: %q", got)
		}
	})
	t.Run("out, close", func(t *testing.T) {
		r := newRig(t, plan(t, "messages-out", "2/1minute", "close"), nil)
		p := r.open(ticket.Claims{})
		if got := r.say(p, text("1"), text("2"), text("3"), text("4")); got != "1|2|close 4429 limit:messages-out" {
			t.Errorf("%q", got)
		}
		if s := r.engine.Stats(); s.Streams[0].Messages[limiter.Out] != 2 || s.Limits[0].Refuse != 1 {
			t.Errorf("%+v, %+v", s.Streams[0], s.Limits[0])
		}
	})
	t.Run("bytes dropped whole", func(t *testing.T) {
		r := newRig(t, map[string]limiter.Options{"bytes-in": {Rate: rate(t, "10B/1minute"), Per: limiter.PerConnection, WhenExceeded: "drop-newest"}}, nil)
		p := r.open(ticket.Claims{})
		if got := r.say(p, text("12345678"), client(frame.Binary, false, "ab"), client(frame.Continuation, true, "c"), text("xy")); got != "12345678|xy" {
			t.Errorf("%q", got)
		}
	})
}

func TestSlowReader(t *testing.T) {
	r := newRig(t, nil, func(o *engine.Options) { o.Queue = 32 << 10 })
	p := r.open(ticket.Claims{})
	p.Window(4 << 10)
	big := client(frame.Text, true, strings.Repeat("x", 8<<10))
	for range 8 {
		p.Write(big)
		r.mem.Run()
	}
	if want := (engine.End{By: engine.ByGateway, Code: frame.CloseSlow, Reason: "slow-consumer"}); len(r.stream.ends) != 1 || r.stream.ends[0] != want {
		t.Fatalf("ends: %+v", r.stream.ends)
	}
	if s := r.engine.Stats(); s.Reactor.Queued > 64<<10 || s.Streams[0].Slow != 1 {
		t.Errorf("queued %d, slow %d", s.Reactor.Queued, s.Streams[0].Slow)
	}
	r.mem.Advance(11 * time.Second)
	if !p.Closed() || r.held("ann") != 0 {
		t.Errorf("closed %v, held %d", p.Closed(), r.held("ann"))
	}
}

func TestPanicInStream(t *testing.T) {
	r := newRig(t, nil, nil)
	p, other := r.open(ticket.Claims{}), r.open(ticket.Claims{})
	r.stream.panics = true
	if got := r.say(p, client(frame.Text, true, "boom")); got != "close 1011 fault" {
		t.Errorf("%q", got)
	}
	r.stream.panics = false
	if got := r.say(other, client(frame.Text, true, "fine")); got != "fine" {
		t.Errorf("the other socket: %q", got)
	}
	p.CloseWrite()
	r.mem.Run()
	if r.held("ann") != 1 {
		t.Errorf("held %d", r.held("ann"))
	}
}

// TestTurnsAreFair: a read that is full of tiny messages does not keep the loop until its end.
func TestTurnsAreFair(t *testing.T) {
	var order []string
	r := newRig(t, nil, func(o *engine.Options) { o.Control = *rate(t, "1000000/1second"); o.ControlBurst = 1_000_000 })
	r.stream.onReceive = func(_ engine.Conn, ev *frame.Event) {
		if name := string(ev.Payload); len(order) == 0 || order[len(order)-1] != name {
			order = append(order, name)
		}
	}
	flood, other := r.open(ticket.Claims{}), r.open(ticket.Claims{})
	flood.Write(bytes.Repeat(client(frame.Binary, true, "f"), 9000))
	other.Write(client(frame.Binary, true, "o"))
	r.mem.Run()
	if r.stream.parts != 9001 || len(order) < 3 || order[0] != "f" || order[1] != "o" {
		t.Errorf("%d messages, in the order %v: the other's message waited for all", r.stream.parts, order)
	}
}
