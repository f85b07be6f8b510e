package bench_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"

	"ticketgate/bench"
)

// answers is a server of keep-alive HTTP that writes the next of texts for each request.
func answers(t *testing.T, texts ...string) string {
	next := make(chan string, len(texts))
	for _, text := range texts {
		next <- text
	}
	return serve(t, func(c net.Conn) {
		for r := bufio.NewReader(c); ; {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			if _, err := io.WriteString(c, <-next); err != nil {
				return
			}
		}
	})
}

const (
	post    = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
	created = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"
)

// What comes without having been asked for ends the connection, and is nobody's answer.
func TestCallerUnasked(t *testing.T) {
	for name, extra := range map[string]string{"an answer": "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", "a longer body": "}"} {
		t.Run(name, func(t *testing.T) {
			l := bench.OpenLoop(t, bench.Options{})
			var all []int
			k := bench.NewCaller(l, target(t, answers(t, created+extra, created)), func(a bench.Answer, err error) {
				if err != nil {
					t.Error(err)
				}
				all = append(all, a.Status)
			})
			for i, open := range []int{0, 1} {
				k.Post([]byte(post))
				runUntil(t, l, func() bool { return len(all) > i && l.Open() == open })
			}
			if len(all) != 2 || all[0] != 201 || all[1] != 201 {
				t.Errorf("answers %v", all)
			}
		})
	}
}

// The same later, when the answer has long been heard.
func TestCallerUnaskedLater(t *testing.T) {
	more := make(chan bool)
	address := serve(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		for _, text := range []string{created, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"} {
			if _, err := c.Write([]byte(text)); err != nil {
				return
			}
			<-more
		}
	})
	l := bench.OpenLoop(t, bench.Options{})
	answered := 0
	k := bench.NewCaller(l, target(t, address), func(_ bench.Answer, err error) {
		answered++
		if err != nil {
			t.Error(err)
		}
	})
	k.Post([]byte(post))
	runUntil(t, l, func() bool { return answered > 0 })
	more <- true
	runUntil(t, l, func() bool { return l.Open() == 0 })
	close(more)
	if answered != 1 {
		t.Errorf("%d answers to one request", answered)
	}
}

// What was hung up is heard of no more, and the next request has a connection of its own.
func TestCallerHangUp(t *testing.T) {
	l := bench.OpenLoop(t, bench.Options{})
	var all []int
	k := bench.NewCaller(l, target(t, answers(t, created, created)), func(a bench.Answer, err error) {
		if err != nil {
			t.Error(err)
		}
		all = append(all, a.Status)
	})
	k.Post([]byte(post))
	k.HangUp()
	k.HangUp()
	if l.Open() != 0 {
		t.Errorf("%d open", l.Open())
	}
	k.Post([]byte(post))
	runUntil(t, l, func() bool { return len(all) > 0 })
	if len(all) != 1 || all[0] != 201 || l.Open() != 1 {
		t.Errorf("answers %v, %d open", all, l.Open())
	}
}
