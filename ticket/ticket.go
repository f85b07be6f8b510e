// Package ticket is the life of a ticket: what it grants, the locator and secret that open a socket with it, the cache that
// refuses without asking, and the Store that spends it.
//
//	            Issue                    Redeem, right secret
//	(no ticket) ────> unused + reserved ─────────────────────> spent + held ──Assert(count-1)──> (slot free)
//	                     │ │ └─ Redeem, wrong secret ─> spent, reservation gone
//	                     │ └─── Revoke ──────────────> gone, reservation gone
//	                     └───── time ────────────────> gone, reservation lapses
//
// Nothing here waits, dials or logs.
package ticket

import (
	"net/netip"
	"time"
)

// Claims are what a ticket grants. A Claims value is never written to once it has been issued or redeemed.
type Claims struct {
	ID         string     // public id, "tkt_...": safe to log
	Client     string     // who the socket belongs to
	Key        string     // id of the credential that asked, "" if none; revoking it closes the socket
	Product    string     // product the plan was chosen in, may be ""
	Plan       string     // name of the plan whose limits apply
	Stream     string     // name of the stream
	Params     []Param    // validated values for the stream's template, in the order asked
	Protocols  []string   // the application's own subprotocols the socket may select
	Origin     string     // the one Origin that may redeem it, "" if any that the listener allows
	Addr       netip.Addr // the one address that may redeem it, invalid if any
	IssuedAt   time.Time  // millisecond precision
	SessionEnd time.Time  // when the socket is closed at the latest; millisecond precision
	Limit      uint32     // the connections limit its slot counts against, NoLimit if none
}

// Param is one value a caller set.
type Param struct{ Name, Value string }

// NoLimit is the Limit of a subject that may hold any number of sockets.
const NoLimit = ^uint32(0)
