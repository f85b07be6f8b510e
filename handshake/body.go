package handshake

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"ticketgate/engine/upgrade"
	"ticketgate/ticket"
)

// What a ticket request may hold; bodyMax bounds the rest.
const (
	nameMax      = 128 // bytes of stream, client, params' names and protocols
	valueMax     = 512 // bytes of a param's value
	paramsMax    = 16
	protocolsMax = 10
	originMax    = 255 + len("https://:65535")
)

// reserved begins the subprotocols that are the gateway's own: a second secret is never an application's protocol.
var reserved = []string{ticket.SecretPrefix, "ticketgate."}

// An ask is the body of POST /v1/tickets. "" stands for a member that is not there: none of them may be empty.
type ask struct {
	stream, client, origin, resume string
	params                         []ticket.Param
	protocols                      []string
}

// parseAsk reads a body and checks all that takes no configuration. problem is "" or what the caller is told: it names the
// member and never shows what was sent.
func parseAsk(body []byte) (a ask, problem string) {
	d := decoder{rest: body}
	d.object("body", func(name string) {
		switch name {
		case "stream":
			a.stream = d.text(name, nameMax)
		case "client":
			a.client = d.text(name, nameMax)
		case "origin":
			a.origin = d.text(name, originMax)
		case "resume":
			a.resume = d.text(name, nameMax)
		case "params":
			d.object(name, func(param string) {
				if len(a.params) == paramsMax || param == "" || len(param) > nameMax {
					d.fail("params: at most 16 members with names of 1 to 128 bytes")
					return
				}
				a.params = append(a.params, ticket.Param{Name: param, Value: d.string(name, valueMax)})
			})
		case "protocols":
			d.array(name, func() { a.protocols = append(a.protocols, d.protocol(a.protocols)) })
		default:
			d.fail("body: a member that is none of stream, params, client, protocols, origin, resume")
		}
	})
	d.end()
	switch {
	case d.problem != "":
	case a.stream == "":
		d.fail("stream: missing")
	case a.origin != "" && !canonicalOrigin(a.origin):
		d.fail("origin: want scheme://host or scheme://host:port in lower case, as browsers send it")
	}
	return a, d.problem
}

// protocol reads one subprotocol, a token (RFC 6455 section 4.1) that is not among before: browsers refuse a repeated one.
func (d *decoder) protocol(before []string) string {
	p := d.text("protocols", nameMax)
	switch {
	case d.problem != "":
	case len(before) == protocolsMax:
		d.fail("protocols: at most 10")
	case !isToken(p):
		d.fail("protocols: want tokens: letters, digits and !#$%&'*+-.^_`|~")
	}
	for _, prefix := range reserved {
		if strings.HasPrefix(p, prefix) {
			d.fail("protocols: tgs_ and ticketgate. are reserved")
		}
	}
	for _, b := range before {
		if b == p {
			d.fail("protocols: one stands twice")
		}
	}
	return p
}

// canonicalOrigin is RFC 6454 section 6.2 as browsers write it: no path, no default port, lower case, ASCII.
func canonicalOrigin(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != s || strings.ToLower(s) != s {
		return false
	}
	switch {
	case u.Scheme == "http" && u.Port() == "80", u.Scheme == "https" && u.Port() == "443", strings.HasSuffix(u.Host, ":"):
		return false
	}
	return upgrade.IsHost(u.Host)
}

// A decoder reads the little of JSON (RFC 8259) that a ticket request needs: objects, arrays and strings whose type is
// known. encoding/json would take "STREAM" for stream, the last of repeated members, and bad UTF-8. After the first
// problem, rest is empty and every read gives nothing.
type decoder struct {
	rest    []byte
	problem string
}

func (d *decoder) fail(problem string) {
	if d.problem == "" {
		d.problem = problem
	}
	d.rest = nil
}

// token skips white space and returns the byte there, 0 at the end.
func (d *decoder) token() byte {
	for len(d.rest) > 0 {
		switch c := d.rest[0]; c {
		case ' ', '\t', '\r', '\n':
			d.rest = d.rest[1:]
		default:
			return c
		}
	}
	return 0
}

