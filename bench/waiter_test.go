package bench_test

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"ticketgate/bench"
	"ticketgate/store/redistest"
)

// replicated starts a server with n replicas, and returns when they are there.
func replicated(t *testing.T, n int) string {
	t.Helper()
	primary := redistest.Start(t, redistest.Args("--repl-diskless-sync-delay", "0")).Addr()
	host, port, err := net.SplitHostPort(primary)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		redistest.Start(t, redistest.Args("--replicaof", host+" "+port))
	}
	r := dialRedis(t, primary)
	for end := time.Now().Add(patience); ; {
		info, _ := do(t, r, "INFO", "replication").(string)
		if strings.Count(info, "state=online") == n {
			return primary
		}
		if time.Now().After(end) {
			t.Fatal(info)
		}
	}
}

func waiter(t *testing.T, address string, replicas int) *bench.Waiter {
	t.Helper()
	w, err := bench.NewWaiter(address, replicas)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// What a client sends together is waited for once, and its answers come as without, in their order.
func TestWaiter(t *testing.T) {
	primary := replicated(t, 1)
	for _, replicas := range []int{0, 1} {
		w := waiter(t, primary, replicas)
		r := dialRedis(t, w.Address())
		do(t, r, "DEL", "n")
		var many []byte
		var want []any
		for i := range 100 {
			many = bench.AppendCommand(many, "INCR", "n")
			want = append(want, int64(i+1))
		}
		got, err := r.All(many, 100)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v", got, err)
		}
		if do(t, r, "GET", "n") != "100" {
			t.Error("not what was counted")
		}
		n, err := w.Waits()
		if err != nil || replicas == 0 && n != 0 || replicas == 1 && (n < 3 || n > 20) { // 1,300 bytes may come in pieces
			t.Errorf("%d replicas: waited %d times, %v", replicas, n, err)
		}
	}
	seen := do(t, dialRedis(t, primary), "INFO", "commandstats").(string)
	if !strings.Contains(seen, "cmdstat_wait:calls=") {
		t.Error("Redis was not asked to wait")
	}
}

// A replica that does not acknowledge is told, and what it would have had to acknowledge is not answered.
func TestWaiterFails(t *testing.T) {
	for name, answers := range map[string]string{"fewer": "+OK\r\n:0\r\n", "error": "+OK\r\n-ERR no\r\n", "nonsense": "SSH\r\n"} {
		address := serve(t, func(c net.Conn) {
			_, _ = fmt.Fprint(c, answers)
			_, _ = c.Read(make([]byte, 1<<10))
			_, _ = c.Read(make([]byte, 1<<10)) // until the other side hangs up
		})
		w := waiter(t, address, 1)
		if v, err := dialRedis(t, w.Address()).Do("SET", "k", "v"); err == nil {
			t.Errorf("%s: answered %v", name, v)
		}
		if _, err := w.Waits(); err == nil {
			t.Errorf("%s: nothing was wrong", name)
		}
	}
	w := waiter(t, "127.0.0.1:1", 1)
	if _, err := dialRedis(t, w.Address()).Do("PING"); err == nil {
		t.Error("answered by nobody")
	}
	if _, err := w.Waits(); err == nil || errors.Is(err, bench.ErrRESP) {
		t.Errorf("nobody there: %v", err)
	}
}

// What Redis pushes unasked, here what a client is not to keep any more, is passed on and is no answer.
func TestWaiterPasses(t *testing.T) {
	address := serve(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1<<10))
		_, _ = fmt.Fprint(c, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n+OK\r\n:1\r\n")
		_, _ = c.Read(make([]byte, 1<<10)) // until the other side hangs up
	})
	w := waiter(t, address, 1)
	got, err := dialRedis(t, w.Address()).All(bench.AppendCommand(nil, "SET", "k", "v"), 2)
	if err != nil || got[1] != "OK" {
		t.Errorf("%v, %v", got, err)
	}
	if n, err := w.Waits(); n != 1 || err != nil {
		t.Errorf("waited %d times, %v", n, err)
	}
}

// A client that leaves is no failure, and neither is the end.
func TestWaiterEnds(t *testing.T) {
	w := waiter(t, redistest.Start(t).Addr(), 0)
	one, two := dialRedis(t, w.Address()), dialRedis(t, w.Address())
	do(t, one, "PING")
	do(t, two, "PING")
	if err := errors.Join(one.Close(), w.Close()); err != nil {
		t.Error(err)
	}
	if _, err := two.Do("PING"); err == nil {
		t.Error("answered after the end")
	}
	if _, err := w.Waits(); err != nil {
		t.Error(err)
	}
}
