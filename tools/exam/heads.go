package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"ticketgate/engine/upgrade/upgradetest"
)

func init() {
	tests[10] = test{"upgrade rules: the right status, answered once, closed, no second request", upgradeRules}
	tests[11] = test{"smuggling table at both doors: 400 or 501 and close, nothing behind the bad head is read", smuggling}
}

// doors are the two listeners that face the internet.
type doors struct {
	*cluster
	backend *rawBackend
}

func openDoors(ctx context.Context, x *exam) (*doors, error) {
	b, err := startRawBackend()
	if err != nil {
		return nil, err
	}
	c, err := start(ctx, x, clusterOptions{memory: true, backend: b.url()})
	if err != nil {
		return nil, errors.Join(err, b.ln.Close())
	}
	return &doors{c, b}, nil
}

func (d *doors) close() error { return errors.Join(d.cluster.close(), d.backend.ln.Close()) }

// headRow is one head, what follows it, and the statuses that are right.
type headRow struct {
	name    string
	raw     []byte
	address string
	want    []int
}

// sendHead sends one row and checks the answer: one status line, Connection: close, and the end of the connection.
func (d *doors) sendHead(ctx context.Context, row *headRow) error {
	answer, err := exchange(ctx, row.address, row.raw)
	if err != nil {
		return err
	}
	if n := bytes.Count(append([]byte("\n"), answer...), []byte("\nHTTP/1.1 ")); n != 1 {
		return fmt.Errorf("%d answers: %.200q", n, answer)
	}
	var status int
	if _, err := fmt.Sscanf(string(answer), "HTTP/1.1 %d ", &status); err != nil {
		return fmt.Errorf("no status line: %.100q", answer)
	}
	head, _, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	switch {
	case !contains(row.want, status):
		return fmt.Errorf("status %d, want %v", status, row.want)
	case !bytes.Contains(bytes.ToLower(head), []byte("\r\nconnection: close")):
		return fmt.Errorf("no Connection: close: %q", head)
	case status == 426 && !bytes.Contains(head, []byte("\r\nUpgrade: websocket")) && !bytes.Contains(head, []byte("\r\nSec-WebSocket-Version: 13")):
		return fmt.Errorf("426 without what to upgrade to: %q", head)
	}
	return nil
}

func contains(list []int, n int) bool {
	for _, v := range list {
		if v == n {
			return true
		}
	}
	return false
}

// exchange writes raw and reads until the other side closes. A reset behind an answer is a close too: the gate does not read
// what it has refused.
func exchange(ctx context.Context, address string, raw []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var dial net.Dialer
	conn, err := dial.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(8 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(raw); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return nil, err
	}
	answer, err := io.ReadAll(conn)
	if errors.Is(err, syscall.ECONNRESET) && len(answer) > 0 {
		err = nil
	}
	return answer, err
}

// second is a request that must never be answered: it stands behind every bad head.
const second = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"

func (d *doors) sit(ctx context.Context, x *exam, rows []headRow) {
	byStatus := map[int]int{}
	wrong := 0
	for i := range rows {
		if err := d.sendHead(ctx, &rows[i]); err != nil {
			wrong++
			x.want(false, "%s: %v", rows[i].name, err)
		}
		byStatus[rows[i].want[0]]++
	}
	x.figure("%d rows, wrong %d, by status %v, bytes at the backend %d", len(rows), wrong, byStatus, d.backend.data.Load())
	x.want(d.backend.data.Load() == 0, "%d bytes reached the backend", d.backend.data.Load())
}

// upgradeRules sends the table of handshakes to the gate. Where a row is a valid handshake its ticket is not one: 401.
func upgradeRules(ctx context.Context, x *exam) error {
	d, err := openDoors(ctx, x)
	if err != nil {
		return err
	}
	defer func() { x.want(d.close() == nil, "the node did not stop") }()
	gate, front := d.nodes[0].Gate, d.nodes[0].Handshake
	var rows []headRow
	for _, h := range upgradetest.Upgrades {
		row := headRow{"gate: " + h.Name, []byte(h.Raw + second), gate, []int{h.Status}}
		if h.Status == 101 {
			// Behind a valid head further bytes are an offence of their own.
			row.raw, row.want = []byte(h.Raw), []int{401, 404, 403} // 403: it has an Origin
		}
		rows = append(rows, row)
	}
	for _, h := range upgradetest.Targets {
		if h.Status != 101 {
			rows = append(rows, headRow{"gate, target: " + h.Name, []byte(h.Raw + second), gate, []int{h.Status, 404}})
		}
	}
	x.want(len(upgradetest.Upgrades) >= 60, "the table has %d rows, want at least 60", len(upgradetest.Upgrades))
	for _, r := range frontRules(d.key.Text) {
		r.address, r.name, r.raw = front, "handshake: "+r.name, append(r.raw, second...)
		rows = append(rows, r)
	}
	d.sit(ctx, x, rows)
	return nil
}

