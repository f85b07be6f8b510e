// Package admin is the operator's side of a node: its metrics, its health and its status, on an address of their own.
package admin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"ticketgate/ticket"
)

// Options are what a Server is made of.
type Options struct {
	Address  string               // host:port
	Listener net.Listener         // instead of Address, if it is open already; it is closed by Shutdown, and if New fails
	Socket   net.Listener         // a unix socket beside it, whose peers say who they are; likewise. nil: none
	Token    string               // bearer token that all but health asks for; "" asks for none, and lets nobody change anything who has none
	Base     string               // what problem types begin with
	Control  Control              // nil: nothing of /v1 but the status. With it goes Node
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

// routes adds the API to mux.
func (s *Server) routes(mux *http.ServeMux) {
	s.route(mux, "/v1/connections", methods{"GET": (*call).listConnections})
	s.route(mux, "/v1/connections/{id}", methods{"GET": (*call).showConnection, "DELETE": (*call).closeConnection})
	s.route(mux, "/v1/connections:disconnect", methods{"POST": (*call).disconnectConnections})
	s.route(mux, "/v1/clients", methods{"GET": (*call).listClients})
	s.route(mux, "/v1/clients/{id}", methods{"GET": (*call).showClient, "POST": (*call).changeClient})
	s.route(mux, "/v1/keys", methods{"GET": (*call).listKeys})
	s.route(mux, "/v1/keys/{id}", methods{"GET": (*call).showKey, "DELETE": (*call).revokeKey})
	s.route(mux, "/v1/tickets/{id}", methods{"GET": (*call).showTicket, "DELETE": (*call).revokeTicket})
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) {
		id, _ := ticket.ID("req_", time.Now(), rand.Reader) // never fails, says its documentation
		(&call{s: s, w: w, r: r, id: id}).notFound("there is no such path")
	})
}

// New listens on o.Address, unless it is given a listener; Serve answers.
func New(o Options) (*Server, error) {
	ln := o.Listener
	if ln == nil {
		var err error
		if ln, err = net.Listen("tcp", o.Address); err != nil {
			return nil, errors.Join(fmt.Errorf("listen.admin.address: %w", err), o.closeSocket())
		}
	}
	s := &Server{o: o, ln: ln}
	mux := http.NewServeMux()
	if o.Metrics != nil {
		reg := prometheus.NewRegistry()
		if err := reg.Register(o.Metrics); err != nil {
			return nil, errors.Join(fmt.Errorf("metrics: %w", err), ln.Close(), o.closeSocket())
		}
		mux.Handle("GET /metrics", s.guard(promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelError)})))
	}
	if o.Node != nil {
		mux.Handle("GET /v1/status", s.guard(http.HandlerFunc(s.status)))
	}
	if o.Control != nil {
		s.routes(mux)
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
		ConnContext:       credentials,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

func (o *Options) closeSocket() error {
	if o.Socket == nil {
		return nil
	}
	return o.Socket.Close()
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Serve answers until Shutdown.
func (s *Server) Serve() error {
	ended, listeners := make(chan error, 2), 1
	if s.o.Socket != nil {
		listeners++
		go func() { ended <- s.s.Serve(s.o.Socket) }() // heard of below
	}
	go func() { ended <- s.s.Serve(s.ln) }()
	var first error
	for range listeners {
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) && first == nil {
			first = fmt.Errorf("admin: %w", err)
			_ = s.s.Close() // ends the other as well
		}
	}
	return first
}

// Shutdown stops answering; requests under way may finish until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.s.Shutdown(ctx) }

// index is what somebody sees who opens the address in a browser.
const index = `ticketgate

/metrics    Prometheus
/healthz    the process is alive
/readyz     the node takes newcomers, or why not
/v1/status  the node at a glance, as JSON; "ticketgate status" prints it

/v1/connections  /v1/clients  /v1/keys  /v1/tickets/{id}`

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

// guard asks for the token where there is one, unless the caller has shown otherwise who it is.
func (s *Server) guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.who(r).role == nobody {
			w.Header().Set("WWW-Authenticate", "Bearer")
			answer(w, http.StatusUnauthorized, "the admin token is needed: Authorization: Bearer <listen.admin.token>")
			return
		}
		h.ServeHTTP(w, r)
	})
}
