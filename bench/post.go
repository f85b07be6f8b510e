package bench

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrAnswer is an HTTP answer whose end cannot be told. The front end always sends a Content-Length; a proxy before it may send chunks.
var ErrAnswer = errors.New("bench: answer without a usable Content-Length or chunks")

// ErrTicket is a 201 whose body is not a ticket.
var ErrTicket = errors.New("bench: 201 without url and tgs_ protocol")

// An Answer is one HTTP answer. Body lies in the loop's buffer: it is gone when the callback returns.
type Answer struct {
	Status int
	Close  bool // the server ends the connection
	Body   []byte
}

// ParseAnswer reads an HTTP answer; n is 0 until all of it is there. One that says no length lasts until the connection ends (RFC 9112
// 6.3): of a failure the status is what counts, and it is taken with what has come of the body.
func ParseAnswer(b []byte) (a Answer, n int, err error) {
	status, head, err := parseHead(b)
	if err != nil || head == 0 {
		return Answer{}, 0, err
	}
	end, _ := header(b[:head], "Connection")
	a = Answer{Status: status, Close: bytes.EqualFold(end, []byte("close"))}
	coding, coded := header(b[:head], "Transfer-Encoding")
	size, sized := header(b[:head], "Content-Length")
	switch {
	case coded && bytes.EqualFold(coding, []byte("chunked")):
		a.Body, n, err = dechunk(b[head:])
	case sized && !coded:
		a.Body, n, err = sizedBody(b[head:], size)
	case status == 204 || status == 304:
		return a, head, nil
	case status < 300 || coded:
		err = ErrAnswer
	default:
		a.Body, a.Close = b[head:min(len(b), head+leftMax)], true
		return a, len(b), nil
	}
	if err != nil || n < 0 {
		return Answer{}, 0, err
	}
	return a, head + n, nil
}

// sizedBody is the body at the start of b; n is -1 until all of it is there.
func sizedBody(b, size []byte) (body []byte, n int, err error) {
	n, err = strconv.Atoi(string(size))
	if err != nil || n < 0 || n > leftMax {
		return nil, 0, ErrAnswer
	}
	if len(b) < n {
		return nil, -1, nil
	}
	return b[:n], n, nil
}

// dechunk puts the chunks (RFC 9112 7.1) at the start of b together; n is -1 until the last of them is there.
func dechunk(b []byte) (body []byte, n int, err error) {
	for {
		line, rest, ok := bytes.Cut(b[n:], crlf)
		if !ok {
			return nil, -1, nil
		}
		digits, _, _ := bytes.Cut(line, []byte(";")) // extensions
		size, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 16, 32)
		if err != nil || size > leftMax {
			return nil, 0, ErrAnswer
		}
		n += len(line) + len(crlf)
		if size == 0 {
			return endChunks(body, rest, n)
		}
		if uint64(len(rest)) < size+uint64(len(crlf)) {
			return nil, -1, nil
		}
		if !bytes.HasPrefix(rest[size:], crlf) {
			return nil, 0, ErrAnswer
		}
		body = append(body, rest[:size]...)
		n += int(size) + len(crlf)
	}
}

// endChunks reads over the trailers behind the last chunk, which begin with rest at n.
func endChunks(body, rest []byte, n int) ([]byte, int, error) {
	for {
		line, more, ok := bytes.Cut(rest, crlf)
		if !ok {
			return nil, -1, nil
		}
		n += len(line) + len(crlf)
		if len(line) == 0 {
			return body, n, nil
		}
		rest = more
	}
}

var crlf = []byte("\r\n")

// header finds the value of name, in whatever case it is written: HTTP/1.1 proxies pass on the names in lower case that HTTP/2 wants.
func header(head []byte, name string) ([]byte, bool) {
	for len(head) > 0 {
		var line []byte
		line, head, _ = bytes.Cut(head, crlf)
		if len(line) > len(name) && line[len(name)] == ':' && strings.EqualFold(string(line[:len(name)]), name) {
			return bytes.TrimSpace(line[len(name)+1:]), true
		}
	}
	return nil, false
}

// A Caller sends one request at a time over a connection that it keeps, and reconnects when the server ends it.
type Caller struct {
	loop   *Loop
	to     *Target
	answer func(Answer, error) // exactly one of the two
	conn   *Conn
	req    []byte // under way, nil if none
}

// NewCaller returns a Caller that is not connected yet. answer is called on the loop for each Post and may Post again.
func NewCaller(l *Loop, to *Target, answer func(Answer, error)) *Caller {
	return &Caller{loop: l, to: to, answer: answer}
}

// Post sends req and keeps it until it is answered. The request before it must have been answered.
func (k *Caller) Post(req []byte) {
	k.req = req
	if k.conn != nil {
		k.conn.Write(req)
		return
	}
	c, err := k.loop.Dial(k.to, k)
	if err != nil {
		k.done(Answer{}, err)
		return
	}
	k.conn = c
}

