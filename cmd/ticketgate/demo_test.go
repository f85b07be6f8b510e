package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"ticketgate/tools/rig"
)

// TestDemoPage drives the demo page of "ticketgate dev" in a real browser: ticket, socket, echo, close, and what a person
// is told when the same ticket is used again.
func TestDemoPage(t *testing.T) {
	_, err := rig.Binary(t.Context(), binDir)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	base := startDev(ctx, t)
	ctx, stop := browser(ctx, t)
	defer stop()
	page := "http://127.0.0.1:" + strconv.Itoa(base) + "/demo/"
	var messages, state, again, ticket string
	err = chromedp.Run(ctx,
		chromedp.Navigate(page),
		chromedp.WaitEnabled(`#stream option:nth-child(2)`, chromedp.ByQuery),
		chromedp.SetValue("#stream", "echo", chromedp.ByID),
		chromedp.Click("#connect", chromedp.ByID),
		chromedp.WaitVisible(`#state[data-state=open]`, chromedp.ByQuery),
		chromedp.Text("#ticket", &ticket, chromedp.ByID),
		chromedp.SendKeys("#message", "hello from a page\n", chromedp.ByID),
		chromedp.WaitVisible(`#log li:nth-child(2)`, chromedp.ByQuery),
		chromedp.Text("#log", &messages, chromedp.ByID),
		chromedp.Click("#close", chromedp.ByID),
		chromedp.WaitVisible(`#state[data-state=closed]`, chromedp.ByQuery),
		chromedp.Text("#state", &state, chromedp.ByID),
		chromedp.Click("#replay", chromedp.ByID),
		chromedp.Poll(`document.querySelector("#state").textContent.includes("1006")`, nil),
		chromedp.Text("#state", &again, chromedp.ByID),
	)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(messages, "> hello from a page") || !strings.Contains(messages, "< hello from a page") {
		t.Errorf("messages: %q", messages)
	}
	if !strings.HasPrefix(state, "closed 1000") {
		t.Errorf("state after close: %q", state)
	}
	if !strings.Contains(again, "a ticket works once") {
		t.Errorf("state after the second use of a ticket: %q", again)
	}
	if !strings.HasPrefix(ticket, "tkt_") || !strings.Contains(ticket, "plan dev") {
		t.Errorf("ticket: %q", ticket)
	}
}

const packedYAML = `
version: 1
listen:
  handshake: { address: "127.0.0.1:0" }
  gate: { address: "127.0.0.1:0", public_url: "ws://gate.test", origins: [%q] }
  admin: { address: "127.0.0.1:0" }
secrets: { ticket_keys: "${file:ring}", key_hash: "${file:ring}" }
auth: { keys: { source: [keys.yaml] } }
products: { all: { streams: [echo], plans: [p] } }
plans: { p: { limits: { connections: { count: 2, per: client }, tickets: { rate: 1000/1minute, per: client } } } }
streams: { echo: { backend: mirror } }
backends: { mirror: { kind: echo } }
websocket: { compression: on }
`

// talk is what a page does: it opens a socket, sends a long message, and tells what was agreed and what came back.
const talk = `{
	const s = new WebSocket(%q, %s);
	s.onopen = () => s.send("a page has much to say; ".repeat(100));
	s.onmessage = e => window.heard = s.extensions + " | " + e.data;
	s.onclose = e => window.heard = "closed with " + e.code;
}`

// TestCompressedPage: a browser offers compression by itself, and a long message goes there and back compressed.
func TestCompressedPage(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	bin, err := rig.Binary(ctx, binDir)
	must(t, err)
	ring, err := rig.Ring()
	must(t, err)
	key, err := rig.NewKey(ring, "page", "page", "all", "p", "delegate")
	must(t, err)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<title>page</title>") }))
	defer site.Close()
	node, err := rig.Start(ctx, &rig.StartOptions{Binary: bin, Dir: t.TempDir(), Config: fmt.Sprintf(packedYAML, site.URL),
		Files: map[string]string{"ring": ring, "keys.yaml": key.Entry}})
	must(t, err)
	t.Cleanup(func() { must(t, node.Stop()) })
	ticket, err := rig.Issue(ctx, http.DefaultClient, node.Handshake, key.Text, map[string]string{"stream": "echo", "client": "page"})
	must(t, err)
	protocols, err := json.Marshal(ticket.Protocols)
	must(t, err)
	ctx, stop := browser(ctx, t)
	defer stop()
	var heard string
	err = chromedp.Run(ctx,
		chromedp.Navigate(site.URL),
		chromedp.Evaluate(fmt.Sprintf(talk, "ws://"+node.Gate+ticket.Path(), protocols), nil),
		chromedp.Poll(`window.heard`, &heard),
	)
	must(t, err)
	agreed, message, _ := strings.Cut(heard, " | ")
	if !strings.HasPrefix(agreed, "permessage-deflate") || message != strings.Repeat("a page has much to say; ", 100) {
		t.Errorf("agreed to %q; heard %q", agreed, message)
	}
}

// browser starts headless Chromium.
func browser(ctx context.Context, t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is not installed: apt-get install chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-sync", true), chromedp.Flag("disable-component-update", true),
		chromedp.ModifyCmdFunc(func(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }))
	ctx, stopProcess := chromedp.NewExecAllocator(ctx, options...)
	ctx, stopTab := chromedp.NewContext(ctx)
	return ctx, func() {
		if err := chromedp.Cancel(ctx); err != nil { // closes the browser in order and waits until it is gone
			t.Logf("close the browser: %v", err)
		}
		stopTab()
		stopProcess()
	}
}

// startDev runs "ticketgate dev" on free ports and returns the first of the three.
func startDev(ctx context.Context, t *testing.T) int {
	t.Helper()
	bin, err := rig.Binary(ctx, binDir)
	must(t, err)
	for range 5 { // another process may take a port between looking and using it
		base := freePorts(t)
		c := exec.Command(bin, "dev", "--port", strconv.Itoa(base))
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		must(t, err)
		must(t, c.Start())
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "try:") {
				t.Cleanup(func() {
					_ = c.Process.Signal(syscall.SIGTERM)
					if err := c.Wait(); err != nil {
						t.Errorf("dev: %v", err)
					}
				})
				return base
			}
		}
		_ = c.Wait()
	}
	t.Fatal("dev did not start on five tries")
	return 0
}

// freePorts finds three ports in a row.
func freePorts(t *testing.T) int {
	t.Helper()
	for base := 20000; base < 60000; base += 3 {
		var taken bool
		for i := range 3 {
			l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(base+i))
			if err != nil {
				taken = true
				break
			}
			must(t, l.Close())
		}
		if !taken {
			return base
		}
	}
	t.Fatal("no three free ports in a row")
	return 0
}
