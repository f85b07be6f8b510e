package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/coder/websocket"
)

// Ticket is the answer of POST /v1/tickets.
type Ticket struct {
	ID               string   `json:"id"`
	URL              string   `json:"url"`
	Protocols        []string `json:"protocols"`
	ExpiresIn        int      `json:"expires_in"`
	SessionExpiresAt string   `json:"session_expires_at"`
	Plan             string   `json:"plan"`
	Connections      struct {
		Used  int  `json:"used"`
		Limit *int `json:"limit"`
	} `json:"connections"`
}

// Path is the request target that redeems t.
func (t *Ticket) Path() string {
	u, err := url.Parse(t.URL)
	if err != nil {
		return t.URL
	}
	return u.Path
}

// Secret is t's second secret.
func (t *Ticket) Secret() string {
	for _, p := range t.Protocols {
		if strings.HasPrefix(p, "tgs_") {
			return p
		}
	}
	return ""
}

// Refused is an answer other than 201.
type Refused struct {
	Status int
	Header http.Header
	Body   []byte
}

func (r *Refused) Error() string { return fmt.Sprintf("HTTP %d: %s", r.Status, r.Body) }

// Problem is the last part of the problem's type.
func (r *Refused) Problem() string {
	var p struct{ Type string }
	if json.Unmarshal(r.Body, &p) != nil {
		return ""
	}
	return p.Type[strings.LastIndexByte(p.Type, '/')+1:]
}

// Request is the request's id, by which the server's log tells of it; "" if the answer has none.
func (r *Refused) Request() string {
	var p struct {
		Request string `json:"request_id"`
	}
	if json.Unmarshal(r.Body, &p) != nil {
		return ""
	}
	return p.Request
}

// Issue asks handshake for a ticket with key; request is marshalled as JSON. A refusal is a *Refused.
func Issue(ctx context.Context, c *http.Client, handshake, key string, request any) (*Ticket, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+handshake+"/v1/tickets", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-API-Key", key)
	a, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return nil, err
	}
	if a.StatusCode != http.StatusCreated {
		return nil, &Refused{a.StatusCode, a.Header, text}
	}
	t := new(Ticket)
	return t, json.Unmarshal(text, t)
}

// Open redeems t at gate with a client that is not ours. The answer is nil only if there was none.
func Open(ctx context.Context, gate string, t *Ticket) (*websocket.Conn, *http.Response, error) {
	return websocket.Dial(ctx, "ws://"+gate+t.Path(), &websocket.DialOptions{Subprotocols: t.Protocols})
}

// Head is a plain upgrade request for target with the second secret in its header; "" leaves the header out.
func Head(host, target, secret string) string {
	h := "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	if secret != "" {
		h += "Ticketgate-Secret: " + secret + "\r\n"
	}
	return h + "\r\n"
}

// Exchange sends raw bytes to address and returns all that comes back until the other side closes or ctx ends.
func Exchange(ctx context.Context, address string, raw []byte) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write(raw); err != nil {
		return nil, err
	}
	return io.ReadAll(conn)
}
