package admin_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"ticketgate/engine"
	"ticketgate/internal/admin"
	nodes "ticketgate/store/node"
	"ticketgate/store/node/core"
	"ticketgate/ticket"
)

// TestCluster: what a node tells of its lease, its epochs and who else is there, in JSON and as metrics.
func TestCluster(t *testing.T) {
	st := nodes.Status{
		Incarnation: 255, Lease: 12345678901, Failures: 1, Why: errors.New("no answer"), Grace: true, Closed: errors.New("wait"), Unasserted: 4, Excess: 3,
		Shards: []core.ShardState{{Shard: 0, Epoch: 0xbadcafe, Able: true}, {Shard: 5461, Epoch: 1, Closed: errors.New("telling")}},
		Nodes:  []ticket.NodeView{{Incarnation: 255, Name: "gw-1", Left: 9 * time.Second}, {Incarnation: 1, Name: "gw-2", Dead: true, Left: -time.Minute}},
	}
	e := &engine.Stats{Slots: []engine.SlotStats{{Plan: "free", Held: 7}}}
	var fine error
	n := figures(e, &fine, false)
	n.Mode, n.Authority, n.Cluster = "available", "node", func() nodes.Status { return st }
	m := node(&fine)
	m.Engine = func() *engine.Stats { return e }
	m.Cluster, m.Authority = n.Cluster, "store"
	url := start(t, admin.Options{Ready: func() error { return nil }, Node: n, Metrics: m})
	want := `"cluster":{"mode":"available","authority":"node","authority_reason":"each node has a public URL of its own, so who made a ticket opens it without asking",` +
		`"incarnation":"00000000000000ff","lease_seconds":12.346,"failures":1,"failure":"no answer","grace":true,"issue":"wait","unasserted":4,"excess":3,` +
		`"epochs":[{"shard":0,"epoch":"0badcafe","registered":true,"issue_closed_because":""},{"shard":5461,"epoch":"00000001","registered":false,"issue_closed_because":"telling"}],` +
		`"nodes":[{"node":"gw-1","incarnation":"00000000000000ff","state":"alive","lease_seconds":9},{"node":"gw-2","incarnation":"0000000000000001","state":"dead","lease_seconds":-60}]}`
	if status, text := get(t, url+"/v1/status", ""); status != http.StatusOK || !strings.Contains(text, want) {
		t.Errorf("%d\n%swant\n%s", status, text, want)
	}
	samples := func(want ...string) {
		t.Helper()
		_, text := get(t, url+"/metrics", "")
		for _, w := range want {
			if !strings.Contains(text, "\nticketgate_"+w+"\n") {
				t.Errorf("no %s in\n%s", w, text)
			}
		}
	}
	samples("store_lease_seconds 12.345678901", "store_renewal_failures 1", "store_issue_open 0", "store_grace 1", "store_excess_slots 3", "tickets_unasserted 4",
		`ticket_authority{authority="store",reason="any-node-opens"} 1`,
		`store_nodes{state="alive"} 1`, `store_nodes{state="dead"} 1`,
		`limit_slots{limit="connections",plan="free",state="used"} 7`, `limit_slots{limit="connections",plan="free",state="stale"} 0`)
	st = nodes.Status{}
	if _, text := get(t, url+"/v1/status", ""); !strings.Contains(text, `"lease_seconds":0,"failures":0,"grace":false,"issue":"open","unasserted":0,"excess":0}`) {
		t.Errorf("%s", text)
	}
	samples("store_lease_seconds 0", "store_issue_open 1", `limit_slots{limit="connections",plan="free",state="used"} 0`,
		`limit_slots{limit="connections",plan="free",state="stale"} 7`)
}
