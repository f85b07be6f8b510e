package secure_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketgate/engine/reactor"
	"ticketgate/engine/secure"
)

// TestReasons: why a handshake fails has a name, from a fixed list.
func TestReasons(t *testing.T) {
	stranger := ca().make(&x509.Certificate{}, newKey())
	for _, row := range []struct {
		name   string
		server func(*tls.Config)
		client func(*tls.Config)
		want   secure.Reason
	}{
		{"TLS 1.1", nil, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, secure.ReasonVersion},
		{"TLS 1.2 where 1.3 is wanted", func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }, max12, secure.ReasonVersion},
		{"another group", nil, func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP521} }, secure.ReasonParameters},
		{"another suite", func(c *tls.Config) { c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256} },
			func(c *tls.Config) {
				max12(c)
				c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}
			}, secure.ReasonParameters},
		{"HTTP/2 alone", nil, func(c *tls.Config) { c.NextProtos = []string{"h2"} }, secure.ReasonParameters},
		{"no certificate", needCertificate, nil, secure.ReasonCertificate},
		{"no certificate, TLS 1.2", needCertificate, max12, secure.ReasonCertificate},
		{"a refused certificate", func(c *tls.Config) {
			c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		}, func(c *tls.Config) { c.Certificates = []tls.Certificate{stranger} }, secure.ReasonCertificate},
		{"the client does not trust us", nil, func(c *tls.Config) { c.RootCAs = x509.NewCertPool() }, secure.ReasonAlert},
		{"the client does not trust us, TLS 1.2", nil, func(c *tls.Config) { max12(c); c.RootCAs = x509.NewCertPool() }, secure.ReasonAlert},
		{"no certificate of ours", func(c *tls.Config) { c.Certificates = nil }, nil, secure.ReasonInternal},
		{"no certificate to be had", func(c *tls.Config) {
			c.Certificates = nil
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("gone") }
		}, nil, secure.ReasonInternal},
		{"a panic", func(c *tls.Config) {
			c.Certificates = nil
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panic("of the test") }
		}, nil, secure.ReasonInternal},
	} {
		t.Run(row.name, func(t *testing.T) {
			log := make(chan string, 16)
			g := newGate(t, func(g *gate, o *secure.Options) {
				o.Log = func(msg string, _ ...any) { log <- msg }
				if row.server != nil {
					row.server(g.config.Load())
				}
			})
			config := clientConfig()
			if row.client != nil {
				row.client(config)
			}
			c := tls.Client(g.dial(), config)
			err := c.Handshake()
			if err == nil { // in TLS 1.3 the client is done before the server has seen its certificate
				_, err = c.Read(make([]byte, 1))
			}
			if err == nil {
				t.Error("the client is content")
			}
			g.failed(row.want)
			_ = c.NetConn().Close()
			if why := g.cause(); why != reactor.CauseFilter && why != reactor.CauseLocal {
				t.Error("closed by", why)
			}
			panicked := false
			for len(log) > 0 {
				panicked = panicked || <-log == "secure: a handshake panicked"
			}
			if panicked != (row.name == "a panic") {
				t.Error("a panic was logged:", panicked)
			}
		})
	}
}

func max12(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }

func needCertificate(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }

func TestReasonNames(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range secure.Reasons() {
		if s := r.String(); seen[s] || !strings.HasPrefix(s, "tls-") || s == "tls-unknown" {
			t.Errorf("%d is %q", r, s)
		}
		seen[r.String()] = true
	}
	if s := secure.Reason(len(seen)).String(); s != "tls-unknown" {
		t.Error("one more is", s)
	}
}

