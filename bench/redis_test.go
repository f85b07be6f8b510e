package bench_test

import (
	"bufio"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"ticketgate/bench"
	"ticketgate/store/redistest"
)

func dialRedis(t *testing.T, address string) *bench.Redis {
	t.Helper()
	r, err := bench.DialRedis(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // some close it themselves
	return r
}

func do(t *testing.T, r *bench.Redis, words ...string) any {
	t.Helper()
	v, err := r.Do(words...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// What a real server says is read: numbers, texts, lists, nothing, and errors.
func TestRedis(t *testing.T) {
	r := dialRedis(t, redistest.Start(t).Addr())
	if do(t, r, "SET", "k", "v\r\n"); do(t, r, "GET", "k") != "v\r\n" || do(t, r, "GET", "none") != nil || do(t, r, "INCR", "n") != int64(1) {
		t.Error("not what was set")
	}
	if list, ok := do(t, r, "MGET", "k", "none", "n").([]any); !ok || !slices.Equal(list, []any{"v\r\n", nil, "1"}) {
		t.Errorf("%v", list)
	}
	if _, err := r.Do("NONE"); !errors.As(err, new(bench.RedisError)) || !strings.Contains(err.Error(), "unknown command") {
		t.Errorf("%v", err)
	}
	all, err := r.All(bench.AppendCommand(bench.AppendCommand(nil, "INCR", "n"), "INCR", "k"), 2)
	if err != nil || len(all) != 2 || all[0] != int64(2) || !errors.As(all[1].(error), new(bench.RedisError)) {
		t.Errorf("%v, %v", all, err)
	}
	if text, ok := do(t, r, "HELLO", "3").([]any); !ok || !slices.Contains(text, any("server")) { // a map
		t.Errorf("%v", text)
	}
}

// Scripts and reads are counted one by one: what a client sends together is one read.
func TestRedisStats(t *testing.T) {
	r := dialRedis(t, redistest.Start(t).Addr())
	sha := do(t, r, "SCRIPT", "LOAD", "return 1").(string)
	one, err := r.Stats()
	if err != nil || one.Scripts != 0 || one.Memory < 500<<10 {
		t.Errorf("%+v, %v", one, err)
	}
	var three []byte
	for range 3 {
		three = bench.AppendCommand(three, "EVALSHA", sha, "0")
	}
	if _, err := r.All(three, 3); err != nil {
		t.Fatal(err)
	}
	do(t, r, "SET", "k", strings.Repeat("x", 1<<20))
	two, err := r.Stats()
	if err != nil || two.Scripts != 3 || two.Memory-one.Memory < 1<<20 {
		t.Errorf("%+v, %v", two, err)
	}
	three = nil
	if _, err := r.All(bench.AppendCommand(bench.AppendCommand(three, "EVALSHA", sha, "0"), "EVALSHA", sha, "0"), 2); err != nil {
		t.Fatal(err)
	}
	last, err := r.Stats()
	if err != nil || last.Scripts != 5 || last.Reads-two.Reads != 2 { // both together, and the question
		t.Errorf("%+v after %+v, %v", last, two, err)
	}
	text := "used_memory:5\r\ntotal_reads_processed:7\r\ntotal_writes_processed:9\r\ncmdstat_evalsha:calls=3,usec=12\r\n"
	if got, err := bench.ParseRedisStats(text); err != nil || got != (bench.RedisStats{Scripts: 3, Reads: 7, Memory: 5}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := bench.ParseRedisStats("total_reads_processed:1\r\ncmdstat_evalsha:calls=2,usec=1\r\n"); err == nil {
		t.Error("no memory, and no error")
	}
}

// Each command of others is in the log, in their order, and none of the one who looks.
func TestRedisLog(t *testing.T) {
	address := redistest.Start(t).Addr()
	r, other := dialRedis(t, address), dialRedis(t, address)
	do(t, other, "PING")
	if err := r.Log(); err != nil {
		t.Fatal(err)
	}
	do(t, r, "PING")
	do(t, other, "SET", "a", "1")
	do(t, other, "GET", "a")
	got, err := r.Logged()
	if want := [][]string{{"SET", "a", "1"}, {"GET", "a"}}; err != nil || !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%q, %v", got, err)
	}
}

// What is no answer is not taken for one.
func TestNotRedis(t *testing.T) {
	for _, text := range []string{"SSH-2.0\r\n", "\r\n", "+OK\n\n", ":x\r\n", "$9999999999\r\n", "$-2\r\n", "$1\r\nabc", "*2000000\r\n", "*1\r\n?\r\n", strings.Repeat("*1\r\n", 100) + ":1\r\n", "", "$5\r\nab"} {
		address := serve(t, func(c net.Conn) {
			defer c.Close()
			_, _ = bufio.NewReader(c).ReadString('\n')
			_, _ = c.Write([]byte(text))
		})
		if v, err := dialRedis(t, address).Do("PING"); err == nil {
			t.Errorf("%q is read as %v", text, v)
		}
	}
}
