package upgrade

import "bytes"

// SecretPrefix begins the second secret of a ticket, as an offered subprotocol and in the Ticketgate-Secret field.
const SecretPrefix = "tgs_"

// Request is a parsed head. Each loop has one and uses it again for every head: its bytes alias Parse's in and die with
// it. It is valid only after Parse gave n > 0.
type Request struct {
	Method    []byte // "GET"
	Target    []byte // as on the wire, canonical
	Path      []byte // of Target: begins with '/', no dot segment, no "//"
	Query     []byte // of Target, behind '?'; nil if there is none
	Host      []byte // as on the wire: a name or an address, and a port if one was given
	Origin    []byte // as on the wire, not judged
	HasOrigin bool   // an Origin came, maybe an empty one
	Key       []byte // Sec-WebSocket-Key, valid; nil unless Upgrade
	Secret    []byte // a ticket's second secret with its prefix, from an offered subprotocol or Ticketgate-Secret; nil if none
	Upgrade   bool   // a valid WebSocket handshake; false: a plain GET, to be refused with ErrNotUpgrade unless it has a route

	head      []byte
	authority []byte // of a Target in absolute form
	version   []byte // Sec-WebSocket-Version
	websocket bool   // Upgrade lists websocket
	connected bool   // Connection lists upgrade
	secrets   bool   // two different secrets came
	count     int
	table     [MaxLines]span
}

// A span is a header line, as offsets into the head.
type span struct {
	kind                           kind
	name, nameLen, value, valueLen uint16
}

// reset forgets the last head; of the table count is enough.
func (r *Request) reset(in []byte) {
	r.Method, r.Target, r.Path, r.Query, r.Host, r.Origin, r.Key, r.Secret = nil, nil, nil, nil, nil, nil, nil, nil
	r.head, r.authority, r.version = in, nil, nil
	r.HasOrigin, r.Upgrade, r.websocket, r.connected, r.secrets = false, false, false, false, false
	r.count = 0
}

// kind is a field that means something to us.
type kind uint8

const (
	other kind = iota
	cookie
	connection
	extensions
	contentLength
	transferEncoding
	expect
	upgrade
	protocol
	host
	origin
	key
	wsVersion
	secret
	accept

	onceInRequest  = host    // from here on a field may come once in a request
	onceInResponse = upgrade // and in a response, where these two are no lists
)

// kindOf looks a field's name up.
func kindOf(name []byte) kind {
	for _, f := range fields[min(len(name), len(fields)-1)] {
		if isFold(name, f.name) {
			return f.kind
		}
	}
	return other
}

// fields is the names that mean something to us, by length; the last row, for anything longer, is empty.
var fields = [26][]struct {
	name string
	kind kind
}{
	4:  {{"host", host}},
	6:  {{"cookie", cookie}, {"origin", origin}, {"expect", expect}},
	7:  {{"upgrade", upgrade}},
	10: {{"connection", connection}},
	14: {{"content-length", contentLength}},
	17: {{"sec-websocket-key", key}, {"ticketgate-secret", secret}, {"transfer-encoding", transferEncoding}},
	20: {{"sec-websocket-accept", accept}},
	21: {{"sec-websocket-version", wsVersion}},
	22: {{"sec-websocket-protocol", protocol}},
	24: {{"sec-websocket-extensions", extensions}},
}

// split takes a header line apart and judges its form (RFC 9112 section 5: no space before the colon, no folding, no empty
// name). A field that we act on must not come twice where it has one value, which is from the kind once on, nor under a name
// with '_' for '-', which others would take for it.
func (s *Scan) split(line []byte, once kind) (name, value []byte, k kind, p *Problem) {
	end := 0
	for end < len(line) && isToken(line[end]) {
		end++
	}
	if end == 0 || end == len(line) || line[end] != ':' {
		return nil, nil, other, ErrField
	}
	name, value = line[:end], trim(line[end+1:])
	k = kindOf(name)
	if k == other {
		return name, value, k, nil
	}
	if bytes.IndexByte(name, '_') >= 0 {
		return nil, nil, other, ErrField
	}
	if bit := uint16(1) << k; k >= once {
		if s.seen&bit != 0 {
			return nil, nil, other, ErrRepeated
		}
		s.seen |= bit
	}
	return name, value, k, nil
}

