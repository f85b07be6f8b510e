// Package serve is what the servers that are built on WebSocket libraries have in common: flags, listener and end, and what
// a feed sends. How a message gets from there to a socket, and back from one, is each library's own.
//
//	serve.go  Main, Feed  the process, and a message every tick
//	hub.go    Hub         a queue for each subscriber, for libraries that have none
//
// The collector runs as it does by default: these servers have a heap, other than the bare programs.
package serve

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

const (
	// MessageMax is how many bytes a message that is echoed may have.
	MessageMax = 1 << 20
	// QueueMax is how many messages of a feed wait for a subscriber. Those behind them are lost for it, but it stays: libraries'
	// examples rather close it, and a server on a busy core would be left without subscribers.
	QueueMax = 64
	// WriteTimeout is when a subscriber that takes nothing is closed, where the library has such a time.
	WriteTimeout = 10 * time.Second
	// HeadTimeout is when a connection without a whole request is closed.
	HeadTimeout = 10 * time.Second
)

// Main runs a server of that name: serve answers /echo and /feed on the listener, and need not return. Main prints the
// address, and returns when the process gets SIGTERM or SIGINT; the sockets end with the process.
func Main(name string, serve func(net.Listener, *Feed) error) {
	f := &Feed{failed: make(chan error, 1)}
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	flag.DurationVar(&f.every, "every", 10*time.Millisecond, "how often /feed has a message")
	flag.IntVar(&f.bytes, "bytes", 128, "bytes of such a message, at least 64")
	flag.Parse()
	if err := f.run(*address, serve); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

func (f *Feed) run(address string, serve func(net.Listener, *Feed) error) error {
	if f.bytes < bytesMin || f.every <= 0 {
		return fmt.Errorf("-bytes is at least %d, and -every more than 0", bytesMin)
	}
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- serve(l, f) }() // ends with the process
	fmt.Println(l.Addr())
	select {
	case err := <-served:
		return err
	case err := <-f.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// A Feed has one message every tick, the same for all subscribers.
type Feed struct {
	every  time.Duration
	bytes  int
	first  sync.Once
	failed chan error
}

// Start has send called with each tick's message, from its first call on: who has no subscriber takes no CPU. The message
// is not written to again. The process ends with the first error of send. Any goroutine may call Start.
func (f *Feed) Start(send func(message []byte) error) {
	f.first.Do(func() {
		go func() { // ends with the process
			for range time.Tick(f.every) {
				if err := send(Message(time.Now(), f.bytes)); err != nil {
					f.failed <- err
					return
				}
			}
		}()
	})
}

const (
	layout   = "2006-01-02T15:04:05.000000000Z" // RFC 3339, always as long
	opening  = `{"time":"`
	padding  = `","pad":"`
	closing  = `"}`
	bytesMin = 64
)

// Message is a JSON object of that many bytes, at least 64, that begins with the time.
func Message(t time.Time, bytes int) []byte {
	m := append(make([]byte, 0, bytes), opening...)
	m = append(t.UTC().AppendFormat(m, layout), padding...)
	for len(m) < bytes-len(closing) {
		m = append(m, 'x')
	}
	return append(m, closing...)
}
