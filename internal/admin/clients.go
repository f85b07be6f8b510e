package admin

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"ticketgate/engine"
	"ticketgate/engine/frame"
	"ticketgate/revoke"
)

// clientLine is a client in a list.
type clientLine struct {
	Client      string `json:"client"`
	Connections int    `json:"connections"`
}

// clientPage is the answer of GET /v1/clients.
type clientPage struct {
	Node    string       `json:"node"`
	Clients []clientLine `json:"clients"`
	Total   int          `json:"total"`   // clients with open sockets
	Partial bool         `json:"partial"` // there are more than can be counted
}

// listClients is GET /v1/clients: who has the most sockets open on this node.
func (c *call) listClients() {
	get, ok := c.query("sort", "limit")
	if !ok {
		return
	}
	limit, err := pageDefault, error(nil)
	if v := get("limit"); v != "" {
		limit, err = strconv.Atoi(v)
	}
	if by := get("sort"); err != nil || limit < 1 || limit > pageMax || by != "" && by != "connections" {
		c.invalid("query: sort is connections, limit 1 to %d", pageMax)
		return
	}
	ctx, cancel := c.context()
	defer cancel()
	counts, all, err := c.s.o.Control.Clients(ctx)
	if err != nil {
		c.trouble(err)
		return
	}
	page := clientPage{Node: c.s.o.Node.Name, Clients: make([]clientLine, 0, len(counts)), Total: len(counts), Partial: !all}
	for name, n := range counts {
		page.Clients = append(page.Clients, clientLine{name, n})
	}
	slices.SortFunc(page.Clients, func(a, b clientLine) int {
		return cmp.Or(cmp.Compare(b.Connections, a.Connections), strings.Compare(a.Client, b.Client))
	})
	page.Clients = page.Clients[:min(limit, len(page.Clients))]
	c.answer(http.StatusOK, page)
}

// client is the answer of GET /v1/clients/{id}.
type client struct {
	Client      string       `json:"client"`
	Node        string       `json:"node"`
	Connections int          `json:"connections"`
	Open        []connection `json:"open"` // the first 100 of them
	Blocked     *block       `json:"blocked,omitempty"`
}

// block is why and until when a client gets nothing.
type block struct {
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"`
}

// showClient is GET /v1/clients/{id}: its sockets on this node, and whether it is blocked.
func (c *call) showClient() {
	name := c.r.PathValue("id")
	ctx, cancel := c.context()
	defer cancel()
	sel := engine.Selector{Client: name}
	list, next, err := c.s.o.Control.Connections(ctx, &engine.Filter{Selector: sel}, 0, pageDefault)
	n := len(list)
	if err == nil && next != 0 {
		n, err = c.s.o.Control.Count(ctx, sel)
	}
	if err != nil {
		c.trouble(err)
		return
	}
	out, now := client{Client: name, Node: c.s.o.Node.Name, Connections: n, Open: make([]connection, len(list))}, time.Now()
	for i := range list {
		out.Open[i] = connectionOf(&list[i], now)
	}
	for _, r := range c.s.o.Control.Barring(revoke.Selector{Client: name}) {
		if out.Blocked == nil || out.Blocked.Until.Before(r.Barred) {
			out.Blocked = &block{r.Barred, r.Reason}
		}
	}
	c.answer(http.StatusOK, out)
}

// changeClient is POST /v1/clients/{id}:disconnect, :block and :unblock. The verb is what stands behind the last colon.
func (c *call) changeClient() {
	whole := c.r.PathValue("id")
	i := strings.LastIndexByte(whole, ':')
	if i <= 0 {
		c.notFound("want /v1/clients/{id}:disconnect, :block or :unblock")
		return
	}
	name, verb := whole[:i], whole[i+1:]
	c.about = []any{"client", name}
	switch verb {
	case "disconnect":
		c.disconnectClient(name)
	case "block":
		c.blockClient(name)
	case "unblock":
		c.unblockClient(name)
	default:
		c.notFound("want /v1/clients/{id}:disconnect, :block or :unblock")
	}
}

func (c *call) disconnectClient(name string) {
	body := struct {
		Code   uint16   `json:"code"`
		Over   duration `json:"over"`
		DryRun bool     `json:"dry_run"`
		Reason string   `json:"reason"`
	}{Code: uint16(frame.CloseRevoked)}
	if c.body(&body) {
		c.closeAll(&disconnect{revoke.Selector{Client: name}, body.Code, body.Over, body.DryRun, body.Reason})
	}
}

// blockMax is the longest block.
const blockMax = 366 * 24 * time.Hour

func (c *call) blockClient(name string) {
	var body struct {
		For    duration `json:"for"`
		Reason string   `json:"reason"`
	}
	if !c.body(&body) {
		return
	}
	d := time.Duration(body.For)
	c.about = append(c.about, "for", d.String(), "reason", body.Reason)
	if d < time.Second || d > blockMax || body.Reason == "" {
		c.invalid("want for, 1s to %v, and reason", blockMax)
		return
	}
	c.revoke(&revoke.Revocation{What: revoke.Selector{Client: name}, Barred: c.s.o.Control.Now().Add(d), Code: uint16(frame.CloseRevoked), Reason: body.Reason})
}

func (c *call) unblockClient(name string) {
	var body struct {
		Reason string `json:"reason"`
	}
	if !c.body(&body) {
		return
	}
	c.about = append(c.about, "reason", body.Reason)
	what := revoke.Selector{Client: name}
	blocks := c.s.o.Control.Barring(what)
	if len(blocks) == 0 {
		c.notFound("this client is not blocked")
		return
	}
	r := &revoke.Revocation{What: what, Lift: true, Reason: body.Reason}
	for i := range blocks {
		if blocks[i].Until.After(r.Until) {
			r.Until = blocks[i].Until // as long as any of them can be heard of
		}
	}
	ctx, cancel := c.context()
	defer cancel()
	told, err := c.s.o.Control.Revoke(ctx, r)
	switch {
	case err != nil:
		c.trouble(err)
	case !told:
		c.answer(http.StatusAccepted, revoked{ID: r.ID, Cluster: clusterPending})
	default:
		c.answer(http.StatusOK, revoked{ID: r.ID, Cluster: clusterTold})
	}
}
