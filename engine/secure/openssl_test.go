package secure_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ticketgate/engine/reactor"
	"ticketgate/engine/secure"
)

// An s_client is an openssl that talks to a gate: another TLS than crypto/tls.
type sClient struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.Reader
	got strings.Builder
}

func (g *gate) openssl(args ...string) *sClient {
	g.t.Helper()
	file := filepath.Join(g.t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca().cert.Raw}), 0o600); err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c := &sClient{t: g.t, cmd: exec.CommandContext(ctx, "openssl", append([]string{"s_client", "-connect", g.addr, "-CAfile", file,
		"-servername", "gate.test", "-verify_return_error"}, args...)...)}
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		g.t.Fatal(err)
	}
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		g.t.Fatal(err)
	}
	c.cmd.Stderr = c.cmd.Stdout
	if err := c.cmd.Start(); err != nil {
		g.t.Fatal("these tests need openssl: ", err)
	}
	g.t.Cleanup(func() {
		cancel()
		_ = c.cmd.Wait() // it was killed, unless it had ended
	})
	return c
}

func (c *sClient) say(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, text); err != nil {
		c.t.Fatal(err)
	}
}

// hear reads until text has come, behind what was heard before.
func (c *sClient) hear(text string) {
	c.t.Helper()
	b := make([]byte, 4096)
	for !strings.Contains(c.got.String(), text) {
		n, err := c.out.Read(b)
		if err != nil {
			c.t.Fatalf("no %q in %q: %v", text, c.got.String(), err)
		}
		c.got.Write(b[:n])
	}
	_, rest, _ := strings.Cut(c.got.String(), text)
	c.got.Reset()
	c.got.WriteString(rest)
}

// TestOpenSSL: each suite, and a KeyUpdate in the middle (K).
func TestOpenSSL(t *testing.T) {
	for _, id := range secure.Suites() {
		name := tls.CipherSuiteName(id)
		t.Run(name, func(t *testing.T) {
			g := newGate(t, nil)
			c := g.openssl("-tls1_3", "-ciphersuites", name)
			if d := g.ended(); d.err != nil || d.state.CipherSuite != id {
				t.Fatal(d)
			}
			c.say("hello over there\n")
			c.hear("hello over there\n")
			c.say("K\n")
			if *kernel {
				if err := wait(t, g.rekeys, "Fault"); err != reactor.ErrRekey {
					t.Error(err)
				}
				c.hear("rekey")
				return
			}
			c.hear("KEYUPDATE")
			for range 3 {
				c.say("and under new keys\n")
				c.hear("and under new keys\n")
			}
			c.say("Q\n")
			if why := g.cause(); why != reactor.CauseEOF {
				t.Error("closed by", why)
			}
		})
	}
}

// TestOpenSSLResumes: the ticket of one connection opens the next.
func TestOpenSSLResumes(t *testing.T) {
	for _, version := range []string{"-tls1_3", "-tls1_2"} {
		g := newGate(t, nil)
		session := filepath.Join(t.TempDir(), "session")
		for _, args := range [][]string{{version, "-sess_out", session}, {version, "-sess_in", session}} {
			c := g.openssl(args...)
			if d := g.ended(); d.err != nil {
				t.Fatal(d.err)
			}
			c.say("word\n")
			c.hear("word\n")
			c.say("Q\n")
			g.cause()
			_ = c.cmd.Wait() // it has written the file; its status is that of a client who was cut off
		}
		if n := g.stats(); n.Handshakes != 2 || n.Resumed != 1 {
			t.Errorf("%s: %+v", version, n)
		}
	}
}

// TestNoRenegotiation: a client of TLS 1.2 that asks for a new handshake (R) is sent away.
func TestNoRenegotiation(t *testing.T) {
	g := newGate(t, nil)
	c := g.openssl("-tls1_2")
	if d := g.ended(); d.err != nil {
		t.Fatal(d.err)
	}
	c.say("word\n")
	c.hear("word\n")
	c.say("R\n")
	if why := g.cause(); why != reactor.CauseFilter {
		t.Error("closed by", why)
	}
	if n := g.stats(); n.Handshakes != 1 {
		t.Errorf("%+v", n)
	}
}
