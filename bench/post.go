package bench

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrAnswer is an HTTP answer without a usable Content-Length. The front end always sends one.
var ErrAnswer = errors.New("bench: answer without a usable Content-Length")

// ErrTicket is a 201 whose body is not a ticket.
var ErrTicket = errors.New("bench: 201 without url and tgs_ protocol")

// An Answer is one HTTP answer. Body lies in the loop's buffer: it is gone when the callback returns.
type Answer struct {
	Status int
	Close  bool // the server ends the connection
	Body   []byte
}

// ParseAnswer reads an HTTP answer of known length; n is 0 until all of it is there.
func ParseAnswer(b []byte) (a Answer, n int, err error) {
	status, head, err := parseHead(b)
	if err != nil || head == 0 {
		return Answer{}, 0, err
	}
	size, ok := header(b[:head], "\r\nContent-Length: ")
	length, err := strconv.Atoi(string(size))
	if !ok || err != nil || length < 0 || length > leftMax {
		return Answer{}, 0, ErrAnswer
	}
	if len(b) < head+length {
		return Answer{}, 0, nil
	}
	end, _ := header(b[:head], "\r\nConnection: ")
	return Answer{status, bytes.EqualFold(end, []byte("close")), b[head : head+length]}, head + length, nil
}

// header finds the value after name, spelt as fasthttp and net/http spell it.
func header(head []byte, name string) ([]byte, bool) {
	_, rest, ok := bytes.Cut(head, []byte(name))
	value, _, end := bytes.Cut(rest, []byte("\r\n"))
	return value, ok && end
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
	a, n, err := ParseAnswer(b)
	if err == nil && n == 0 {
		return 0
	}
	if err == nil && k.req == nil {
		err = errors.New("bench: an answer that nobody asked for")
	}
	if err != nil || a.Close {
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

// HangUp ends an idle connection.
func (k *Caller) HangUp() {
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
	Row int // requests in a row for a client; 0: 1

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
	for i, n := at+mintDigits-1, m.next/max(m.Row, 1)%m.clients; i >= at; i, n = i-1, n/10 {
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