// take skips c if it is next.
func (d *decoder) take(c byte) bool {
	if d.token() != c {
		return false
	}
	d.rest = d.rest[1:]
	return true
}

func (d *decoder) end() {
	if d.token(); len(d.rest) > 0 {
		d.fail("body: more follows the object")
	}
}

// object reads an object; member reads the value of each member. what names it for the problem.
func (d *decoder) object(what string, member func(name string)) {
	if !d.take('{') {
		d.fail(what + ": want an object")
		return
	}
	seen := make(map[string]bool, 8)
	for first := true; !d.take('}'); first = false {
		if !first && !d.take(',') {
			d.fail(what + ": not JSON")
			return
		}
		name := d.string(what, bodyMax)
		if seen[name] && d.problem == "" {
			d.fail(what + ": a member stands twice")
		}
		seen[name] = true
		if !d.take(':') {
			d.fail(what + ": not JSON")
		}
		if d.problem != "" {
			return
		}
		if member(name); d.problem != "" {
			return
		}
	}
}

// array reads an array; element reads each.
func (d *decoder) array(what string, element func()) {
	if !d.take('[') {
		d.fail(what + ": want an array of strings")
		return
	}
	for first := true; !d.take(']'); first = false {
		if !first && !d.take(',') {
			d.fail(what + ": not JSON")
		}
		if d.problem != "" {
			return
		}
		if element(); d.problem != "" {
			return
		}
	}
}

// text reads a string that is a name: 1 to limit bytes, no control characters.
func (d *decoder) text(what string, limit int) string {
	s := d.string(what, limit)
	if d.problem == "" && (s == "" || strings.ContainsFunc(s, isControl)) {
		d.fail(what + ": want at least one character and no control characters")
	}
	return s
}

// isControl is general category Cc, and what some readers take for a line's end.
func isControl(r rune) bool { return r < 0x20 || 0x7f <= r && r < 0xa0 || r == 0x2028 || r == 0x2029 }

// string reads a string of at most limit bytes.
func (d *decoder) string(what string, limit int) string {
	if !d.take('"') {
		d.fail(what + ": want a string")
		return ""
	}
	var text []byte
	for len(d.rest) > 0 {
		switch c := d.rest[0]; {
		case c == '"':
			d.rest = d.rest[1:]
			if len(text) > limit {
				d.fail(what + ": too long")
				return ""
			}
			return string(text)
		case c == '\\':
			r := d.escape(what)
			text = utf8.AppendRune(text, r)
		case c < 0x20:
			d.fail(what + ": not JSON")
		default:
			r, size := utf8.DecodeRune(d.rest)
			if r == utf8.RuneError && size == 1 {
				d.fail(what + ": not UTF-8")
				return ""
			}
			text = append(text, d.rest[:size]...)
			d.rest = d.rest[size:]
		}
	}
	d.fail(what + ": not JSON")
	return ""
}

// escape reads what follows a backslash. Half of a surrogate pair is no character (RFC 8259 section 8.2).
func (d *decoder) escape(what string) rune {
	if len(d.rest) >= 2 {
		if at := strings.IndexByte(`"\/bfnrt`, d.rest[1]); at >= 0 {
			d.rest = d.rest[2:]
			return rune("\"\\/\b\f\n\r\t"[at])
		}
	}
	r := d.unit()
	if 0xd800 <= r && r < 0xdc00 {
		if low := d.unit(); 0xdc00 <= low && low < 0xe000 {
			return (r-0xd800)<<10 + (low - 0xdc00) + 0x10000
		}
		r = -1
	}
	if r < 0 || 0xdc00 <= r && r < 0xe000 {
		d.fail(what + ": not JSON")
	}
	return r
}

// unit reads \uXXXX; -1: something else is there.
func (d *decoder) unit() rune {
	if len(d.rest) < 6 || d.rest[0] != '\\' || d.rest[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range d.rest[2:6] {
		switch {
		case isDigit(c):
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return -1
		}
	}
	d.rest = d.rest[6:]
	return r
}
