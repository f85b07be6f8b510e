// Package peers_test runs the programs as the bench does.
package peers_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var programs string // the folder with all of them

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "peers")
	if err != nil {
		panic(err)
	}
	programs = dir
	out, err := exec.Command("go", "build", "-o", dir+"/", "./...").CombinedOutput()
	code := 1
	if err == nil {
		code = m.Run()
	}
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		panic(fmt.Sprintf("%v: %s", err, out))
	}
	os.Exit(code)
}

// start runs a program and returns its address. It ends with the test, by SIGTERM and with 0.
func start(t *testing.T, name string, args ...string) string {
	t.Helper()
	address, stop := run(t, name, args...)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	return address
}

// run starts a program. stop sends it SIGTERM and waits for it, and kills what does not end by that; call it once.
func run(t *testing.T, name string, args ...string) (address string, stop func() error) {
	t.Helper()
	c := command(t, name, args...)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	stop = func() error { return end(c) }
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(errors.Join(err, stop()))
	}
	return strings.TrimSpace(line), stop
}

func end(c *exec.Cmd) error {
	return errors.Join(c.Process.Signal(syscall.SIGTERM), wait(c))
}

// wait waits for a program that is about to end.
func wait(c *exec.Cmd) error {
	late := time.AfterFunc(10*time.Second, func() { c.Process.Kill() }) //nolint:errcheck // Wait says that it was killed
	defer late.Stop()
	return c.Wait()
}

func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(filepath.Join(programs, name), args...)
	if name == "npmws" {
		c = exec.Command(installed(t, "node"), append([]string{npmws(t)}, args...)...)
	}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it outlives no test that panics
	return c
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp4", address)
	if err == nil {
		err = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// exchange writes in, and reads as much as want at the same time.
func exchange(t *testing.T, c net.Conn, in, want []byte) {
	t.Helper()
	wrote := make(chan error, 1)
	go func() { // it is waited for below
		_, err := c.Write(in)
		wrote <- err
	}()
	got := make([]byte, len(want))
	_, err := io.ReadFull(c, got)
	if err := errors.Join(err, <-wrote); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes came back changed, or not: %v", len(want), err)
	}
}

func TestEcho(t *testing.T) {
	address := start(t, "epollecho")
	for range 3 {
		c := dial(t, address)
		exchange(t, c, []byte("hello"), []byte("hello"))
		long := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // more than all buffers between
		exchange(t, c, long, long)
		exchange(t, c, []byte("again"), []byte("again"))
	}
}

