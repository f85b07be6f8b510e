package secure_test

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ticketgate/engine/reactor"
	"ticketgate/engine/secure"
)

// kernel says that this machine's kernel has TLS, and that every socket which can go there must. The test binary is static if it is
// built with CGO_ENABLED=0 go test -c, so that it runs wherever such a kernel does, with openssl beside it.
var kernel = flag.Bool("ktls", false, "fail unless sockets are handed to the kernel")

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const patience = 20 * time.Second // more than any step takes on a busy machine

// authority signs what the tests show each other.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

var ca = sync.OnceValue(func() *authority {
	a := &authority{pool: x509.NewCertPool()}
	a.key = newKey()
	a.cert = a.make(&x509.Certificate{Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true}, a.key).Leaf
	a.pool.AddCert(a.cert)
	return a
})

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func (a *authority) make(c *x509.Certificate, key *ecdsa.PrivateKey) tls.Certificate {
	// Valid in synctest's bubbles, too, where it is the year 2000.
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), time.Unix(0, 0), time.Unix(1<<32, 0)
	parent := a.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), a.key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// serverConfig is what a gate would have.
func serverConfig() *tls.Config {
	return &tls.Config{
		Certificates:     []tls.Certificate{ca().make(&x509.Certificate{DNSNames: []string{"gate.test"}}, newKey())},
		MinVersion:       tls.VersionTLS12,
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
		NextProtos:       []string{"http/1.1"},
	}
}

func clientConfig() *tls.Config {
	return &tls.Config{RootCAs: ca().pool, ServerName: "gate.test", MinVersion: tls.VersionTLS12}
}

// An end is how a socket's TLS, or the socket itself, ended.
type end struct {
	state *tls.ConnectionState
	err   error
	cause reactor.Cause
}

// A gate is a real reactor on a loopback port with TLS on every socket. It answers what it reads, unless data is set.
type gate struct {
	t      *testing.T
	s      *secure.Server
	r      *reactor.Reactor
	addr   string
	config atomic.Pointer[tls.Config]
	loops  int // 0: 2

	ready  func(s *secure.Server) // before anything runs
	open   func(l *reactor.Loop, id reactor.ID)
	data   func(l *reactor.Loop, id reactor.ID, in []byte) int
	done   chan end // each Options.Done
	closed chan end // each Handler.Closed
	rekeys chan error
}

const doFunc = 1 // reactor.Work.Op: P is a func(*reactor.Loop)

func newGate(t *testing.T, change func(g *gate, o *secure.Options)) *gate {
	t.Helper()
	g := &gate{t: t, done: make(chan end, 4096), closed: make(chan end, 4096), rekeys: make(chan error, 16)}
	g.config.Store(serverConfig())
	o := secure.Options{
		Config: g.config.Load,
		Do:     func(loop int, f func(*reactor.Loop)) { g.r.Post(loop, reactor.Work{Op: doFunc, P: f}) },
		Done: func(_ *reactor.Loop, _ reactor.ID, state *tls.ConnectionState, err error) {
			g.done <- end{state: state, err: err}
		},
	}
	if change != nil {
		change(g, &o)
	}
	var err error
	if g.s, err = secure.New(o); err != nil {
		t.Fatal(err)
	}
	if g.ready != nil {
		g.ready(g.s)
	}
	if g.r, err = reactor.New(reactor.Options{
		Loops: cmp.Or(g.loops, 2), Handlers: []reactor.Handler{g}, Linger: time.Second,
		Work: func(l *reactor.Loop, w *reactor.Work) { w.P.(func(*reactor.Loop))(l) },
		Log:  func(msg string, args ...any) { t.Log(msg, args) },
	}); err != nil {
		t.Fatal(err)
	}
	addr, err := g.r.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.addr = addr.String()
	g.r.Start()
	t.Cleanup(g.stop)
	return g
}

