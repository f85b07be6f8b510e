package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"ticketgate/bench"
)

// A peer is another WebSocket server, written as its library's documentation would have it (tools/peers).
type peer struct {
	name       string
	library    string
	program    []string // and arguments that it always needs
	echo, feed string   // paths; "": it has none
	hello      string   // first message of a subscriber; "": none
}

var peers = []peer{
	{name: "gws", library: "github.com/lxzan/gws", program: []string{"gws"}, echo: "/echo", feed: "/feed"},
	{name: "gobwas/ws", library: "github.com/gobwas/ws on net, a goroutine a socket", program: []string{"gobwas"}, echo: "/echo", feed: "/feed"},
	{name: "gorilla", library: "github.com/gorilla/websocket", program: []string{"gorilla"}, echo: "/echo", feed: "/feed"},
	{name: "coder", library: "github.com/coder/websocket", program: []string{"coder"}, echo: "/echo", feed: "/feed"},
	{name: "ws (node)", library: "npm ws on Node.js", program: []string{"node", "npmws/main.js"}, echo: "/echo", feed: "/feed"},
	{name: "centrifuge", library: "github.com/centrifugal/centrifuge", program: []string{"centrifuge"}, feed: "/connection/websocket", hello: `{"id":1,"connect":{}}`},
}

// ours is the gateway, as a peer.
const ours = "ticketgate"

// bareRivals are the programs that do the least possible.
var bareRivals = []string{"epollecho", "epollrelay", "epollaccept"}

// rivals are all that the gateway is compared with.
func rivals() []string {
	var all []string
	for _, p := range peers {
		all = append(all, p.name)
	}
	for _, p := range proxies {
		all = append(all, p.name)
	}
	return append(all, bareRivals...)
}

// compares says that the gateway is to be compared with the rival of this name.
func (o options) compares(name string) bool {
	return o.against == "" || slices.Contains(strings.Split(o.against, ","), name)
}

// among are those of names that are to be measured: the gateway always is.
func (o options) among(names ...string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return name != ours && !o.compares(name) })
}

// knowsRivals says what is wrong with -against.
func (o options) knowsRivals() error {
	if o.against == "" {
		return nil
	}
	if !o.peers || o.million > 0 || o.check { // which would pass over it
		return errors.New("-against: only with -peers, and without -million and -check")
	}
	for name := range strings.SplitSeq(o.against, ",") {
		if !slices.Contains(rivals(), name) {
			return fmt.Errorf("-against: no server %q: there are %s", name, strings.Join(rivals(), ", "))
		}
	}
	return nil
}

// needsNode says that one of the servers is a program for Node.js.
func (o options) needsNode() bool {
	return slices.ContainsFunc(peers, func(p peer) bool { return p.program[0] == "node" && o.compares(p.name) })
}

// peerPackages are the packages of tools/peers that o needs: where few servers are compared, linking all would take longer than to
// measure.
func (o options) peerPackages() []string {
	if o.against == "" {
		return []string{"./..."}
	}
	all := []string{"./wsecho"} // the relays' backend
	for _, p := range peers {
		if p.program[0] != "node" && o.compares(p.name) {
			all = append(all, "./"+p.program[0])
		}
	}
	for _, name := range bareRivals {
		if o.compares(name) {
			all = append(all, "./"+name)
		}
	}
	return all
}

// startPeer starts p on the server's core; path is the one that its sockets open.
func (r *runner) startPeer(p peer, path string, args ...string) (*server, error) {
	program := filepath.Join(r.dir, p.program[0])
	var all []string
	if len(p.program) > 1 { // an interpreter
		program = p.program[0]
		for _, file := range p.program[1:] {
			all = append(all, filepath.Join(r.dir, file))
		}
	}
	c, err := r.start(r.serverCore, program, append(all, args...)...)
	if err != nil {
		return nil, err
	}
	address, err := c.Address(r.ctx)
	if err != nil {
		return nil, err
	}
	to, err := bench.NewTarget(address)
	if err != nil {
		return nil, err
	}
	s := &server{name: p.name, process: c.Process, to: to, head: bench.AppendUpgrade(nil, address, []byte(path), nil)}
	if p.hello != "" {
		s.hello = []byte(p.hello)
	}
	return s, nil
}

