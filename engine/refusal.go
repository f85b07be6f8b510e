package engine

import "ticketgate/engine/upgrade"

// A Refusal is why a request did not become a socket: one value for the answer, the metric and the log.
type Refusal struct {
	Status int    // HTTP status
	Type   string // problem type: the last part of its URL
	Reason string // metric label, from this file and from upgrade only
	Title  string // all that the caller learns
	Retry  bool   // answered with Retry-After, 1 to 5 s, spread
	Extra  string // further header lines, each with its CRLF
}

// The refusals of the gate. All that concerns the ticket itself is one answer, byte for byte: see ticketRefused.
var (
	ErrRoute          = &Refusal{404, "not-found", "route", "No such route", false, ""}
	ErrOrigin         = &Refusal{403, "forbidden", "origin", "Origin not allowed", false, ""}
	ErrStreamGone     = &Refusal{403, "forbidden", "stream", "Stream not available", false, ""}
	ErrEarly          = &Refusal{400, "invalid-request", "early", "Bytes before the upgrade was answered", false, ""}
	ErrDraining       = &Refusal{503, "draining", "draining", "Draining", true, ""}
	ErrOverloaded     = &Refusal{503, "overloaded", "overloaded", "Overloaded", true, ""}
	ErrStore          = &Refusal{503, "store-unavailable", "store", "Ticket store unavailable", true, ""}
	ErrFault          = &Refusal{500, "fault", "fault", "Fault in the gateway", false, ""}
	ErrBackend        = &Refusal{502, "backend", "backend", "Backend refused or unreachable", false, ""}
	ErrBackendTimeout = &Refusal{504, "backend-timeout", "backend-timeout", "Backend too slow", false, ""}

	errNotUpgrade = &Refusal{426, "upgrade-required", "not-upgrade", "This address speaks WebSocket only", false, upgrade.ErrNotUpgrade.Headers}
	errHeadLate   = &Refusal{408, "timeout", "head-timeout", "Request head too slow", false, ""}
	errMalformed  = &Refusal{Status: 401, Reason: "malformed"} // under /t/, but no locator of ours
	errForged     = &Refusal{Status: 401, Reason: "forged"}    // MAC
	errExpired    = &Refusal{Status: 401, Reason: "expired"}   // by the locator's own expiry
	errEpoch      = &Refusal{Status: 401, Reason: "epoch"}     // of another history of the store
	errSpent      = &Refusal{Status: 401, Reason: "spent"}     // the local cache knows
	errUnknown    = &Refusal{Status: 401, Reason: "unknown"}   // the store does not know it: spent, revoked, expired
	errSecret     = &Refusal{Status: 401, Reason: "secret"}    // and the ticket is spent now
	errBound      = &Refusal{Status: 401, Reason: "binding"}   // other Origin or address than the ticket's
)

// ticketRefused is the one answer to every ticket that does not open a socket. It carries no request id and no date, so
// that two of them never differ.
func ticketRefused(base string) []byte {
	return upgrade.AppendRefusal(nil, base, 401, "unauthenticated", "Ticket refused",
		"unknown, used, expired or not yours: ask for a new ticket", "", 0, "WWW-Authenticate: Ticketgate\r\n")
}
