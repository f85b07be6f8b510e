// Command barehttp answers every POST with a fixed 201: fasthttp and nothing else. The gateway's ticket endpoint is
// compared with it. It prints its address and ends on SIGTERM.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/valyala/fasthttp"
)

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	size := flag.Int("body", 400, "bytes of the answer's body")
	requests := flag.Int("requests", 100, "requests on a connection before it is closed, as the gateway does")
	flag.Parse()
	if err := run(*address, *size, *requests); err != nil {
		fmt.Fprintln(os.Stderr, "barehttp:", err)
		os.Exit(1)
	}
}

func run(address string, size, requests int) error {
	answer, err := body(size)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	s := &fasthttp.Server{
		MaxRequestsPerConn: requests,
		Handler: func(c *fasthttp.RequestCtx) {
			c.SetStatusCode(fasthttp.StatusCreated)
			c.SetContentType("application/json")
			c.SetBody(answer)
		},
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	fmt.Println(l.Addr())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	if err := s.Shutdown(); err != nil {
		return err
	}
	return <-failed
}

// body is JSON in the form of a ticket, padded to size, so that the client does the same work on it.
func body(size int) ([]byte, error) {
	const start, end = `{"url":"ws://127.0.0.1/t/bare","protocols":["ticketgate.v1","tgs_bare"],"pad":"`, `"}`
	if size < len(start)+len(end) {
		return nil, fmt.Errorf("-body is at least %d", len(start)+len(end))
	}
	return []byte(start + strings.Repeat("x", size-len(start)-len(end)) + end), nil
}