// bare says that name is that of a program that does the least possible, and no competitor.
func bare(name string) bool { return strings.HasPrefix(name, "epoll") }

// bareServer starts such a program on the server's core. knows: it answers an upgrade.
func (r *runner) bareServer(name string, knows bool, args ...string) (*server, error) {
	c, address, err := r.peer(r.serverCore, name, args...)
	if err != nil {
		return nil, err
	}
	to, err := bench.NewTarget(address)
	if err != nil {
		return nil, err
	}
	s := &server{name: name, process: c.Process, to: to}
	if knows {
		s.head = bench.AppendUpgrade(nil, address, []byte("/"), nil)
	}
	return s, nil
}

// never is how often a feed speaks that is to be silent.
const never = time.Hour

// quietPeer starts p for sockets that are only open: where there is no echo, on a feed that says nothing.
func (r *runner) quietPeer(p peer) (*server, error) {
	if p.echo != "" {
		return r.startPeer(p, p.echo)
	}
	return r.startPeer(p, p.feed, "--every", never.String())
}

// ourServer starts a gateway to compare with.
func (r *runner) ourServer(s setup) (*server, error) {
	g, err := r.gatewayWith(s)
	if err != nil {
		return nil, err
	}
	return &server{name: ours, process: g.Process, gateway: g}, nil
}

// echoServers starts the gateway and all peers that have an echo.
func (r *runner) echoServers() ([]*server, error) {
	one, err := r.ourServer(setup{})
	if err != nil {
		return nil, err
	}
	all := []*server{one}
	for _, p := range peers {
		if p.echo == "" || !r.compares(p.name) {
			continue
		}
		one, err := r.startPeer(p, p.echo)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// A proxy relays WebSockets, and is configured by a file.
type proxy struct {
	name    string
	config  string // in tools/peers
	command func(file, dir string) []string
}

var proxies = []proxy{
	{"nginx", "nginx/nginx.conf", func(file, dir string) []string { return []string{"nginx", "-p", dir, "-c", file, "-e", "stderr"} }},
	{"haproxy", "haproxy/haproxy.cfg", func(file, _ string) []string { return []string{"haproxy", "-db", "-f", file} }},
}

// startProxy starts p on the server's core, before backend. whole: with buffers that hold the longest message that is measured, which an
// idle socket may pay for.
func (r *runner) startProxy(p proxy, backend string, whole bool) (*server, error) {
	t, err := template.ParseFiles(filepath.Join("tools", "peers", p.config))
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	file := filepath.Join(r.dir, filepath.Base(p.config))
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(t.Execute(f, map[string]any{"Listen": address, "Backend": backend, "Dir": r.dir, "Whole": whole}), f.Close()); err != nil {
		return nil, err
	}
	command := p.command(file, r.dir)
	if command[0], err = daemon(command[0]); err != nil {
		return nil, err
	}
	c, err := r.start(r.serverCore, command[0], command[1:]...)
	if err != nil {
		return nil, err
	}
	if err := c.Ready(r.ctx, func(ctx context.Context) error { return reached(ctx, address) }); err != nil {
		return nil, err
	}
	to, err := bench.NewTarget(address)
	if err != nil {
		return nil, err
	}
	return &server{name: p.name, process: c.Process, to: to, head: bench.AppendUpgrade(nil, address, []byte("/"), nil)}, nil
}

// daemon finds a program that is not in every user's PATH.
func daemon(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return exec.LookPath("/usr/sbin/" + name)
	}
	return path, nil
}

func reached(ctx context.Context, address string) error {
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp4", address)
	if err != nil {
		return err
	}
	return c.Close()
}
