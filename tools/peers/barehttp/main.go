// Command barehttp answers every POST with a fixed 201: fasthttp and nothing else. The gateway's ticket endpoint is
// compared with it, by a client that gets one of the gateway's own tickets from both: what it does with it is then as long too. It prints
// its address and ends on SIGTERM.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/valyala/fasthttp"
)

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	answer := flag.String("answer", "{}", "the answer's body")
	requests := flag.Int("requests", 100, "requests on a connection before it is closed, as the gateway does")
	flag.Parse()
	if err := run(*address, *answer, *requests); err != nil {
		fmt.Fprintln(os.Stderr, "barehttp:", err)
		os.Exit(1)
	}
}

func run(address, answer string, requests int) error {
	body := []byte(answer)
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	s := &fasthttp.Server{
		MaxRequestsPerConn: requests,
		Handler: func(c *fasthttp.RequestCtx) {
			c.SetStatusCode(fasthttp.StatusCreated)
			c.SetContentType("application/json")
			c.SetBody(body)
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
