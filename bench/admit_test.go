package bench_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gobwas/ws"

	"ticketgate/bench"
)

// A frontEnd issues tickets that its gate takes once each.
type frontEnd struct {
	api, gate string
	mu        sync.Mutex
	issued    int
	unused    map[string]string // path to secret
	opened    int
	polite    int // close frames with 1000
	pongs     int
	clients   map[string]int
}

func newFrontEnd(t *testing.T, perConnection int) *frontEnd {
	f := &frontEnd{unused: make(map[string]string), clients: make(map[string]int)}
	f.gate = serve(t, f.open)
	s := httptest.NewServer(f.tickets(perConnection))
	t.Cleanup(s.Close)
	f.api = s.Listener.Addr().String()
	return f
}

func (f *frontEnd) tickets(perConnection int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		f.mu.Lock()
		defer f.mu.Unlock()
		if err != nil || r.Method != "POST" || r.URL.Path != "/v1/tickets" || r.Header.Get("X-API-Key") != "tgk_k" {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		f.issued++
		f.clients[string(body)]++
		path, secret := fmt.Sprintf("/t/%d", f.issued), fmt.Sprintf("tgs_%d", f.issued)
		f.unused[path] = secret
		if f.issued%perConnection == 0 {
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"id":"tkt_1","url":"ws://%s%s","protocols":["ticketgate.v1",%q]}`, f.gate, path, secret)
	})
}

func (f *frontEnd) open(c net.Conn) {
	var path, secret string
	u := ws.Upgrader{
		OnRequest: func(uri []byte) error { path = string(uri); return nil },
		Protocol: func(p []byte) bool {
			if strings.HasPrefix(string(p), "tgs_") {
				secret = string(p)
			}
			return false
		},
		OnBeforeUpgrade: func() (ws.HandshakeHeader, error) { return nil, f.redeem(path, secret) },
	}
	if _, err := u.Upgrade(c); err != nil {
		return
	}
	if _, err := c.Write(ws.MustCompileFrame(ws.NewPingFrame(nil))); err != nil {
		return
	}
	for {
		fr, err := readFrame(c)
		if err != nil {
			return
		}
		if f.frame(fr) {
			_, _ = c.Write(ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(1000, ""))))
			return
		}
	}
}

func (f *frontEnd) redeem(path, secret string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if secret == "" || f.unused[path] != secret {
		return ws.RejectConnectionError(ws.RejectionStatus(401))
	}
	delete(f.unused, path)
	f.opened++
	return nil
}

// frame counts fr and says whether it closes.
func (f *frontEnd) frame(fr ws.Frame) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch fr.Header.OpCode {
	case ws.OpPong:
		f.pongs++
	case ws.OpClose:
		if code, _ := ws.ParseCloseFrameData(fr.Payload); code == 1000 {
			f.polite++
		}
		return true
	}
	return false
}

func TestAdmissions(t *testing.T) {
	l := bench.OpenLoop(t, bench.Options{})
	f := newFrontEnd(t, 7)
	a := &bench.Admissions{
		Loop: l, API: target(t, f.api), Gate: target(t, f.gate), Host: f.gate, Max: 100,
		Mint: bench.NewMint(f.api, "tgk_k", "echo", 10),
	}
	a.Start(8)
	runUntil(t, l, a.Idle)
	f.mu.Lock()
	defer f.mu.Unlock()
	if a.Err != nil || a.Done != 100 || a.Latency.Count() != 100 || f.issued != 100 || f.opened != 100 || f.polite != 100 || len(f.unused) != 0 {
		t.Errorf("done %d, latencies %d, issued %d, opened %d, closed %d, %v", a.Done, a.Latency.Count(), f.issued, f.opened, f.polite, a.Err)
	}
	if len(f.clients) != 10 {
		t.Errorf("%d clients, want 10", len(f.clients))
	}
	if l.Open() != 0 {
		t.Errorf("%d connections are left", l.Open())
	}
}

func TestAdmissionsKept(t *testing.T) {
	l := bench.OpenLoop(t, bench.Options{})
	f := newFrontEnd(t, 1000)
	a := &bench.Admissions{
		Loop: l, API: target(t, f.api), Gate: target(t, f.gate), Host: f.gate, Max: 30, Keep: true,
		Mint: bench.NewMint(f.api, "tgk_k", "echo", 10),
	}
	a.Start(4)
	runUntil(t, l, a.Idle)
	a.Max = 50
	a.Start(4)
	runUntil(t, l, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return a.Idle() && f.pongs == 50
	})
	if a.Err != nil || a.Done != 50 || a.Lost != 0 || a.Pings != 50 || l.Open() != 50 {
		t.Errorf("done %d, lost %d, %d pings, open %d, %v", a.Done, a.Lost, a.Pings, l.Open(), a.Err)
	}
	a.HangUp()
	if l.Open() != 0 || a.Lost != 0 {
		t.Errorf("after HangUp %d are open, %d lost", l.Open(), a.Lost)
	}
	a.HangUp() // nothing is left to close
}

// A kept socket can have a Handler of its own.
func TestAdmissionsThen(t *testing.T) {
	var seen atomic.Int64
	address := serve(t, echoServer(&seen))
	l := bench.OpenLoop(t, bench.Options{})
	e := bench.NewEcho(l, []byte("hello"), 2, false)
	head := bench.AppendUpgrade(nil, address, []byte("/t/x"), nil)
	a := &bench.Admissions{Loop: l, Gate: target(t, address), Heads: [][]byte{head, head, head}, Keep: true, Then: e.Socket}
	a.Start(2)
	runUntil(t, l, a.Idle)
	if a.Err != nil || a.Done != 3 || e.Ready() != 3 {
		t.Fatalf("done %d, ready %d, %v", a.Done, e.Ready(), a.Err)
	}
	e.Start()
	runUntil(t, l, func() bool { return e.Messages >= 30 || e.Err != nil })
	a.HangUp()
	if l.Open() != 3 || e.Err != nil {
		t.Errorf("%d are open, %v", l.Open(), e.Err)
	}
}

// A kept socket begins with what its protocol wants, and answers when it is asked whether it is there.
func TestAdmissionsHello(t *testing.T) {
	var seen atomic.Int64
	address := serve(t, echoServer(&seen)) // the hello comes back, and every answer: the question never ends
	l := bench.OpenLoop(t, bench.Options{})
	head := bench.AppendUpgrade(nil, address, []byte("/t/x"), nil)
	a := &bench.Admissions{Loop: l, Gate: target(t, address), Heads: [][]byte{head, head}, Keep: true, Hello: []byte("{}")}
	a.Start(2)
	runUntil(t, l, func() bool { return a.Pings >= 20 && a.Done == 2 || a.Err != nil })
	if a.Err != nil || a.Done != 2 || a.Lost != 0 {
		t.Errorf("done %d, lost %d, %v", a.Done, a.Lost, a.Err)
	}
}

func TestPostsAndHeads(t *testing.T) {
	l := bench.OpenLoop(t, bench.Options{})
	f := newFrontEnd(t, 7)
	var heads [][]byte
	p := &bench.Posts{
		Loop: l, To: target(t, f.api), Mint: bench.NewMint(f.api, "tgk_k", "echo", 10), Max: 40,
		Keep: func(k bench.Ticket) { heads = append(heads, bench.AppendUpgrade(nil, f.gate, k.Path, k.Secret)) },
	}
	p.Start(3)
	runUntil(t, l, p.Idle)
	if p.Err != nil || p.Done != 40 || p.Latency.Count() != 40 || len(heads) != 40 || p.Bytes < 50 {
		t.Fatalf("done %d, latencies %d, %d heads, %d bytes, %v", p.Done, p.Latency.Count(), len(heads), p.Bytes, p.Err)
	}
	a := &bench.Admissions{Loop: l, Gate: target(t, f.gate), Heads: heads}
	a.Start(5)
	runUntil(t, l, a.Idle)
	if a.Err != nil || a.Done != 40 {
		t.Fatalf("done %d, %v", a.Done, a.Err)
	}
	a.Again(heads[:1])
	a.Start(5)
	runUntil(t, l, a.Idle)
	var refused *bench.StatusError
	if !errors.As(a.Err, &refused) || refused.Status != 401 || a.Done != 40 {
		t.Errorf("a spent ticket: done %d, %v", a.Done, a.Err)
	}
}

func TestRefusedTickets(t *testing.T) {
	l := bench.OpenLoop(t, bench.Options{})
	f := newFrontEnd(t, 1000)
	mint := bench.NewMint(f.api, "tgk_wrong", "echo", 10)
	p := &bench.Posts{Loop: l, To: target(t, f.api), Mint: mint}
	p.Start(3)
	a := &bench.Admissions{Loop: l, API: target(t, f.api), Gate: target(t, f.gate), Host: f.gate, Mint: mint}
	a.Start(3)
	runUntil(t, l, func() bool { return p.Idle() && a.Idle() })
	for _, err := range []error{p.Err, a.Err} {
		var refused *bench.StatusError
		if !errors.As(err, &refused) || refused.Status != 400 {
			t.Errorf("%v", err)
		}
	}
	if p.Done != 0 || a.Done != 0 {
		t.Errorf("%d and %d done", p.Done, a.Done)
	}
}

// A gate that ends the connection without a close frame has not closed it well.
func TestAdmissionsCut(t *testing.T) {
	l := bench.OpenLoop(t, bench.Options{})
	address := serve(t, func(c net.Conn) {
		if _, err := ws.Upgrade(c); err == nil {
			_, _ = readFrame(c)
		}
	})
	a := &bench.Admissions{Loop: l, Gate: target(t, address), Heads: [][]byte{bench.AppendUpgrade(nil, address, []byte("/t/x"), nil)}}
	a.Start(1)
	runUntil(t, l, a.Idle)
	if !errors.Is(a.Err, io.ErrUnexpectedEOF) || a.Done != 0 {
		t.Errorf("done %d, %v", a.Done, a.Err)
	}
}
