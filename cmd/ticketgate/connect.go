package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/spf13/cobra"

	"ticketgate/engine/frame"
)

func init() { commands = append(commands, connectCmd) }

// connectOptions are the flags of connect.
type connectOptions struct {
	url, key, client string
	params           []string
	protocols        []string
	ticketOnly       bool
	timeout          time.Duration
}

func connectCmd(e *env) *cobra.Command {
	var o connectOptions
	c := &cobra.Command{
		Use:   "connect STREAM",
		Short: "Open a stream through a ticket and talk: lines go out, messages come in",
		Long: `connect asks the handshake address for a ticket, opens the socket with it, sends each line of standard input as a
text message and prints each message received. Messages go to standard output, everything else to standard error.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if o.key == "" {
				o.key = e.getenv("TICKETGATE_KEY")
			}
			if v := e.getenv("TICKETGATE_URL"); v != "" && !c.Flags().Changed("url") {
				o.url = v
			}
			if err := o.check(); err != nil {
				return err
			}
			return connect(c.Context(), e, args[0], &o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.url, "url", "http://127.0.0.1:8080", "handshake address of the gateway; also TICKETGATE_URL")
	f.StringVar(&o.key, "key", "", "API key; also TICKETGATE_KEY")
	f.StringVar(&o.client, "client", "", "ask on behalf of this client (the key needs the delegate scope)")
	f.StringArrayVar(&o.params, "param", nil, "NAME=VALUE of the stream; may be repeated")
	f.StringArrayVar(&o.protocols, "protocol", nil, "subprotocol of the application; may be repeated")
	f.BoolVar(&o.ticketOnly, "ticket-only", false, "print the ticket as JSON and do not open it")
	f.DurationVar(&o.timeout, "timeout", 10*time.Second, "for the ticket and for opening the socket, each")
	return c
}

// issuedTicket is the answer of POST /v1/tickets, as far as connect needs it.
type issuedTicket struct {
	ID          string   `json:"id"`
	URL         string   `json:"url"`
	Protocols   []string `json:"protocols"`
	ExpiresIn   int      `json:"expires_in"`
	Plan        string   `json:"plan"`
	Connections struct {
		Used  uint32  `json:"used"`
		Limit *uint32 `json:"limit"`
	} `json:"connections"`
}

func connect(ctx context.Context, e *env, stream string, o *connectOptions) error {
	body, err := askTicket(ctx, stream, o)
	if err != nil {
		return interrupted(ctx, err)
	}
	if o.ticketOnly {
		_, err := e.stdout.Write(append(bytes.TrimSpace(body), '\n'))
		return err
	}
	var t issuedTicket
	if err := json.Unmarshal(body, &t); err != nil || t.URL == "" {
		return fmt.Errorf("connect: what %s answers is not a ticket; is --url the handshake address of a gateway?", o.url)
	}
	begun := time.Now()
	conn, err := openSocket(ctx, &t, o)
	if err != nil {
		return interrupted(ctx, err)
	}
	defer conn.Close()
	limit := "no limit"
	if t.Connections.Limit != nil {
		limit = fmt.Sprint(*t.Connections.Limit)
	}
	fmt.Fprintf(e.stderr, "ticket %s (%ds, single use)  connected in %d ms  plan=%s  slots %d/%s\n",
		t.ID, t.ExpiresIn, time.Since(begun).Milliseconds(), t.Plan, t.Connections.Used, limit)
	return talk(ctx, e, conn)
}

// interrupted is err, unless the user's interrupt is what caused it.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

// check finds what is wrong with the flags before anything is sent.
func (o *connectOptions) check() error {
	u, err := url.Parse(o.url)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return usagef("connect: --url %q: want the handshake address, such as http://127.0.0.1:8080", o.url)
	case o.key == "":
		return usagef("connect: no API key: give --key, or set TICKETGATE_KEY")
	case strings.ContainsFunc(o.key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return usagef("connect: this is no API key: it has a space, a line end or another character that no key has")
	case o.timeout <= 0:
		return usagef("connect: --timeout %v: want more than 0", o.timeout)
	}
	return nil
}

// askTicket posts the request and returns the ticket's JSON.
func askTicket(ctx context.Context, stream string, o *connectOptions) ([]byte, error) {
	q, err := ticketRequest(stream, o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	address := strings.TrimRight(o.url, "/") + "/v1/tickets"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(q))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-API-Key", o.key)
	a, err := ticketClient.Do(r)
	if err != nil {
		var tried *url.Error // its text repeats the address
		if errors.As(err, &tried) {
			err = tried.Err
		}
		return nil, unreachablef("connect: no answer from %s: %v; is the gateway running, and --url its handshake address?", address, err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(io.LimitReader(a.Body, 1<<20))
	if err != nil {
		return nil, unreachablef("connect: reading the answer of %s: %v", address, err)
	}
	if a.StatusCode != http.StatusCreated {
		return nil, refusedTicket(a, body)
	}
	return body, nil
}

// ticketClient asks once. It follows no redirection: the key would go along.
var ticketClient = http.Client{
	Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func ticketRequest(stream string, o *connectOptions) ([]byte, error) {
	q := struct {
		Stream    string            `json:"stream"`
		Client    string            `json:"client,omitempty"`
		Params    map[string]string `json:"params,omitempty"`
		Protocols []string          `json:"protocols,omitempty"`
	}{Stream: stream, Client: o.client, Protocols: o.protocols, Params: map[string]string{}}
	for _, p := range o.params {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return nil, usagef("connect: --param %q: want NAME=VALUE", p)
		}
		q.Params[name] = value
	}
	return json.Marshal(q)
}

// refusedTicket is why there is no ticket.
func refusedTicket(a *http.Response, body []byte) error {
	text := "connect: no ticket: " + problemText(a, body)
	if a.StatusCode == http.StatusMethodNotAllowed {
		text += "; is --url the handshake address, not the gate's?"
	}
	return errors.New(text)
}

// problemText turns problem+json into one line.
func problemText(a *http.Response, body []byte) string {
	var p struct {
		Title     string `json:"title"`
		Detail    string `json:"detail"`
		RequestID string `json:"request_id"`
	}
	if json.Unmarshal(body, &p) != nil || p.Title == "" {
		return a.Status
	}
	text := fmt.Sprintf("%d %s", a.StatusCode, p.Title)
	if p.Detail != "" {
		text += ": " + p.Detail
	}
	if s := a.Header.Get("Retry-After"); s != "" {
		text += "; try again in " + s + " s"
	}
	if p.RequestID != "" {
		text += " (request " + p.RequestID + ")"
	}
	return text
}

// goodbyeTimeout is how long a gateway may take to answer the close of a user who leaves.
const goodbyeTimeout = time.Second

// socket is an open WebSocket: frames are read through r, which may hold what arrived right behind the 101.
type socket struct {
	net.Conn
	r  io.Reader
	mu sync.Mutex // a frame goes out whole: lines and answers to pings come from two goroutines
}

// write sends one frame. Any goroutine may call it.
func (s *socket) write(op ws.OpCode, payload []byte) error {
	f, err := ws.CompileFrame(ws.MaskFrame(ws.NewFrame(op, true, payload)))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err = s.Write(f)
	return err
}

// goodbye begins the closing handshake.
func (s *socket) goodbye() error {
	return s.write(ws.OpClose, ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))
}

// leave is goodbye to a peer that may not answer.
func (s *socket) leave() {
	_ = s.SetReadDeadline(time.Now().Add(goodbyeTimeout))
	_ = s.goodbye() // if the socket is gone, so is the reader
}

func openSocket(ctx context.Context, t *issuedTicket, o *connectOptions) (*socket, error) {
	gate, err := url.Parse(t.URL)
	if err != nil {
		return nil, fmt.Errorf("connect: ticket %s has no URL that can be opened", t.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	var refusal string
	d := ws.Dialer{
		Protocols:     append(append([]string(nil), o.protocols...), t.Protocols...),
		OnStatusError: func(_ int, _ []byte, answer io.Reader) { refusal = refusalText(answer) },
	}
	conn, br, _, err := d.Dial(ctx, t.URL)
	var status ws.StatusError
	switch {
	case errors.As(err, &status):
		return nil, fmt.Errorf("connect: the gate refused ticket %s: %s", t.ID, refusal)
	case err != nil: // names the host alone: the rest of the URL is a secret until it is used
		return nil, unreachablef("connect: cannot open a socket at %s: %v", gate.Host, err)
	case br != nil:
		return &socket{Conn: conn, r: br}, nil
	}
	return &socket{Conn: conn, r: conn}, nil
}

// refusalText reads the answer of a gate that does not upgrade.
func refusalText(answer io.Reader) string {
	a, err := http.ReadResponse(bufio.NewReader(answer), nil)
	if err != nil {
		return "and its answer cannot be read"
	}
	defer a.Body.Close()
	body, err := io.ReadAll(io.LimitReader(a.Body, 64<<10))
	if err != nil {
		return a.Status
	}
	return problemText(a, body)
}

// talk sends lines and prints messages until the socket or the user ends.
func talk(ctx context.Context, e *env, conn *socket) error {
	var sent atomic.Int64 // UnixNano of the last line, 0 once a message has answered it
	var end error
	ended := make(chan struct{})
	go func() {
		end = receive(e, conn, &sent)
		close(ended)
	}()
	input := make(chan error, 1)
	go func() { input <- send(e, conn, &sent) }() // ends with standard input or the socket; the process outlives neither
	for {
		select {
		case <-ended:
			return end
		case err := <-input:
			if err != nil {
				conn.leave()
				<-ended
				return err
			}
			input = nil
		case <-ctx.Done():
			conn.leave()
			<-ended
			return errInterrupted
		}
	}
}

// send takes lines until standard input ends, which is its error, or the socket, which receive tells. Lines that were sent
// are answered before the close is, so it can say goodbye at once; whoever sends nothing wants to listen, and goes on.
func send(e *env, conn *socket, sent *atomic.Int64) error {
	lines := bufio.NewScanner(e.stdin)
	lines.Buffer(nil, lineBytes)
	var spoke bool
	for lines.Scan() {
		spoke = true
		sent.Store(time.Now().UnixNano())
		if conn.write(ws.OpText, lines.Bytes()) != nil {
			break // the socket is gone
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("connect: standard input: a line of more than %d bytes", lineBytes)
	case err != nil:
		return fmt.Errorf("connect: standard input: %w", err)
	case spoke:
		_ = conn.goodbye() // receive tells what became of it
	}
	return nil
}

// lineBytes is more than a line of text is; files go another way.
const lineBytes = 16 << 20

// receive prints messages until the socket closes; its error is how that ended, nil for a normal end.
func receive(e *env, conn *socket, sent *atomic.Int64) error {
	for {
		messages, err := wsutil.ReadServerMessage(struct {
			io.Reader
			io.Writer
		}{conn.r, conn}, nil)
		for _, m := range messages {
			if done, err := show(e, conn, m, sent); done {
				return err
			}
		}
		if err != nil {
			return errors.New("connect: " + explain(frame.CloseAbnormal, ""))
		}
	}
}

// show prints one message, or answers one control frame. done: the socket is closed. What cannot be written to a broken
// socket is no matter: the next read tells how it ended.
func show(e *env, conn *socket, m wsutil.Message, sent *atomic.Int64) (done bool, err error) {
	switch m.OpCode {
	case ws.OpPing:
		_ = conn.write(ws.OpPong, m.Payload)
	case ws.OpText, ws.OpBinary:
		took := ""
		if at := sent.Swap(0); at != 0 {
			took = fmt.Sprintf("\t(%.1f ms)", float64(time.Now().UnixNano()-at)/1e6)
		}
		printMessage(e, m, took)
	case ws.OpClose:
		code, reason := ws.ParseCloseFrameData(m.Payload)
		_ = conn.write(ws.OpClose, m.Payload) // its own close may have crossed ours
		text := explain(frame.Code(code), reason)
		fmt.Fprintf(e.stderr, "closed %d %q   %s\n", code, reason, text)
		if code == ws.StatusNormalClosure || code == 0 || code == ws.StatusNoStatusRcvd {
			return true, nil
		}
		return true, fmt.Errorf("connect: closed with %d: %s", code, text)
	}
	return false, nil
}

// printMessage writes m alone on a line of standard output, and what is said about it to standard error when that is a
// terminal's business.
func printMessage(e *env, m wsutil.Message, took string) {
	prefix := ""
	if e.interactive {
		prefix = "< "
	} else {
		took = ""
	}
	if m.OpCode == ws.OpBinary {
		fmt.Fprintf(e.stdout, "%s%q%s\n", prefix, m.Payload, took)
		return
	}
	fmt.Fprintf(e.stdout, "%s%s%s\n", prefix, m.Payload, took)
}
