package peers_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"
)

// libraries are the servers that have /echo and /feed; centrifuge has a protocol of its own.
var libraries = []string{"gorilla", "coder", "gobwas", "gws", "npmws"}

// feeds are the servers that have a feed, and how it is heard.
var feeds = map[string]func(*testing.T, net.Conn) func() []byte{
	"gorilla": hear, "coder": hear, "gobwas": hear, "gws": hear, "npmws": hear, "centrifuge": hearPushes,
}

// installed finds a program that is not ours.
func installed(t *testing.T, name string) string {
	t.Helper()
	for _, at := range []string{name, "/usr/sbin/" + name} { // which is not in everyone's path
		if path, err := exec.LookPath(at); err == nil {
			return path
		}
	}
	t.Fatalf("this test needs %s: \"make needs\" in the root of the repository installs it", name)
	return ""
}

var install = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(programs, "npmws")
	err := os.CopyFS(dir, os.DirFS("npmws"))
	if err != nil {
		return "", err
	}
	c := exec.Command("npm", "ci", "--ignore-scripts") // packages come with what they would build
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w: %s", err, out)
	}
	return filepath.Join(dir, "main.js"), nil
})

// npmws returns the server on node, in a copy beside its packages.
func npmws(t *testing.T) string {
	t.Helper()
	installed(t, "npm")
	path, err := install()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	text = 0x81 // first byte of a whole text message
	blob = 0x82
)

// frame is a message in one frame, masked if a client sends it.
func frame(first byte, payload []byte, masked bool) []byte {
	f := []byte{first, 0}
	switch n := len(payload); {
	case n < 126:
		f[1] = byte(n)
	case n <= 0xffff:
		f[1] = 126
		f = binary.BigEndian.AppendUint16(f, uint16(n))
	default:
		f[1] = 127
		f = binary.BigEndian.AppendUint64(f, uint64(n))
	}
	if !masked {
		return append(f, payload...)
	}
	f[1] |= 0x80
	key := []byte{1, 2, 3, 4}
	f = append(f, key...)
	for i, b := range payload {
		f = append(f, b^key[i&3])
	}
	return f
}

// receive reads an unmasked frame of text.
func receive(in io.Reader) ([]byte, error) {
	head := make([]byte, 2, 10)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, err
	}
	long := map[byte]int{126: 2, 127: 8}[head[1]]
	if _, err := io.ReadFull(in, head[2:2+long]); err != nil {
		return nil, err
	}
	size := uint64(head[1])
	switch long {
	case 2:
		size = uint64(binary.BigEndian.Uint16(head[2:4]))
	case 8:
		size = binary.BigEndian.Uint64(head[2:10])
	}
	if head[0] != text || size > 1<<20 {
		return nil, fmt.Errorf("not text: %x", head)
	}
	payload := make([]byte, size)
	_, err := io.ReadFull(in, payload)
	return payload, err
}

func TestLibrariesEcho(t *testing.T) {
	for _, name := range libraries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, start(t, name))
			if in := switchedAt(t, c, "/echo"); in.Buffered() > 0 {
				t.Fatal("bytes behind the 101")
			}
			for _, size := range []int{1, 125, 126, 70000, 1 << 20, 5} {
				payload := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
				for _, first := range []byte{text, blob} {
					exchange(t, c, frame(first, payload, true), frame(first, payload, false))
				}
			}
			exchange(t, c, frame(0x89, []byte("hi"), true), frame(0x8a, []byte("hi"), false))
			exchange(t, c, frame(0x88, []byte{3, 232}, true), []byte{0x88})
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("after the close frame: %v", err)
			}
		})
	}
}

// hear subscribes, and returns what reads the next message; nil: it came to an end.
func hear(t *testing.T, c net.Conn) func() []byte {
	t.Helper()
	in := switchedAt(t, c, "/feed")
	return func() []byte {
		message, err := receive(in)
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		return message
	}
}

// hearPushes is hear in centrifuge's protocol, where a frame has one message or more.
func hearPushes(t *testing.T, c net.Conn) func() []byte {
	t.Helper()
	in := switchedAt(t, c, "/connection/websocket")
	if _, err := c.Write(frame(text, []byte(`{"id":1,"connect":{}}`), true)); err != nil {
		t.Fatal(err)
	}
	var waiting [][]byte
	next := func() []byte {
		if len(waiting) == 0 {
			lines, err := receive(in)
			if err != nil {
				t.Fatal(err)
			}
			waiting = bytes.Split(bytes.TrimSpace(lines), []byte("\n"))
		}
		line := waiting[0]
		waiting = waiting[1:]
		return line
	}
	reply := next()
	var connected struct {
		ID      int
		Connect struct{ Subs map[string]any }
	}
	if err := json.Unmarshal(reply, &connected); err != nil || connected.ID != 1 || connected.Connect.Subs["feed"] == nil {
		t.Fatalf("connect: %s, %v", reply, err)
	}
	return func() []byte {
		line := next()
		var got struct {
			Push struct {
				Channel string
				Pub     struct{ Data json.RawMessage }
			}
		}
		if err := json.Unmarshal(line, &got); err != nil || got.Push.Channel != "feed" {
			t.Fatalf("%s, %v", line, err)
		}
		return got.Push.Pub.Data
	}
}

// sent is when a message of that size says it was sent.
func sent(t *testing.T, message []byte, size int) time.Time {
	t.Helper()
	var m struct{ Time, Pad string }
	err := json.Unmarshal(message, &m)
	var at time.Time
	if err == nil {
		at, err = time.Parse("2006-01-02T15:04:05.000000000Z", m.Time)
	}
	if err != nil || len(message) != size || !strings.HasPrefix(string(message), `{"time":"`) || strings.Trim(m.Pad, "x") != "" {
		t.Fatalf("%d bytes, not %d: %.80q, %v", len(message), size, message, err)
	}
	return at
}

