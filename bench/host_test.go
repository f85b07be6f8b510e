package bench_test

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"ticketgate/bench"
)

func TestParseStat(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       bench.CPU
		bad        bool
	}{
		{"plain", "4242 (ticketgate) S 1 4242 4242 0 -1 4194560 9011 0 3 0 1207 3391 0 0 20 0 9 0 123 1 2 3",
			bench.CPU{User: 12070 * time.Millisecond, System: 33910 * time.Millisecond}, false},
		{"brackets and spaces in the name", "7 (a) b (c d) R 1 7 7 0 -1 0 0 0 0 0 1 2 0 0 20 0 9 0 123 1 2 3",
			bench.CPU{User: 10 * time.Millisecond, System: 20 * time.Millisecond}, false},
		{"short", "7 (a) R 1 7 7 0 -1 0 0 0 0 0 1", bench.CPU{}, true},
		{"no number", "7 (a) R 1 7 7 0 -1 0 0 0 0 0 x 2 0 0", bench.CPU{}, true},
		{"empty", "", bench.CPU{}, true},
	} {
		got, err := bench.ParseStat([]byte(c.text))
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("%s: %v, %v; want %v", c.name, got, err, c.want)
		}
	}
}

const status = `Name:	ticketgate
Umask:	0022
State:	S (sleeping)
VmPeak:	 1260000 kB
VmRSS:	   51200 kB
RssAnon:	   40960 kB
Threads:	9
Cpus_allowed_list:	0-1
`

const rollup = `00400000-7ffd3f1f2000 ---p 00000000 00:00 0                              [rollup]
Rss:               51300 kB
Anonymous:         41000 kB
`

func TestParseSizes(t *testing.T) {
	got := bench.ParseSizes([]byte(status))
	if len(got) != 3 || got["VmRSS"] != 51200<<10 || got["RssAnon"] != 40960<<10 || got["VmPeak"] != 1260000<<10 {
		t.Errorf("status: %v", got)
	}
	if got := bench.ParseSizes([]byte(rollup)); len(got) != 2 || got["Anonymous"] != 41000<<10 {
		t.Errorf("smaps_rollup: %v", got)
	}
}

const slabinfo = `slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>
TCP                  260    273   2368   13    8 : tunables    0    0    0 : slabdata     21     21      0
dentry             42000  42042    192   21    1 : tunables    0    0    0 : slabdata   2002   2002      0
`

func TestParseSlab(t *testing.T) {
	got, err := bench.ParseSlab([]byte(slabinfo), 4096)
	if want := int64(21*8+2002) * 4096; got != want || err != nil {
		t.Errorf("%d, %v; want %d", got, err, want)
	}
	for _, bad := range []string{"TCP 1 2 3\n", "TCP 1 2 3 4 x : tunables 0 0 0 : slabdata 1 1 0\n"} {
		if _, err := bench.ParseSlab([]byte(bad), 4096); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestParseSchedstat(t *testing.T) {
	if got, err := bench.ParseSchedstat([]byte("20482163 51873 12\n")); got != 51873 || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "1 2", "1 x 3"} {
		if _, err := bench.ParseSchedstat([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	if _, err := bench.OwnWait(); err != nil {
		t.Error(err)
	}
}

func TestModelName(t *testing.T) {
	if got := bench.ModelName([]byte("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n")); got != "Some CPU @ 3 GHz" {
		t.Errorf("%q", got)
	}
	if got := bench.ModelName([]byte("Processor: none\n")); got != "unknown" {
		t.Errorf("%q", got)
	}
}

// This process is read as a server would be: its memory is there, and work shows as processor time.
func TestProcess(t *testing.T) {
	p := bench.Process{PID: os.Getpid()}
	m, err := p.Memory()
	if err != nil || m.Anonymous < 1<<20 || m.Resident < m.Anonymous/2 {
		t.Errorf("memory %+v, %v", m, err)
	}
	before, err := p.CPU()
	own, err2 := bench.OwnCPU()
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	work := 0
	for used := time.Duration(0); used < 50*time.Millisecond; {
		for i := range 1_000_000 {
			work += i * work
		}
		now, err := bench.OwnCPU()
		if err != nil {
			t.Fatal(err)
		}
		used = now.Sub(own).Total()
	}
	after, err := p.CPU()
	if err != nil {
		t.Fatal(err)
	}
	if used := after.Sub(before).Total(); used < 30*time.Millisecond {
		t.Errorf("50 ms of work show as %v (%d)", used, work)
	}
	now, err := p.CPU()
	exact, err2 := bench.OwnCPU()
	if d := exact.Total() - now.Total(); errors.Join(err, err2) != nil || d.Abs() > 5*time.Millisecond {
		t.Errorf("used %v, seen from outside %v, %v", exact.Total(), now.Total(), errors.Join(err, err2))
	}
	if _, err := (bench.Process{PID: -1}).CPU(); err == nil {
		t.Error("a process that cannot be was read")
	}
}

func TestCoresAndHost(t *testing.T) {
	cores, err := bench.Cores()
	if err != nil || len(cores) == 0 || !slices.IsSorted(cores) {
		t.Errorf("cores %v, %v", cores, err)
	}
	h, err := bench.ReadHost()
	if err != nil || h.Cores < 1 || h.Memory < 1<<20 || h.Kernel == "" || h.Load < 0 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestNeeds(t *testing.T) {
	have := func(p string) (string, error) {
		if p == "redis-server" {
			return "", errors.New("no")
		}
		return "/bin/" + p, nil
	}
	n := bench.Needs{Files: 16000, Programs: []string{"go", "redis-server"}}
	want := []string{
		"open files: the limit is 1024, this run needs 16000: ulimit -n 16000",
		"redis-server is not installed: apt-get install redis-server",
	}
	if got := n.Check(1024, have); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	n.Programs = n.Programs[:1]
	if got := n.Check(16000, have); got != nil {
		t.Errorf("%q", got)
	}
}
