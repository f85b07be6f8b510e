package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ticketgate/bench/load"
)

// goodHost is a machine on which a million relayed sockets have room.
func goodHost() map[string]string {
	return map[string]string{
		"proc/sys/fs/nr_open":                        "4194304\n",
		"proc/sys/net/netfilter/nf_conntrack_max":    "2097152\n",
		"proc/sys/net/core/somaxconn":                "65535\n",
		"proc/sys/net/ipv4/tcp_max_syn_backlog":      "65535\n",
		"proc/sys/net/ipv4/ip_local_port_range":      "10240\t65535\n",
		"proc/sys/net/ipv4/tcp_available_ulp":        "espintcp mptcp tls\n",
		"proc/meminfo":                               "MemTotal:       131072000 kB\nMemFree:        1000 kB\n",
		"sys/class/net/eth0/device/vendor":           "0x15b3\n",
		"sys/class/net/eth0/queues/rx-0/rps_cpus":    "0\n",
		"sys/class/net/eth0/queues/rx-1/rps_cpus":    "0\n",
		"sys/class/net/lo/queues/rx-0/rps_cpus":      "0\n",
		"sys/class/net/wlan0/device/vendor":          "0x8086\n",
		"sys/class/net/wlan0/queues/rx-0/rps_cpus":   "00000000,0000000f\n",
		"sys/class/net/docker0/queues/rx-0/rps_cpus": "0\n",
	}
}

func hostOf(t *testing.T, files map[string]string) *host {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return &host{root: root, files: 4 << 20, synced: func() (bool, error) { return true, nil }, uring: func() error { return nil }, target: 1_000_000, relays: true, sources: 20}
}

