package main_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"ticketgate/tools/rig"
)

const tlsYAML = `
version: 1
listen:
  handshake: { address: "127.0.0.1:0" }
  gate: { address: "127.0.0.1:0", public_url: "wss://gate.test", tls: main, per_address: { exempt: [127.0.0.0/8] } }
  admin: { address: "127.0.0.1:0" }
tls: { main: { cert: gate.crt, key: gate.key } }
secrets: { key_hash: "${file:ring}" }
auth: { keys: { source: [keys.yaml] } }
products: { all: { streams: [echo], plans: [free] } }
plans: { free: {} }
streams: { echo: { backend: builtin } }
backends: { builtin: { kind: echo } }
drain: { over: 10ms, grace: 1s }
`

// authority signs certificates for gate.test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	a := &authority{t: t, cert: cert, key: key, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

// issue returns a certificate for gate.test and its key, as PEM.
func (a *authority) issue(serial int64) (cert, key string) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{"gate.test"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &k.PublicKey, a.key)
	must(a.t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	must(a.t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// tlsNode is a gateway process whose gate speaks TLS.
type tlsNode struct {
	*rig.Node
	key       rig.Key
	authority *authority
	trust     *tls.Config
}

func startTLS(ctx context.Context, t *testing.T) *tlsNode {
	t.Helper()
	bin, err := rig.Binary(t.Context(), binDir)
	must(t, err)
	ring, err := rig.Ring()
	must(t, err)
	key, err := rig.NewKey(ring, "app", "app", "all", "free", "delegate")
	must(t, err)
	a := newAuthority(t)
	cert, private := a.issue(100)
	n, err := rig.Start(ctx, &rig.StartOptions{Binary: bin, Dir: t.TempDir(), Config: tlsYAML,
		Files: map[string]string{"ring": ring, "keys.yaml": key.Entry, "gate.crt": cert, "gate.key": private}})
	must(t, err)
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the node:\n%s", n.Log())
		}
	})
	return &tlsNode{n, key, a, &tls.Config{RootCAs: a.pool, ServerName: "gate.test"}}
}

// open is a socket over TLS, closed with the test.
func (n *tlsNode) open(ctx context.Context, t *testing.T) *websocket.Conn {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: n.trust, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", n.Gate)
	}}}
	t.Cleanup(client.CloseIdleConnections)
	ticket, err := rig.Issue(ctx, http.DefaultClient, n.Handshake, n.key.Text, request{Stream: "echo", Client: "ann"})
	must(t, err)
	if !strings.HasPrefix(ticket.URL, "wss://gate.test/t/") {
		t.Errorf("ticket for %s", ticket.URL)
	}
	conn, _, err := websocket.Dial(ctx, ticket.URL, &websocket.DialOptions{HTTPClient: client, Subprotocols: ticket.Protocols})
	must(t, err)
	t.Cleanup(func() { _ = conn.CloseNow() })
	conn.SetReadLimit(1 << 20)
	return conn
}