// All subscribers hear the same, from when they came.
func TestLibrariesFeed(t *testing.T) {
	for name, hear := range feeds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{64, 200} {
				before := time.Now()
				address := start(t, name, "--every", "20ms", "--bytes", fmt.Sprint(size))
				first, second := hear(t, dial(t, address)), hear(t, dial(t, address))
				message := second()
				other := first()
				for sent(t, other, size).Before(sent(t, message, size)) { // the first one came earlier
					other = first()
				}
				last := before.Add(-time.Second) // the clock of node is behind by less
				for range 5 {
					at := sent(t, message, size)
					if !bytes.Equal(message, other) || !at.After(last) || time.Until(at) > time.Second {
						t.Fatalf("%s and %s, after %s", message, other, last)
					}
					message, other, last = second(), first(), at
				}
			}
		})
	}
}

// A subscriber that reads nothing loses messages, or is closed, and others stay. That of centrifuge is the library's own doing, and
// closes whoever did not take a write within a second: on a busy machine also the one that reads.
func TestLibrariesFeedSlow(t *testing.T) {
	const (
		size  = 64 << 10
		count = 400 // 25 MiB: more than a server's queue and both kernels' buffers hold
	)
	for _, name := range libraries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := start(t, name, "--every", "6ms", "--bytes", fmt.Sprint(size))
			slow, quick := hear(t, dial(t, address)), hear(t, dial(t, address))
			begin := sent(t, quick(), size)
			for range count - 2 {
				if quick() == nil {
					t.Fatal("the one that reads was closed")
				}
			}
			end := sent(t, quick(), size)
			heard := 0
			for message := slow(); message != nil; message = slow() {
				at := sent(t, message, size)
				if at.After(end) {
					break
				}
				if !at.Before(begin) {
					heard++
				}
			}
			if heard >= count {
				t.Errorf("all %d messages waited for it", heard)
			}
		})
	}
}

// Sockets that are open keep no server from its end, and end with it.
func TestLibrariesEnd(t *testing.T) {
	for name := range feeds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, stop := run(t, name)
			paths := []string{"/echo", "/feed"}
			if name == "centrifuge" {
				paths = []string{"/connection/websocket"}
			}
			var sockets []*bufio.Reader
			for _, path := range paths {
				sockets = append(sockets, switchedAt(t, dial(t, address), path))
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			for i, in := range sockets {
				if _, err := io.Copy(io.Discard, in); err != nil && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%s: %v", paths[i], err)
				}
			}
		})
	}
}

// A server says what is wrong with its flags.
func TestLibrariesRefuse(t *testing.T) {
	for _, name := range []string{"gorilla", "npmws"} {
		c := command(t, name, "--bytes", "63")
		said := new(strings.Builder)
		c.Stderr = said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		err := wait(c)
		if c.ProcessState.ExitCode() != 1 || !strings.Contains(said.String(), "at least 64") {
			t.Errorf("%s: %s, %v", name, said, err)
		}
	}
}

// The relays that people have already pass messages both ways, with the configuration that the bench gives them.
func TestRelays(t *testing.T) {
	for _, r := range []struct {
		name, config string
		args         func(dir, file string) []string
		end          string // how it ends by SIGTERM
	}{
		{"nginx", "nginx.conf", func(dir, file string) []string { return []string{"-p", dir, "-c", file, "-e", "stderr"} }, "exit status 0"},
		{"haproxy", "haproxy.cfg", func(_, file string) []string { return []string{"-db", "-f", file} }, "signal: terminated"},
	} {
		for backend, whole := range map[string]bool{"wsecho": true, "gorilla": false} { // what the bench has, and one that checks the whole request
			t.Run(r.name+" before "+backend, func(t *testing.T) {
				t.Parallel()
				dir, address := t.TempDir(), freeAddress(t)
				file := filepath.Join(dir, r.config)
				render(t, filepath.Join(r.name, r.config), file, map[string]any{"Listen": address, "Backend": start(t, backend), "Dir": dir, "Whole": whole})
				relays(t, address, exec.Command(installed(t, r.name), r.args(dir, file)...), r.end)
			})
		}
	}
}

// relays starts a relay, has it pass messages both ways, and ends it with the socket open.
func relays(t *testing.T, address string, relay *exec.Cmd, want string) {
	t.Helper()
	relay.Stderr = os.Stderr
	relay.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it outlives no test that panics
	if err := relay.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceValue(func() error { return end(relay) })
	defer stop() //nolint:errcheck // it is looked at below, or the test has failed before
	listens(t, address)
	c := dial(t, address)
	if in := switchedAt(t, c, "/echo"); in.Buffered() > 0 {
		t.Fatal("bytes behind the 101")
	}
	long := bytes.Repeat([]byte("0123456789"), 7000)
	for _, payload := range [][]byte{[]byte("hello"), long} {
		exchange(t, c, frame(text, payload, true), frame(text, payload, false))
	}
	err := stop()
	if got := relay.ProcessState.String(); got != want {
		t.Errorf("%s, not %s: %v", got, want, err)
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("a socket is left")
	}
}

func render(t *testing.T, from, to string, values map[string]any) {
	t.Helper()
	f, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	form, err := template.ParseFiles(from)
	if err == nil {
		err = form.Option("missingkey=error").Execute(f, values)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// freeAddress is one on which nobody listened a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// listens waits until somebody accepts at address: these programs do not say when they do.
func listens(t *testing.T, address string) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for tries := 0; ; tries++ {
		c, err := net.Dial("tcp4", address)
		if err == nil {
			c.Close()
			return
		}
		if tries == 4000 {
			t.Fatal(err)
		}
		<-again.C
	}
}
