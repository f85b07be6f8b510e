package main_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ticketgate/tools/rig"
)

// A unit is what systemd would start: a gateway with descriptors and the variables that tell of them.
type unit struct {
	cmd *exec.Cmd
	log *bufio.Reader
}

// activate starts a gateway with files, which have these names with colons between. The shell is there because only it
// knows the process's own number ($$) before the gateway runs; pid may be another.
func activate(t *testing.T, config, pid, names string, files ...*os.File) *unit {
	t.Helper()
	bin, err := rig.Binary(t.Context(), binDir)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "/bin/sh", "-c", "LISTEN_PID="+pid+` exec "$@"`, "sh", bin, "serve", "--config", config)
	c.Env = append(os.Environ(), "LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES="+names)
	c.ExtraFiles = files
	log, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return &unit{c, bufio.NewReader(log)}
}

// serving waits until u serves.
func (u *unit) serving(t *testing.T) (at served) {
	t.Helper()
	line, err := u.log.ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &at) != nil || at.Msg != "serving" {
		_ = u.cmd.Process.Kill()
		code, rest := u.ended(t)
		t.Fatalf("the first line of the log is %q, %v; exit %d, %s", line, err, code, rest)
	}
	return at
}

// ended waits until u has ended, and returns what it still said.
func (u *unit) ended(t *testing.T) (code int, said string) {
	t.Helper()
	rest, err := io.ReadAll(u.log)
	if err != nil {
		t.Error(err)
	}
	_ = u.cmd.Wait() // the exit code is looked at
	return u.cmd.ProcessState.ExitCode(), string(rest)
}

// stop ends u in order.
func (u *unit) stop(t *testing.T) {
	t.Helper()
	if err := u.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, said := u.ended(t); code != 0 {
		t.Errorf("exit %d, %s", code, said)
	}
}

