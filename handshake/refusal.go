package handshake

// A Reason is why the front end says no. It indexes refusals and is the metric's label.
type Reason uint8

// Every no of the front end. The zero Reason is no refusal.
const (
	none Reason = iota

	// Found in the bytes, before there is a request. The connection closes, and nothing behind the fault is parsed.
	badHead
	badTarget
	badFraming
	tooSlow
	bodyTooLarge
	targetTooLong
	badExpect
	headTooLarge
	badCoding
	unknownMethod
	badVersion

	// Found in the request.
	noRoute
	badMethod
	badQuery
	badMedia
	badBody
	badParams
	badOrigin
	twoCredentials
	noCredential
	badKey
	expiredKey
	revokedKey
	badAddress
	noScope
	unknownStream
	forbiddenStream
	forbiddenPlan
	blocked
	noTicket

	// Found in the state of things.
	tooFast
	tooManyTickets
	tooManySockets
	draining
	notReady
	shortOfMemory
	tooManyCallers
	storeDown
	noRandom
	fault

	reasons // how many there are
)

// A refusal is one Reason for the answer, the metric and the log.
type refusal struct {
	status int
	label  string // metric label and log; from this file only
	kind   string // problem type: the last part of its URL
	title  string
	detail string // all that the caller learns, unless the place that refuses knows a better text. Never input
	close  bool   // the connection ends with the answer
}

var refusals = [reasons]refusal{
	badHead:       {400, "head", "invalid-request", "Malformed request", "the request head is malformed", true},
	badTarget:     {400, "target", "invalid-request", "Malformed request", "the request target is not in canonical form", true},
	badFraming:    {400, "framing", "invalid-request", "Malformed request", "the length of the request is not clear", true},
	tooSlow:       {408, "timeout", "timeout", "Request too slow", "the request was not complete in time", true},
	bodyTooLarge:  {413, "body-size", "too-large", "Request body too large", "a request body has at most 16384 bytes", true},
	targetTooLong: {414, "target-size", "too-large", "Request target too long", "a request target has at most 8000 bytes", true},
	badExpect:     {417, "expect", "invalid-request", "Unknown expectation", "only 100-continue can be expected", true},
	headTooLarge: {431, "head-size", "too-large", "Request head too large",
		"a request head has at most 16384 bytes and 100 lines", true},
	badCoding:     {501, "coding", "not-implemented", "Unknown transfer coding", "the only transfer coding is chunked", true},
	unknownMethod: {501, "unknown-method", "not-implemented", "Unknown method", "no path knows this method", true},
	badVersion:    {505, "version", "not-implemented", "Unknown HTTP version", "the versions are HTTP/1.1 and HTTP/1.0", true},

	noRoute:   {404, "route", "not-found", "No such path", "", false},
	badMethod: {405, "method", "method-not-allowed", "Method not allowed here", "", false},
	badQuery:  {400, "query", "invalid-request", "Invalid request", "the query has a member that this path does not know", false},
	badMedia: {415, "media-type", "unsupported-media-type", "Unknown media type",
		"the body has to be application/json, without content coding", true},
	badBody:   {400, "body", "invalid-request", "Invalid request", "", false},
	badParams: {400, "params", "invalid-request", "Invalid request", "", false},
	badOrigin: {403, "origin", "forbidden", "Origin not allowed", "", true},
	twoCredentials: {400, "two-credentials", "invalid-request", "Invalid request",
		"send one credential, once", false},
	noCredential: {401, "credential", "unauthenticated", "Credential missing or not valid", keyWanted, false},
	badKey:       {401, "key", "unauthenticated", "Credential missing or not valid", keyWanted, false},
	expiredKey:   {401, "expired", "unauthenticated", "Credential missing or not valid", keyWanted, false},
	revokedKey:   {401, "revoked", "unauthenticated", "Credential missing or not valid", keyWanted, false},
	badAddress:   {403, "address", "forbidden", "Address not allowed", "this key may not be used from this address", true},
	noScope:      {403, "scope", "forbidden", "Scope missing", "naming a client needs the scope delegate", true},
	unknownStream: {404, "unknown-stream", "unknown-stream", "No such stream",
		"the configuration has no stream of this name", false},
	forbiddenStream: {403, "stream", "forbidden", "Stream not allowed", "this credential may not open this stream", true},
	forbiddenPlan:   {403, "plan", "forbidden", "Plan not allowed", "the plan of this credential is not one of its product", true},
	blocked:         {403, "blocked", "forbidden", "Blocked", "whom this ticket would be for is blocked", false},
	noTicket:        {404, "unknown-ticket", "not-found", "No such unused ticket", "it is used, expired, revoked, not yours or never was", false},

	tooFast: {429, "rate", "rate-limited", "Too many ticket requests", "", false},
	tooManyTickets: {429, "outstanding", "rate-limited", "Too many unused tickets",
		"use the tickets you have, or wait until they expire", false},
	tooManySockets: {429, "connections", "connection-limit", "Too many open connections", "", false},
	draining:       {503, "draining", "draining", "Draining", "this node is about to stop", true},
	notReady:       {503, "not-ready", "overloaded", "Not ready", "", true},
	shortOfMemory:  {503, "memory", "overloaded", "Overloaded", "this node is short of memory", true},
	tooManyCallers: {503, "overloaded", "overloaded", "Overloaded", "too many connections", true},
	storeDown:      {503, "store", "store-unavailable", "Ticket store unavailable", "ask again", true},
	noRandom:       {503, "random", "overloaded", "No tickets can be made", "ask again", true},
	fault:          {500, "fault", "fault", "Fault in the gateway", "", true},
}

// keyWanted is the same for no key, a malformed one, an unknown one, a wrong one, an expired one and a revoked one, on purpose.
const keyWanted = "send an API key in X-API-Key or as a bearer token"