// answer is all that comes before the end of c.
func answer(t *testing.T, c net.Conn) []byte {
	t.Helper()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestNotTLS: who does not speak TLS gets one alert and the end, and no goroutine is started for it.
func TestNotTLS(t *testing.T) {
	for _, row := range helloRows() {
		if row.alert == 0 {
			continue
		}
		g := newGate(t, nil)
		c := g.dial()
		if _, err := c.Write(row.in[:row.at]); err != nil {
			t.Fatal(err)
		}
		if got := answer(t, c); !bytes.Equal(got, []byte{21, 3, 3, 0, 2, 2, row.alert}) {
			t.Errorf("%s: % x", row.name, got)
		}
		g.failed(secure.ReasonMalformed)
		_ = c.Close()
		g.cause()
	}
}

// withExtension is hello with one more extension of n zero bytes.
func withExtension(hello []byte, kind byte, n int) []byte {
	body := slices.Clone(hello)
	at := 5 + 4 + 2 + 32 // record, message, version, random
	at += 1 + int(body[at])
	at += 2 + int(body[at])<<8 + int(body[at+1])
	at += 1 + int(body[at]) // the length of the extensions
	grow := func(at, by int) {
		v := int(body[at])<<8 + int(body[at+1]) + by
		body[at], body[at+1] = byte(v>>8), byte(v)
	}
	for _, length := range []int{3, 7, at} {
		grow(length, 4+n)
	}
	return append(append(body, 0, kind, byte(n>>8), byte(n)), make([]byte, n)...)
}

// TestBrokenHellos: what the collector passes and crypto/tls refuses.
func TestBrokenHellos(t *testing.T) {
	hello := clientHello(clientConfig())
	const earlyData = 42
	for _, row := range []struct {
		name  string
		in    []byte
		alert byte
	}{
		{"early data", withExtension(hello, earlyData, 0), unsupportedExtension},
		{"an empty hello", []byte("\x16\x03\x01\x00\x04\x01\x00\x00\x00"), decodeError},
		{"zeros", pad("\x16\x03\x01\x01\x04\x01\x00\x01\x00", 256), decodeError},
		{"a message behind it in its record", append(append([]byte{22, 3, 1, byte((len(hello) + 3) >> 8), byte(len(hello) + 3)}, hello[5:]...),
			pad("\x14\x00\x00\x04", 4)...), unexpectedMessage},
	} {
		g := newGate(t, nil)
		c := g.dial()
		if _, err := c.Write(row.in); err != nil {
			t.Fatal(err)
		}
		if got := answer(t, c); row.alert != unexpectedMessage && (len(got) != 7 || got[0] != 21 || got[6] != row.alert) {
			t.Errorf("%s: % x", row.name, got)
		}
		g.failed(secure.ReasonMalformed)
	}
	g := newGate(t, nil) // the harness: an extension that nobody knows is no harm
	c := g.dial()
	if _, err := c.Write(withExtension(hello, 250, 9)); err != nil {
		t.Fatal(err)
	}
	if got := make([]byte, 3); func() error { _, err := io.ReadFull(c, got); return err }() != nil || got[0] != 22 {
		t.Errorf("an unknown extension: % x", got)
	}
}

// TestFlood: a handshake takes 48 KiB from a client and no more, and what waits behind it is bounded, too.
func TestFlood(t *testing.T) {
	g := newGate(t, func(g *gate, _ *secure.Options) { g.config.Load().ClientAuth = tls.RequireAnyClientCert })
	c := g.dial()
	config := clientConfig()
	config.MaxVersion = tls.VersionTLS12 // whose client certificate crosses in the clear: anybody can make one up
	if _, err := c.Write(clientHello(config)); err != nil {
		t.Fatal(err)
	}
	certificates := pad("\x0b\x03\x00\x00", 0x30000) // of 192 KiB
	first := make([]byte, 5)
	if _, err := io.ReadFull(c, first); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write(inRecords(append([]byte{22, 3, 3, 0, 0}, certificates...), 16<<10)) // it is cut off in between
	g.failed(secure.ReasonMalformed)
	if why := g.cause(); why != reactor.CauseLocal {
		t.Error("closed by", why)
	}
}

// TestHalfHellos: a thousand of them cost no goroutine and no running handshake, and honest ones pass.
func TestHalfHellos(t *testing.T) {
	g := newGate(t, func(_ *gate, o *secure.Options) { o.Handshakes = 1 })
	hello := clientHello(clientConfig())
	before := runtime.NumGoroutine()
	half := make([]net.Conn, 1000)
	for i := range half {
		half[i] = g.dial()
		if _, err := half[i].Write(hello[:1+i*len(hello)/1001]); err != nil {
			t.Fatal(err)
		}
	}
	c := g.connect(clientConfig())
	if n := runtime.NumGoroutine(); n > before+10 { // a worker or the client may be on its way out
		t.Errorf("%d goroutines became %d", before, n)
	}
	_ = c.Close()
	for _, c := range half {
		_ = c.Close()
	}
	for range len(half) + 1 {
		g.cause()
	}
	g.settle()
	if n := g.stats(); n.Failed[secure.ReasonGone] != 1000 {
		t.Errorf("%+v", n)
	}
}

// TestBusy: at most Handshakes run; the next socket ends at once, and when one of them has gone there is room again. All the
// time the one worker is free for those that have something to compute.
func TestBusy(t *testing.T) {
	g := newGate(t, func(_ *gate, o *secure.Options) { o.Handshakes, o.Workers, o.Patience = 3, 1, time.Hour })
	hello := clientHello(clientConfig())
	stuck := func() net.Conn { // has its ServerHello, and owes us an answer
		c := g.dial()
		first := make([]byte, 5)
		if _, err := c.Write(hello); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, first); err != nil || first[0] != 22 {
			t.Fatalf("% x, %v", first, err)
		}
		return c
	}
	first := stuck()
	stuck()
	_ = g.connect(clientConfig()).Close()
	g.cause()
	for g.stats().Running != 2 { // its goroutine ends soon after, and has a place until then
		runtime.Gosched()
	}
	stuck()
	if n := g.stats(); n.Running != 3 {
		t.Errorf("%+v", n)
	}
	c := g.dial()
	_, _ = c.Write(hello)
	if got, err := io.ReadAll(c); err == nil || len(got) != 0 {
		t.Errorf("the fourth got % x, %v", got, err)
	}
	g.failed(secure.ReasonBusy)
	g.cause()
	_ = first.Close()
	g.cause()
	for g.stats().Running != 2 { // its goroutine ends soon after
		runtime.Gosched()
	}
	_ = g.connect(clientConfig()).Close()
}

