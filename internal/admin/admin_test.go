package admin_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ticketgate/engine"
	"ticketgate/feed/relay"
	"ticketgate/handshake"
	"ticketgate/internal/admin"
	"ticketgate/internal/pressure"
	"ticketgate/internal/stat"
	"ticketgate/limiter"
	"ticketgate/store/follow"
	"ticketgate/ticket"
)

// node is a gateway's figures as the metrics ask for them.
func node(ready *error) *admin.Metrics {
	stats := &engine.Stats{
		Streams:  []engine.StreamStats{{Name: "chat", Open: 2, Opened: 5, Slow: 1, Cut: 4, Stalled: 6, Trimmed: 5, Messages: [2]uint64{7, 8}, Bytes: [2]uint64{70, 80}}},
		Limits:   []engine.LimitStats{{Plan: "free", Limit: "messages-in", Allow: 7, Refuse: 3, Soft: 1}},
		Rejected: map[string]uint64{"binding": 2, "forged": 9},
		Ended:    map[engine.Ended]uint64{{Stream: "chat", Code: 4429, By: engine.ByGateway}: 3},
		Redeemed: map[ticket.RedeemResult]uint64{ticket.RedeemOK: 7, ticket.RedeemUnknown: 4, ticket.RedeemDoubt: 1},
		Took:     map[ticket.RedeemResult]*stat.Snapshot{ticket.RedeemOK: new(stat.Snapshot)},
	}
	return &admin.Metrics{
		Version: "1.2.3", Engine: func() *engine.Stats { return stats }, Draining: func() bool { return true },
		Ready:  func() error { return *ready },
		Memory: func(s *pressure.Stats) { *s = pressure.Stats{State: pressure.Refuse, Used: 900, Limit: 1000, Cut: 70} },
		Revoked: func(s *follow.Stats) {
			*s = follow.Stats{Known: 3, Waiting: 1, Lag: 250 * time.Millisecond, Watched: true}
		},
		Handshake: func(h *handshake.Stats) { h.Issued = map[handshake.Issued]uint64{{Stream: "chat", Plan: "free"}: 6} },
	}
}

func serve(t *testing.T, token string, ready *error, m prometheus.Collector) string {
	t.Helper()
	return start(t, admin.Options{Token: token, Ready: func() error { return *ready }, Metrics: m})
}

// start serves o on a free port.
func start(t *testing.T, o admin.Options) string {
	t.Helper()
	o.Address, o.Log = "127.0.0.1:0", slog.New(slog.DiscardHandler)
	s, err := admin.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-ended); err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Addr().String()
}

func get(t *testing.T, url, token string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, string(b)
}

func TestMetrics(t *testing.T) {
	var ready error
	url := serve(t, "", &ready, node(&ready))
	status, text := get(t, url+"/metrics", "")
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	for _, want := range []string{
		`ticketgate_connections{stream="chat"} 2`,
		`ticketgate_connections_opened_total{stream="chat"} 5`,
		`ticketgate_connections_closed_total{by="gateway",code="4429",stream="chat"} 3`,
		`ticketgate_handshake_rejected_total{reason="forged"} 9`,
		`ticketgate_tickets_issued_total{plan="free",stream="chat"} 6`,
		`ticketgate_tickets_redeemed_total{result="ok"} 5`,
		`ticketgate_tickets_redeemed_total{result="origin"} 2`,
		`ticketgate_tickets_redeemed_total{result="unknown"} 4`,
		`ticketgate_tickets_redeemed_total{result="error"} 1`,
		`ticketgate_messages_total{direction="in",stream="chat"} 7`,
		`ticketgate_message_bytes_total{direction="out",stream="chat"} 80`,
		`ticketgate_limit_decisions_total{decision="refuse",limit="messages-in",plan="free"} 3`,
		`ticketgate_slow_consumer_total{action="close",stream="chat"} 1`,
		`ticketgate_slow_consumer_total{action="cut",stream="chat"} 4`,
		`ticketgate_slow_consumer_total{action="drop",stream="chat"} 5`,
		`ticketgate_slow_consumer_total{action="reset",stream="chat"} 6`,
		`ticketgate_memory_used_bytes 900`,
		`ticketgate_memory_limit_bytes 1000`,
		`ticketgate_memory_state 1`,
		`ticketgate_memory_cut_bytes_total 70`,
		`ticketgate_store_up 1`,
		`ticketgate_revocations 3`,
		`ticketgate_revocations_pending 1`,
		`ticketgate_revocation_lag_seconds 0.25`,
		`ticketgate_revocation_watched 1`,
		`ticketgate_draining 1`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("missing: %s", want)
		}
	}
	if !regexp.MustCompile(`\nticketgate_open_files [1-9]`).MatchString(text) {
		t.Error("no open files")
	}
	ready = errors.New("away")
	if _, text = get(t, url+"/metrics", ""); !strings.Contains(text, "\nticketgate_store_up 0\n") {
		t.Error("store_up is not 0 while the store is away")
	}
}

