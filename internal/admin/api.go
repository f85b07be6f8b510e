package admin

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ticketgate/revoke"
	"ticketgate/ticket"
)

// The API under /v1. Who calls, and what it may do:
//
//	over a unix socket   the peer's user is root or the gateway's own (SO_PEERCRED)   everything
//	with the token                                                                    everything
//	over loopback, and no token is configured                                         GET
//	others                                                                            nothing
//
// Nothing is changed by GET. Each change is one log line: who, what, and what became of it.

// role is what a caller may do.
type role uint8

const (
	nobody role = iota
	viewer
	operator
)

// caller is who calls.
type caller struct {
	role role
	name string // for the log
	why  string // it may not write
}

// peerKey is where a connection's context has the peer's credentials: *unix.Ucred, nil for none.
type peerKey struct{}

// credentials puts the peer's credentials into the context of a connection over a unix socket.
func credentials(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || cerr != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, cred)
}

// who tells who sent r.
func (s *Server) who(r *http.Request) caller {
	got, sent := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if s.o.Token != "" && sent && subtle.ConstantTimeCompare([]byte(got), []byte(s.o.Token)) == 1 {
		return caller{role: operator, name: "token from " + r.RemoteAddr}
	}
	cred, local := r.Context().Value(peerKey{}).(*unix.Ucred)
	switch {
	case local && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid()):
		return caller{role: operator, name: fmt.Sprintf("uid %d, pid %d", cred.Uid, cred.Pid)}
	case s.o.Token != "":
		return caller{name: r.RemoteAddr}
	case local:
		return caller{role: viewer, name: fmt.Sprintf("uid %d, pid %d", cred.Uid, cred.Pid), why: "over the admin socket only root and the gateway's own user may change anything"}
	}
	return caller{role: viewer, name: r.RemoteAddr,
		why: "this address is for reading only: set listen.admin.token and send it, or use the socket of listen.admin.socket"}
}

// A call is one request to the API.
type call struct {
	s     *Server
	w     http.ResponseWriter
	r     *http.Request
	id    string // "req_..."
	by    caller
	about []any // of the log line of a change
}

// methods are what a path can do.
type methods map[string]func(*call)

// route adds a path of the API to mux.
func (s *Server) route(mux *http.ServeMux, path string, m methods) {
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		id, err := ticket.ID("req_", time.Now(), rand.Reader)
		c := &call{s: s, w: w, r: r, id: id, by: s.who(r)}
		do, ok := m[r.Method]
		if r.Method == http.MethodHead {
			do, ok = m[http.MethodGet]
		}
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case err != nil:
			c.fail(http.StatusServiceUnavailable, "overloaded", "No request can be named", "")
		case c.by.role == nobody:
			w.Header().Set("WWW-Authenticate", "Bearer")
			c.fail(http.StatusUnauthorized, "unauthenticated", "The admin token is needed", "Authorization: Bearer <listen.admin.token>")
		case !ok:
			w.Header().Set("Allow", m.allow())
			c.fail(http.StatusMethodNotAllowed, "method-not-allowed", "Method not allowed here", "this path knows "+m.allow())
		case !reads && c.by.role < operator:
			c.fail(http.StatusForbidden, "forbidden", "Not allowed to change anything", c.by.why)
		default:
			do(c)
		}
	})
}