// TestBusyWithSilence: who has kept a place for long without a word loses it to a newcomer, the one first who has had it longest.
func TestBusyWithSilence(t *testing.T) {
	for _, patience := range []time.Duration{time.Nanosecond, time.Hour} {
		g := newGate(t, func(g *gate, o *secure.Options) {
			g.loops, o.Handshakes, o.Workers, o.Patience = 1, 3, 1, patience
		})
		hello := clientHello(clientConfig())
		silent := make([]net.Conn, 3)
		for i := range silent {
			silent[i] = g.dial()
			if _, err := silent[i].Write(hello); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(silent[i], make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
		}
		newcomer := g.dial()
		_, _ = newcomer.Write(hello)
		loser := silent[0]
		if patience > time.Minute {
			loser = newcomer
		}
		g.failed(secure.ReasonBusy)
		if _, err := io.Copy(io.Discard, loser); err == nil {
			t.Error("the one that had to go was not reset")
		}
		g.cause()
		for g.stats().Running != 3 { // its goroutine ends soon after
			runtime.Gosched()
		}
		for _, c := range slices.Concat(silent, []net.Conn{newcomer}) {
			if c != loser {
				_ = c.Close()
				g.cause()
			}
		}
		g.settle()
		if n := g.stats().Failed; n[secure.ReasonBusy] != 1 || n[secure.ReasonGone] != 3 {
			t.Errorf("patience %v: %v", patience, n)
		}
	}
}

// TestHandshakeCloses: a goroutine that is in the middle of it ends with the reactor.
func TestHandshakeCloses(t *testing.T) {
	g := newGate(t, nil)
	c := g.dial()
	if _, err := c.Write(clientHello(clientConfig())); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if n := g.stats(); n.Running != 1 {
		t.Errorf("%+v", n)
	}
} // g.stop waits for it

func TestOptions(t *testing.T) {
	full := secure.Options{
		Config: serverConfig, Do: func(int, func(*reactor.Loop)) {},
		Done: func(*reactor.Loop, reactor.ID, *tls.ConnectionState, error) {},
	}
	for name, change := range map[string]func(*secure.Options){
		"no Config":         func(o *secure.Options) { o.Config = nil },
		"no Do":             func(o *secure.Options) { o.Do = nil },
		"no Done":           func(o *secure.Options) { o.Done = nil },
		"Handshakes below":  func(o *secure.Options) { o.Handshakes = -1 },
		"Workers below":     func(o *secure.Options) { o.Workers = -1 },
		"unknown KernelTLS": func(o *secure.Options) { o.KernelTLS = secure.Off + 1 },
	} {
		o := full
		change(&o)
		if _, err := secure.New(o); err == nil {
			t.Error(name, "is accepted")
		}
	}
	if s, err := secure.New(full); err != nil || !s.Offloads() {
		t.Error(err, "or the kernel is not asked")
	}
	full.KernelTLS = secure.Off
	if s, err := secure.New(full); err != nil || s.Offloads() {
		t.Error(err, "or the kernel is asked")
	}
}
