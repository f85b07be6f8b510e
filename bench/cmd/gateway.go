package main

import (
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

	"ticketgate/bench"
)

// clients is how many callers the tickets are spread over, so that no figure is one of a limit per client.
const clients = 20000

// settings is the gateway's configuration for all scenarios: every limit that a message meets is on, and none is reached.
const settings = `version: 1
node: { name: bench }
listen:
  handshake: { address: "127.0.0.1:%d" }
  gate: { address: "127.0.0.1:%d", public_url: "ws://127.0.0.1:%d" }
  admin: { address: "127.0.0.1:%d" }
store: %s
secrets: { ticket_keys: "${file:%s/ticket.keys}", key_hash: "${file:%s/key.hash}" }
tickets: { ttl: 30s, outstanding: 1000 }
auth: { keys: { source: ["%s/keys.yaml"] } }
products:
  load: { streams: [echo], plans: [load] }
plans:
  load:
    limits:
      tickets:     { rate: 1000000/1second, per: client }
      connections: { count: 100000, per: client }
      messages-in: { rate: 1000000/1second, per: connection, when_exceeded: close }
      bytes-in:    { rate: 4GiB/1second, per: connection, when_exceeded: close }
streams:
  echo: { backend: echo }
backends:
  echo: { kind: echo }
drain: { over: 0s, grace: 0s }
log: { format: text, level: warn }
`

// A gateway is a running ticketgate.
type gateway struct {
	*bench.Child
	api, gate *bench.Target
	host      string // of the gate
	mint      *bench.Mint
}

// gatewayWith starts a gateway on the server's core. store is its store section.
func (r *runner) gatewayWith(store string) (*gateway, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	key, err := r.secrets()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(r.dir, "ticketgate.yaml")
	text := fmt.Sprintf(settings, ports[0], ports[1], ports[1], ports[2], store, r.dir, r.dir, r.dir)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	g := &gateway{host: fmt.Sprintf("127.0.0.1:%d", ports[1])}
	api := fmt.Sprintf("127.0.0.1:%d", ports[0])
	g.mint = bench.NewMint(api, key, "echo", clients)
	if g.api, err = bench.NewTarget(api); err != nil {
		return nil, err
	}
	if g.gate, err = bench.NewTarget(g.host); err != nil {
		return nil, err
	}
	if g.Child, err = r.start(r.serverCore, r.gateway, "serve", "--config", file); err != nil {
		return nil, err
	}
	return g, g.Ready(r.ctx, func(ctx context.Context) error { return get(ctx, "http://"+api+"/readyz") })
}

const memoryStore = "{ kind: memory }"

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
	out, err := exec.CommandContext(r.ctx, r.gateway, "key", "create", "--client", "bench", "--plan", "load",
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
