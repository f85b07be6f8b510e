package load

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestReadHost(t *testing.T) {
	h, err := readHost()
	if err != nil {
		t.Fatal(err)
	}
	if h.Name == "" || h.Files <= 0 || len(h.Affinity) == 0 || len(h.Affinity) > runtime.NumCPU() || len(strings.Fields(h.Sysctl["net.ipv4.ip_local_port_range"])) != 2 {
		t.Errorf("%+v", h)
	}
}

func TestHostNotes(t *testing.T) {
	var h HostInfo
	for _, c := range []struct {
		cores int
		load  float64
		want  string
	}{{2, 1, ""}, {2, 1.01, "load average 1.01 on 2 cores at the start"}, {1, 0.6, "0.60 on 1 core at"}} {
		h.Cores, h.Load = c.cores, c.load
		if got := strings.Join(h.notes(), "; "); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestKernelPerSocket(t *testing.T) {
	big := func() *Result {
		r := finished()
		r.Opening.Opened, r.Kernel = 1000, &[2]Slab{{Slabs: 1 << 20}, {}}
		r.Series = []Point{{Open: 500, SlabSize: 3 << 20}, {Open: 1000, SlabSize: 1<<20 + 9000*1000}, {Open: 1000, SlabSize: 1 << 30}}
		return r
	}
	for _, c := range []struct {
		name   string
		change func(*Result)
		want   float64
		end    float64
	}{
		{"both ends", func(*Result) {}, 9000, 4500},
		{"server elsewhere", func(r *Result) { r.Server = nil }, 9000, 9000},
		{"some lost before the last came", func(r *Result) { r.Series[1].Open = 990 }, 9000. * 1000 / 990, 4500. * 1000 / 990},
		{"too many lost", func(r *Result) { r.Series = r.Series[:1] }, 0, 0},
		{"few sockets", func(r *Result) { r.Opening.Opened = 999 }, 0, 0},
		{"not root", func(r *Result) { r.Kernel[0].Slabs = 0 }, 0, 0},
		{"not read", func(r *Result) { r.Kernel = nil }, 0, 0},
	} {
		r := big()
		c.change(r)
		if got, ok := r.kernelPerSocket(); got != c.want || ok != (c.want > 0) {
			t.Errorf("%s: %v, %v, want %v", c.name, got, ok, c.want)
		}
		if got, ok := r.KernelEnd(); got != c.end || ok != (c.end > 0) {
			t.Errorf("%s: an end has %v, %v, want %v", c.name, got, ok, c.end)
		}
		if v, ok := figures["kernel-bytes"].of(r); v != c.want || ok != (c.want > 0) {
			t.Errorf("%s: kernel-bytes %v, %v", c.name, v, ok)
		}
	}
	lines := strings.Join(big().Lines(), "\n")
	if !strings.Contains(lines, "\nkernel  9000 B a socket, both ends") {
		t.Error(lines)
	}
}

// A machine has a name of its own, in which its id is not to be found.
func TestMachineOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "machine-id")
	if got := machineOf(file); got != "" {
		t.Errorf("without an id: %q", got)
	}
	seen := make(map[string]bool)
	for _, id := range []string{"", " \n", "0123456789abcdef0123456789abcdef\n", "0123456789abcdef0123456789abcdee\n", "0123456789abcdef0123456789abcdef"} {
		if err := os.WriteFile(file, []byte(id), 0o600); err != nil {
			t.Fatal(err)
		}
		got := machineOf(file)
		if len(got) != 16 && got != "" || got != "" && strings.Contains(id, got) {
			t.Errorf("%q: %q", id, got)
		}
		seen[got] = true
	}
	if len(seen) != 3 { // none, and two
		t.Errorf("%v", seen)
	}
}
