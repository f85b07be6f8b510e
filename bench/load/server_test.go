package load

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketgate/bench"
)

const procNetTCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31001 1 0000000000000000 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31002 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 31003 1 0000000000000000 20 4 30 10 -1
   3: 0100007F:D431 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 31004 1 0000000000000000 20 4 30 10 -1
   4: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31005 1 0000000000000000 100 0 0 10 0
`

const procNetTCP6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 32001 1 0000000000000000 100 0 0 10 0
`

// TestSpent: the busiest thread of a process is known, and on how many cores it may run.
func TestSpent(t *testing.T) {
	w := &watch{[]int{os.Getpid()}}
	var most time.Duration
	for _, d := range w.spent() {
		most = max(most, d)
	}
	cores, err := bench.Cores()
	if err != nil {
		t.Fatal(err)
	}
	if most <= 0 || w.cores() != len(cores) {
		t.Errorf("%v, %d cores of %d", most, w.cores(), len(cores))
	}
	none := &watch{[]int{1 << 30}}
	if len(none.spent()) != 0 || none.cores() != 0 {
		t.Errorf("of no process: %v, %d cores", none.spent(), none.cores())
	}
}

func TestListening(t *testing.T) {
	for _, c := range []struct {
		name, text string
		at         string
		want       []string
	}{
		{"its own address and all", procNetTCP, "127.0.0.1:8080", []string{"31001", "31005"}},
		{"another address", procNetTCP, "127.0.0.2:8080", []string{"31005"}},
		{"any address", procNetTCP, "0.0.0.0:8080", []string{"31001", "31005"}},
		{"low port", procNetTCP, "127.0.0.1:80", []string{"31002"}},
		{"only a client's", procNetTCP, "127.0.0.1:54321", nil},
		{"nobody", procNetTCP, "127.0.0.1:8081", nil},
		{"IPv6", procNetTCP6, "127.0.0.1:8080", []string{"32001"}},
		{"IPv4 in IPv6", strings.Replace(procNetTCP6, "00000000000000000000000000000000:1F90", "0000000000000000FFFF00000100007F:1F90", 1), "127.0.0.1:8080", []string{"32001"}},
		{"other IPv4 in IPv6", strings.Replace(procNetTCP6, "00000000000000000000000000000000:1F90", "0000000000000000FFFF00000200007F:1F90", 1), "127.0.0.1:8080", nil},
		{"empty", "", "127.0.0.1:8080", nil},
		{"short line", "0: 0100007F:1F90 00000000:0000 0A", "127.0.0.1:8080", nil},
		{"no address", "0: xyz:1F90 0 0A 0 0 0 0 0 31001", "127.0.0.1:8080", nil},
	} {
		if got := listening(c.text, netip.MustParseAddrPort(c.at)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestTCPMemory(t *testing.T) {
	page := int64(os.Getpagesize())
	for _, c := range []struct {
		name, text string
		want       int64
	}{
		{"whole file", "sockets: used 290\nTCP: inuse 9 orphan 0 tw 3 alloc 12 mem 7\nUDP: inuse 2 mem 1\nUDPLITE: inuse 0\n", 7 * page},
		{"UDP alone", "UDP: inuse 2 mem 1\n", 0},
		{"none", "TCP: inuse 9\n", 0},
		{"no number", "TCP: inuse 9 mem lots\n", 0},
		{"cut", "TCP: inuse 9 mem", 0},
		{"empty", "", 0},
	} {
		if got := tcpMemory(c.text); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// Whoever listens is found by the port, and seen.
func TestLook(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp"} {
		address := map[string]string{"tcp4": "127.0.0.1:0", "tcp": ":0"}[network]
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), l.Addr().(*net.TCPAddr).AddrPort().Port()).String()
		w, err := look(at)
		if err != nil || w == nil || !slices.Equal(w.pids, []int{os.Getpid()}) {
			t.Fatalf("%s: %+v, %v; want process %d", at, w, err, os.Getpid())
		}
		s, err := w.see()
		if err != nil || s.rss < 1<<20 || s.cpu < 0 {
			t.Errorf("seen: %+v, %v", s, err)
		}
		l.Close()
		if w, err := look(at); err != nil || w != nil {
			t.Errorf("%s, closed: %+v, %v", at, w, err)
		}
	}
	if w, err := look("192.0.2.1:80"); err != nil || w != nil { // TEST-NET-1 is nobody's
		t.Errorf("another machine: %+v, %v", w, err)
	}
	if _, err := look("127.0.0.1"); err == nil {
		t.Error("an address without a port is taken")
	}
}

// The process behind the gate of a ticket is watched too, once, unless somebody has said which processes are the server.
func TestGate(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var r runner
	other, err := net.Listen("tcp4", "127.0.0.1:0") // of the same process
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, at := range []net.Listener{l, other} {
		if err := r.gate(at.Addr().String()); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.gate(l.Addr().String()); err != nil || len(r.gates) != 2 {
		t.Errorf("%v, %v", err, r.gates)
	}
	if !r.local || !slices.Equal(r.watch.pids, []int{os.Getpid()}) || r.first.rss < 1<<20 || r.lastS != r.first {
		t.Errorf("%+v, first %+v, last %+v", r.watch, r.first, r.lastS)
	}
	churn := runner{start: 1, result: &Result{}}
	if err := churn.gate(l.Addr().String()); err != nil || churn.full != churn.first || churn.full.rss < 1<<20 || len(churn.spent) == 0 {
		t.Errorf("in the run: %v, %+v, %+v", err, churn.full, churn.spent)
	}
	told := runner{s: Settings{PIDs: []int{1}}}
	elsewhere := runner{}
	if err := errors.Join(told.gate(l.Addr().String()), elsewhere.gate("192.0.2.1:80")); err != nil || told.watch != nil || elsewhere.watch != nil || elsewhere.local {
		t.Errorf("%v, %+v, %+v", err, told.watch, elsewhere.watch)
	}
}

func TestSee(t *testing.T) {
	me := os.Getpid()
	one, err := (&watch{[]int{me}}).see()
	if err != nil {
		t.Fatal(err)
	}
	two, err := (&watch{[]int{me, me}}).see() // processes are added up
	if err != nil || two.rss < one.rss*3/2 || two.cpu < one.cpu*2-20*time.Millisecond {
		t.Errorf("one %+v, two %+v, %v", one, two, err)
	}
	if _, err := (&watch{[]int{1 << 30}}).see(); err == nil {
		t.Error("a process that there is not is seen")
	}
}