func (m methods) allow() string {
	var all []string
	for name := range m {
		if all = append(all, name); name == http.MethodGet {
			all = append(all, http.MethodHead)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// apiProblem is an error as RFC 9457 has it.
type apiProblem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty"`
	Instance  string `json:"instance"`
	RequestID string `json:"request_id"`
}

// fail answers with a problem. Nothing of the request is in it.
func (c *call) fail(status int, kind, title, detail string) {
	body, err := json.Marshal(&apiProblem{c.s.o.Base + "/problems/" + kind, title, status, detail, "urn:ticketgate:request:" + c.id, c.id})
	if err != nil { // texts and a number
		panic(err)
	}
	write(c.w, status, "application/problem+json", append(body, '\n'))
	c.audit(status, title)
}

func (c *call) invalid(format string, args ...any) {
	c.fail(http.StatusBadRequest, "invalid-request", "Invalid request", fmt.Sprintf(format, args...))
}

func (c *call) notFound(detail string) {
	c.fail(http.StatusNotFound, "not-found", "Not found", detail)
}

// trouble answers for an error of Control.
func (c *call) trouble(err error) {
	switch {
	case errors.Is(err, revoke.ErrFull):
		c.fail(http.StatusServiceUnavailable, "overloaded", "Too many revocations", err.Error())
	case errors.Is(err, ticket.ErrUnavailable):
		c.fail(http.StatusServiceUnavailable, "store-unavailable", "Ticket store unavailable", "ask again")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		c.fail(http.StatusServiceUnavailable, "overloaded", "The gateway is busy", "ask again")
	default:
		c.invalid("%v", err)
	}
}

// answer sends v as JSON.
func (c *call) answer(status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		c.s.o.Log.Error("admin answer", "error", err)
		c.fail(http.StatusInternalServerError, "fault", "Fault in the gateway", "")
		return
	}
	write(c.w, status, "application/json", append(body, '\n'))
	c.audit(status, "done")
}

// audit writes the line of a change, and of one that was not allowed. What callers name goes in as values, which the log escapes: one
// change is one line.
func (c *call) audit(status int, outcome string) {
	if c.r.Method == http.MethodGet || c.r.Method == http.MethodHead || c.by.role == nobody {
		return
	}
	attrs := append([]any{"by", c.by.name, "method", c.r.Method, "path", c.r.URL.Path, "status", status, "outcome", outcome, "request_id", c.id}, c.about...)
	c.s.o.Log.Log(context.Background(), slog.LevelInfo, "admin change", attrs...)
}

// callTimeout bounds a call that looks at all sockets or asks the store.
const callTimeout = 10 * time.Second

func (c *call) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.r.Context(), callTimeout)
}

// bodyMax is more than any request needs.
const bodyMax = 16 << 10

// body reads a JSON object into v, whose fields are all that it may have; no body is an empty object.
func (c *call) body(v any) bool {
	text, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, bodyMax))
	switch {
	case err != nil:
		c.fail(http.StatusRequestEntityTooLarge, "too-large", "Request body too large", fmt.Sprintf("a request body has at most %d bytes", bodyMax))
		return false
	case len(text) == 0:
		return true
	}
	if kind, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		c.fail(http.StatusUnsupportedMediaType, "unsupported-media-type", "Unknown media type", "the body has to be application/json")
		return false
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		c.invalid("body: %s", bodyError(err))
		return false
	}
	if d.More() {
		c.invalid("body: want one object")
		return false
	}
	return true
}

// bodyError says what is wrong with a body, without quoting its values.
func bodyError(err error) string {
	var kind *json.UnmarshalTypeError
	var bad *badDuration
	switch {
	case errors.As(err, &bad):
		return bad.Error()
	case errors.As(err, &kind):
		return kind.Field + ": want another type"
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		return "a member that this path does not have"
	}
	return "not JSON"
}

// duration is "30s" in JSON.
type duration time.Duration

type badDuration struct{}

func (*badDuration) Error() string {
	return `a duration is a text such as "30s" or "1h30m", not below zero`
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return &badDuration{}
	}
	*d = duration(v)
	return nil
}

// query reads the members of the query, each at most once and of those in known.
func (c *call) query(known ...string) (get func(string) string, ok bool) {
	q := c.r.URL.Query()
	for name, values := range q {
		if !slices.Contains(known, name) || len(values) > 1 {
			c.invalid("query: want at most once each: %s", strings.Join(known, ", "))
			return nil, false
		}
	}
	return q.Get, true
}
