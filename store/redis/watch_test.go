package redis_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"ticketgate/internal/porttest"
	"ticketgate/store/redis"
	"ticketgate/store/redistest"
)

// A logbook is a log that a test reads while it is written.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logbook) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func (l *logbook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// TestUnfitServers: as TestVet, with real servers.
func TestUnfitServers(t *testing.T) {
	plain := redistest.Start(t)
	host, port, _ := strings.Cut(plain.Addr(), ":")
	replica := redistest.Start(t, redistest.Args("--replicaof", host, port))
	evicting := redistest.Start(t, redistest.Args("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"))
	_, bus, _ := strings.Cut(porttest.Free(t), ":")
	node := redistest.Start(t, redistest.Args("--cluster-enabled", "yes", "--cluster-port", bus))
	secured := redistest.Start(t, redistest.WithACL("~tg:* +ping"))
	for _, c := range []struct {
		name string
		o    redis.Options
		want string
	}{
		{"replica", redis.Options{URL: replica.URL()}, "it is a replica"},
		{"evicting", redis.Options{URL: evicting.URL()}, "allkeys-lru"},
		{"node of a cluster", redis.Options{URL: node.URL()}, "node of a Redis Cluster"},
		{"no cluster", redis.Options{Addresses: []string{plain.Addr()}}, "cluster support disabled"},
		{"no sentinel", redis.Options{Addresses: []string{plain.Addr()}, Sentinel: redis.Sentinel{Master: "tickets"}}, "unknown command"},
		{"wrong password", redis.Options{URL: "redis://gw:wrong@" + secured.Addr()}, "WRONGPASS"},
		{"may do too little", redis.Options{URL: secured.URL()}, "NOPERM"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log logbook
			c.o.Log, c.o.Prefix = log.logger(), "tg:"
			s := openAt(t, c.o)
			eventually(t, "a reason in the log: "+c.want, func() bool { return log.has(c.want) })
			if s.Stats().Up {
				t.Error("it is used")
			}
			if log.has(redistest.Password) || log.has("wrong@") {
				t.Error("the log shows a password")
			}
		})
	}
}
