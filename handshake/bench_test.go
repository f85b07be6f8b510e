package handshake_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"ticketgate/handshake"
	"ticketgate/limiter"
)

// BenchmarkIssue is POST /v1/tickets with the store in memory, over keep-alive connections of loopback, beside what fasthttp
// needs for an answer of the same size that nobody had to think about. Client and server share the cores.
func BenchmarkIssue(b *testing.B) {
	b.Run("ticket", func(b *testing.B) {
		g := start(b, func(_ *rig, o *handshake.Options) {
			p := o.Policy()
			roomy := *p
			roomy.Plans = map[string]*limiter.Plan{"free": nil}
			plan, problems := limiter.Compile("free", map[string]limiter.Options{
				"connections": {Count: ptr(10_000_000)}, "tickets": {Rate: rate("10000000/1second")},
			}, limiter.Defaults{})
			if problems != nil {
				b.Fatal(problems)
			}
			roomy.Plans["free"] = plan
			o.Policy = func() *handshake.Policy { return &roomy }
			o.Outstanding = 1 << 30
		})
		hammer(b, g.addr, g.post(wanted), 201)
	})
	b.Run("adversarial wrong key", func(b *testing.B) {
		g := start(b, nil)
		hammer(b, g.addr, strings.Replace(g.post(wanted), g.key, other(g.key), 1), 401)
	})
	b.Run("bare fasthttp", func(b *testing.B) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		body := make([]byte, 360)
		s := fasthttp.Server{
			Handler:               func(ctx *fasthttp.RequestCtx) { ctx.SetStatusCode(201); ctx.SetBody(body) },
			MaxIdleWorkerDuration: 50 * time.Millisecond, // the goroutine behind it ends so much later than the server
		}
		done := make(chan error)
		go func() { done <- s.Serve(l) }()
		hammer(b, l.Addr().String(), "POST /v1/tickets HTTP/1.1\r\nHost: a\r\nContent-Length: 17\r\n\r\n"+wanted, 201)
		if err := s.Shutdown(); err != nil {
			b.Fatal(err)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	})
}

// other returns the key with another last character.
func other(key string) string {
	if strings.HasSuffix(key, "A") {
		return key[:len(key)-1] + "E"
	}
	return key[:len(key)-1] + "A"
}

// hammer sends text over 32 connections and reads the answers.
func hammer(b *testing.B, addr, text string, status int) {
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		var c net.Conn
		var r *bufio.Reader
		var res fasthttp.Response
		for n := 0; pb.Next(); n++ {
			if n%100 == 0 { // as many as the front end answers on one
				if c != nil {
					_ = c.Close()
				}
				var err error
				if c, err = net.Dial("tcp", addr); err != nil {
					b.Error(err)
					return
				}
				r = bufio.NewReader(c)
			}
			if _, err := io.WriteString(c, text); err != nil {
				b.Error(err)
				return
			}
			if err := res.Read(r); err != nil || res.StatusCode() != status {
				b.Errorf("%v, %d %s", err, res.StatusCode(), res.Body())
				return
			}
		}
		if c != nil {
			_ = c.Close()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
}
