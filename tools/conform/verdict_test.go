package conform_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // RFC 6455 section 4.2.2 asks for it
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"ticketgate/tools/conform"
)

// TestCases: the suite has 517 cases, and 24 are ours.
func TestCases(t *testing.T) {
	want := map[string]int{"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1, "12": 90, "13": 126, "14": 24}
	got, seen := map[string]int{}, map[string]bool{}
	for _, c := range conform.All(1) {
		got[c.Section()]++
		if seen[c.ID] || c.Does == "" || c.Clause == "" || c.Parts == nil {
			t.Errorf("case %q: twice, or something is missing", c.ID)
		}
		seen[c.ID] = true
	}
	for s, n := range want {
		if got[s] != n {
			t.Errorf("section %s has %d cases, want %d", s, got[s], n)
		}
	}
	if len(got) != len(want) || len(seen) != 517+24 {
		t.Errorf("%d sections and %d cases, want %d and 541", len(got), len(seen), len(want))
	}
}

// byID finds a case.
func byID(t *testing.T, id string) *conform.Case {
	for _, c := range conform.All(0) {
		if c.ID == id {
			return c
		}
	}
	t.Fatalf("no case %s", id)
	return nil
}

// wrongs are servers that do something wrong, or just so right: what they send once the client has said something, all at
// once, before they end the connection.
var wrongs = []struct {
	name, id string
	answer   string
	deflate  bool
	verdict  conform.Verdict
	ending   conform.Ending
	why      string
}{
	{"right", "2.2", "\x8a\x0dHello, world!\x88\x02\x03\xe8", false, conform.OK, conform.Clean, ""},
	{"a pong of other bytes", "2.2", "\x8a\x0dHello, World!\x88\x02\x03\xe8", false, conform.Failed, conform.Clean, "want opcode 10"},
	{"a pong too many", "2.2", "\x8a\x0dHello, world!\x8a\x00\x88\x02\x03\xe8", false, conform.Failed, conform.Clean, "opcode 10 0 bytes"},
	{"no pong", "2.2", "\x88\x02\x03\xe8", false, conform.Failed, conform.Clean, "got nothing"},
	{"another code", "2.2", "\x8a\x0dHello, world!\x88\x02\x03\xe9", false, conform.OK, conform.WrongCode, "closed with 1001"},
	{"no code", "2.2", "\x8a\x0dHello, world!\x88\x00", false, conform.OK, conform.WrongCode, "closed with 0"},
	{"no close frame", "2.2", "\x8a\x0dHello, world!", false, conform.OK, conform.Unclean, "no close frame"},
	{"half a close frame", "2.2", "\x8a\x0dHello, world!\x88\x02\x03", false, conform.OK, conform.Unclean, "unexpected EOF"},
	{"something behind the close frame", "2.2", "\x8a\x0dHello, world!\x88\x02\x03\xe8\x8a\x00", false, conform.Failed, conform.Unclean, "behind its close frame"},
	{"a mask", "2.2", "\x8a\x8d\x00\x00\x00\x00Hello, world!\x88\x02\x03\xe8", false, conform.Failed, conform.Unclean, "mask bit"},
	{"a length in a long form", "2.2", "\x8a\x7e\x00\x0dHello, world!\x88\x02\x03\xe8", false, conform.Failed, conform.Unclean, "shortest form"},
	{"a pong in fragments", "2.2", "\x0a\x05Hello\x80\x08, world!\x88\x02\x03\xe8", false, conform.Failed, conform.Unclean, "control frame"},
	{"an opcode of its own", "2.2", "\x8b\x00", false, conform.Failed, conform.Unclean, "opcode 11"},
	{"a reserved bit", "1.1.1", "\xc1\x00\x88\x02\x03\xe8", false, conform.Failed, conform.Unclean, "reserved bits 100"},
	{"binary for text", "1.1.1", "\x82\x00\x88\x02\x03\xe8", false, conform.Failed, conform.Clean, "got opcode 2"},
	{"a continuation of nothing", "1.1.1", "\x80\x00", false, conform.Failed, conform.Unclean, "continuation of nothing"},
	{"a message in a message", "1.1.1", "\x01\x00\x81\x00", false, conform.Failed, conform.Unclean, "inside another"},
	{"text that is none", "1.1.1", "\x81\x01\xff", false, conform.Failed, conform.Unclean, "no UTF-8"},
	{"1005 on the wire", "2.7", "\x88\x02\x03\xed", false, conform.Failed, conform.Unclean, "close code 1005"},
	{"half a code", "2.7", "\x88\x01\x03", false, conform.Failed, conform.Unclean, "half a code"},
	{"a reason that is no UTF-8", "2.7", "\x88\x03\x03\xe8\xff", false, conform.Failed, conform.Unclean, "close reason"},
	{"a violation that passes", "2.5", "\x88\x02\x03\xe8", false, conform.OK, conform.WrongCode, "want [1002]"},
	{"a violation answered well", "2.5", "\x88\x02\x03\xea", false, conform.OK, conform.Clean, ""},
	{"an echo overtaken by the verdict", "3.2", "\x88\x02\x03\xea", false, conform.NonStrict, conform.Clean, "before the echo"},
	{"a pong to what came behind the violation", "3.2", "\x81\x0dHello, world!\x8a\x00\x88\x02\x03\xea", false, conform.Failed, conform.Clean, "opcode 10"},
	{"text refused before it was wrong", "6.4.1", "\x88\x02\x03\xef", false, conform.Failed, conform.Clean, "before there was a reason"},
	{"another answer than the code", "7.7.2", "\x88\x02\x03\xe8", false, conform.OK, conform.WrongCode, "want [1001]"},
	{"an open question", "7.13.1", "\x88\x02\x03\xe8", false, conform.Informational, conform.WrongCode, ""},
	{"compression that was not configured", "12.1.1", "\x88\x02\x03\xe8", true, conform.Failed, conform.Clean, "configured: false"},
	{"no compression", "12.1.1", "\x88\x02\x03\xe8", false, conform.Unimplemented, conform.Clean, "off"},
}

// TestVerdicts holds the tester's eyes against servers that are wrong.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, w := range wrongs {
		t.Run(w.name, func(t *testing.T) {
			addr := wrongServer(t, w.answer, w.deflate)
			open := func(ctx context.Context, offer string) (*conform.Link, error) {
				s, err := conform.Dial(ctx, conform.Target{Addr: addr, Path: "/"}, offer, seed)
				if err != nil {
					return nil, err
				}
				return &conform.Link{Socket: s}, nil
			}
			r := conform.Run(t.Context(), []*conform.Case{byID(t, w.id)}, conform.Options{Open: open})[0]
			if r.Verdict != w.verdict || r.Ending != w.ending || !strings.Contains(r.Why, w.why) {
				t.Errorf("%s, %s: %q; want %s, %s, %q", r.Verdict, r.Ending, r.Why, w.verdict, w.ending, w.why)
			}
		})
	}
}

