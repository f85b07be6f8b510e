package secure_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	_ "unsafe" // for linkname

	"ticketgate/engine/reactor"
	"ticketgate/engine/secure"
)

// crypto/tls has no setting for the cipher suites of TLS 1.3. These lists are kept where others can reach them.
//
//go:linkname suitesTLS13 crypto/tls.defaultCipherSuitesTLS13
var suitesTLS13 []uint16

//go:linkname suitesTLS13NoAES crypto/tls.defaultCipherSuitesTLS13NoAES
var suitesTLS13NoAES []uint16

// onlySuite has both sides of this process use one suite of TLS 1.3 until the test has ended.
func onlySuite(t *testing.T, id uint16) {
	was, wasNoAES := suitesTLS13, suitesTLS13NoAES
	suitesTLS13, suitesTLS13NoAES = []uint16{id}, []uint16{id}
	t.Cleanup(func() { suitesTLS13, suitesTLS13NoAES = was, wasNoAES })
}

// TestEcho: 1 MiB there and back, in pieces of all sizes, under each suite of TLS 1.3 and under 1.2.
func TestEcho(t *testing.T) {
	for _, id := range append(secure.Suites(), 0) {
		name := "TLS 1.2"
		if id != 0 {
			name = tls.CipherSuiteName(id)
		}
		t.Run(name, func(t *testing.T) {
			config := clientConfig()
			if id == 0 {
				config.MaxVersion = tls.VersionTLS12
			} else {
				onlySuite(t, id)
			}
			g := newGate(t, nil)
			c := g.connect(config)
			if got := c.ConnectionState().CipherSuite; id != 0 && got != id {
				t.Fatalf("negotiated %s", tls.CipherSuiteName(got))
			}
			bothWays(t, c, 1<<20)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if why := g.cause(); why != reactor.CauseEOF {
				t.Error("closed by", why)
			}
		})
	}
}

// bothWays sends n random bytes in pieces from 1 byte to 40,000 and wants them back.
func bothWays(t *testing.T, c *tls.Conn, n int) {
	t.Helper()
	sent := make([]byte, n)
	_, _ = rand.Read(sent)
	failed := make(chan error, 1)
	go func() {
		left := sent
		for size := 1; len(left) > 0; size = size*3%40_000 + 1 {
			piece := left[:min(size, len(left))]
			if _, err := c.Write(piece); err != nil {
				failed <- fmt.Errorf("after %d bytes: %w", n-len(left), err)
				return
			}
			left = left[len(piece):]
		}
		failed <- nil
	}()
	got := make([]byte, n)
	if m, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("after %d bytes: %v", m, err)
	}
	if !bytes.Equal(got, sent) {
		t.Error("other bytes came back")
	}
	if err := wait(t, failed, "the writer"); err != nil {
		t.Error(err)
	}
}

// TestResume: tickets are taken back, and the record numbers are right with one and without.
func TestResume(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		g := newGate(t, nil)
		config := clientConfig()
		config.MaxVersion = version
		_ = g.connect(config).Close()
		if n := g.stats(); n.Resumed != 0 || n.Handshakes != 1 {
			t.Errorf("%x: without a ticket %+v", version, n)
		}
		config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		_ = g.connect(config).Close()
		c := g.connect(config)
		if n := g.stats(); n.Resumed != 1 || !c.ConnectionState().DidResume {
			t.Errorf("%x: with a ticket %+v", version, n)
		}
		bothWays(t, c, 100_000)

		g.config.Store(serverConfig()) // a new certificate: its keys read no old ticket
		if c := g.connect(config); c.ConnectionState().DidResume {
			t.Errorf("%x: resumed under another configuration", version)
		}
	}
}

// A tap keeps what was read last, and sends only in pieces that the test chooses.
type tap struct {
	net.Conn
	corked bool
	kept   []byte

	mu   sync.Mutex
	last []byte // guarded by mu
}

func (p *tap) Write(b []byte) (int, error) {
	if p.kept = append(p.kept, b...); p.corked {
		return len(b), nil
	}
	return len(b), p.uncork()
}

func (p *tap) uncork() error {
	p.corked = false
	_, err := p.Conn.Write(p.kept)
	p.kept = nil
	return err
}

func (p *tap) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = append(p.last, b[:n]...)
	p.last = p.last[max(0, len(p.last)-100):]
	return n, err
}

// saidGoodbye reports whether the last record read was an alert of TLS 1.3: 2 bytes, their type and 16 of authentication.
func (p *tap) saidGoodbye() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	const record = 5 + 2 + 1 + 16
	return len(p.last) >= record && bytes.HasPrefix(p.last[len(p.last)-record:], []byte{23, 3, 3, 0, record - 5})
}

// tapped is connect with a tap below.
func (g *gate) tapped() (*tls.Conn, *tap) {
	g.t.Helper()
	p := &tap{Conn: g.dial()}
	c := tls.Client(p, clientConfig())
	if err := c.Handshake(); err != nil {
		g.t.Fatal(err)
	}
	if d := g.ended(); d.err != nil {
		g.t.Fatal(d.err)
	}
	say(g.t, c, "first words")
	return c, p
}

