package feed_test

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"

	"ticketgate/feed"
	"ticketgate/feed/feedtest"
)

// counted counts what a client has read.
type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// TestCompressedReaders: readers that agreed to compression get every message in a part of its bytes, the others as it is.
func TestCompressedReaders(t *testing.T) {
	h := feed.NewHub(nil)
	g := feedtest.New(t, feedtest.Options{Stream: h.Stream(closing), Loops: 2, Compression: true}, h.Bind)
	var clients []*websocket.Conn
	var read [6]atomic.Int64
	for i := range read {
		over := func(c net.Conn) net.Conn { return &counted{c, &read[i]} }
		if i%2 == 0 {
			clients = append(clients, g.Dial(t, over))
		} else {
			clients = append(clients, g.DialCompressed(t, over))
		}
	}
	var all []string
	for n := range 20 {
		all = append(all, strings.Repeat(fmt.Sprintf("%d bottles of beer on the wall, ", n), 1+5*n))
		h.PublishText([]byte(all[n]))
	}
	for i, c := range clients {
		for n, want := range all {
			_, got, err := c.Read(g.Deadline)
			if err != nil || string(got) != want {
				t.Fatalf("client %d, message %d: %q, %v", i, n, got, err)
			}
		}
	}
	sum := int64(len(strings.Join(all, "")))
	for i := range read {
		if n := read[i].Load(); i%2 == 0 && n < sum || i%2 == 1 && n > sum/4 {
			t.Errorf("client %d read %d bytes for messages of %d", i, n, sum)
		}
	}
}
