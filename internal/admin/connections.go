package admin

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/revoke"
)

// connection is an open socket of this node.
type connection struct {
	ID     string    `json:"id"`
	Client string    `json:"client"`
	Key    string    `json:"key,omitempty"`
	Stream string    `json:"stream"`
	Plan   string    `json:"plan"`
	Peer   string    `json:"ip,omitempty"`
	Opened time.Time `json:"opened"`
	Age    int64     `json:"age_seconds"`
	Idle   int64     `json:"idle_seconds"`
	Queue  int       `json:"queue_bytes"`
}

func connectionOf(c *engine.Connection, now time.Time) connection {
	out := connection{ID: c.ID, Client: c.Client, Key: c.Key, Stream: c.Stream, Plan: c.Plan, Opened: c.Opened.UTC().Truncate(time.Millisecond),
		Age: int64(now.Sub(c.Opened) / time.Second), Idle: int64(c.Idle / time.Second), Queue: c.Queue}
	if c.Peer.IsValid() {
		out.Peer = c.Peer.String()
	}
	return out
}

// connectionPage is the answer of GET /v1/connections.
type connectionPage struct {
	Node        string       `json:"node"`
	Connections []connection `json:"connections"`
	Next        string       `json:"next,omitempty"` // cursor of the next page
}

// How many connections a page has.
const (
	pageDefault = 100
	pageMax     = 1000
)

// listConnections is GET /v1/connections: open sockets of this node, page by page, filtered.
func (c *call) listConnections() {
	get, ok := c.query("client", "key", "stream", "plan", "ticket", "ip", "age", "queue", "limit", "cursor")
	if !ok {
		return
	}
	f := engine.Filter{Selector: engine.Selector{Client: get("client"), Key: get("key"), Stream: get("stream"), Plan: get("plan"), Ticket: get("ticket")}}
	limit, from, err := pageDefault, uint64(0), error(nil)
	if v := get("ip"); v != "" {
		if f.Peer, err = netip.ParsePrefix(v); err != nil {
			var a netip.Addr
			if a, err = netip.ParseAddr(v); err == nil {
				f.Peer = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
			}
		}
	}
	if v := get("age"); v != "" && err == nil {
		if f.Age, err = time.ParseDuration(v); f.Age < 0 {
			err = strconv.ErrRange
		}
	}
	if v := get("queue"); v != "" && err == nil {
		if f.Queue, err = strconv.Atoi(v); f.Queue < 0 {
			err = strconv.ErrRange
		}
	}
	if v := get("limit"); v != "" && err == nil {
		if limit, err = strconv.Atoi(v); limit < 1 || limit > pageMax {
			err = strconv.ErrRange
		}
	}
	if v := get("cursor"); v != "" && err == nil {
		from, err = strconv.ParseUint(v, 36, 24)
	}
	if err != nil {
		c.invalid("query: ip is an address or a range, age a duration such as 5m, queue bytes, limit 1 to %d, cursor what the page before said", pageMax)
		return
	}
	ctx, cancel := c.context()
	defer cancel()
	list, next, err := c.s.o.Control.Connections(ctx, &f, uint32(from), limit)
	if err != nil {
		c.trouble(err)
		return
	}
	page, now := connectionPage{Node: c.s.o.Node.Name, Connections: make([]connection, len(list))}, time.Now()
	for i := range list {
		page.Connections[i] = connectionOf(&list[i], now)
	}
	if next != 0 {
		page.Next = strconv.FormatUint(uint64(next), 36)
	}
	c.answer(http.StatusOK, page)
}

// showConnection is GET /v1/connections/{id}.
func (c *call) showConnection() {
	id, ok := c.connID()
	if !ok {
		return
	}
	ctx, cancel := c.context()
	defer cancel()
	list, _, err := c.s.o.Control.Connections(ctx, &engine.Filter{Selector: engine.Selector{Conn: id}}, 0, 1)
	switch {
	case err != nil:
		c.trouble(err)
	case len(list) == 0:
		c.notFound("no open connection of this node has this id")
	default:
		c.answer(http.StatusOK, connectionOf(&list[0], time.Now()))
	}
}

func (c *call) connID() (id string, ok bool) {
	if id = c.r.PathValue("id"); !engine.ValidConn(id) {
		c.notFound("no connection has such an id")
		return "", false
	}
	return id, true
}

