package secure_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"testing"

	"ticketgate/engine/reactor"
	"ticketgate/engine/secure"
)

// TestRecordNumbers: what the kernel is told to go on with is what crypto/tls would have gone on with: with and without a
// ticket, when the server speaks first, and when the client's first words come with its Finished.
func TestRecordNumbers(t *testing.T) {
	for _, row := range []struct {
		tickets       bool
		first, behind int // bytes that the server says first, records that the client says behind its Finished
		answers       bool
		want          secure.Numbers
	}{
		{false, 0, 0, false, secure.Numbers{}},
		{true, 0, 0, false, secure.Numbers{TX: 1}},
		{true, 100, 0, false, secure.Numbers{TX: 2}},
		{false, 100, 0, false, secure.Numbers{TX: 1}},
		{false, 0, 5, false, secure.Numbers{RX: 5}},
		{true, 0, 5, false, secure.Numbers{TX: 1, RX: 5}},
		{true, 0, 5, true, secure.Numbers{TX: 1, RX: 5}}, // what answers them goes through the kernel already
		{true, 100, 5, false, secure.Numbers{TX: 2, RX: 5}},
		{false, 60_000, 0, false, secure.Numbers{TX: 10}}, // crypto/tls begins with short records
	} {
		t.Run(fmt.Sprintf("tickets=%v first=%d behind=%d answers=%v", row.tickets, row.first, row.behind, row.answers), func(t *testing.T) {
			told := make(chan secure.Numbers, 1)
			var inside func() *tls.Conn
			g := newGate(t, func(g *gate, o *secure.Options) {
				g.open = func(l *reactor.Loop, id reactor.ID) { inside = g.s.StartConn(l, id) }
				if !row.answers {
					g.data = func(_ *reactor.Loop, _ reactor.ID, in []byte) int { return len(in) }
				}
				done := o.Done
				o.Done = func(l *reactor.Loop, id reactor.ID, state *tls.ConnectionState, err error) {
					if row.first > 0 {
						_ = l.Write(id, make([]byte, row.first))
					}
					done(l, id, state, err)
				}
				g.ready = func(s *secure.Server) {
					s.OnOffload(func(_ *reactor.Loop, _ reactor.ID, tx, rx []byte) error {
						told <- secure.SeqOf(inside(), tx, rx)
						return reactor.ErrNoOffload
					})
				}
			})
			p := &tap{Conn: g.dial()}
			config := clientConfig()
			config.SessionTicketsDisabled = !row.tickets
			if row.tickets {
				config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			}
			config.VerifyConnection = func(tls.ConnectionState) error {
				p.corked = true
				return nil
			}
			c := tls.Client(p, config)
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			for i := range row.behind {
				if _, err := c.Write(make([]byte, 1+i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.uncork(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, row.first)); err != nil {
				t.Fatal(err)
			}
			got := wait(t, told, "the attempt")
			if got.TX != got.TrueTX || got.RX != got.TrueRX {
				t.Errorf("told %+v", got)
			}
			if got.TX != row.want.TX || got.RX != row.want.RX {
				t.Errorf("told %+v, the test meant %+v", got, row.want)
			}
		})
	}
}

// TestKernelKeys: the keys for the kernel open what the server has sealed.
func TestKernelKeys(t *testing.T) {
	onlySuite(t, tls.TLS_AES_128_GCM_SHA256)
	told := make(chan []byte, 1)
	g := newGate(t, func(g *gate, _ *secure.Options) {
		g.ready = func(s *secure.Server) {
			s.OnOffload(func(_ *reactor.Loop, _ reactor.ID, tx, _ []byte) error {
				told <- slices.Clone(tx)
				return reactor.ErrNoOffload
			})
		}
	})
	var log bytes.Buffer
	config := clientConfig()
	config.KeyLogWriter = &log
	c := tls.Client(g.dial(), config)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	secret := secretIn(t, &log, "SERVER_TRAFFIC_SECRET_0")
	tx := wait(t, told, "the attempt")
	// struct tls12_crypto_info_aes_gcm_128: version, cipher, iv[8], key[16], salt[4], rec_seq[8]
	iv := expand(t, secret, "iv", 12)
	want := slices.Concat(tx[:4], iv[4:], expand(t, secret, "key", 16), iv[:4], make([]byte, 8))
	if tx[0]|tx[1] != 0x07 || tx[2]|tx[3] != 51 || !bytes.Equal(tx, want) {
		t.Errorf("told %x, want %x", tx, want)
	}
	s := newSealer(t, secret)
	if s.record(23, []byte("x")); !bytes.Equal(s.iv, iv) {
		t.Error("the test's own sealer has another iv")
	}
}

// TestKernelRefuses: a kernel that cannot is asked once for each cipher, or once at all, and nobody notices. One that took
// the keys by half costs the socket.
func TestKernelRefuses(t *testing.T) {
	for _, row := range []struct {
		name  string
		err   error
		asked int // by three sockets of one suite
		lines int // in the log
		left  bool
		dead  bool
	}{
		{"no module", fmt.Errorf("%w: %w", reactor.ErrNoOffload, syscall.ENOENT), 1, 1, false, false},
		{"not this cipher", fmt.Errorf("%w: cipher: %w", reactor.ErrNoOffload, syscall.EINVAL), 1, 1, true, false},
		{"not this socket", fmt.Errorf("%w: %w", reactor.ErrNoOffload, syscall.ENOTCONN), 3, 0, true, false},
		{"by half", errors.New("TLS_RX"), 3, 3, true, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			asked := 0
			logged := make(chan string, 16)
			g := newGate(t, func(g *gate, o *secure.Options) {
				o.Log = func(msg string, _ ...any) { logged <- msg }
				g.ready = func(s *secure.Server) {
					s.OnOffload(func(*reactor.Loop, reactor.ID, []byte, []byte) error {
						asked++
						return row.err
					})
				}
			})
			for range 3 {
				c := tls.Client(g.dial(), clientConfig())
				if err := c.Handshake(); err != nil {
					t.Fatal(err)
				}
				g.ended()
				if !row.dead {
					say(t, c, "all is well")
					_ = c.Close()
				} else if _, err := c.Read(make([]byte, 1)); err == nil {
					t.Error("it goes on")
				}
				g.cause()
			}
			if asked != row.asked || g.s.Offloads() != row.left {
				t.Errorf("asked %d times; would ask again: %v", asked, g.s.Offloads())
			}
			g.settle()
			n := g.stats()
			if n.Kernel != 0 {
				t.Errorf("%+v", n)
			}
			if told := errors.Is(n.Refusal, row.err); told != (row.lines == 1) { // what is of a socket alone is no reason
				t.Errorf("the reason is %v", n.Refusal)
			}
			if len(logged) != row.lines {
				t.Errorf("%d lines", len(logged))
			}
		})
	}
}

// TestKernelOff: nothing is tried, and no secret is asked for.
func TestKernelOff(t *testing.T) {
	g := newGate(t, func(_ *gate, o *secure.Options) { o.KernelTLS = secure.Off })
	c := tls.Client(g.dial(), clientConfig())
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	g.ended()
	bothWays(t, c, 10_000)
	if n := g.stats(); n.UserSpace != 1 || n.Kernel != 0 {
		t.Errorf("%+v", n)
	}
}

// TestNoChaCha: a kernel without the module of ChaCha20 has AES-GCM all the same.
func TestNoChaCha(t *testing.T) {
	onlySuite(t, tls.TLS_CHACHA20_POLY1305_SHA256)
	g := newGate(t, func(g *gate, _ *secure.Options) {
		g.ready = func(s *secure.Server) {
			s.OnOffload(func(*reactor.Loop, reactor.ID, []byte, []byte) error {
				return fmt.Errorf("%w: cipher: %w", reactor.ErrNoOffload, syscall.ENOENT)
			})
		}
	})
	say(t, tls.Client(g.dial(), clientConfig()), "word")
	if !g.s.Offloads() {
		t.Error("AES is given up, too")
	}
}

// TestOutOfStep: a record without content before the kernel has been asked, and it is never asked. crypto/tls goes on.
func TestOutOfStep(t *testing.T) {
	onlySuite(t, tls.TLS_AES_128_GCM_SHA256)
	for _, odd := range []struct {
		name   string
		record func(s *sealer) ([]byte, *sealer) // and who seals what follows
	}{
		{"KeyUpdate", func(s *sealer) ([]byte, *sealer) { return s.record(22, []byte{24, 0, 0, 1, 0}), s.next() }},
		{"an empty record", func(s *sealer) ([]byte, *sealer) { return s.record(23, nil), s }},
		{"change_cipher_spec", func(s *sealer) ([]byte, *sealer) { return []byte("\x14\x03\x03\x00\x01\x01"), s }},
	} {
		g := newGate(t, func(g *gate, _ *secure.Options) {
			g.ready = func(s *secure.Server) {
				s.OnOffload(func(*reactor.Loop, reactor.ID, []byte, []byte) error {
					t.Errorf("%s: the kernel is asked", odd.name)
					return reactor.ErrNoOffload
				})
			}
		})
		p := &tap{Conn: g.dial()}
		var log bytes.Buffer
		config := clientConfig()
		config.KeyLogWriter = &log
		config.VerifyConnection = func(tls.ConnectionState) error { // its Finished waits for what comes behind it
			p.corked = true
			return nil
		}
		c := tls.Client(p, config)
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		record, s := odd.record(newSealer(t, secretIn(t, &log, "CLIENT_TRAFFIC_SECRET_0")))
		p.kept = append(append(p.kept, record...), s.record(23, []byte("word"))...)
		if err := p.uncork(); err != nil {
			t.Fatal(err)
		}
		hear(t, c, "word")
		send(t, c, s.record(23, []byte("another")))
		hear(t, c, "another")
	}
}
