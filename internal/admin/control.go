package admin

import (
	"context"
	"time"

	"ticketgate/engine"
	"ticketgate/revoke"
)

// Control is what operators see of sockets, and may do to them and to who opens them. Any goroutine may call it.
type Control interface {
	// Now is the store's clock.
	Now() time.Time
	// Revoke dates r, which needs no more than What, Barred, Lift, Code, Spare, Over and Reason, and tells every node. told false: the
	// others hear of it when the store is back. The error is revoke.ErrFull, or says what is wrong with r.
	Revoke(ctx context.Context, r *revoke.Revocation) (told bool, err error)
	// Count tells how many open sockets of this node sel means.
	Count(ctx context.Context, sel engine.Selector) (int, error)
	// Close closes them, and tells how many they are.
	Close(ctx context.Context, sel engine.Selector, code uint16, over time.Duration) (int, error)
	// Connections is engine.Engine.Connections.
	Connections(ctx context.Context, f *engine.Filter, from uint32, most int) (list []engine.Connection, next uint32, err error)
	// Mine reports whether a connection's id is from this node.
	Mine(conn string) bool
	// Clients counts the open sockets of each client of this node, up to a bound of clients. all: none was left out.
	Clients(ctx context.Context) (counts map[string]int, all bool, err error)
	// Barring is what bars exactly w now.
	Barring(w revoke.Selector) []revoke.Revocation
	// Keys are the API keys that this node knows.
	Keys() []Key
	// Ticket tells the state of a ticket, "" for an id that no ticket has.
	Ticket(ctx context.Context, id string) (state string, err error)
}

// A Key is an API key without its secret.
type Key struct {
	ID      string     `json:"id"`
	Client  string     `json:"client"`
	Product string     `json:"product"`
	Plan    string     `json:"plan"`
	Scopes  []string   `json:"scopes,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
	Revoked bool       `json:"revoked"`
}