// closeConnection is DELETE /v1/connections/{id}. One of another node is closed by that node, as soon as it hears of it.
func (c *call) closeConnection() {
	get, ok := c.query("code", "reason")
	if !ok {
		return
	}
	id, ok := c.connID()
	if !ok {
		return
	}
	code := uint64(frame.CloseRevoked)
	if v := get("code"); v != "" {
		var err error
		if code, err = strconv.ParseUint(v, 10, 16); err != nil || !mayClose(uint16(code)) {
			c.invalid("query: code: %s", codesAllowed)
			return
		}
	}
	c.about = []any{"connection", id, "code", code, "reason", get("reason")}
	if !c.s.o.Control.Mine(id) {
		c.revoke(&revoke.Revocation{What: revoke.Selector{Conn: id}, Code: uint16(code), Spare: true, Reason: get("reason")})
		return
	}
	ctx, cancel := c.context()
	defer cancel()
	switch n, err := c.s.o.Control.Close(ctx, engine.Selector{Conn: id}, uint16(code), 0); {
	case err != nil:
		c.trouble(err)
	case n == 0:
		c.notFound("no open connection of this node has this id")
	default:
		c.answer(http.StatusOK, revoked{Connections: n})
	}
}

// revoked is the answer to what closes sockets.
type revoked struct {
	ID          string `json:"id,omitempty"`      // of the revocation
	Connections int    `json:"connections"`       // open sockets of this node that are meant
	Cluster     string `json:"cluster,omitempty"` // what the other nodes know
	DryRun      bool   `json:"dry_run,omitempty"`
}

// What the other nodes know.
const (
	clusterTold    = "told"
	clusterPending = "pending" // the store is away: told when it is back, unless this node ends before
)

// disconnect is the body of POST /v1/connections:disconnect.
type disconnect struct {
	Selector revoke.Selector `json:"selector"`
	Code     uint16          `json:"code"`
	Over     duration        `json:"over"`
	DryRun   bool            `json:"dry_run"`
	Reason   string          `json:"reason"`
}

const codesAllowed = "want 1000, 1001, 1008, 1011 to 1013 or 3000 to 4999"

// mayClose tells whether an operator may close with code.
func mayClose(code uint16) bool {
	switch code {
	case 1000, 1001, 1008, 1011, 1012, 1013:
		return true
	}
	return code >= 3000 && code <= 4999
}

// overMax is how far closing may be spread.
const overMax = 24 * time.Hour

// disconnectConnections is POST /v1/connections:disconnect: the sockets of the whole cluster that the selector means. With 4403, which is
// the default, unused tickets that it means open nothing any more either.
func (c *call) disconnectConnections() {
	d := disconnect{Code: uint16(frame.CloseRevoked)}
	if !c.body(&d) {
		return
	}
	if d.Selector.Empty() {
		c.invalid("selector: name at least one of client, key, stream, plan, ticket, connection")
		return
	}
	if d.Selector.Conn != "" && !engine.ValidConn(d.Selector.Conn) {
		c.invalid("selector.connection: no connection has such an id")
		return
	}
	c.closeAll(&d)
}

// closeAll does what d says.
func (c *call) closeAll(d *disconnect) {
	c.about = append(c.about, "selector", selectorText(&d.Selector), "code", d.Code, "over", time.Duration(d.Over).String(), "dry_run", d.DryRun, "reason", d.Reason)
	switch {
	case !mayClose(d.Code):
		c.invalid("code: %s", codesAllowed)
		return
	case time.Duration(d.Over) > overMax:
		c.invalid("over: at most %v", overMax)
		return
	}
	r := &revoke.Revocation{What: d.Selector, Code: d.Code, Spare: d.Code != uint16(frame.CloseRevoked), Over: time.Duration(d.Over), Reason: d.Reason}
	if !d.DryRun {
		c.revoke(r)
		return
	}
	if n, ok := c.count(r); ok {
		c.answer(http.StatusOK, revoked{Connections: n, DryRun: true})
	}
}

func selectorText(w *revoke.Selector) string {
	return fmt.Sprintf("client=%q key=%q stream=%q plan=%q ticket=%q connection=%q", w.Client, w.Key, w.Stream, w.Plan, w.Ticket, w.Conn)
}

// count tells how many sockets r means here.
func (c *call) count(r *revoke.Revocation) (n int, ok bool) {
	ctx, cancel := c.context()
	defer cancel()
	w := &r.What
	n, err := c.s.o.Control.Count(ctx, engine.Selector{Client: w.Client, Key: w.Key, Stream: w.Stream, Plan: w.Plan, Ticket: w.Ticket, Conn: w.Conn})
	if err != nil {
		c.trouble(err)
		return 0, false
	}
	return n, true
}

// revoke counts what r means and tells every node of it.
func (c *call) revoke(r *revoke.Revocation) {
	n, ok := c.count(r)
	if !ok {
		return
	}
	ctx, cancel := c.context()
	defer cancel()
	told, err := c.s.o.Control.Revoke(ctx, r)
	if err != nil {
		c.trouble(err)
		return
	}
	c.about = append(c.about, "revocation", r.ID, "connections", n, "cluster_told", told)
	if !told {
		c.answer(http.StatusAccepted, revoked{r.ID, n, clusterPending, false})
		return
	}
	c.answer(http.StatusOK, revoked{r.ID, n, clusterTold, false})
}
