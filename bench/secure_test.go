package bench_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"ticketgate/bench"
)

// secureServer is a WebSocket server over TLS that pings every socket and counts the pongs; one path it refuses.
type secureServer struct {
	*httptest.Server
	pongs   atomic.Int64
	serving sync.WaitGroup
	hangUp  chan struct{} // closed: it ends all sockets
}

func newSecureServer(t *testing.T) *secureServer {
	t.Helper()
	s := &secureServer{hangUp: make(chan struct{})}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // a client that refuses its certificate is one of the tests
	s.StartTLS()
	t.Cleanup(func() {
		s.Close()
		s.serving.Wait()
	})
	return s
}

func (s *secureServer) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/t/no" {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	c, _, _, err := ws.UpgradeHTTP(r, w)
	if err != nil {
		return
	}
	s.serving.Go(func() {
		defer c.Close()
		if ws.WriteFrame(c, ws.NewPingFrame([]byte("there?"))) != nil {
			return
		}
		f, err := readFrame(c)
		if err != nil || f.Header.OpCode != ws.OpPong || string(f.Payload) != "there?" {
			return
		}
		s.pongs.Add(1)
		gone := make(chan struct{})
		s.serving.Go(func() {
			defer close(gone)
			_, _ = readFrame(c)
		})
		select {
		case <-s.hangUp:
		case <-gone:
		}
	})
}

func (s *secureServer) client() *bench.Secure {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &bench.Secure{Address: s.Listener.Addr().String(), Config: &tls.Config{RootCAs: roots, ServerName: "example.com"}}
}

func heads(path string, n int) (all [][]byte) {
	for range n {
		all = append(all, bench.AppendUpgrade(nil, "example.com", []byte(path), nil))
	}
	return all
}

// until asks every millisecond, for as long as a test has patience.
func until(t *testing.T, done func() bool) {
	t.Helper()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	end := time.After(patience)
	for !done() {
		select {
		case <-again.C:
		case <-end:
			t.Fatal("not done in time")
		}
	}
}

func TestSecure(t *testing.T) {
	server := newSecureServer(t)
	s := server.client()
	if err := s.Open(t.Context(), heads("/t/x", 20), 3); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return server.pongs.Load() == 20 })
	if s.Lost() != 0 {
		t.Errorf("%d lost", s.Lost())
	}
	if err := s.Close(); err != nil || s.Lost() != 0 {
		t.Errorf("%v, %d lost by Close", err, s.Lost())
	}
}

func TestSecureLost(t *testing.T) {
	server := newSecureServer(t)
	s := server.client()
	if err := s.Open(t.Context(), heads("/t/x", 5), 5); err != nil {
		t.Fatal(err)
	}
	close(server.hangUp)
	until(t, func() bool { return s.Lost() == 5 })
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestSecureRefused(t *testing.T) {
	server := newSecureServer(t)
	s := server.client()
	var refused *bench.StatusError
	if err := s.Open(t.Context(), heads("/t/no", 3), 2); !errors.As(err, &refused) || refused.Status != 401 {
		t.Errorf("%v", err)
	}
	s.Config = &tls.Config{ServerName: "example.com"} // that does not know the certificate
	if err := s.Open(t.Context(), heads("/t/x", 1), 1); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