// Whoever does not read is not read: what a server holds for it has an end.
func TestEchoStops(t *testing.T) {
	const most = 48 << 20 // more than the kernel holds on the way there and back
	c := dial(t, start(t, "epollecho"))
	part := make([]byte, 1<<20)
	for sent := 0; ; {
		if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Write(part)
		if sent += n; sent >= most {
			t.Fatalf("it took %d bytes that nobody reads", sent)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

const upgrade = " HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// switched sends the upgrade in two pieces and reads the 101.
func switched(t *testing.T, c net.Conn) *bufio.Reader {
	t.Helper()
	return switchedAt(t, c, "/t/x")
}

func switchedAt(t *testing.T, c net.Conn, path string) *bufio.Reader {
	t.Helper()
	for _, part := range []string{"GET " + path + upgrade[:20], upgrade[20:]} {
		if _, err := io.WriteString(c, part); err != nil {
			t.Fatal(err)
		}
	}
	in := bufio.NewReader(c)
	accepted := false
	for first := true; ; first = false {
		line, err := in.ReadString('\n')
		if err != nil || first && !strings.HasPrefix(line, "HTTP/1.1 101 ") {
			t.Fatalf("%q, %v", line, err)
		}
		name, value, _ := strings.Cut(line, ": ")
		if strings.EqualFold(name, "Sec-WebSocket-Accept") && value == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" { // RFC 6455 1.3
			accepted = true
		}
		if line == "\r\n" && !accepted {
			t.Fatal("101 without the right Sec-WebSocket-Accept")
		}
		if line == "\r\n" {
			return in
		}
	}
}

// Every POST is answered with the same bytes, and after -requests of them the connection ends.
func TestBareHTTP(t *testing.T) {
	const answer = `{"url":"ws://h/t/x","protocols":["ticketgate.v1","tgs_x"]}`
	c := dial(t, start(t, "barehttp", "-answer", answer, "-requests", "2"))
	in := bufio.NewReader(c)
	for range 2 {
		if _, err := io.WriteString(c, "POST /v1/tickets HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"); err != nil {
			t.Fatal(err)
		}
		got, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(got.Body)
		if err := errors.Join(err, got.Body.Close()); err != nil || got.StatusCode != http.StatusCreated || string(body) != answer {
			t.Errorf("%s, %q, %v", got.Status, body, err)
		}
	}
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestAccept(t *testing.T) {
	c := dial(t, start(t, "epollaccept"))
	in := switched(t, c)
	if _, err := c.Write([]byte("\x88\x82\x00\x00\x00\x00\x03\xe8")); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(in); string(rest) != "\x88\x02\x03\xe8" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

// With -refuse each request, whole or in pieces, gets those bytes and the end.
func TestRefuse(t *testing.T) {
	const answer = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}"
	address := start(t, "epollaccept", "-refuse", answer)
	for _, pieces := range [][]string{{"GET / HTTP/1.1\r\n\r\n"}, {"GET / HT", "TP/1.1\r\n\r\n"}} {
		c := dial(t, address)
		for _, piece := range pieces {
			if _, err := io.WriteString(c, piece); err != nil {
				t.Fatal(err)
			}
		}
		if all, err := io.ReadAll(c); string(all) != answer || err != nil {
			t.Errorf("%q, %v", all, err)
		}
	}
}

// Every socket is pinged once in the time that -ping says; a pong ends nothing.
func TestPing(t *testing.T) {
	c := dial(t, start(t, "epollaccept", "-ping", "1s", "-calm"))
	in := switched(t, c)
	var at []time.Time
	for range 3 {
		frame := make([]byte, 2)
		if _, err := io.ReadFull(in, frame); err != nil || string(frame) != "\x89\x00" {
			t.Fatalf("%x, %v", frame, err)
		}
		at = append(at, time.Now())
		if _, err := c.Write([]byte("\x8a\x80\x00\x00\x00\x00")); err != nil {
			t.Fatal(err)
		}
	}
	if d := at[2].Sub(at[0]); d < time.Second || d > 5*time.Second {
		t.Errorf("two pings in %s", d)
	}
	if _, err := c.Write([]byte("\x88\x80\x00\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(in); string(rest) != "\x88\x02\x03\xe8" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

// With -bursts sockets have their turn in so many bursts, evenly apart, and each once in the time that -ping says.
func TestPingBursts(t *testing.T) {
	const every, bursts = 1500 * time.Millisecond, 3
	t.Setenv("GOMAXPROCS", "1") // one loop: turns go by descriptor
	address := start(t, "epollaccept", "-ping", every.String(), "-bursts", fmt.Sprint(bursts), "-calm")
	var ins []*bufio.Reader
	for range bursts {
		ins = append(ins, switched(t, dial(t, address)))
	}
	type heard struct {
		at  []time.Time
		err error
	}
	all := make(chan heard, bursts)
	for _, in := range ins {
		go func() { // it is waited for below
			var h heard
			for range 3 {
				frame := make([]byte, 2)
				if _, h.err = io.ReadFull(in, frame); h.err != nil || string(frame) != "\x89\x00" {
					break
				}
				h.at = append(h.at, time.Now())
			}
			all <- h
		}()
	}
	var second []time.Time
	for range bursts {
		h := <-all
		if len(h.at) < 3 {
			t.Fatalf("%d pings, %v", len(h.at), h.err)
		}
		if d := h.at[2].Sub(h.at[0]); d < every || d > 5*every { // it is 3 s
			t.Errorf("two pings in %s", d)
		}
		second = append(second, h.at[1])
	}
	slices.SortFunc(second, time.Time.Compare)
	if d := second[bursts-1].Sub(second[0]); d < every/3 { // it is 1 s
		t.Errorf("all within %s", d)
	}
}

// The relay passes the upgrade, messages larger than all buffers, and the end.
func TestRelay(t *testing.T) {
	address := start(t, "epollrelay", "-backend", start(t, "wsecho"))
	for range 3 {
		c := dial(t, address)
		in := switched(t, c)
		if in.Buffered() > 0 {
			t.Fatal("bytes behind the 101")
		}
		payload := bytes.Repeat([]byte("x"), 8<<20)
		exchange(t, c, append([]byte("\x82\xff\x00\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00"), payload...),
			append([]byte("\x82\x7f\x00\x00\x00\x00\x00\x80\x00\x00"), payload...))
		exchange(t, c, []byte("\x81\x85\x00\x00\x00\x00hello"), []byte("\x81\x05hello"))
		exchange(t, c, []byte("\x88\x80\x00\x00\x00\x00"), []byte("\x88\x00"))
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after the close frame: %d bytes, %v", n, err)
		}
	}
}

// The bare client counts what it sends and hears, one message at a time or several, whose answers come in one read.
func TestClient(t *testing.T) {
	for _, inFlight := range []int{1, 16} {
		out, err := exec.Command(filepath.Join(programs, "epollclient"), "-address", start(t, "wsecho"), "-sockets", "5", "-bytes", "300", "-in-flight", fmt.Sprint(inFlight), "-for", "100ms").Output()
		var got struct{ Messages, CPU int64 }
		if err == nil {
			err = json.Unmarshal(bytes.Replace(out, []byte("cpu_ns"), []byte("cpu"), 1), &got)
		}
		if err != nil || got.Messages < 5*int64(inFlight) || got.CPU <= 0 {
			t.Errorf("%d in flight: %s, %v", inFlight, out, err)
		}
	}
}

// What keeps a core busy takes processor time, and ends when it is told to.
func TestSpin(t *testing.T) {
	began := time.Now()
	c := command(t, "spin")
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "spinning\n" {
		t.Errorf("%q, %v", line, err)
	}
	for busy := time.Duration(0); busy < 50*time.Millisecond; {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", c.Process.Pid))
		busy = 0
		for _, one := range threads {
			b, _ := os.ReadFile(one) // it may be gone
			var ran time.Duration
			_, _ = fmt.Sscan(string(b), &ran)
			busy += ran
		}
		if err != nil || time.Since(began) > 20*time.Second {
			t.Fatalf("busy for %s: %v", busy, err)
		}
	}
	if err := end(c); err != nil {
		t.Error(err)
	}
}

// A client that goes takes its backend connection with it, and a backend its client.
func TestRelayEnds(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := start(t, "epollrelay", "-backend", l.Addr().String())
	pair := func() (client, backend net.Conn) {
		client = dial(t, address)
		if _, err := client.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		backend, err := l.Accept()
		if err == nil {
			err = backend.SetDeadline(time.Now().Add(20 * time.Second))
		}
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 2)
		if _, err := io.ReadFull(backend, got); err != nil || string(got) != "hi" {
			t.Fatalf("%q, %v", got, err)
		}
		return client, backend
	}
	for _, c := range []struct {
		name           string
		first, hearing func(client, backend net.Conn) net.Conn
	}{
		{"client", func(c, _ net.Conn) net.Conn { return c }, func(_, b net.Conn) net.Conn { return b }},
		{"backend", func(_, b net.Conn) net.Conn { return b }, func(c, _ net.Conn) net.Conn { return c }},
	} {
		client, backend := pair()
		c.first(client, backend).Close()
		if n, err := c.hearing(client, backend).Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("the %s went: %d bytes, %v", c.name, n, err)
		}
		client.Close()
		backend.Close()
	}
}
