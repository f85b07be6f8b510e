// Package admin is the operator's side of a node: its metrics, its health and its status, on an address of their own.
package admin

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options are what a Server is made of.
type Options struct {
	Address  string               // host:port
	Listener net.Listener         // instead of Address, if it is open already; it is closed by Shutdown, and if New fails
	Token    string               // bearer token that /metrics and /v1/status ask for; "" asks for none
	Ready    func() error         // nil while the node takes newcomers
	Metrics  prometheus.Collector // nil: no /metrics
	Node     *Node                // nil: no /v1/status
	Log      *slog.Logger
}

// Server answers operators. It is plain HTTP: bind it to loopback or to a network of your own.
type Server struct {
	o  Options
	s  *http.Server
	ln net.Listener
}

// New listens on o.Address, unless it is given a listener; Serve answers.
func New(o Options) (*Server, error) {
	ln := o.Listener
	if ln == nil {
		var err error
		if ln, err = net.Listen("tcp", o.Address); err != nil {
			return nil, fmt.Errorf("listen.admin.address: %w", err)
		}
	}
	s := &Server{o: o, ln: ln}
	mux := http.NewServeMux()
	if o.Metrics != nil {
		reg := prometheus.NewRegistry()
		if err := reg.Register(o.Metrics); err != nil {
			return nil, errors.Join(fmt.Errorf("metrics: %w", err), ln.Close())
		}
		mux.Handle("GET /metrics", s.guard(promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelError)})))
	}
	if o.Node != nil {
		mux.Handle("GET /v1/status", s.guard(http.HandlerFunc(s.status)))
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, index) })
	s.s = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Serve answers until Shutdown.
func (s *Server) Serve() error {
	if err := s.s.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}

// Shutdown stops answering; requests under way may finish until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.s.Shutdown(ctx) }

// index is what somebody sees who opens the address in a browser.
const index = `ticketgate

/metrics    Prometheus
/healthz    the process is alive
/readyz     the node takes newcomers, or why not
/v1/status  the node at a glance, as JSON; "ticketgate status" prints it`

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if err := s.o.Ready(); err != nil {
		answer(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	answer(w, http.StatusOK, "ready")
}

func answer(w http.ResponseWriter, status int, text string) {
	write(w, status, "text/plain; charset=utf-8", []byte(text+"\n"))
}

func write(w http.ResponseWriter, status int, kind string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that left misses nothing
}

// guard asks for the token where there is one.
func (s *Server) guard(h http.Handler) http.Handler {
	if s.o.Token == "" {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || subtle.ConstantTimeCompare([]byte(got), []byte(s.o.Token)) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			answer(w, http.StatusUnauthorized, "the admin token is needed: Authorization: Bearer <listen.admin.token>")
			return
		}
		h.ServeHTTP(w, r)
	})
}
