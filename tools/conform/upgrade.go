package conform

import (
	"bufio"
	"context"
	"crypto/sha1" //nolint:gosec // RFC 6455 section 4.2.2 asks for it
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
)

// upgradeWithin bounds each opening handshake.
const upgradeWithin = 10 * time.Second

// readBuffer is what a socket reads at once at most.
const readBuffer = 64 << 10

// Target is where a client goes.
type Target struct {
	Addr   string      // host:port of the listener
	Path   string      // of the request
	Header http.Header // beside those of the upgrade
}

// Dial opens a socket as a client (4.1). offer is its Sec-WebSocket-Extensions, "" for none; seed makes its keys.
func Dial(ctx context.Context, to Target, offer string, seed uint64) (*Socket, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.Addr)
	if err != nil {
		return nil, err
	}
	s := newSocket(conn, seed)
	s.client = true
	if err := s.ask(to, offer); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, nil
}

func newSocket(conn net.Conn, seed uint64) *Socket {
	return &Socket{conn: conn, r: bufio.NewReaderSize(conn, readBuffer), rnd: rand.New(rand.NewPCG(seed, 6455))}
}

// ask sends the upgrade request and looks at the answer.
func (s *Socket) ask(to Target, offer string) error {
	if err := s.conn.SetDeadline(time.Now().Add(upgradeWithin)); err != nil {
		return err
	}
	var nonce [16]byte
	binary.LittleEndian.PutUint64(nonce[:], s.rnd.Uint64())
	key := base64.StdEncoding.EncodeToString(nonce[:])
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: %s\r\n", to.Path, to.Addr, key)
	if offer != "" {
		fmt.Fprintf(&b, "Sec-WebSocket-Extensions: %s\r\n", offer)
	}
	if err := to.Header.Write(&b); err != nil {
		return err
	}
	b.WriteString("\r\n")
	if _, err := s.conn.Write([]byte(b.String())); err != nil {
		return err
	}
	a, err := http.ReadResponse(s.r, nil)
	if err != nil {
		return err
	}
	if err := s.agree(a, key, offer); err != nil {
		return err
	}
	return s.conn.SetDeadline(time.Time{})
}

// agree looks at the answer to the upgrade request (4.1).
func (s *Socket) agree(a *http.Response, key, offer string) (err error) {
	switch h := a.Header; {
	case a.StatusCode != http.StatusSwitchingProtocols:
		return fmt.Errorf("upgrade: %s", a.Status)
	case !strings.EqualFold(h.Get("Upgrade"), "websocket") || !strings.EqualFold(h.Get("Connection"), "Upgrade"):
		return errors.New("upgrade: 101 without Upgrade and Connection")
	case h.Get("Sec-WebSocket-Accept") != accept(key):
		return errors.New("upgrade: 101 with a wrong Sec-WebSocket-Accept")
	default:
		s.ext, err = agreed(h.Values("Sec-WebSocket-Extensions"), offer)
		return err
	}
}

// accept is the Sec-WebSocket-Accept for key (4.2.2).
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Serve takes the upgrade request on conn and answers it as a server (4.2), without extensions.
func Serve(conn net.Conn, seed uint64) (*Socket, error) {
	s := newSocket(conn, seed)
	if err := conn.SetDeadline(time.Now().Add(upgradeWithin)); err != nil {
		return nil, err
	}
	q, err := http.ReadRequest(s.r)
	if err != nil {
		return nil, err
	}
	key := q.Header.Get("Sec-WebSocket-Key")
	if raw, err := base64.StdEncoding.DecodeString(key); err != nil || len(raw) != 16 {
		return nil, fmt.Errorf("upgrade: key %q", key)
	}
	if !strings.EqualFold(q.Header.Get("Upgrade"), "websocket") || q.Header.Get("Sec-WebSocket-Version") != "13" {
		return nil, errors.New("upgrade: not a WebSocket request of version 13")
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept(key))
	return s, errors.Join(err, conn.SetDeadline(time.Time{}))
}