func TestReady(t *testing.T) {
	var ready error
	url := serve(t, "", &ready, node(&ready))
	if status, text := get(t, url+"/readyz", ""); status != http.StatusOK || text != "ready\n" {
		t.Errorf("ready: %d %q", status, text)
	}
	ready = errors.New("draining")
	if status, text := get(t, url+"/readyz", ""); status != http.StatusServiceUnavailable || text != "draining\n" {
		t.Errorf("draining: %d %q", status, text)
	}
	if status, text := get(t, url+"/healthz", ""); status != http.StatusOK || text != "ok\n" {
		t.Errorf("alive: %d %q", status, text)
	}
}

func TestToken(t *testing.T) {
	var ready error
	url := serve(t, "right", &ready, node(&ready))
	for token, want := range map[string]int{"": 401, "wrong": 401, "righ": 401, "right": 200} {
		if status, _ := get(t, url+"/metrics", token); status != want {
			t.Errorf("token %q: %d, want %d", token, status, want)
		}
	}
	if status, _ := get(t, url+"/healthz", ""); status != http.StatusOK {
		t.Errorf("healthz asks for a token: %d", status)
	}
}

// TestRelays: what tells targets apart for the relay need not tell their series apart; a scrape must not fail for it, nor
// show what may be a secret.
func TestRelays(t *testing.T) {
	var ready error
	m := node(&ready)
	r, err := relay.New(relay.Options{Name: "pool", Kind: 1, MaxMessage: 1, MaxFragments: 1,
		Targets: []string{"ws://127.0.0.1:7001/a?token=one", "ws://127.0.0.1:7001/a?token=two", "ws://127.0.0.1:7002"}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	m.Relays = []*relay.Relay{r}
	limits := map[string]limiter.Options{"bytes-in": {Rate: &limiter.Rate{N: 120, Per: time.Minute}, Per: limiter.PerConnection, WhenExceeded: "close"}}
	plan, problems := limiter.Compile("free", limits, limiter.Defaults{})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	m.Plans = []*limiter.Plan{plan}
	url := serve(t, "", &ready, m)
	status, text := get(t, url+"/metrics", "")
	if status != http.StatusOK || strings.Contains(text, "token") {
		t.Fatalf("%d, a token is shown: %v", status, strings.Contains(text, "token"))
	}
	for _, want := range []string{
		`ticketgate_backend_up{backend="pool",target="ws://127.0.0.1:7001/a"} 1`,
		`ticketgate_backend_up{backend="pool",target="ws://127.0.0.1:7002"} 1`,
		`ticketgate_backend_connections{backend="pool",target="ws://127.0.0.1:7001/a"} 0`,
		`ticketgate_backend_dial_seconds_count{backend="pool",result="ok"} 0`,
		`ticketgate_limit_configured{limit="bytes-in",plan="free"} 2`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("missing: %s", want)
		}
	}
}

// TestAddressInUse is an error that names the setting.
func TestAddressInUse(t *testing.T) {
	var ready error
	url := serve(t, "", &ready, node(&ready))
	_, err := admin.New(admin.Options{Address: strings.TrimPrefix(url, "http://"), Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "listen.admin.address") {
		t.Errorf("%v", err)
	}
}
