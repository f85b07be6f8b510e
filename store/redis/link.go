package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// A dialler makes connections.
type dialler struct {
	network        string // empty for tcp
	user, password string
	db             int
	tls            *tls.Config   // nil: without
	timeout        time.Duration // of connecting, of TLS, and of the first answers, each
}

// A link is one connection to one server. When it has broken it stays so: what comes after is known not to be sent, which a
// client that mends its connection by itself could not tell.
type link struct {
	client rueidis.Client
	addr   string
	gone   chan struct{} // closed when the connection has broken or was cut

	mu   sync.Mutex
	conn net.Conn // the connection itself, under TLS too; nil before it was made
	end  sync.Once
}

// errGone is the answer to what was not sent, because the connection was gone before.
var errGone = errors.New("connection is gone")

// dial connects to addr, as the dialler's user. The link belongs to the caller, who closes it.
func (d *dialler) dial(ctx context.Context, addr string) (*link, error) {
	l := &link{addr: addr, gone: make(chan struct{})}
	o := rueidis.ClientOption{
		InitAddress: []string{addr}, Username: d.user, Password: d.password, SelectDB: d.db,
		ForceSingleClient: true, DisableRetry: true, DisableCache: true, PipelineMultiplex: -1, AlwaysPipelining: true,
		RingScaleEachConn: ringScale, ReadBufferEachConn: 64 << 10, WriteBufferEachConn: 64 << 10,
		ClientSetInfo: rueidis.DisableClientSetInfo, ConnWriteTimeout: -1,
		DialCtxFn: func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) { return l.connect(ctx, d) },
	}
	// Its ping in the background would end a connection on which a long answer is on its way. Who uses a link bounds it.
	o.Dialer.KeepAlive = -1
	o.Dialer.Timeout = d.timeout // of HELLO
	stop := context.AfterFunc(ctx, l.cut)
	defer stop()
	client, err := rueidis.NewClient(o)
	l.client = client
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// connect makes the connection, once.
func (l *link) connect(ctx context.Context, d *dialler) (net.Conn, error) {
	l.mu.Lock()
	again := l.conn != nil
	l.mu.Unlock()
	if again || l.broken() {
		return nil, errGone
	}
	ctx, cancel := context.WithTimeout(ctx, 2*d.timeout)
	defer cancel()
	network := d.network
	if network == "" {
		network = "tcp"
	}
	c, err := (&net.Dialer{Timeout: d.timeout}).DialContext(ctx, network, l.addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.conn = c
	l.mu.Unlock()
	if l.broken() { // cut meanwhile, which found no connection to cut
		c.Close()
		return nil, errGone
	}
	if d.tls == nil {
		return &wire{Conn: c, link: l}, nil
	}
	config := d.tls
	if config.ServerName == "" {
		host, _, _ := net.SplitHostPort(l.addr)
		config = config.Clone()
		config.ServerName = host
	}
	secure := tls.Client(c, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return &wire{Conn: secure, link: l}, nil
}

// wire is what rueidis reads and writes. It notes that the connection has broken before rueidis can do anything about it.
type wire struct {
	net.Conn
	link *link
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if err != nil {
		w.link.cut()
	}
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	if err != nil {
		w.link.cut()
	}
	return n, err
}

func (w *wire) Close() error {
	w.link.cut() // that of TLS would wait to say goodbye to a server that hangs
	return nil
}

// cut ends the connection at once, whatever is under way: that gets an error for an answer.
func (l *link) cut() {
	l.end.Do(func() { close(l.gone) })
	l.mu.Lock()
	c := l.conn
	l.mu.Unlock()
	if c != nil {
		c.Close()
	}
}

// broken reports whether the connection is gone.
func (l *link) broken() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}

// close cuts the connection and ends what belongs to it.
func (l *link) close() {
	l.cut()
	if l.client != nil {
		l.client.Close()
	}
}

// run sends commands in one go and returns their answers. If they are not all here after wait, the connection is cut. An answer
// that is errGone was not sent.
func (l *link) run(wait time.Duration, commands ...rueidis.Completed) []rueidis.RedisResult {
	guard := time.AfterFunc(wait, l.cut)
	defer guard.Stop()
	return l.client.DoMulti(context.Background(), commands...)
}

// ask runs one command given as words.
func (l *link) ask(wait time.Duration, words ...string) (rueidis.RedisMessage, error) {
	r := l.run(wait, l.client.B().Arbitrary(words...).Build())[0]
	return r.ToMessage()
}
