package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// served is what a gateway has said of where it listens.
type served struct{ Msg, Handshake, Gate, Admin string }

// answers is the status that a listener, written as the configuration has it, gives to a GET of path.
func answers(t *testing.T, listener, path string) int {
	t.Helper()
	network, address := networkOf(listener)
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}}
	a, err := client.Get("http://gate.test" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	return a.StatusCode
}

// all asks every listener.
func (s *served) all(t *testing.T) {
	t.Helper()
	for _, gate := range strings.Fields(s.Gate) {
		if got := answers(t, gate, "/nope"); got != http.StatusNotFound {
			t.Errorf("the gate at %s answers %d", gate, got)
		}
	}
	if got := answers(t, s.Handshake, "/healthz"); got != http.StatusOK {
		t.Errorf("the handshake at %s answers %d", s.Handshake, got)
	}
	if got := answers(t, s.Admin, "/healthz"); got != http.StatusOK {
		t.Errorf("the admin at %s answers %d", s.Admin, got)
	}
}

// TestServeUnix: every listener can be a unix socket, the gate several addresses; what a dead gateway left is replaced, and
// nothing is left behind.
func TestServeUnix(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path("admin"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	environ := []string{
		"TICKETGATE_LISTEN__HANDSHAKE__ADDRESS=unix:" + path("handshake"), "TICKETGATE_LISTEN__ADMIN__ADDRESS=unix:" + path("admin"),
		`TICKETGATE_LISTEN__GATE__ADDRESS=["127.0.0.1:0", "[::1]:0", "unix:` + path("gate") + `"]`,
	}
	file := write(t, dir, "t.yaml", serveYAML)
	r, w := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, &env{args: []string{"serve", "--config", file}, environ: environ, stdin: strings.NewReader(""), stdout: io.Discard, stderr: w})
		_ = w.Close()
	}()
	log := bufio.NewScanner(r)
	var at served
	if !log.Scan() || json.Unmarshal(log.Bytes(), &at) != nil || at.Msg != "serving" || at.Handshake != "unix:"+path("handshake") {
		t.Fatalf("the first line of the log is %q", log.Text())
	}
	if gates := strings.Fields(at.Gate); len(gates) != 3 || gates[2] != "unix:"+path("gate") {
		t.Errorf("the gate is at %q", at.Gate)
	}
	at.all(t)
	if got := ticketgate(t, "", environ, "serve", "--config", file); got.code != exitFailed || !strings.HasPrefix(got.errors, "ticketgate: listen.gate.address: ") {
		t.Errorf("a second gateway at the same sockets: %+v", got)
	}
	at.all(t)
	stop()
	for log.Scan() {
		continue
	}
	if code := <-ended; code != exitOK {
		t.Errorf("exit %d", code)
	}
	for _, name := range []string{"gate", "handshake", "admin"} {
		if _, err := os.Lstat(path(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the %s socket stays: %v", name, err)
		}
	}
}

func TestNetworkOf(t *testing.T) {
	for address, want := range map[string][2]string{
		":80":             {"tcp", ":80"},
		"127.0.0.1:80":    {"tcp", "127.0.0.1:80"},
		"[::1]:80":        {"tcp", "[::1]:80"},
		"0.0.0.0:80":      {"tcp4", "0.0.0.0:80"},
		"[::]:80":         {"tcp6", "[::]:80"},
		"unix:/run/a.b:c": {"unix", "/run/a.b:c"},
	} {
		if network, place := networkOf(address); [2]string{network, place} != want {
			t.Errorf("%s is %s %s, want %v", address, network, place, want)
		}
	}
}

// TestPassedVariables: what told of sockets is gone, so that no child takes it for its own.
func TestPassedVariables(t *testing.T) {
	told := map[string]string{"LISTEN_PID": strconv.Itoa(os.Getpid()), "LISTEN_FDS": "0", "LISTEN_FDNAMES": "gate", "LISTEN_PIDFDID": "1"}
	for name, value := range told {
		t.Setenv(name, value)
	}
	if s, err := passedSockets(); len(s) != 0 || err != nil {
		t.Errorf("%v, %v", s, err)
	}
	for name := range told {
		if value, ok := os.LookupEnv(name); ok {
			t.Errorf("%s is still %q", name, value)
		}
	}
}