// passed is a listening socket as systemd passes it.
func passed(t *testing.T, network, address string) *os.File {
	t.Helper()
	var cfg net.ListenConfig
	cfg.SetMultipathTCP(false)
	ln, err := cfg.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	f, err := ln.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// served is what a gateway has said of where it listens.
type served struct{ Msg, Handshake, Gate, Admin string }

// listeners are all of them, the gate's first.
func (s *served) listeners() []string { return append(strings.Fields(s.Gate), s.Handshake, s.Admin) }

// reach connects to a listener, which is written as the configuration has it.
func reach(t *testing.T, listener string) net.Conn {
	t.Helper()
	network, address := "tcp", listener
	if path, ok := strings.CutPrefix(listener, "unix:"); ok {
		network, address = "unix", path
	}
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatalf("%s: %v", listener, err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// answers asks each of the connections, which are to s.listeners(), for /healthz: the gate has no such page.
func (s *served) answers(t *testing.T, conns []net.Conn) {
	t.Helper()
	for i, c := range conns {
		want := "HTTP/1.1 200"
		if i < len(strings.Fields(s.Gate)) {
			want = "HTTP/1.1 404"
		}
		_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n")
		head, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.HasPrefix(head, want) {
			t.Errorf("%s answers %q, %v, want %s", s.listeners()[i], head, err, want)
		}
	}
}

// open connects to every listener.
func (s *served) open(t *testing.T) (conns []net.Conn) {
	t.Helper()
	for _, l := range s.listeners() {
		conns = append(conns, reach(t, l))
	}
	return conns
}

// configured is a file with text.
func configured(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ticketgate.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// freeYAML listens at addresses that are free.
const freeYAML = `
version: 1
listen:
  handshake: { address: "127.0.0.1:0" }
  gate: { address: "127.0.0.1:0", public_url: "ws://gate.test" }
  admin: { address: "127.0.0.1:0" }
drain: { over: 0s, grace: 0s }
`

// takenYAML has addresses that nobody can listen at: what is passed has to stand in for all of them.
const takenYAML = `
version: 1
listen:
  handshake: { address: "unix:/dev/zero" }
  gate: { address: ["unix:/dev/null"], public_url: "ws://gate.test" }
  admin: { address: "unix:/dev/null/x" }
drain: { over: 0s, grace: 0s }
`

// TestActivation: sockets of systemd's are served, outlive the gateway with all that waits in them, and are served again by
// the next one.
func TestActivation(t *testing.T) {
	dir := t.TempDir()
	file := configured(t, takenYAML)
	files := []*os.File{
		passed(t, "tcp", "127.0.0.1:0"), passed(t, "unix", filepath.Join(dir, "handshake")), passed(t, "unix", filepath.Join(dir, "gate")),
		passed(t, "tcp", "127.0.0.1:0"),
	}
	const names = "gate:handshake:gate:admin"
	first := activate(t, file, "$$", names, files...)
	at := first.serving(t)
	if gates := strings.Fields(at.Gate); len(gates) != 2 || gates[1] != "unix:"+filepath.Join(dir, "gate") || at.Handshake != "unix:"+filepath.Join(dir, "handshake") {
		t.Errorf("it serves %+v", at)
	}
	at.answers(t, at.open(t))
	first.stop(t)
	waiting := at.open(t)
	second := activate(t, file, "$$", names, files...)
	if again := second.serving(t); again != at {
		t.Errorf("the second serves %+v, the first %+v", again, at)
	}
	at.answers(t, waiting)
	second.stop(t)
}

// TestActivationRefused: sockets that cannot stand in for anything end the gateway at once, with what to do.
func TestActivationRefused(t *testing.T) {
	dir := t.TempDir()
	file := configured(t, freeYAML)
	bound := configured(t, freeYAML+"tickets: { bind_ip: true }\n")
	local, everywhere, path := passed(t, "tcp", "127.0.0.1:0"), passed(t, "tcp", ":0"), passed(t, "unix", filepath.Join(dir, "s"))
	regular, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	deaf := os.NewFile(uintptr(fd), "socket")
	defer deaf.Close()
	for _, c := range []struct {
		name, config, names string
		files               []*os.File
		want                []string
	}{
		{"unknown name", file, "ticketgate.socket", []*os.File{local}, []string{`a socket called "ticketgate.socket": set FileDescriptorName=`}},
		{"no names", file, "", []*os.File{local, path}, []string{`called "LISTEN_FD_3"`, `called "LISTEN_FD_4"`}},
		{"two for one", file, "admin:admin", []*os.File{local, path}, []string{`two sockets called "admin": only the gate`}},
		{"no socket for the gate", file, "gate", []*os.File{regular}, []string{"the socket that systemd has passed for the gate: "}},
		{"deaf gate", file, "gate", []*os.File{deaf}, []string{"for the gate: ", "not a socket that listens for streams"}},
		{"no socket for the handshake", file, "handshake", []*os.File{regular}, []string{"the socket that systemd has passed as handshake: "}},
		{"deaf handshake", file, "handshake", []*os.File{deaf}, []string{"as handshake: it does not listen"}},
		{"open admin", file, "admin", []*os.File{everywhere}, []string{"listen.admin.token: missing", "can be reached from elsewhere"}},
		{"nothing to bind to", bound, "handshake", []*os.File{path}, []string{"tickets.bind_ip: who asks over a unix socket"}},
	} {
		code, said := activate(t, c.config, "$$", c.names, c.files...).ended(t)
		for _, want := range c.want {
			if code != 1 || !strings.Contains(said, want) {
				t.Errorf("%s: exit %d, %q, want %q", c.name, code, said, want)
			}
		}
	}
}

// TestActivationOfAnother: what was passed to another process is none of ours.
func TestActivationOfAnother(t *testing.T) {
	file := configured(t, freeYAML)
	f := passed(t, "tcp", "127.0.0.1:0")
	u := activate(t, file, "1", "admin", f)
	at := u.serving(t)
	at.answers(t, at.open(t))
	ln, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if at.Admin == ln.Addr().String() {
		t.Error("it took the socket")
	}
	u.stop(t)
}
