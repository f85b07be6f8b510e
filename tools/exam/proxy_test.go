package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// dialThrough runs a proxy in front of a server that sends back what it is sent, and connects through it.
func dialThrough(t *testing.T, seed string) (be func(string) string, dial func() net.Conn) {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	in, out, done := make(chan string), make(chan string), make(chan error, 1)
	go func() {
		done <- runProxy([]string{seed, server.Addr().String(), time.Second.String()}, func() (string, bool) { s, ok := <-in; return s, ok },
			func(format string, args ...any) { out <- strings.TrimSpace(fmt.Sprintf(format, args...)) })
	}()
	t.Cleanup(func() {
		close(in)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	address := <-out
	return func(how string) string { in <- how; return <-out }, func() net.Conn {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
}

func roundTrip(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("%q came back as %q, %v", text, got, err)
	}
}

func TestProxy(t *testing.T) {
	be, dial := dialThrough(t, "1")
	const commands = "*1\r\n$4\r\nPING\r\n*1\r\n$7\r\nEVALSHA\r\n*1\r\n$7\r\nEVALSHA\r\n"
	c := dial()
	roundTrip(t, c, commands)
	for i := range commands { // each command in pieces
		roundTrip(t, c, commands[i:i+1])
	}
	if got := be("pass"); got != "2 4 1 0" {
		t.Errorf("seen %q, want 2 pings, 4 scripts, 1 connection, 0 cut", got)
	}

	be("stall")
	if _, err := c.Write([]byte(commands)); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("during a stall %d bytes came, %v", n, err)
	}
	if got := be("stall"); got != "3 6 1 0" {
		t.Errorf("seen %q in the stall, want what it holds back, too", got)
	}
	be("pass")
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, len(commands))); err != nil {
		t.Errorf("after the stall: %v", err)
	}
}

func TestProxySlow(t *testing.T) {
	be, dial := dialThrough(t, "2")
	be("slow")
	cut, slow := false, 0
	for range 500 { // of which chance cuts one, unless it never does
		c := dial()
		begun := time.Now()
		_, err := c.Write([]byte("x"))
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		switch took := time.Since(begun); {
		case err != nil:
			cut = true
		case took < slowMean/2:
			t.Errorf("a round trip of %v, want at least %v", took, slowMean/2)
		default:
			slow++
		}
		if cut && slow > 2 {
			return
		}
	}
	t.Errorf("cut: %v, slow round trips %d; want some of each", cut, slow)
}
