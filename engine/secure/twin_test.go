package secure_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ticketgate/engine/reactor"
	"ticketgate/engine/secure"
	"ticketgate/internal/mono"
)

// A twin is the server on the in-memory reactor, inside a synctest bubble: nothing moves but in turn, which first lets every
// goroutine run until it waits, so that a run is the same each time.
type twin struct {
	t *testing.T
	m *reactor.Memory
	s *secure.Server

	mu   sync.Mutex
	todo []func(*reactor.Loop) // guarded by mu

	done   []error
	closed []reactor.Cause
}

func newTwin(t *testing.T, change func(*tls.Config)) *twin {
	w := &twin{t: t}
	config := serverConfig()
	if change != nil {
		change(config)
	}
	var err error
	if w.s, err = secure.New(secure.Options{
		Config: func() *tls.Config { return config },
		Do: func(_ int, f func(*reactor.Loop)) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.todo = append(w.todo, f)
		},
		Done: func(_ *reactor.Loop, _ reactor.ID, _ *tls.ConnectionState, err error) { w.done = append(w.done, err) },
	}); err != nil {
		t.Fatal(err)
	}
	w.m = reactor.NewMemory(reactor.Options{
		Loops: 1, Handlers: []reactor.Handler{w},
		Work: func(l *reactor.Loop, k *reactor.Work) { k.P.(func(*reactor.Loop))(l) },
	}, mono.NewManual(time.Unix(1_700_000_000, 0)))
	return w
}

func (w *twin) Open(l *reactor.Loop, id reactor.ID) { w.s.Start(l, id) }

func (w *twin) Data(l *reactor.Loop, id reactor.ID, in []byte) int { return echo(l, id, in) }

func (w *twin) Drained(l *reactor.Loop, id reactor.ID) { l.Resume(id) }

func (w *twin) Timer(*reactor.Loop, reactor.ID) {}

func (w *twin) Closed(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, _ error) {
	w.closed = append(w.closed, why)
}

func (w *twin) Fault(_ *reactor.Loop, _ reactor.ID, v any) { w.t.Error("fault:", v) }

// turn lets everything happen that can.
func (w *twin) turn() {
	synctest.Wait()
	for {
		w.m.Run()
		synctest.Wait()
		w.mu.Lock()
		todo := w.todo
		w.todo = nil
		w.mu.Unlock()
		if len(todo) == 0 {
			return
		}
		for _, f := range todo {
			w.m.Reactor().Post(0, reactor.Work{P: f})
		}
	}
}

// A peer is a client in the bubble. What it writes waits until the test moves it.
type peer struct {
	net.Conn
	p *reactor.Pipe

	mu    sync.Mutex
	cond  *sync.Cond
	in    bytes.Buffer // guarded by mu
	out   bytes.Buffer // guarded by mu
	ended bool         // guarded by mu
}

var clientAddr = netip.MustParseAddrPort("192.0.2.7:4711")

func (w *twin) connect() *peer {
	c := &peer{p: w.m.Connect(clientAddr)}
	c.cond = sync.NewCond(&c.mu)
	w.turn()
	return c
}

func (c *peer) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.in.Len() == 0 {
		if c.ended {
			return 0, io.ErrUnexpectedEOF
		}
		c.cond.Wait()
	}
	return c.in.Read(b)
}

func (c *peer) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(b)
}

func (c *peer) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.cond.Broadcast()
	return nil
}

func (c *peer) SetWriteDeadline(time.Time) error { return nil }

// move brings up to n bytes to the server and its answer back; it returns how many it brought either way.
func (w *twin) move(c *peer, n int, change func([]byte) []byte) (there, back int) {
	w.turn()
	c.mu.Lock()
	b := bytes.Clone(c.out.Next(n))
	c.mu.Unlock()
	there = len(b)
	if change != nil {
		b = change(b)
	}
	c.p.Write(b)
	w.turn()
	c.mu.Lock()
	defer c.mu.Unlock()
	back, _ = c.in.Write(c.p.Read())
	c.cond.Broadcast()
	return there, back
}

// drain moves everything, n bytes at a time, and returns how many bytes the client has said.
func (w *twin) drain(c *peer, n int) (said int) {
	for {
		there, back := w.move(c, n, nil)
		if there+back == 0 {
			return said
		}
		said += there
	}
}

// check is the end of a bubble: all has been let go.
func (w *twin) check() {
	w.t.Helper()
	synctest.Wait()
	if err := w.m.Reactor().Stop(w.t.Context()); err != nil {
		w.t.Error(err)
	}
	w.s.Wait()
	var n secure.Stats
	if w.s.Stats(&n); n.Running != 0 || n.UserSpace != 0 {
		w.t.Errorf("at the end %+v", n)
	}
}