// frontRules are requests that the ticket endpoint must not take, whoever sends them.
func frontRules(key string) []headRow {
	body := `{"stream":"echo"}`
	lines := fmt.Sprintf("Host: a\r\nX-API-Key: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", key, len(body))
	post := func(name, first, more string, want ...int) headRow {
		return headRow{name: name, raw: []byte(first + "\r\n" + lines + more + "\r\n" + body), want: want}
	}
	return []headRow{
		post("HTTP/1.2", "POST /v1/tickets HTTP/1.2", "", 400, 505),
		post("HTTP/2.0", "POST /v1/tickets HTTP/2.0", "", 400, 505),
		post("HTTP/9.9", "POST /v1/tickets HTTP/9.9", "", 400, 505),
		post("lower-case version", "POST /v1/tickets http/1.1", "", 400, 505),
		post("CONNECT", "CONNECT a:80 HTTP/1.1", "", 400, 405, 501),
		post("TRACE", "TRACE /v1/tickets HTTP/1.1", "", 405, 501),
		post("unknown method", "BREW /v1/tickets HTTP/1.1", "", 501),
		post("two Hosts", "POST /v1/tickets HTTP/1.1", "Host: b\r\n", 400),
		post("unknown expectation", "POST /v1/tickets HTTP/1.1", "Expect: 200-maybe\r\n", 400, 417),
		post("absolute form of another host", "POST http://other.example.com/v1/tickets HTTP/1.1", "", 400, 421),
		post("encoded slash", "POST /v1%2ftickets HTTP/1.1", "", 400),
		post("encoded dots", "POST /x/%2e%2e/v1/tickets HTTP/1.1", "", 400),
		post("encoded NUL", "POST /v1/tickets%00 HTTP/1.1", "", 400),
		post("two slashes", "POST //v1/tickets HTTP/1.1", "", 400),
		post("fragment", "POST /v1/tickets#a HTTP/1.1", "", 400),
		post("long target", "POST /"+strings.Repeat("a", 8001)+" HTTP/1.1", "", 414),
		{name: "HTTP/2 preface", raw: []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), want: []int{400, 505}},
		{name: "no Host", raw: []byte("POST /v1/tickets HTTP/1.1\r\nContent-Length: 0\r\n\r\n"), want: []int{400}},
	}
}

// smuggling sends the table to both doors, each row with a second request behind it.
func smuggling(ctx context.Context, x *exam) error {
	d, err := openDoors(ctx, x)
	if err != nil {
		return err
	}
	defer func() { x.want(d.close() == nil, "the node did not stop") }()
	var rows []headRow
	for _, h := range upgradetest.Smuggling {
		rows = append(rows, headRow{"gate: " + h.Name, []byte(h.Raw + second), d.nodes[0].Gate, []int{h.Status}})
	}
	body := `{"stream":"echo"}`
	table := upgradetest.SmugglingFor("POST /v1/tickets HTTP/1.1", "Host: a", "X-API-Key: "+d.key.Text, "Content-Type: application/json",
		fmt.Sprintf("Content-Length: %d", len(body)))
	for _, h := range table {
		// With a length of its own, a coding is a second length: 400 and 501 are both right.
		want := []int{h.Status, 400}
		if strings.HasPrefix(h.Name, "Transfer-Encoding") {
			want = append(want, 501)
		}
		rows = append(rows, headRow{"handshake: " + h.Name, []byte(h.Raw + body + second), d.nodes[0].Handshake, want})
	}
	x.want(len(upgradetest.Smuggling) >= 80, "the table has %d rows, want at least 80", len(upgradetest.Smuggling))
	d.sit(ctx, x, rows)
	return nil
}
