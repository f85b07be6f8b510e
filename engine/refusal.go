package engine

import "ticketgate/engine/upgrade"

// A Refusal is why a request did not become a socket: one value for the answer, the metric and the log.
type Refusal struct {
	Status int    // HTTP status
	Type   string // problem type: the last part of its URL
	Reason string // metric label, from this file, perimeter.go and upgrade only
	Title  string // all that the caller learns
	Retry  bool   // answered with Retry-After, 1 to 5 s, spread
	Extra  string // further header lines, each with its CRLF
	n      uint8  // of a bad ticket: its place in ticketRefusals
}

// The refusals of the gate. All that concerns the ticket itself is one answer, byte for byte: see ticketRefused.
var (
	ErrRoute          = &Refusal{Status: 404, Type: "not-found", Reason: "route", Title: "No such route"}
	ErrOrigin         = &Refusal{Status: 403, Type: "forbidden", Reason: "origin", Title: "Origin not allowed"}
	ErrStreamGone     = &Refusal{Status: 403, Type: "forbidden", Reason: "stream", Title: "Stream not available"}
	ErrEarly          = &Refusal{Status: 400, Type: "invalid-request", Reason: "early", Title: "Bytes before the upgrade was answered"}
	ErrDraining       = &Refusal{Status: 503, Type: "draining", Reason: "draining", Title: "Draining", Retry: true}
	ErrOverloaded     = &Refusal{Status: 503, Type: "overloaded", Reason: "overloaded", Title: "Overloaded", Retry: true}
	ErrStore          = &Refusal{Status: 503, Type: "store-unavailable", Reason: "store", Title: "Ticket store unavailable", Retry: true}
	ErrFault          = &Refusal{Status: 500, Type: "fault", Reason: "fault", Title: "Fault in the gateway"}
	ErrBackend        = &Refusal{Status: 502, Type: "backend", Reason: "backend", Title: "Backend refused or unreachable"}
	ErrBackendTimeout = &Refusal{Status: 504, Type: "backend-timeout", Reason: "backend-timeout", Title: "Backend too slow"}

	errMemory    = &Refusal{Status: 503, Type: "overloaded", Reason: "memory", Title: "Overloaded", Retry: true}
	errProgress  = &Refusal{Status: 503, Type: "overloaded", Reason: "in-progress", Title: "Overloaded", Retry: true}
	errAdmitRate = &Refusal{Status: 503, Type: "overloaded", Reason: "admit-rate", Title: "Overloaded", Retry: true}

	errNotUpgrade  = &Refusal{Status: 426, Type: "upgrade-required", Reason: "not-upgrade", Title: "This address speaks WebSocket only", Extra: upgrade.ErrNotUpgrade.Headers}
	errMisdirected = &Refusal{Status: 421, Type: "misdirected", Reason: "misdirected", Title: "Host is not the one that TLS was for"}
	errExtensions  = &Refusal{Status: 400, Type: "invalid-request", Reason: "extensions", Title: "Sec-WebSocket-Extensions is malformed"}
	errHeadLate    = &Refusal{Status: 408, Type: "timeout", Reason: "head-timeout", Title: "Request head too slow"}
	errMalformed   = &Refusal{Status: 401, Reason: "malformed"}        // under /t/, but no locator of ours
	errForged      = &Refusal{Status: 401, Reason: "forged", n: 1}     // MAC
	errExpired     = &Refusal{Status: 401, Reason: "expired", n: 2}    // by the locator's own expiry
	errEpoch       = &Refusal{Status: 401, Reason: "epoch", n: 3}      // of another history of the store
	errSpent       = &Refusal{Status: 401, Reason: "spent", n: 4}      // the local cache knows
	errUnknown     = &Refusal{Status: 401, Reason: "unknown", n: 5}    // the store does not know it: spent, revoked, expired
	errSecret      = &Refusal{Status: 401, Reason: "secret", n: 6}     // and the ticket is spent now
	errBound       = &Refusal{Status: 401, Reason: "binding", n: 7}    // other Origin or address than the ticket's
	errRevoked     = &Refusal{Status: 401, Reason: "revoked", n: 8}    // what it is for has been taken back since it was issued
	errEnded       = &Refusal{Status: 401, Reason: "ended", n: 9}      // so has its session, before it began
	errElsewhere   = &Refusal{Status: 401, Reason: "elsewhere", n: 10} // another node spends it, or another life of this one did
)

// ticketRefused is the one answer to every ticket that does not open a socket. It carries no request id and no date, so
// that two of them never differ.
func ticketRefused(base string) []byte {
	return upgrade.AppendRefusal(nil, base, 401, "unauthenticated", "Ticket refused",
		"unknown, used, expired or not yours: ask for a new ticket", "", 0, "WWW-Authenticate: Ticketgate\r\n")
}

// ticketRefusals are the refusals with status 401. They are counted by place, because a look-up by name would take a time of
// its own for each.
var ticketRefusals = [...]*Refusal{errMalformed, errForged, errExpired, errEpoch, errSpent, errUnknown, errSecret, errBound, errRevoked, errEnded, errElsewhere}