// wrongServer takes one upgrade request and sends answer once it has heard a frame's first byte, or at once if nothing comes
// before the answer.
func wrongServer(t *testing.T, answer string, deflate bool) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- answerWrong(ln, answer, deflate) }()
	t.Cleanup(func() {
		ln.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func answerWrong(ln net.Listener, answer string, deflate bool) error {
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	in := bufio.NewReader(c)
	q, err := http.ReadRequest(in)
	if err != nil {
		return err
	}
	sum := sha1.Sum([]byte(q.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
	extension := ""
	if deflate {
		extension = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
	}
	if _, err := fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%sSec-WebSocket-Accept: %s\r\n\r\n",
		extension, base64.StdEncoding.EncodeToString(sum[:])); err != nil {
		return err
	}
	if _, err := in.ReadByte(); err != nil {
		return err
	}
	if _, err := io.WriteString(c, answer); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in) // so that no RST destroys the answer
	return err
}

// TestPrint: the table has a line for each section, and the sum.
func TestPrint(t *testing.T) {
	var b bytes.Buffer
	conform.Print(&b, []conform.Result{
		{Case: byID(t, "10.1.1"), Verdict: conform.Failed, Ending: conform.Unclean, Why: "x"},
		{Case: byID(t, "2.1"), Verdict: conform.NonStrict},
		{Case: byID(t, "2.5"), Ending: conform.WrongCode},
	})
	want := [][]string{
		{"2", "pings", "and", "pongs", "2", "1", "1", "0", "0", "0", "|", "1", "1", "0", "0.0"},
		{"10", "auto-fragmentation", "1", "0", "0", "0", "0", "1", "|", "0", "0", "1", "0.0"},
		{"all", "3", "1", "1", "0", "0", "1", "|", "1", "1", "1", "0.0"},
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")[1:]
	for i, w := range want {
		if got := strings.Join(strings.Fields(lines[i]), " "); got != strings.Join(w, " ") {
			t.Errorf("line %d is %q, want %q", i, got, w)
		}
	}
	sum := conform.Count([]conform.Result{{Verdict: conform.Failed}, {Ending: conform.Unclean}, {Ending: conform.WrongCode}, {Verdict: conform.NonStrict}})
	if sum.Wrong() != 3 {
		t.Errorf("%d are wrong, want 3", sum.Wrong())
	}
}
