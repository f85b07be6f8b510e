package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestDevGreeting: the lines are those of the manual, in its order, and the line to try works.
func TestDevGreeting(t *testing.T) {
	var out, errs bytes.Buffer
	d, err := newDev(&env{stdout: &out, stderr: &errs}, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	serving, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- d.g.run(ctx, func() {
			d.greet()
			close(serving)
		})
	}()
	<-serving
	handshake, gate, admin := d.g.handshakeAddr.String(), d.g.gateAddrs[0].String(), d.g.admin.Addr().String()
	key := regexp.MustCompile(`tgk_dev_[A-Za-z0-9_-]{43}`)
	want := fmt.Sprintf(`ticketgate %s dev mode: in-memory store, loopback only, data gone on exit
  handshake  http://%-21s gate  ws://%s
  admin UI   http://%-21s demo  http://%s/demo/
  streams    echo (built-in backend)  clock (built-in feed, 1 msg/s)
  API key    KEY  (also in $TICKETGATE_KEY for `+"`ticketgate dev --shell`"+`)
try:  %s connect echo --url http://%s --key KEY
`, version, handshake, gate, admin, handshake, self(), handshake)
	if got := key.ReplaceAllString(out.String(), "KEY"); got != want {
		t.Errorf("the greeting is\n%swant\n%s", got, want)
	}
	_, try, _ := strings.Cut(out.String(), "try:  ")
	args := strings.Fields(try)[1:]
	if got := ticketgate(t, "hello\n", nil, args...); got.code != exitOK || got.out != "hello\n" || !strings.Contains(got.errors, "plan=dev  slots 1/2\n") {
		t.Errorf("%q: %+v", args, got)
	}
	if got := status(t, "http://"+handshake+"/demo/"); got != 200 {
		t.Errorf("the demo page answers %d", got)
	}
	stop()
	if err := <-ended; err != nil || errs.Len() != 0 {
		t.Errorf("ends with %v, prints %q", err, errs.String())
	}
}

// TestDevShell: the shell has the key and the address, and the gateway ends with it, whatever its last command's status was.
func TestDevShell(t *testing.T) {
	dir := t.TempDir()
	shell := filepath.Join(dir, "shell")
	if err := os.WriteFile(shell, []byte("#!/bin/sh\necho \"$TICKETGATE_KEY $TICKETGATE_URL\"\nexit 7\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	d, err := newDev(&env{environ: []string{"SHELL=" + shell}, stdin: strings.NewReader(""), stdout: &out, stderr: &errs}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.runShell(t.Context()); err != nil {
		t.Errorf("ends with %v", err)
	}
	if want := d.key + " http://" + d.g.handshakeAddr.String() + "\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("the shell prints %q, want it to end with %q", out.String(), want)
	}
	if _, err := net.Dial("tcp", d.g.handshakeAddr.String()); err == nil {
		t.Error("the gateway outlives the shell")
	}
	d, err = newDev(&env{environ: []string{"SHELL=" + dir + "/none"}, stdin: strings.NewReader(""), stdout: &out, stderr: &errs}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.runShell(t.Context()); err == nil || !strings.Contains(err.Error(), dir+"/none: no such file") {
		t.Errorf("without a shell it ends with %v", err)
	}
}

func TestDevRefused(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	port := busy.Addr().(*net.TCPAddr).Port
	base := port
	if base > 65533 {
		base = 65533 // the port is among the three all the same
	}
	got := ticketgate(t, "", nil, "dev", "--port", strconv.Itoa(base))
	hint := fmt.Sprintf("is another gateway running? dev needs ports %d to %d free, or --port BASE\n", base, base+2)
	if got.code != exitFailed || got.out != "" || !strings.HasSuffix(got.errors, hint) {
		t.Errorf("with a port taken: %+v", got)
	}
	for args, want := range map[string]string{
		"--port 0":     "dev: --port 0: want 1 to 65533; the two ports above it are used as well",
		"--port 65534": "dev: --port 65534: want 1 to 65533",
		"--port x":     `invalid argument "x" for "--port" flag`,
		"now":          `unknown command "now" for "ticketgate dev"`,
	} {
		if got := ticketgate(t, "", nil, append([]string{"dev"}, strings.Fields(args)...)...); got.code != exitUsage || !strings.Contains(got.errors, want) {
			t.Errorf("dev %s: %+v, want %q", args, got, want)
		}
	}
}

// TestURLFlag: the line to try is short where the port is the one that connect expects.
func TestURLFlag(t *testing.T) {
	for address, want := range map[string]string{"127.0.0.1:8080": "", "127.0.0.1:9000": " --url http://127.0.0.1:9000"} {
		a, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		d := &dev{g: &gateway{handshakeAddr: a}}
		if got := d.urlFlag(); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}