// TestClientCloses: after its close_notify all that it is owed still comes, and ours behind it, whether something waited or not.
func TestClientCloses(t *testing.T) {
	for _, owed := range []int{0, 300_000} {
		g := newGate(t, nil)
		c, p := g.tapped()
		if _, err := c.Write(make([]byte, owed)); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil || len(got) != owed || !p.saidGoodbye() {
			t.Errorf("%d of %d bytes, %v, close_notify: %v", len(got), owed, err, p.saidGoodbye())
		}
		if why := g.cause(); why != reactor.CauseEOF {
			t.Error("closed by", why)
		}
	}
}

// TestServerCloses: a Close sends what waits, close_notify and FIN.
func TestServerCloses(t *testing.T) {
	g := newGate(t, func(g *gate, _ *secure.Options) {
		g.data = func(l *reactor.Loop, id reactor.ID, in []byte) int {
			n := echo(l, id, in)
			if bytes.HasSuffix(in, []byte("bye")) {
				l.Close(id)
			}
			return n
		}
	})
	c, p := g.tapped()
	if _, err := io.WriteString(c, "good bye"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "good bye" || !p.saidGoodbye() {
		t.Errorf("%q, %v, close_notify: %v", got, err, p.saidGoodbye())
	}
	_ = c.Close()
	if why := g.cause(); why != reactor.CauseLocal {
		t.Error("closed by", why)
	}
}

// TestDataWaits: the first messages come in one segment with the client's Finished, or wait in the socket while the loop
// looks elsewhere. None is lost or turned around when the kernel takes over between them.
func TestDataWaits(t *testing.T) {
	for _, later := range []bool{false, true} {
		t.Run(fmt.Sprint("later=", later), func(t *testing.T) {
			hold := make(chan struct{})
			var sum bytes.Buffer // the loop's, until full is closed
			full := make(chan struct{})
			const words = 200_000
			g := newGate(t, func(g *gate, o *secure.Options) {
				done := o.Done
				o.Done = func(l *reactor.Loop, id reactor.ID, state *tls.ConnectionState, err error) {
					done(l, id, state, err)
					<-hold
				}
				g.data = func(_ *reactor.Loop, _ reactor.ID, in []byte) int {
					if sum.Write(in); sum.Len() == words {
						close(full)
					}
					return len(in)
				}
			})
			p := &tap{Conn: g.dial()}
			config := clientConfig()
			config.VerifyConnection = func(tls.ConnectionState) error { // all from its Finished on leaves in one write
				p.corked = !later
				return nil
			}
			c := tls.Client(p, config)
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			if later {
				g.ended()
			}
			sent := make([]byte, words)
			_, _ = rand.Read(sent)
			for piece := range slices.Chunk(sent, 1500) {
				if _, err := c.Write(piece); err != nil {
					t.Fatal(err)
				}
			}
			if !later {
				if err := p.uncork(); err != nil {
					t.Fatal(err)
				}
			}
			close(hold)
			wait(t, full, "the words")
			if !bytes.Equal(sum.Bytes(), sent) {
				t.Error("other words came")
			}
			if n := g.stats().Kernel; *kernel && later && n != 1 {
				t.Error("not gone to the kernel")
			}
		})
	}
}

// A sealer writes records of TLS_AES_128_GCM_SHA256 that crypto/tls would not write.
type sealer struct {
	t      *testing.T
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

func newSealer(t *testing.T, secret []byte) *sealer {
	t.Helper()
	s := &sealer{t: t, secret: secret, iv: expand(t, secret, "iv", 12)}
	block, err := aes.NewCipher(expand(t, secret, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	return s
}

func expand(t *testing.T, secret []byte, label string, n int) []byte {
	t.Helper()
	b, err := secure.ExpandLabel(0, secret, label, n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// next is the sealer under the next keys (RFC 8446 7.2).
func (s *sealer) next() *sealer { return newSealer(s.t, expand(s.t, s.secret, "traffic upd", 32)) }

func (s *sealer) record(kind byte, content []byte) []byte {
	inner := append(slices.Clone(content), kind)
	header := []byte{23, 3, 3, byte((len(inner) + 16) >> 8), byte(len(inner) + 16)}
	nonce := slices.Clone(s.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(s.seq >> (56 - 8*i))
	}
	s.seq++
	return s.aead.Seal(header, nonce, inner, header)
}

// sealing is a client whose handshake is done and which has said one record, and a sealer that goes on for it.
func sealing(t *testing.T) (*gate, *tls.Conn, *sealer) {
	t.Helper()
	onlySuite(t, tls.TLS_AES_128_GCM_SHA256)
	g := newGate(t, nil)
	var log bytes.Buffer
	config := clientConfig()
	config.KeyLogWriter = &log
	c := g.connect(config)
	s := newSealer(t, secretIn(t, &log, "CLIENT_TRAFFIC_SECRET_0"))
	s.seq = 1
	return g, c, s
}

// secretIn is what a key log says of label.
func secretIn(t *testing.T, log *bytes.Buffer, label string) []byte {
	t.Helper()
	_, rest, _ := strings.Cut(log.String(), label+" ")
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		t.Fatalf("no %s in the key log", label)
	}
	secret, err := hex.DecodeString(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func send(t *testing.T, c *tls.Conn, b []byte) {
	t.Helper()
	if _, err := c.NetConn().Write(b); err != nil {
		t.Fatal(err)
	}
}

// TestKeyUpdate: crypto/tls follows. The kernel cannot: the handler is told, and may say a last word.
func TestKeyUpdate(t *testing.T) {
	for _, asked := range []byte{0, 1} {
		g, c, s := sealing(t)
		send(t, c, s.record(22, []byte{24, 0, 0, 1, asked}))
		if *kernel {
			if err := wait(t, g.rekeys, "Fault"); err != reactor.ErrRekey {
				t.Error("Fault got", err)
			}
			if got, err := io.ReadAll(c); err != nil || string(got) != "rekey" {
				t.Errorf("last words %q, %v", got, err)
			}
			_ = c.Close()
			if why := g.cause(); why != reactor.CauseFilter {
				t.Error("closed by", why)
			}
			continue
		}
		send(t, c, s.next().record(23, []byte("under new keys")))
		hear(t, c, "under new keys")
	}
}

// TestRecordsThatGiveNothing: new keys cost much and say nothing, so a client has few of them, and more as it says something.
func TestRecordsThatGiveNothing(t *testing.T) {
	if *kernel {
		return // the first new keys end the socket
	}
	const most, per = 64, 64 << 10
	g, c, s := sealing(t)
	rekey := func() []byte { // two records that give nothing
		wire := s.record(22, []byte{24, 0, 0, 1, 0})
		s = s.next()
		return append(wire, s.record(23, nil)...)
	}
	say := func(text string) {
		t.Helper()
		for len(text) > 0 {
			n := min(len(text), 16<<10)
			send(t, c, s.record(23, []byte(text[:n])))
			hear(t, c, text[:n])
			text = text[n:]
		}
	}
	for range most / 2 {
		send(t, c, append(rekey(), s.record(23, []byte("x"))...))
		hear(t, c, "x")
	}
	say(strings.Repeat("y", 2*per))
	send(t, c, append(rekey(), s.record(23, []byte("still there"))...))
	hear(t, c, "still there")
	send(t, c, append(rekey(), s.record(23, []byte("not heard"))...))
	if got, err := io.ReadAll(c); len(got) > 0 {
		t.Errorf("read %q, %v", got, err)
	}
	_ = c.Close()
	if why := g.cause(); why != reactor.CauseFilter {
		t.Error("closed by", why)
	}
}

// TestOddRecords: what may come beside data, and what may not, once the socket is open.
func TestOddRecords(t *testing.T) {
	for _, row := range []struct {
		name   string
		record func(s *sealer) []byte
		cause  reactor.Cause // 0: it stays open
		kernel reactor.Cause // there
	}{
		{"an empty record", func(s *sealer) []byte { return s.record(23, nil) }, 0, 0},
		{"a fatal alert", func(s *sealer) []byte { return s.record(21, []byte{2, 80}) }, reactor.CauseFilter, reactor.CauseReset},
		{"user_canceled", func(s *sealer) []byte { return s.record(21, []byte{1, 90}) }, 0, reactor.CauseReset},
		{"a bad seal", func(s *sealer) []byte { s.seq += 7; return s.record(23, []byte("x")) }, reactor.CauseFilter, reactor.CauseReset},
		{"no seal", func(*sealer) []byte { return []byte("\x17\x03\x03\x00\x05plain") }, reactor.CauseFilter, reactor.CauseReset},
		{"another type", func(s *sealer) []byte { return s.record(25, []byte("x")) }, reactor.CauseFilter, reactor.CauseReset},
		{"a record of 32 KiB", func(*sealer) []byte { return pad("\x17\x03\x03\x80\x00", 1<<15) }, reactor.CauseFilter, reactor.CauseReset},
		{"HTTP", func(*sealer) []byte { return []byte("GET / HTTP/1.1\r\n\r\n") }, reactor.CauseFilter, reactor.CauseReset},
	} {
		t.Run(row.name, func(t *testing.T) {
			g, c, s := sealing(t)
			send(t, c, row.record(s))
			want := row.cause
			if *kernel {
				want = row.kernel
			}
			if want == 0 {
				send(t, c, s.record(23, []byte("still there")))
				hear(t, c, "still there")
				return
			}
			got, err := io.ReadAll(c)
			if len(got) != 0 {
				t.Errorf("read %q, %v", got, err)
			}
			_ = c.Close()
			if why := g.cause(); why != want {
				t.Errorf("closed by %v, want %v", why, want)
			}
		})
	}
}