func TestDoctor(t *testing.T) {
	measured := &load.Result{Server: &load.Server{PerSocket: 400}, Opening: load.Opening{Opened: 1000}, Kernel: &[2]load.Slab{{Slabs: 0}, {Slabs: 8_000_000}}}
	measured.Host.Name = "gw-1"
	for _, c := range []struct {
		name   string
		files  map[string]string // other than goodHost's; "": there is none
		change func(*host)
		check  string
		level  string
		text   string // a part
	}{
		{"good", nil, nil, "", doctorOK, ""},
		{"files", nil, func(h *host) { h.files = 65536 }, "files", doctorFail, "limit 65536, fs.nr_open=4194304: 1000000 sockets need 2222222: raise the limit of the process (doctor --explain files)"},
		{"nr_open", map[string]string{"proc/sys/fs/nr_open": "1048576"}, nil, "files", doctorFail, "fs.nr_open=1048576: 1000000 sockets need 2222222: raise both"},
		{"not relayed", map[string]string{"proc/sys/fs/nr_open": "1200000"}, func(h *host) { h.relays = false }, "files", doctorOK, "fs.nr_open=1200000"},
		{"conntrack", map[string]string{"proc/sys/net/netfilter/nf_conntrack_max": "262144"}, nil, "conntrack", doctorFail, "nf_conntrack_max=262144 < 1000000"},
		{"no conntrack", map[string]string{"proc/sys/net/netfilter/nf_conntrack_max": ""}, nil, "conntrack", doctorOK, "not tracked"},
		{"backlog", map[string]string{"proc/sys/net/core/somaxconn": "128"}, nil, "backlog", doctorWarn, "somaxconn=128, tcp_max_syn_backlog=65535: below 4096"},
		{"no backlog", map[string]string{"proc/sys/net/core/somaxconn": ""}, nil, "backlog", doctorWarn, "cannot be read"},
		{"ports", nil, func(h *host) { h.sources = 1 }, "ports", doctorFail, "1 source and target x 55296 ports: room for 55296 relays, wanted 1000000"},
		{"ports of no relays", nil, func(h *host) { h.sources, h.relays = 1, false }, "ports", doctorOK, "--relays"},
		{"port range", map[string]string{"proc/sys/net/ipv4/ip_local_port_range": "1 x"}, nil, "ports", doctorWarn, `ip_local_port_range is "1 x"`},
		{"memory", map[string]string{"proc/meminfo": "MemTotal: 4194304 kB"}, nil, "memory", doctorFail, "4.0 GiB, 5.1 GiB for the target at 5504 bytes a socket (from measurements elsewhere"},
		{"memory is short", map[string]string{"proc/meminfo": "MemTotal: 8388608 kB"}, nil, "memory", doctorWarn, "little is left"},
		{"memory measured", nil, func(h *host) { h.measured = measured }, "memory", doctorOK, "125.0 GiB, 7.8 GiB for the target at 8400 bytes a socket (as measured on gw-1)"},
		{"clock", nil, func(h *host) { h.synced = func() (bool, error) { return false, nil } }, "clock", doctorWarn, "nothing keeps the wall clock right"},
		{"clock unknown", nil, func(h *host) { h.synced = func() (bool, error) { return false, os.ErrPermission } }, "clock", doctorWarn, "adjtimex: "},
		{"io_uring", nil, func(h *host) { h.uring = func() error { return os.NewSyscallError("io_uring_setup", syscall.EPERM) } }, "io_uring", doctorWarn,
			"a system call of its own: io_uring_setup: operation not permitted"},
		{"ktls", map[string]string{"proc/sys/net/ipv4/tcp_available_ulp": "espintcp mptcp"}, nil, "ktls", doctorWarn, "no TLS"},
		{"interrupts", map[string]string{"sys/class/net/eth0/queues/rx-1/rps_cpus": "", "sys/class/net/wlan0/queues/rx-0/rps_cpus": "00"}, nil, "interrupts", doctorWarn, "no RPS: eth0, wlan0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := goodHost()
			maps.Copy(files, c.files)
			maps.DeleteFunc(files, func(_, text string) bool { return text == "" })
			h := hostOf(t, files)
			if c.change != nil {
				c.change(h)
			}
			var out bytes.Buffer
			err := h.report(&out, "json")
			var all []finding
			if e := json.Unmarshal(out.Bytes(), &all); e != nil || len(all) != len(checks) {
				t.Fatalf("%v: %s", e, out.String())
			}
			var coded *exitError
			if failed := c.level == doctorFail; failed != errors.As(err, &coded) || failed && coded.code != exitFailed {
				t.Errorf("%v", err)
			}
			for _, f := range all {
				want := doctorOK
				if f.Check == c.check {
					want = c.level
					if !strings.Contains(f.Text, c.text) {
						t.Errorf("%s, want %s", f.Text, c.text)
					}
				}
				if f.Level != want {
					t.Errorf("%+v, want %s", f, want)
				}
			}
		})
	}
}

// TestDoctorCommand: the command looks at this machine, in the form that people read.
func TestDoctorCommand(t *testing.T) {
	got := ticketgate(t, "", nil, "doctor", "--target", "1")
	if got.code != exitOK || !strings.HasPrefix(got.out, "ok    files       limit ") || strings.Count(got.out, "\n") != len(checks) {
		t.Errorf("%+v", got)
	}
	got = ticketgate(t, "", nil, "doctor", "--target", "2000000000")
	if got.code != exitFailed || !strings.Contains(got.out, "\nfail  memory      ") || !strings.Contains(got.errors, "ticketgate: doctor: ") {
		t.Errorf("%+v", got)
	}
	for _, c := range checks {
		if got := ticketgate(t, "", nil, "doctor", "--explain", c.name); got.code != exitOK || len(got.out) < 80 {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--explain", "nothing"}, exitUsage, "--explain nothing: there are files, conntrack, "},
		{[]string{"--target", "0"}, exitUsage, "--target 0: want"},
		{[]string{"-o", "xml"}, exitUsage, "-o xml: want table or json"},
		{[]string{"--measured", filepath.Join(t.TempDir(), "none")}, exitFailed, "no such file"},
	} {
		if got := ticketgate(t, "", nil, append([]string{"doctor"}, c.args...)...); got.code != c.code || !strings.Contains(got.errors, c.want) {
			t.Errorf("%v: %+v", c.args, got)
		}
	}
}
