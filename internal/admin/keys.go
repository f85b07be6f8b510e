package admin

import (
	"net/http"
	"slices"
	"strings"

	"ticketgate/engine/frame"
	"ticketgate/revoke"
)

// keyPage is the answer of GET /v1/keys.
type keyPage struct {
	Keys []Key `json:"keys"`
}

// listKeys is GET /v1/keys.
func (c *call) listKeys() {
	keys := c.s.o.Control.Keys()
	slices.SortFunc(keys, func(a, b Key) int { return strings.Compare(a.ID, b.ID) })
	c.answer(http.StatusOK, keyPage{keys})
}

// find returns the key that the path names.
func (c *call) findKey() (Key, bool) {
	keys := c.s.o.Control.Keys()
	i := slices.IndexFunc(keys, func(k Key) bool { return k.ID == c.r.PathValue("id") })
	if i < 0 {
		c.notFound("this node knows no key with this id")
		return Key{}, false
	}
	return keys[i], true
}

// showKey is GET /v1/keys/{id}.
func (c *call) showKey() {
	if k, ok := c.findKey(); ok {
		c.answer(http.StatusOK, k)
	}
}

// revokeKey is DELETE /v1/keys/{id}: the key gets nothing any more, and what it was given is taken back. It may stay in its file: the
// store remembers it for ever.
func (c *call) revokeKey() {
	get, ok := c.query("reason")
	if !ok {
		return
	}
	c.about = []any{"key", c.r.PathValue("id"), "reason", get("reason")}
	k, ok := c.findKey()
	if !ok {
		return
	}
	if k.Revoked {
		c.answer(http.StatusOK, revoked{Cluster: clusterTold})
		return
	}
	c.revoke(&revoke.Revocation{What: revoke.Selector{Key: k.ID}, Barred: revoke.Forever, Until: revoke.Forever, Code: uint16(frame.CloseRevoked), Reason: get("reason")})
}

// ticketState is the answer of GET /v1/tickets/{id}.
type ticketState struct {
	ID    string `json:"id"`
	State string `json:"state"` // unused, spent, expired, revoked
}

// showTicket is GET /v1/tickets/{id}.
func (c *call) showTicket() {
	ctx, cancel := c.context()
	defer cancel()
	switch state, err := c.s.o.Control.Ticket(ctx, c.r.PathValue("id")); {
	case err != nil:
		c.trouble(err)
	case state == "":
		c.notFound("no ticket has this id")
	default:
		c.answer(http.StatusOK, ticketState{c.r.PathValue("id"), state})
	}
}

// revokeTicket is DELETE /v1/tickets/{id}: unused, it opens nothing any more; used, its socket closes.
func (c *call) revokeTicket() {
	get, ok := c.query("reason")
	if !ok {
		return
	}
	id := c.r.PathValue("id")
	c.about = []any{"ticket", id, "reason", get("reason")}
	r := &revoke.Revocation{What: revoke.Selector{Ticket: id}, Code: uint16(frame.CloseRevoked), Reason: get("reason")}
	if !revoke.IsTicket(id) {
		c.notFound("no ticket has this id")
		return
	}
	c.revoke(r)
}
