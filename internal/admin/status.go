package admin

import (
	"encoding/json"
	"net/http"
	"time"

	"ticketgate/engine"
	"ticketgate/internal/pressure"
	"ticketgate/store/node"
)

// Status is a node at a glance: the answer of /v1/status. What it counts, the metrics count too.
type Status struct {
	Version     string      `json:"version"`
	Node        string      `json:"node"`
	Ready       bool        `json:"ready"`
	Reason      string      `json:"reason,omitempty"` // why newcomers are not taken
	Uptime      int64       `json:"uptime_seconds"`
	Draining    bool        `json:"draining"`
	Connections Connections `json:"connections"`
	Store       Store       `json:"store"`
	Cluster     *Cluster    `json:"cluster,omitempty"`
	Memory      Memory      `json:"memory"`
	TLS         TLS         `json:"tls"`
	Loops       []Loop      `json:"loops"`
}

// Connections are clients that have shown a good ticket.
type Connections struct {
	Used  int64 `json:"used"`
	Limit int64 `json:"limit"` // listen.gate.admit.connections
}

// Store is where tickets and slots are.
type Store struct {
	Kind string `json:"kind"`
	Up   bool   `json:"up"` // tickets can be issued and redeemed, as store_up has it
}

// Memory is what the node does about its memory.
type Memory struct {
	State string `json:"state"` // calm, refuse, cut
	Used  int64  `json:"used_bytes"`
	Limit int64  `json:"limit_bytes"`
}

// Loop is one event loop.
type Loop struct {
	Loop        int     `json:"loop"`
	Connections int64   `json:"connections"` // those to backends included
	Busy        float64 `json:"busy_ratio"`
	Queue       int64   `json:"queue_bytes"`
	Batched     bool    `json:"batched"` // it reads and writes many sockets in one system call (io_uring)
}

// Who seals and opens the records of the next client that speaks TLS 1.3. It is found out by trying: until a kernel without
// TLS has been asked for the first time, it counts as one that has it.
const (
	TLSOff     = "off" // the gate speaks no TLS
	TLSProcess = "process"
	TLSKernel  = "kernel"
)

// TLS is what becomes of TLS at the gate.
type TLS struct {
	Mode    string `json:"mode"`
	Reason  string `json:"reason,omitempty"` // why it is not the kernel, not for every cipher suite, or not known yet
	Kernel  int64  `json:"kernel_connections"`
	Process int64  `json:"process_connections"`
}

// Node is what Status is made of. Any goroutine may call its functions.
type Node struct {
	Version     string
	Name        string
	StoreKind   string
	Connections int64 // that may be open
	Uptime      func() time.Duration
	Engine      func() *engine.Stats
	StoreReady  func() error // of the store's side of the node
	Mode        string       // cluster.mode
	Authority   string       // tickets.authority
	Cluster     func() node.Status
	Draining    func() bool
	Memory      func(*pressure.Stats)
}

// status is n now; ready is why it takes no newcomers.
func (n *Node) status(ready error) *Status {
	e := n.Engine()
	var p pressure.Stats
	n.Memory(&p)
	s := &Status{
		Version: n.Version, Node: n.Name, Ready: ready == nil, Uptime: int64(n.Uptime() / time.Second), Draining: n.Draining(),
		Connections: Connections{e.Clients, n.Connections},
		Store:       Store{n.StoreKind, n.StoreReady() == nil},
		Memory:      Memory{p.State.String(), p.Used, p.Limit},
		TLS:         tlsOf(e),
		Loops:       make([]Loop, len(e.Reactor.PerLoop)),
	}
	if n.Cluster != nil {
		c := n.Cluster()
		s.Cluster = clusterOf(n.Mode, n.Authority, &c)
	}
	if ready != nil {
		s.Reason = ready.Error()
	}
	for i := range s.Loops {
		l := &e.Reactor.PerLoop[i]
		s.Loops[i] = Loop{i, l.Conns, l.Busy, l.Queued, e.Reactor.Batched}
	}
	return s
}

func tlsOf(e *engine.Stats) TLS {
	t := e.TLS
	if t == nil {
		return TLS{Mode: TLSOff}
	}
	s := TLS{Mode: TLSKernel, Kernel: e.Reactor.Offload, Process: t.UserSpace}
	if !t.Offloads {
		s.Mode = TLSProcess
	}
	switch {
	case t.Refusal != nil:
		s.Reason = t.Refusal.Error()
	case !t.Offloads:
		s.Reason = "turned off"
	case t.Kernel == 0:
		s.Reason = "not tried yet"
	}
	return s
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	body, err := json.Marshal(s.o.Node.status(s.o.Ready()))
	if err != nil { // of a figure that is no number
		s.o.Log.Error("status", "error", err)
		answer(w, http.StatusInternalServerError, "the status cannot be written")
		return
	}
	write(w, http.StatusOK, "application/json", append(body, '\n'))
}