// TestGateTLS: a gate that speaks TLS itself, from outside, and a certificate that is replaced under open sockets.
func TestGateTLS(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n := startTLS(ctx, t)
	a, trust, dir := n.authority, n.trust, n.Dir
	conn := n.open(ctx, t)
	echo := func(text string) {
		t.Helper()
		must(t, conn.Write(ctx, websocket.MessageText, []byte(text)))
		_, b, err := conn.Read(ctx)
		must(t, err)
		if string(b) != text {
			t.Errorf("echo of %d bytes has %d", len(text), len(b))
		}
	}
	echo("sealed")
	echo(strings.Repeat("over three records ", 2000))

	t.Run("host of another", func(t *testing.T) {
		c, err := tls.Dial("tcp", n.Gate, trust)
		must(t, err)
		defer func() { _ = c.Close() }()
		_, err = io.WriteString(c, rig.Head("other.test", "/t/x", "tgs_x"))
		must(t, err)
		answer, err := io.ReadAll(c)
		must(t, err)
		if !strings.HasPrefix(string(answer), "HTTP/1.1 421 ") {
			t.Errorf("answer %.60q", answer)
		}
	})
	t.Run("no TLS", func(t *testing.T) {
		answer, _ := rig.Exchange(ctx, n.Gate, []byte(rig.Head("gate.test", "/t/x", "tgs_x")))
		if bytes.Contains(answer, []byte("HTTP")) {
			t.Errorf("answer %.60q", answer)
		}
	})
	t.Run("TLS 1.1", func(t *testing.T) {
		old := trust.Clone()
		old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		if c, err := tls.Dial("tcp", n.Gate, old); err == nil {
			_ = c.Close()
			t.Error("let in")
		}
	})
	t.Run("new certificate", func(t *testing.T) {
		cert, private := a.issue(200)
		for name, text := range map[string]string{"gate.crt": cert, "gate.key": private} {
			next := filepath.Join(dir, name+".new")
			must(t, os.WriteFile(next, []byte(text), 0o600))
			must(t, os.Rename(next, filepath.Join(dir, name)))
		}
		for {
			c, err := (&tls.Dialer{Config: trust}).DialContext(ctx, "tcp", n.Gate) // ctx bounds the wait
			must(t, err)
			serial := c.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Int64()
			_ = c.Close()
			if serial == 200 {
				break
			}
		}
		echo("still open")
	})
	metrics, err := http.Get("http://" + n.Admin + "/metrics")
	must(t, err)
	defer func() { _ = metrics.Body.Close() }()
	text, err := io.ReadAll(metrics.Body)
	must(t, err)
	for _, line := range []string{`ticketgate_tls_handshakes_total{result="ok"}`, `ticketgate_tls_cert_not_after_timestamp_seconds{name="main"}`,
		"ticketgate_tls_offload_available", `ticketgate_handshake_rejected_total{reason="misdirected"} 1`, `ticketgate_loop_stall_seconds_count{loop="0"}`} {
		if !bytes.Contains(text, []byte(line)) {
			t.Errorf("no %s in the metrics", line)
		}
	}
}

// TestStatusTLS: status says who seals records, which is found out by the first socket, and counts that.
func TestStatusTLS(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n := startTLS(ctx, t)
	bin, err := rig.Binary(ctx, binDir)
	must(t, err)
	status := func(args ...string) string {
		t.Helper()
		c := exec.CommandContext(ctx, bin, append([]string{"status", "--admin", "http://" + n.Admin}, args...)...)
		var talk bytes.Buffer
		c.Stderr = &talk
		out, err := c.Output()
		if err != nil || talk.Len() != 0 {
			t.Fatalf("%v\n%s%s", err, out, talk.Bytes())
		}
		return string(out)
	}
	const untried = "\ntls     kernel  connections: kernel 0, process 0  (not tried yet)\n"
	if got := status(); !strings.Contains(got, untried) {
		t.Errorf("%swant %s", got, untried)
	}
	conn := n.open(ctx, t)
	must(t, conn.Write(ctx, websocket.MessageText, []byte("sealed")))
	_, _, err = conn.Read(ctx)
	must(t, err)
	var s struct {
		Connections struct{ Used int }
		TLS         struct {
			Mode, Reason string
			Kernel       int `json:"kernel_connections"`
			Process      int `json:"process_connections"`
		}
	}
	must(t, json.Unmarshal([]byte(status("-o", "json")), &s))
	table := status()
	switch {
	case s.Connections.Used != 1 || !strings.Contains(table, "  connections 1/1000000  "):
		t.Errorf("%+v\n%s", s, table)
	case s.TLS.Mode == "kernel" && s.TLS.Reason == "" && s.TLS.Kernel == 1 && s.TLS.Process == 0:
		if want := "\ntls     kernel  connections: kernel 1, process 0\n"; !strings.Contains(table, want) {
			t.Errorf("%swant %s", table, want)
		}
	case s.TLS.Mode == "process" && strings.Contains(s.TLS.Reason, "no TLS in this kernel") && s.TLS.Kernel == 0 && s.TLS.Process == 1:
		if want := "\ntls     process  connections: kernel 0, process 1  (" + s.TLS.Reason + ")  see: ticketgate doctor --explain ktls\n"; !strings.Contains(table, want) {
			t.Errorf("%swant %s", table, want)
		}
	default:
		t.Errorf("%+v", s)
	}
}
