package pressure_test

import (
	"os"
	"testing"
	"testing/fstest"

	"ticketgate/internal/pressure"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func TestMemory(t *testing.T) {
	const statm = "5000 1000 300 20 0 900 0\n" // 1,000 pages resident
	const own, process = 8 << 20, 1000 * 4096
	in := func(group string, files fstest.MapFS) fstest.MapFS {
		files["proc/self/statm"] = file(statm)
		files["proc/self/cgroup"] = file(group)
		return files
	}
	for name, c := range map[string]struct {
		root fstest.MapFS
		want pressure.Reading
	}{
		"no groups": {fstest.MapFS{"proc/self/statm": file(statm)}, pressure.Reading{Used: process, Limit: own}},
		"version 1": {in("4:memory:/a\n0::/\n", fstest.MapFS{}), pressure.Reading{Used: process, Limit: own}},
		"without a limit": {in("0::/a\n", fstest.MapFS{"sys/fs/cgroup/a/memory.max": file("max\n"), "sys/fs/cgroup/a/memory.current": file("99999999\n")}),
			pressure.Reading{Used: process, Limit: own}},
		"far from its limit": {in("0::/a\n", fstest.MapFS{"sys/fs/cgroup/a/memory.max": file("100000000\n"), "sys/fs/cgroup/a/memory.current": file("9999999\n")}),
			pressure.Reading{Used: process, Limit: own}},
		"nearer": {in("0::/a\n", fstest.MapFS{"sys/fs/cgroup/a/memory.max": file("10000000\n"), "sys/fs/cgroup/a/memory.current": file("9000000\n"),
			"sys/fs/cgroup/a/memory.stat": file("anon 1\ninactive_file 500000\nactive_file 250000\nslab_reclaimable 50000\nsock 7\n")}),
			pressure.Reading{Used: 8_200_000, Limit: 10_000_000}},
		"the one above": {in("0::/b.slice/a\n", fstest.MapFS{"sys/fs/cgroup/b.slice/memory.max": file("10000000\n"),
			"sys/fs/cgroup/b.slice/memory.current": file("9000000\n")}), pressure.Reading{Used: 9_000_000, Limit: 10_000_000}},
		"a container": {in("0::/\n", fstest.MapFS{"sys/fs/cgroup/memory.max": file("10000000\n"),
			"sys/fs/cgroup/memory.current": file("9000000\n")}), pressure.Reading{Used: 9_000_000, Limit: 10_000_000}},
		"outside of its namespace": {in("0::/../a\n", fstest.MapFS{"sys/fs/a/memory.max": file("10000000\n"),
			"sys/fs/a/memory.current": file("9000000\n")}), pressure.Reading{Used: process, Limit: own}},
		"half a group": {in("0::/a\n", fstest.MapFS{"sys/fs/cgroup/a/memory.max": file("10000000\n")}), pressure.Reading{Used: process, Limit: own}},
		"more cache than memory": {in("0::/a\n", fstest.MapFS{"sys/fs/cgroup/a/memory.max": file("10\n"), "sys/fs/cgroup/a/memory.current": file("9\n"),
			"sys/fs/cgroup/a/memory.stat": file("inactive_file 50\n")}), pressure.Reading{Used: process, Limit: own}},
	} {
		if got, err := pressure.NewMemory(c.root, own, 4096).Read(); got != c.want || err != nil {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
	for name, text := range map[string]string{"empty": "", "short": "5000", "no number": "5000 x 1"} {
		if got, err := pressure.NewMemory(fstest.MapFS{"proc/self/statm": file(text)}, own, 4096).Read(); err == nil {
			t.Errorf("%s: %+v, want an error", name, got)
		}
	}
	if got, err := pressure.NewMemory(fstest.MapFS{}, own, 4096).Read(); err == nil {
		t.Errorf("no file: %+v, want an error", got)
	}
}

// TestHere reads this process.
func TestHere(t *testing.T) {
	r, err := pressure.NewMemory(os.DirFS("/"), 1<<40, os.Getpagesize()).Read()
	if err != nil || r.Used < 1<<20 || r.Limit <= 0 {
		t.Errorf("%+v, %v: a test binary has some megabytes", r, err)
	}
	if h := pressure.Heap(); h < 1<<20 || h > 1<<40 {
		t.Errorf("a heap of %d bytes", h)
	}
}
