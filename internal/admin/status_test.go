package admin_test

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/reactor"
	"ticketgate/engine/secure"
	"ticketgate/internal/admin"
	"ticketgate/internal/pressure"
)

// figures are a node's as /v1/status asks for them; store is why its store is away.
func figures(e *engine.Stats, store *error, draining bool) *admin.Node {
	return &admin.Node{
		Version: "1.2.3", Name: "gw-1", StoreKind: "redis", Connections: 1000,
		Uptime: func() time.Duration { return 61*time.Second + 999*time.Millisecond },
		Engine: func() *engine.Stats { return e }, StoreReady: func() error { return *store }, Draining: func() bool { return draining },
		Memory: func(s *pressure.Stats) { *s = pressure.Stats{State: pressure.Refuse, Used: 900, Limit: 1000} },
	}
}

func TestStatus(t *testing.T) {
	e := &engine.Stats{Live: 9, Clients: 7, Reactor: reactor.Stats{Batched: true, PerLoop: []reactor.LoopStats{{Conns: 4, Busy: 0.25, Queued: 512}, {Conns: 5}}}}
	for _, c := range []struct {
		name         string
		ready, store error
		draining     bool
		head, up     string
	}{
		{"ready", nil, nil, false, `"ready":true,"uptime_seconds":61,"draining":false`, "true"},
		{"draining", errors.New("draining"), nil, true, `"ready":false,"reason":"draining","uptime_seconds":61,"draining":true`, "true"},
		{"store away", errors.New("ticket store does not answer"), errors.New("away"), false,
			`"ready":false,"reason":"ticket store does not answer","uptime_seconds":61,"draining":false`, "false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := start(t, admin.Options{Ready: func() error { return c.ready }, Node: figures(e, &c.store, c.draining)})
			want := `{"version":"1.2.3","node":"gw-1",` + c.head + `,"connections":{"used":7,"limit":1000},"store":{"kind":"redis","up":` + c.up +
				`},"memory":{"state":"refuse","used_bytes":900,"limit_bytes":1000},"tls":{"mode":"off","kernel_connections":0,"process_connections":0},` +
				`"loops":[{"loop":0,"connections":4,"busy_ratio":0.25,"queue_bytes":512,"batched":true},` +
				`{"loop":1,"connections":5,"busy_ratio":0,"queue_bytes":0,"batched":true}]}` + "\n"
			if status, text := get(t, url+"/v1/status", ""); status != http.StatusOK || text != want {
				t.Errorf("%d\n%swant\n%s", status, text, want)
			}
			a, err := http.Post(url+"/v1/status", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Body.Close()
			if a.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("a POST gets %d", a.StatusCode)
			}
		})
	}
}

// TestStatusTLS: the mode is what becomes of the next socket, whatever became of those before.
func TestStatusTLS(t *testing.T) {
	missing := fmt.Errorf("TLS_AES_128_GCM_SHA256: %w: %w", reactor.ErrNoOffload, syscall.ENOENT)
	const why = `"reason":"TLS_AES_128_GCM_SHA256: reactor: no TLS in this kernel: no such file or directory",`
	for _, c := range []struct {
		name string
		tls  *secure.Stats
		now  int64 // sockets of the kernel
		want string
	}{
		{"no TLS", nil, 0, `{"mode":"off","kernel_connections":0,"process_connections":0}`},
		{"new", &secure.Stats{Offloads: true}, 0, `{"mode":"kernel","reason":"not tried yet","kernel_connections":0,"process_connections":0}`},
		{"kernel", &secure.Stats{Offloads: true, Kernel: 5, UserSpace: 1}, 3, `{"mode":"kernel","kernel_connections":3,"process_connections":1}`},
		{"a suite less", &secure.Stats{Offloads: true, Kernel: 5, Refusal: missing}, 3, `{"mode":"kernel",` + why + `"kernel_connections":3,"process_connections":0}`},
		{"process", &secure.Stats{UserSpace: 8, Refusal: missing}, 0, `{"mode":"process",` + why + `"kernel_connections":0,"process_connections":8}`},
		{"turned off", &secure.Stats{UserSpace: 8}, 0, `{"mode":"process","reason":"turned off","kernel_connections":0,"process_connections":8}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var fine error
			e := &engine.Stats{TLS: c.tls, Reactor: reactor.Stats{Offload: c.now}}
			url := start(t, admin.Options{Ready: func() error { return nil }, Node: figures(e, &fine, false)})
			if _, text := get(t, url+"/v1/status", ""); !strings.Contains(text, `"tls":`+c.want+`,`) {
				t.Errorf("%swant %s", text, c.want)
			}
		})
	}
}

// TestStatusToken: what /metrics hides is not shown here.
func TestStatusToken(t *testing.T) {
	var fine error
	url := start(t, admin.Options{Token: "right", Ready: func() error { return nil }, Node: figures(new(engine.Stats), &fine, false)})
	for token, want := range map[string]int{"": 401, "wrong": 401, "righ": 401, "rightt": 401, "right": 200} {
		if status, text := get(t, url+"/v1/status", token); status != want || want == 401 && strings.Contains(text, "gw-1") {
			t.Errorf("token %q: %d %s, want %d", token, status, text, want)
		}
	}
}

// TestStatusNaN: JSON has no word for it, and half an answer is none.
func TestStatusNaN(t *testing.T) {
	var fine error
	e := &engine.Stats{Reactor: reactor.Stats{PerLoop: []reactor.LoopStats{{Busy: math.NaN()}}}}
	url := start(t, admin.Options{Ready: func() error { return nil }, Node: figures(e, &fine, false)})
	if status, text := get(t, url+"/v1/status", ""); status != http.StatusInternalServerError || text != "the status cannot be written\n" {
		t.Errorf("%d %q", status, text)
	}
}
