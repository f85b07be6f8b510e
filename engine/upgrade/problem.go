package upgrade

import (
	"strconv"
	"unicode/utf8"
)

// Problem is why a head is refused. The values are this file's variables; none repeats what was received.
type Problem struct {
	Status  int    // HTTP status
	Reason  string // a metric label, from this file only
	Detail  string // all that the peer learns
	Headers string // lines that the answer must have beyond the usual, each with its CRLF
}

// Error implements error.
func (p *Problem) Error() string { return "upgrade: " + p.Detail }

// The refusals of a request.
var (
	ErrRequestLine      = &Problem{400, "request-line", "the request line is malformed", ""}
	ErrVersion          = &Problem{400, "version", "the protocol must be HTTP/1.1", ""}
	ErrCanonical        = &Problem{400, "target", "the request target is not in canonical form", ""}
	ErrControl          = &Problem{400, "control-character", "a line does not end with CR LF, or a control character is in it", ""}
	ErrField            = &Problem{400, "field", "a header field is malformed", ""}
	ErrRepeated         = &Problem{400, "repeated-field", "a header field that may come once is repeated", ""}
	ErrHost             = &Problem{400, "host", "the Host is missing, malformed, or not that of the request target", ""}
	ErrBody             = &Problem{400, "body", "the request must not have a body", ""}
	ErrExpect           = &Problem{400, "expect", "the request must not have expectations", ""}
	ErrSecrets          = &Problem{400, "secrets", "two different ticket secrets were sent", ""}
	ErrKey              = &Problem{400, "key", "Sec-WebSocket-Key is not 16 bytes in base64", ""}
	ErrMethod           = &Problem{405, "method", "the method must be GET", "Allow: GET\r\n"}
	ErrTarget           = &Problem{414, "target-size", "the request target is over 8000 bytes", ""}
	ErrNotUpgrade       = &Problem{426, "not-upgrade", "this address speaks WebSocket only", "Upgrade: websocket\r\n"}
	ErrWebSocketVersion = &Problem{426, "websocket-version", "the WebSocket version must be 13", "Sec-WebSocket-Version: 13\r\n"}
	ErrHeadSize         = &Problem{431, "head-size", "the request head is over 16 KiB", ""}
	ErrHeadLines        = &Problem{431, "head-lines", "the request has over 100 header lines", ""}
	ErrMethodUnknown    = &Problem{501, "method-unknown", "the method is not known", ""}
	ErrCoding           = &Problem{501, "transfer-coding", "the transfer coding is not known", ""}
)

// The verdicts on a backend's answer, as its client is told.
var (
	ErrBackendAnswer = &Problem{502, "backend-answer", "the backend's answer is not a WebSocket handshake", ""}
	ErrBackendStatus = &Problem{502, "backend-status", "the backend refused", ""}
)

// Append appends p's answer; see AppendRefusal.
func (p *Problem) Append(dst []byte, base, requestID string) []byte {
	return AppendRefusal(dst, base, p.Status, problemType(p.Status), StatusText(p.Status), p.Detail, requestID, 0, p.Headers)
}

// problemType is the last part of a problem's type URI, where the status alone decides it.
func problemType(status int) string {
	switch status {
	case 405:
		return "method-not-allowed"
	case 414, 431:
		return "too-large"
	case 426:
		return "upgrade-required"
	case 501:
		return "not-implemented"
	case 502:
		return "bad-gateway"
	}
	return "invalid-request"
}

// StatusText is the reason phrase of the statuses that the gate answers with, "" for others.
func StatusText(status int) string {
	switch status {
	case 400:
		return "Bad Request"
	case 401:
		return "Unauthorized"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 408:
		return "Request Timeout"
	case 414:
		return "URI Too Long"
	case 421:
		return "Misdirected Request"
	case 426:
		return "Upgrade Required"
	case 429:
		return "Too Many Requests"
	case 431:
		return "Request Header Fields Too Large"
	case 500:
		return "Internal Server Error"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case 503:
		return "Service Unavailable"
	case 504:
		return "Gateway Timeout"
	}
	return ""
}

// AppendRefusal appends a complete answer: head and application/problem+json body (RFC 9457), after which the connection
// must be closed. base is the public address that type URIs begin with, without a slash at its end; retryAfter is in
// seconds, 0 for none; requestID may be empty, then the answer is the same for everyone; extra is further header lines, each with its CRLF. detail must not repeat input. The strings go into
// JSON escaped, into the head as they are.
func AppendRefusal(dst []byte, base string, status int, problemType, title, detail, requestID string, retryAfter int, extra string) []byte {
	b := body{base, status, problemType, title, detail, requestID, retryAfter}
	start := len(dst)
	dst = b.append(dst) // once for its length
	length := len(dst) - start
	dst = append(dst[:start], version+" "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, StatusText(status)...)
	dst = append(dst, "\r\nConnection: close\r\nContent-Type: application/problem+json\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(length), 10)
	dst = append(dst, "\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n"...)
	if retryAfter > 0 {
		dst = append(dst, "Retry-After: "...)
		dst = strconv.AppendInt(dst, int64(retryAfter), 10)
		dst = append(dst, crlf...)
	}
	dst = append(dst, extra...)
	dst = append(dst, crlf...)
	return b.append(dst)
}

// body is a problem document.
type body struct {
	base                                string
	status                              int
	problemType, title, detail, request string
	retryAfter                          int
}

func (b *body) append(dst []byte) []byte {
	dst = append(dst, `{"type":"`...)
	dst = appendEscaped(dst, b.base)
	dst = append(dst, "/problems/"...)
	dst = appendEscaped(dst, b.problemType)
	dst = append(dst, `","title":"`...)
	dst = appendEscaped(dst, b.title)
	dst = append(dst, `","status":`...)
	dst = strconv.AppendInt(dst, int64(b.status), 10)
	dst = append(dst, `,"detail":"`...)
	dst = appendEscaped(dst, b.detail)
	dst = append(dst, '"')
	if b.retryAfter > 0 {
		dst = append(dst, `,"retry_after_ms":`...)
		dst = strconv.AppendInt(dst, int64(b.retryAfter)*1000, 10)
	}
	if b.request != "" {
		dst = append(dst, `,"instance":"urn:ticketgate:request:`...)
		dst = appendEscaped(dst, b.request)
		dst = append(dst, `","request_id":"`...)
		dst = appendEscaped(dst, b.request)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

// appendEscaped appends s as the inside of a JSON string (RFC 8259 section 7); bytes that are not UTF-8 become U+FFFD.
func appendEscaped(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', byte(c))
		case c < 0x20:
			dst = append(dst, `\u00`...)
			dst = append(dst, hex[c>>4], hex[c&15])
		default:
			dst = utf8.AppendRune(dst, c)
		}
	}
	return dst
}