func (k *Caller) done(a Answer, err error) {
	k.req = nil
	k.answer(a, err)
}

// Opened implements Handler.
func (k *Caller) Opened(c *Conn) { c.Write(k.req) }

// Data implements Handler.
func (k *Caller) Data(c *Conn, b []byte) int {
	if k.req == nil { // nobody asked: a server's 408 to an idle connection, or the rest of a body that is longer than it said
		k.HangUp()
		return 0
	}
	a, n, err := ParseAnswer(b)
	if err == nil && n == 0 {
		return 0
	}
	if err != nil || a.Close || n < len(b) { // what follows an answer is none to the next request
		k.conn = nil
		c.Close()
	}
	k.done(a, err)
	return n
}

// Closed implements Handler. An idle connection may end (RFC 9112 9.5): the next Post makes a new one.
func (k *Caller) Closed(_ *Conn, err error) {
	k.conn = nil
	if k.req != nil {
		k.done(Answer{}, early(err))
	}
}

// HangUp ends the connection, and forgets what is under way on it: answer does not hear of it.
func (k *Caller) HangUp() {
	k.req = nil
	if k.conn != nil {
		k.conn.Close()
		k.conn = nil
	}
}

// A Ticket is what opens one socket. Its parts lie in the answer's bytes.
type Ticket struct {
	Host         []byte // of the gate, host:port
	Path, Secret []byte
	Secure       bool // wss://
}

// ParseTicket takes path and secret out of the body of POST /v1/tickets. It looks for the two strings only, because a
// client that decodes JSON costs more than the server that it measures.
func ParseTicket(body []byte) (Ticket, error) {
	url, ok := member(body, `"url":"`)
	name, rest, scheme := bytes.Cut(url, []byte("://"))
	slash := bytes.IndexByte(rest, '/')
	secret, found := member(body, `"tgs_`)
	if !ok || !scheme || slash < 0 || !found {
		return Ticket{}, ErrTicket
	}
	start := bytes.Index(body, []byte(`"tgs_`)) + 1
	return Ticket{
		Host: rest[:slash], Path: rest[slash:], Secret: body[start : start+len("tgs_")+len(secret)],
		Secure: string(name) == "wss",
	}, nil
}

// member returns what stands between prefix and the next quote; false if there is none or it needs unescaping.
func member(body []byte, prefix string) ([]byte, bool) {
	_, rest, ok := bytes.Cut(body, []byte(prefix))
	value, _, end := bytes.Cut(rest, []byte(`"`))
	return value, ok && end && bytes.IndexByte(value, '\\') < 0
}

// A Mint makes requests for tickets, for one of its clients after the other, so that no limit per client is in the way.
type Mint struct {
	Row   int // requests in a row for a client; 0: 1
	First int // the number of its first client

	request []byte
	digits  int // where the client's number stands
	clients int // 0: the key's own
	next    int
	stride  int // 0: 1
}

const mintDigits = 7

// NewMint returns a Mint for stream. key is an API key with the delegate scope; clients is 1 to 9,999,999, or 0 for
// tickets of the key's own client, for which it needs no scope.
func NewMint(host, key, stream string, clients int) *Mint {
	name := `"client":"load-`
	body := fmt.Sprintf(`{"stream":%q,%s%0*d"}`, stream, name, mintDigits, 0)
	if clients == 0 {
		body = fmt.Sprintf(`{"stream":%q}`, stream)
	}
	head := fmt.Sprintf("POST /v1/tickets HTTP/1.1\r\nHost: %s\r\nX-API-Key: %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n", host, key, len(body))
	digits := len(head) + strings.Index(body, name) + len(name)
	return &Mint{request: []byte(head + body), digits: digits, clients: clients}
}

// Skip makes m one of share Mints that ask for the same clients in turn, the one with index.
func (m *Mint) Skip(index, share int) { m.next, m.stride = index, share }

// Append appends one POST /v1/tickets.
func (m *Mint) Append(dst []byte) []byte {
	m.next += max(m.stride, 1)
	at := len(dst) + m.digits
	dst = append(dst, m.request...)
	if m.clients == 0 {
		return dst
	}
	for i, n := at+mintDigits-1, m.First+m.next/max(m.Row, 1)%m.clients; i >= at; i, n = i-1, n/10 {
		dst[i] = byte('0' + n%10)
	}
	return dst
}

// TicketOf judges the answer to a Mint's request.
func TicketOf(a Answer, err error) (Ticket, error) {
	if err != nil {
		return Ticket{}, err
	}
	if a.Status != 201 {
		return Ticket{}, &StatusError{a.Status, string(a.Body[:min(len(a.Body), 300)])}
	}
	return ParseTicket(a.Body)
}