// TestDribble: byte by byte, the whole of it.
func TestDribble(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		synctest.Test(t, func(t *testing.T) {
			w := newTwin(t, nil)
			p := w.connect()
			config := clientConfig()
			config.MaxVersion = version
			c := tls.Client(p, config)
			heard := make(chan error, 1)
			go func() {
				if _, err := c.Write([]byte("a word")); err != nil {
					heard <- err
					return
				}
				b := make([]byte, 6)
				if _, err := io.ReadFull(c, b); err != nil || string(b) != "a word" {
					heard <- fmt.Errorf("%q, %w", b, err)
					return
				}
				heard <- nil
			}()
			if n := w.drain(p, 1); n < 300 {
				t.Errorf("only %d bytes were said", n)
			}
			if err := <-heard; err != nil {
				t.Error(err)
			}
			if len(w.done) != 1 || w.done[0] != nil {
				t.Error("Done:", w.done)
			}
			w.check()
		})
	}
}

// TestSplitHello: a ClientHello in records of any length is one.
func TestSplitHello(t *testing.T) {
	for _, n := range []int{1, 3, 4, 100, 1499} {
		synctest.Test(t, func(t *testing.T) {
			w := newTwin(t, nil)
			p := w.connect()
			c := tls.Client(p, clientConfig())
			done := make(chan error, 1)
			go func() { done <- c.Handshake() }()
			w.move(p, 1<<20, func(hello []byte) []byte { return inRecords(hello, n) })
			w.drain(p, 1<<20)
			if err := <-done; err != nil {
				t.Errorf("records of %d bytes: %v", n, err)
			}
			w.check()
		})
	}
}

// TestGone: the client leaves after any number of bytes of its handshake; nothing stays of it, and no goroutine.
func TestGone(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		for _, how := range []string{"FIN", "RST"} {
			for after := 0; gone(t, version, how, after); {
				after += 37
			}
		}
	}
}

// gone has a client leave after so many bytes. false: that is all that it has to say.
func gone(t *testing.T, version uint16, how string, after int) (more bool) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwin(t, nil)
		p := w.connect()
		config := clientConfig()
		config.MaxVersion = version
		c := tls.Client(p, config)
		go func() { _ = c.Handshake() }()
		left := after
		for left > 0 {
			there, back := w.move(p, left, nil)
			if there+back == 0 {
				break
			}
			left -= there
		}
		more = left == 0
		if how == "FIN" {
			p.p.CloseWrite()
		} else {
			p.p.Reset()
		}
		w.turn()
		if len(w.closed) != 1 {
			t.Errorf("%s after %d bytes: closed %v", how, after, w.closed)
		}
		for _, err := range w.done {
			if err != nil {
				t.Errorf("%s after %d bytes: Done got %v of one who had left", how, after, err)
			}
		}
		var n secure.Stats
		if w.s.Stats(&n); n.Handshakes+n.Failed[secure.ReasonGone] != 1 || n.UserSpace != 0 {
			t.Errorf("%s after %d bytes: %+v", how, after, n)
		}
		_ = p.Close()
		w.check()
	})
	return more
}

// TestLateNews: the socket is closed while the goroutine's last words are on their way.
func TestLateNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwin(t, nil)
		p := w.connect()
		c := tls.Client(p, clientConfig())
		go func() { _ = c.Handshake() }()
		w.move(p, 1<<20, nil) // hello and answer
		w.turn()
		p.mu.Lock()
		p.p.Write(p.out.Next(1 << 20))
		p.mu.Unlock()
		w.m.Run()       // Finished is with the goroutine
		synctest.Wait() // and it is done
		if len(w.todo) != 1 {
			t.Fatal("the goroutine has not said so")
		}
		p.p.Reset()
		w.m.Run()
		w.turn()
		if len(w.closed) != 1 || len(w.done) != 0 {
			t.Errorf("closed %v, done %v", w.closed, w.done)
		}
		_ = p.Close()
		w.check()
	})
}

// TestSlowReader: what a client does not read waits in the reactor's queue, sealed, and comes when it does.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwin(t, nil)
		p := w.connect()
		c := tls.Client(p, clientConfig())
		words := bytes.Repeat([]byte("slow "), 40_000)
		heard := make(chan error, 1)
		go func() {
			if _, err := c.Write(words); err != nil {
				heard <- err
				return
			}
			got := make([]byte, len(words))
			_, err := io.ReadFull(c, got)
			if err == nil && !bytes.Equal(got, words) {
				err = errors.New("other words")
			}
			heard <- err
		}()
		w.move(p, 1<<20, nil)
		w.move(p, 1<<20, nil)
		p.p.Window(1000)
		w.drain(p, 30_000)
		if err := <-heard; err != nil {
			t.Error(err)
		}
		w.check()
	})
}

// TestUnreadIsBounded: what a client sends while its handshake computes waits in the kernel, but for 48 KiB and one reading.
func TestUnreadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		w := newTwin(t, func(c *tls.Config) {
			pair := c.Certificates[0]
			c.Certificates = nil
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				<-release
				return &pair, nil
			}
		})
		p := w.connect()
		const flood = 1 << 20
		p.p.Write(clientHello(clientConfig()))
		p.p.Write(bytes.Repeat([]byte("\x17\x03\x03\x00\x05flood"), flood/10))
		w.turn()
		if read := flood - p.p.Pending(); read > secure.UnreadMax+2*64<<10 {
			t.Errorf("%d bytes were read", read)
		}
		close(release)
		w.turn()
		if len(w.done) != 1 || w.done[0] == nil {
			t.Error("Done:", w.done)
		}
		p.p.Reset()
		w.turn()
		w.check()
	})
}
