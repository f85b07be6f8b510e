package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"text/template"
	"time"

	"ticketgate/bench"
)

// clients is how many callers the tickets are spread over, so that no figure is one of a limit per client.
const clients = 20000

// ticketTTL is how long a ticket may be spent: those that gate has fetched before a round must last until its end.
const ticketTTL = 120 * time.Second

// settings is the gateway's configuration for all scenarios: every limit that a message meets is on, and none is reached.
var settings = template.Must(template.New("ticketgate.yaml").Parse(`version: 1
node: { name: {{.Node}} }
listen:
  handshake: { address: "127.0.0.1:{{index .Ports 0}}" }
  gate:
    address: "127.0.0.1:{{index .Ports 1}}"
    public_url: "{{if .Cert}}wss{{else}}ws{{end}}://127.0.0.1:{{index .Ports 1}}"
    per_address: { exempt: [127.0.0.0/8, "::1/128"] }
    admit: { rate: 1000000/1second }
{{- if .Cert}}
    tls: bench
{{- end}}
  admin: { address: "127.0.0.1:{{index .Ports 2}}" }
{{- if .Cert}}
tls:
  bench: { cert: "{{.Cert}}", key: "{{.Key}}" }
{{- end}}
store: {{.Store}}
secrets: { ticket_keys: "${file:{{.Dir}}/ticket.keys}", key_hash: "${file:{{.Dir}}/key.hash}" }
tickets: { ttl: {{.TTL}}, outstanding: 1000{{with .Tickets}}, {{.}}{{end}} }
auth: { keys: { source: ["{{.Dir}}/keys.yaml"] } }
products:
  load: { streams: [load], plans: [load] }
plans:
  load:
    limits:
      tickets:      { rate: 1000000/1second, per: client }
      connections:  { count: 100000, per: client }
      messages-in:  { rate: 1000000/1second, per: connection, when_exceeded: close }
      messages-out: { rate: 1000000/1second, per: connection, when_exceeded: close }
      bytes-in:     { rate: 4GiB/1second, per: connection, when_exceeded: close }
      bytes-out:    { rate: 4GiB/1second, per: connection, when_exceeded: close }
streams:
  load: {{.Stream}}
backends:
  load: {{.Backend}}
feeds:
  load: { kind: clock, every: {{.FeedEvery}}, pad: {{.Pad}}B }
websocket: { ping: {{.Ping}}, pong_wait: {{.PongWait}} }
drain: { over: 0s, grace: 20s }
log: { format: text, level: warn }
`))

// A gateway is a running ticketgate.
type gateway struct {
	*bench.Child
	api, gate *bench.Target
	host      string // of the gate
	port      int    // of the gate
	mint      *bench.Mint
}

// A setup is in what the scenarios' gateways differ.
type setup struct {
	store   string        // its section; "": memory
	backend string        // address of a WebSocket server to relay to; "": the built-in echo
	feed    int           // bytes that a feed sends to every socket, besides its time; 0: no feed, but the backend
	every   time.Duration // how often it does; 0: every 10 ms
	ping    time.Duration // 0: 25 s
	pong    time.Duration // how long the answer may take; 0: 10 s, or half of ping
	tls     bool          // on the gate
	tickets string        // of its section tickets, besides what all have; "": nothing
	clients int           // whom tickets are for; 0: as many as always
	beside  bool          // on the client's core, where the server's is its Redis's
}

// configure writes the configuration of a gateway with this name into the temporary folder. ports are those of handshake, gate and
// admin; 0: any that is free.
func (r *runner) configure(s setup, node string, ports ...int) (file string, err error) {
	every := cmp.Or(s.ping, 25*time.Second)
	values := struct {
		Ports                                                                   []int
		Node, Dir, Store, Stream, Backend, Ping, PongWait, FeedEvery, Cert, Key string
		Tickets                                                                 string
		Pad                                                                     int
		TTL                                                                     time.Duration
	}{
		Ports: ports, Node: node, Dir: r.dir, Store: cmp.Or(s.store, "{ kind: memory, timeout: 5s }"), Stream: "{ backend: load }", Backend: "{ kind: echo }",
		Tickets: s.tickets, TTL: ticketTTL, Pad: s.feed, FeedEvery: cmp.Or(s.every, 10*time.Millisecond).String(), Ping: every.String(), PongWait: cmp.Or(s.pong, min(10*time.Second, every/2)).String(), // a pong is awaited before the next ping
	}
	if s.backend != "" {
		values.Backend = fmt.Sprintf("{ targets: [%q] }", "ws://"+s.backend+"/")
	}
	if s.feed > 0 {
		values.Stream = "{ feed: load }"
	}
	if s.tls {
		if values.Cert, values.Key, err = r.certificate(); err != nil {
			return "", err
		}
	}
	var text bytes.Buffer
	if err := settings.Execute(&text, values); err != nil {
		return "", err
	}
	file = filepath.Join(r.dir, node+".yaml")
	return file, os.WriteFile(file, text.Bytes(), 0o600)
}

// gatewayWith starts a gateway on the server's core.
func (r *runner) gatewayWith(s setup) (*gateway, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	key, err := r.secrets()
	if err != nil {
		return nil, err
	}
	file, err := r.configure(s, "bench", ports...)
	if err != nil {
		return nil, err
	}
	g := &gateway{host: fmt.Sprintf("127.0.0.1:%d", ports[1]), port: ports[1]}
	api := fmt.Sprintf("127.0.0.1:%d", ports[0])
	g.mint = bench.NewMint(api, key, "load", cmp.Or(s.clients, clients))
	if g.api, err = bench.NewTarget(api); err != nil {
		return nil, err
	}
	if g.gate, err = bench.NewTarget(g.host); err != nil {
		return nil, err
	}
	core := r.serverCore
	if s.beside {
		core = r.clientCore
	}
	if g.Child, err = r.start(core, r.program, "serve", "--config", file, "--new-store"); err != nil {
		return nil, err
	}
	return g, g.Ready(r.ctx, func(ctx context.Context) error { return get(ctx, "http://"+api+"/readyz") })
}

// patientStore is a Redis that shares its core with others: what it costs is measured, and a busy moment is no fault of it.
func patientStore(url string) string {
	return fmt.Sprintf("{ kind: redis, url: %q, timeout: 5s }", url)
}

func redisStore(url string) string { return fmt.Sprintf("{ kind: redis, url: %q }", url) }

func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return nil
}

// secrets writes new key rings and a new API key into the temporary folder, and returns the key.
func (r *runner) secrets() (string, error) {
	ring := filepath.Join(r.dir, "key.hash")
	for _, file := range []string{ring, filepath.Join(r.dir, "ticket.keys")} {
		secret := make([]byte, 32)
		rand.Read(secret) // it never fails
		line := "k1:" + base64.StdEncoding.EncodeToString(secret) + "\n"
		if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
			return "", err
		}
	}
	out, err := exec.CommandContext(r.ctx, r.program, "key", "create", "--client", "bench", "--plan", "load",
		"--product", "load", "--scope", "delegate", // one key asks for all clients
		"--hash-key", ring, "-o", "json").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return "", fmt.Errorf("ticketgate key create: %w", err)
	}
	var made struct {
		Key   string
		Entry json.RawMessage
	}
	if err := json.Unmarshal(out, &made); err != nil {
		return "", fmt.Errorf("ticketgate key create: %w", err)
	}
	list, err := json.Marshal([]any{made.Entry}) // JSON is YAML
	if err != nil {
		return "", err
	}
	return made.Key, os.WriteFile(filepath.Join(r.dir, "keys.yaml"), list, 0o600)
}