func (g *gate) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.r.Stop(ctx); err != nil {
		g.t.Error("stop:", err)
	}
	g.s.Wait()
	var s reactor.Stats
	if g.r.Stats(&s); s.Panics != 0 {
		g.t.Error(s.Panics, "panics on the loops")
	}
	if n := g.stats(); n.Running != 0 || n.UserSpace != 0 {
		g.t.Errorf("without sockets: %+v", n)
	}
}

func (g *gate) Open(l *reactor.Loop, id reactor.ID) {
	if g.open != nil {
		g.open(l, id)
		return
	}
	g.s.Start(l, id)
}

func (g *gate) Data(l *reactor.Loop, id reactor.ID, in []byte) int {
	if g.data != nil {
		return g.data(l, id, in)
	}
	return echo(l, id, in)
}

// echo answers as much as the queue takes.
func echo(l *reactor.Loop, id reactor.ID, in []byte) int {
	if l.Write(id, in) == nil {
		return len(in)
	}
	l.Pause(id)
	return 0
}

func (g *gate) Drained(l *reactor.Loop, id reactor.ID) { l.Resume(id) }

func (g *gate) Timer(*reactor.Loop, reactor.ID) {}

func (g *gate) Closed(_ *reactor.Loop, _ reactor.ID, why reactor.Cause, _ error) {
	g.closed <- end{cause: why}
}

func (g *gate) Fault(l *reactor.Loop, id reactor.ID, v any) {
	err, _ := v.(error)
	_ = l.Write(id, []byte("rekey"))
	g.rekeys <- err
}

func (g *gate) stats() (n secure.Stats) {
	g.s.Stats(&n)
	return n
}

// settle waits until all loops have come to the end of what they are at: a Filter's Gone comes after the handler's Closed.
func (g *gate) settle() {
	done := make(chan struct{})
	for loop := range cmp.Or(g.loops, 2) {
		g.r.Post(loop, reactor.Work{Op: doFunc, P: func(*reactor.Loop) { done <- struct{}{} }})
		wait(g.t, done, "a loop")
	}
}

// dial is a TCP connection to the gate, closed with the test.
func (g *gate) dial() *net.TCPConn {
	g.t.Helper()
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// connect is a client whose handshake is done, on both sides. With -ktls it must be the kernel's.
func (g *gate) connect(config *tls.Config) *tls.Conn {
	g.t.Helper()
	before := g.stats().Kernel
	c := tls.Client(g.dial(), config)
	if err := c.Handshake(); err != nil {
		g.t.Fatal("client:", err)
	}
	if d := g.ended(); d.err != nil {
		g.t.Fatal("server:", d.err)
	}
	say(g.t, c, "first words")
	if *kernel && c.ConnectionState().Version == tls.VersionTLS13 && g.stats().Kernel != before+1 {
		g.t.Errorf("%s has not gone to the kernel: %+v", tls.CipherSuiteName(c.ConnectionState().CipherSuite), g.stats())
	}
	return c
}

// say sends text and wants it back.
func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	hear(t, c, text)
}

func hear(t *testing.T, c net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v; want %q", got, err, text)
	}
}

func (g *gate) ended() end { return wait(g.t, g.done, "Done") }

func (g *gate) cause() reactor.Cause { return wait(g.t, g.closed, "Closed").cause }

func wait[T any](t *testing.T, from <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		t.Fatal("nothing came of", what)
	}
	return v
}

// failed waits for the next Done and wants a failure for why.
func (g *gate) failed(why secure.Reason) {
	g.t.Helper()
	d := g.ended()
	f, ok := errors.AsType[*secure.Failure](d.err)
	if !ok || f.Reason != why || d.state != nil {
		g.t.Fatalf("Done got %v, %v; want %v", d.state != nil, d.err, why)
	}
	if n := g.stats().Failed[why]; n == 0 {
		g.t.Errorf("%v is not counted", why)
	}
}