// field judges one header line of a request, which begins at offset at of the head, and enters it into the table. Only
// Cookie may have bytes over 0x7f: browsers send there what pages have set; elsewhere parsers differ about them.
func (r *Request) field(s *Scan, line []byte, at int) *Problem {
	name, value, k, p := s.split(line, onceInRequest)
	if p != nil {
		return p
	}
	if s.high && k != cookie {
		return ErrField
	}
	from := at + len(line) - len(trimLeft(line[len(name)+1:]))
	r.table[r.count] = span{k, uint16(at), uint16(len(name)), uint16(from), uint16(len(value))}
	r.count++
	switch k {
	case host:
		r.Host = value
		if !IsHost(value) {
			return ErrHost
		}
	case origin:
		r.Origin, r.HasOrigin = value, true
	case key:
		r.Key = value
	case wsVersion:
		r.version = value
	case secret:
		r.offerSecret(value)
	case protocol:
		return r.offer(value)
	case upgrade:
		r.websocket = r.websocket || lists(value, "websocket")
	case connection:
		r.connected = r.connected || lists(value, "upgrade")
	case contentLength: // not even 0: a GET has no body, and the next parser need not read this field as we do
		return ErrBody
	case transferEncoding:
		return transferCoding(value)
	case expect:
		return ErrExpect
	}
	return nil
}

// transferCoding refuses any transfer coding, with the status that RFC 9112 section 6.1 gives one that is not known.
func transferCoding(value []byte) *Problem {
	if isFold(value, "chunked") {
		return ErrBody
	}
	for more := true; more; {
		var e []byte
		e, value, more = element(value)
		if !isTokens(e) {
			return ErrField
		}
		if !isFold(e, "chunked") {
			return ErrCoding
		}
	}
	return ErrField // chunked more than once
}

// offer takes a Sec-WebSocket-Protocol line: tokens (RFC 6455 section 4.1, item 10), of which one may be a secret.
func (r *Request) offer(value []byte) *Problem {
	for more := true; more; {
		var e []byte
		e, value, more = element(value)
		if !isTokens(e) {
			return ErrField
		}
		if bytes.HasPrefix(e, []byte(SecretPrefix)) {
			r.offerSecret(e)
		}
	}
	return nil
}

func (r *Request) offerSecret(value []byte) {
	switch {
	case len(value) == 0:
	case r.Secret == nil:
		r.Secret = value
	case !bytes.Equal(r.Secret, value):
		r.secrets = true
	}
}

// judge applies the rules that need the whole head.
func (r *Request) judge() *Problem {
	switch {
	case r.Host == nil: // RFC 9112 section 3.2
		return ErrHost
	case r.authority != nil && !bytes.Equal(r.authority, r.Host):
		return ErrHost
	case r.secrets:
		return ErrSecrets
	case !r.websocket || !r.connected: // RFC 9110 section 7.8: without the Connection option Upgrade means nothing
		r.Key = nil
		return nil
	case string(r.version) != "13": // RFC 6455 section 4.2.2, item 4
		return ErrWebSocketVersion
	case !isKey(r.Key):
		return ErrKey
	}
	r.Upgrade = true
	return nil
}

// isKey reports whether k is 16 bytes in base64 (RFC 6455 section 4.2.1, item 5), the four spare bits zero.
func isKey(k []byte) bool {
	if len(k) != KeyLen || k[22] != '=' || k[23] != '=' {
		return false
	}
	for _, c := range k[:22] {
		if class[c]&base64Char == 0 {
			return false
		}
	}
	return bytes.IndexByte([]byte("AQgw"), k[21]) >= 0
}

// Headers yields the header lines in their order, names as on the wire, values without the space around them.
func (r *Request) Headers(yield func(name, value []byte) bool) {
	for i := range r.count {
		t := &r.table[i]
		if !yield(r.head[t.name:t.name+t.nameLen], r.value(t)) {
			return
		}
	}
}

func (r *Request) value(t *span) []byte { return r.head[t.value : t.value+t.valueLen] }

// Protocols yields the offered subprotocols in their order, without those that are a secret.
func (r *Request) Protocols(yield func(token []byte) bool) {
	for list := range r.each(protocol) {
		for more := true; more; {
			var e []byte
			e, list, more = element(list)
			if !bytes.HasPrefix(e, []byte(SecretPrefix)) && !yield(e) {
				return
			}
		}
	}
}

// Extensions yields the values of the Sec-WebSocket-Extensions lines as they came.
func (r *Request) Extensions(yield func(value []byte) bool) { r.each(extensions)(yield) }

// each yields the values of the lines of kind k.
func (r *Request) each(k kind) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for i := range r.count {
			if t := &r.table[i]; t.kind == k && !yield(r.value(t)) {
				return
			}
		}
	}
}
