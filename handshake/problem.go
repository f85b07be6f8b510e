package handshake

import (
	"strconv"
	"unicode/utf8"
)

// A problem is one refusal as the caller sees it: the body is application/problem+json (RFC 9457).
type problem struct {
	reason Reason
	detail string // in place of the refusal's own; never input
	retry  int    // whole seconds, 0: no Retry-After
	limit  string // name of the limit that was reached
	allow  string // methods, for 405
}

const problemType = "application/problem+json"

// append appends the body. base is the public URL in front of /problems/, request the id that the log line has too.
func (p *problem) append(dst []byte, base, request string) []byte {
	r := &refusals[p.reason]
	dst = appendString(append(dst, `{"type":`...), base+"/problems/"+r.kind)
	dst = appendString(append(dst, `,"title":`...), r.title)
	dst = strconv.AppendInt(append(dst, `,"status":`...), int64(r.status), 10)
	if d := p.words(); d != "" {
		dst = appendString(append(dst, `,"detail":`...), d)
	}
	if p.limit != "" {
		dst = appendString(append(dst, `,"limit":`...), p.limit)
	}
	if p.retry > 0 {
		dst = strconv.AppendInt(append(dst, `,"retry_after_ms":`...), int64(p.retry)*1000, 10)
	}
	dst = appendString(append(dst, `,"instance":`...), "urn:ticketgate:request:"+request)
	dst = appendString(append(dst, `,"request_id":`...), request)
	return append(dst, '}')
}

func (p *problem) words() string {
	if p.detail != "" {
		return p.detail
	}
	return refusals[p.reason].detail
}

// appendString appends s as a JSON string (RFC 8259 section 7).
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
