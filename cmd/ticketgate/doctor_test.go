package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"ticketgate/bench/load"
	"ticketgate/internal/config"
)

// goodHost is a machine on which a million relayed sockets have room.
func goodHost() map[string]string {
	return map[string]string{
		"proc/sys/fs/nr_open":                        "4194304\n",
		"proc/sys/fs/file-max":                       "9223372036854775807\n",
		"proc/sys/fs/file-nr":                        "18127\t0\t9223372036854775807\n",
		"proc/sys/net/netfilter/nf_conntrack_max":    "2097152\n",
		"proc/sys/net/netfilter/nf_conntrack_count":  "90000\n",
		"proc/sys/net/ipv4/tcp_mem":                  "1500000\t2000000\t3000000\n",
		"proc/sys/net/ipv4/ip_local_reserved_ports":  "\n",
		"proc/sys/net/core/somaxconn":                "65535\n",
		"proc/sys/net/ipv4/tcp_max_syn_backlog":      "65535\n",
		"proc/sys/net/ipv4/ip_local_port_range":      "10240\t65535\n",
		"proc/sys/net/ipv4/tcp_available_ulp":        "espintcp mptcp tls\n",
		"proc/meminfo":                               "MemTotal:       131072000 kB\nMemFree:        1000 kB\n",
		"sys/class/net/eth0/device/vendor":           "0x15b3\n",
		"sys/class/net/eth0/operstate":               "up\n",
		"sys/class/net/eth0/device/msi_irqs/99":      "msix\n",
		"sys/class/net/eth0/device/msi_irqs/100":     "msix\n",
		"sys/class/net/eth0/device/msi_irqs/101":     "msix\n",
		"proc/irq/99/mlx5_async0@pci:0000:3b:00.0/x": "-",
		"proc/irq/99/effective_affinity_list":        "7\n",
		"proc/irq/100/mlx5_comp0@pci:0000:3b:00.0/x": "-",
		"proc/irq/100/effective_affinity_list":       "0\n",
		"proc/irq/100/smp_affinity_list":             "0-39\n",
		"proc/irq/101/mlx5_comp1@pci:0000:3b:00.0/x": "-",
		"proc/irq/101/effective_affinity_list":       "20\n",
		"proc/irq/101/smp_affinity_list":             "0-39\n",
		"sys/class/net/eth1/device/vendor":           "0x15b3\n",
		"sys/class/net/eth1/operstate":               "down\n",
		"sys/class/net/eth1/queues/rx-0/rps_cpus":    "0\n",
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
	return &host{root: root, cores: 40, limits: limits{files: 4 << 20, text: "limit 4194304", fix: "ulimit -n ", memory: unlimited},
		synced: func() (bool, error) { return true, nil }, uring: func() error { return nil }, target: 1_000_000, relays: 1_000_000, relaysKnown: true, sources: 20, targets: 1}
}

func TestDoctor(t *testing.T) {
	measured := idleRun("gw-1")
	userOnly := idleRun("gw-1")
	userOnly.Kernel = nil
	usualPorts := map[string]string{"proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n"}
	failing := func(h *host) { h.uring = func() error { return os.NewSyscallError("io_uring_setup", syscall.EPERM) } }
	for _, c := range []struct {
		name   string
		files  map[string]string // other than goodHost's; "": there is none
		change func(*host)
		check  string
		level  string
		text   string // a part; with = in front: all of it
		fix    string // the commands, by semicolon
	}{
		{"good", nil, nil, "", doctorOK, "", ""},
		{"files", nil, func(h *host) { h.limits.files = 65536 }, "open files", doctorFail,
			"limit 4194304, fs.nr_open=4194304: 1000000 sockets need 2222222: raise the limit of the process (doctor --explain open-files)", "ulimit -n 2222222"},
		{"nr_open", map[string]string{"proc/sys/fs/nr_open": "1048576"}, nil, "open files", doctorFail, "1000000 sockets need 2222222: raise fs.nr_open (", "sysctl -w fs.nr_open=2222222"},
		{"file-max", map[string]string{"proc/sys/fs/file-max": "2230000"}, nil, "open files", doctorFail, "raise fs.file-max=2230000, of which 18127 are used", "sysctl -w fs.file-max=2240349"},
		{"all files", map[string]string{"proc/sys/fs/nr_open": "9", "proc/sys/fs/file-max": "9"}, func(h *host) { h.limits.files = 9 }, "open files", doctorFail, "raise fs.nr_open, and fs.file-max",
			"sysctl -w fs.nr_open=2222222;sysctl -w fs.file-max=2240349;ulimit -n 2222222"},
		{"not relayed", map[string]string{"proc/sys/fs/nr_open": "1200000"}, func(h *host) { h.relays = 0 }, "open files", doctorOK, "fs.nr_open=1200000", ""},
		{"conntrack", map[string]string{"proc/sys/net/netfilter/nf_conntrack_max": "2080000"}, nil, "conntrack", doctorFail,
			"nf_conntrack_max=2080000 < 2000000 + 90000 in use: raise it, or exempt the gate port (doctor --explain conntrack)", "sysctl -w net.netfilter.nf_conntrack_max=2090000"},
		{"conntrack not in use", map[string]string{"proc/sys/net/netfilter/nf_conntrack_max": "262144", "proc/sys/net/netfilter/nf_conntrack_count": "0"}, func(h *host) { h.relays = 0 }, "conntrack", doctorFail,
			"nf_conntrack_max=262144 < 1000000: raise it, or exempt the gate port (doctor --explain conntrack)", "sysctl -w net.netfilter.nf_conntrack_max=1000000"},
		{"conntrack of no relays", map[string]string{"proc/sys/net/netfilter/nf_conntrack_max": "1090000"}, func(h *host) { h.relays = 0 }, "conntrack", doctorOK, "90000 of it in use", ""},
		{"no conntrack", map[string]string{"proc/sys/net/netfilter/nf_conntrack_max": ""}, nil, "conntrack", doctorOK, "not tracked", ""},
		{"backlog", map[string]string{"proc/sys/net/core/somaxconn": "128"}, nil, "backlog", doctorWarn, "somaxconn=128, tcp_max_syn_backlog=65535: below 4096",
			"sysctl -w net.core.somaxconn=4096 net.ipv4.tcp_max_syn_backlog=65535"},
		{"no backlog", map[string]string{"proc/sys/net/core/somaxconn": ""}, nil, "backlog", doctorWarn, "cannot be read", ""},
		{"some relayed", map[string]string{"proc/sys/fs/nr_open": "1388887"}, func(h *host) { h.relays = 250_000 }, "open files", doctorFail, "1000000 sockets need 1388888: raise fs.nr_open", "sysctl -w fs.nr_open=1388888"},
		{"unknown nr_open", map[string]string{"proc/sys/fs/nr_open": ""}, func(h *host) { h.limits.files = 9 }, "open files", doctorFail, "limit 4194304: 1000000 sockets need", "ulimit -n 2222222"},
		{"ports", nil, func(h *host) { h.sources = 1 }, "backend ports", doctorFail, "1 source x 55296 ports per target: room for 55296 relays, wanted 1000000; add source_addresses or targets (doctor --explain backend-ports)",
			"sudoedit /etc/ticketgate/ticketgate.yaml  # backends: 19 targets in all"},
		{"ports that may be wanted", usualPorts, func(h *host) { h.sources, h.relays, h.relaysKnown = 1, 0, false }, "backend ports", doctorWarn,
			"=1 source x 28232 ports per target: room for 28232 relays, wanted 1000000; add source_addresses or targets",
			`sysctl -w net.ipv4.ip_local_port_range="10240 65535";sudoedit /etc/ticketgate/ticketgate.yaml  # backends: 19 targets in all`},
		{"ports that may be wanted, and are there", usualPorts, func(h *host) { h.target, h.sources, h.relays, h.relaysKnown = 28232, 1, 0, false }, "backend ports", doctorOK,
			"=1 source x 28232 ports per target: room for 28232 relays", ""},
		{"ports of many targets", usualPorts, func(h *host) { h.sources, h.targets, h.config = 2, 3, "gw.yaml" }, "backend ports", doctorFail,
			"2 sources x 28232 ports per target x 3 targets: room for 169392 relays, wanted 1000000;", `sysctl -w net.ipv4.ip_local_port_range="10240 65535";sudoedit gw.yaml  # backends: 10 targets in all`},
		{"ports of enough targets", usualPorts, func(h *host) { h.targets = 2 }, "backend ports", doctorOK, "20 sources x 28232 ports per target x 2 targets: room for 1129280 relays", ""},
		{"ports of no targets", nil, func(h *host) { h.relays, h.relaysKnown, h.targets, h.config = 0, false, 0, "gw.yaml" }, "backend ports", doctorOK, "=no relays: no stream of gw.yaml has a backend with targets", ""},
		{"ports of no targets, and relays", nil, func(h *host) { h.sources, h.targets, h.config = 1, 0, "gw.yaml" }, "backend ports", doctorFail, "x 0 targets: room for 0 relays", "sudoedit gw.yaml  # backends: 19 targets in all"},
		{"range of ports", usualPorts, nil, "backend ports", doctorFail, "20 sources x 28232 ports per target: room for 564640 relays, wanted 1000000; add",
			`sysctl -w net.ipv4.ip_local_port_range="10240 65535"`},
		{"reserved ports", map[string]string{"proc/sys/net/ipv4/ip_local_reserved_ports": "80,10230-10249,20000,65000-65535"}, func(h *host) { h.sources = 18 }, "backend ports", doctorFail, "x 54749 ports",
			"sudoedit /etc/ticketgate/ticketgate.yaml  # backends: 2 targets in all"},
		{"ports of no relays", nil, func(h *host) { h.sources, h.relays = 1, 0 }, "backend ports", doctorOK, "=no relays wanted", ""},
		{"port range", map[string]string{"proc/sys/net/ipv4/ip_local_port_range": "1 x"}, nil, "backend ports", doctorWarn, `ip_local_port_range is "1 x"`, ""},
		{"memory", map[string]string{"proc/meminfo": "MemTotal: 8388608 kB"}, nil, "memory", doctorFail,
			"8.0 GiB, estimate for target 10.3 GiB (11072 bytes a socket, measured elsewhere: `ticketgate bench connect` on this host and --measured refine it): 3.5 GiB are missing; there is room for --target 698242 (", ""},
		{"memory of no relays", map[string]string{"proc/meminfo": "MemTotal: 4194304 kB"}, func(h *host) { h.relays = 0 }, "memory", doctorFail, "4.0 GiB, estimate for target 5.1 GiB (5504 bytes", ""},
		{"memory of some relays", nil, func(h *host) { h.relays = 250_000 }, "memory", doctorOK, "estimate for target 6.4 GiB (6896 bytes", ""},
		{"memory is short", map[string]string{"proc/meminfo": "MemTotal: 16777216 kB"}, nil, "memory", doctorWarn, "little is left", ""},
		{"no memory", map[string]string{"proc/meminfo": ""}, nil, "memory", doctorWarn, "cannot be read", ""},
		{"memory of the service", nil, func(h *host) { h.limits.memory = 8 << 30 }, "memory", doctorFail, "8.0 GiB of its control group, estimate for target 10.3 GiB",
			"systemctl edit ticketgate  # [Service] MemoryMax=17599M"},
		{"memory of the service is short", nil, func(h *host) { h.limits.memory = 16 << 30 }, "memory", doctorWarn, "little is left", "systemctl edit ticketgate  # [Service] MemoryMax=17599M"},
		{"memory of the service, and not much more", map[string]string{"proc/meminfo": "MemTotal: 12582912 kB"}, func(h *host) { h.limits.memory = 8 << 30 }, "memory", doctorFail, ": raise its limit",
			"systemctl edit ticketgate  # [Service] MemoryMax=12288M"},
		{"memory of the service, and no more", map[string]string{"proc/meminfo": "MemTotal: 10485760 kB"}, func(h *host) { h.limits.memory = 8 << 30 }, "memory", doctorFail,
			"8.0 GiB of its control group, estimate for target 10.3 GiB (11072 bytes a socket, measured elsewhere: `ticketgate bench connect` on this host and --measured refine it): 1.5 GiB are missing; there is room for --target 698242 (", ""},
		{"memory of the running service", map[string]string{"proc/7/cgroup": "0::/system.slice/ticketgate.service\n", "sys/fs/cgroup/system.slice/ticketgate.service/memory.max": "8589934592\n",
			"sys/fs/cgroup/system.slice/memory.max": "68719476736\n"}, func(h *host) { h.limits.pid, h.limits.memory = 7, 8<<30 }, "memory", doctorFail,
			"8.0 GiB of its control group", "systemctl edit ticketgate  # [Service] MemoryMax=17599M"},
		{"memory of control groups", map[string]string{"proc/7/cgroup": "0::/a.slice/b\n", "sys/fs/cgroup/a.slice/memory.max": "2147483648\n", "sys/fs/cgroup/a.slice/b/memory.max": "4294967296\n"},
			func(h *host) { h.limits.pid = 7 }, "memory", doctorFail, "2.0 GiB of its control group",
			"echo 17599M > /sys/fs/cgroup/a.slice/b/memory.max;systemctl set-property a.slice MemoryMax=17599M"},
		{"memory of a container", map[string]string{"proc/7/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "2147483648\n"}, func(h *host) { h.limits.pid = 7 }, "memory", doctorFail,
			"2.0 GiB of its control group", "echo 17599M > /sys/fs/cgroup/memory.max"},
		{"memory measured", nil, func(h *host) { h.measured = measured }, "memory", doctorOK, "125.0 GiB, estimate for target 4.1 GiB (4400 bytes a socket, from `ticketgate bench connect` on this host)", ""},
		{"memory measured in part", nil, func(h *host) { h.measured = userOnly }, "memory", doctorOK, "(10640 bytes a socket, from `ticketgate bench connect` on this host, the kernel's part elsewhere", ""},
		{"tcp_mem", map[string]string{"proc/sys/net/ipv4/tcp_mem": "287898\t383865\t575796"}, nil, "tcp_mem", doctorWarn, `tcp_mem="287898 383865 575796" pages: data under way on all sockets at once needs 2000000`,
			`sysctl -w net.ipv4.tcp_mem="1500000 2000000 3000000"`},
		{"tcp_mem without end", map[string]string{"proc/sys/net/ipv4/tcp_mem": "1 2 3", "proc/meminfo": "MemTotal: 15000000 kB"}, func(h *host) { h.measured = measured }, "tcp_mem", doctorWarn,
			"beyond 2 TCP shrinks its buffers, and more than half of the memory", ""},
		{"no tcp_mem", map[string]string{"proc/sys/net/ipv4/tcp_mem": ""}, nil, "tcp_mem", doctorWarn, "cannot be read", ""},
		{"clock", nil, func(h *host) { h.synced = func() (bool, error) { return false, nil } }, "clock", doctorWarn, "nothing keeps the wall clock right", "timedatectl set-ntp true"},
		{"clock unknown", nil, func(h *host) { h.synced = func() (bool, error) { return false, os.ErrPermission } }, "clock", doctorWarn, "adjtimex: ", ""},
		{"io_uring", nil, failing, "io_uring", doctorWarn, "a system call of its own: io_uring_setup: operation not permitted", ""},
		{"io_uring disabled", map[string]string{"proc/sys/kernel/io_uring_disabled": "2\n"}, failing, "io_uring", doctorWarn, "not permitted", "sysctl -w kernel.io_uring_disabled=0"},
		{"ktls", map[string]string{"proc/sys/net/ipv4/tcp_available_ulp": "espintcp mptcp"}, nil, "ktls", doctorWarn, "no TLS", "modprobe tls"},
		{"interrupts", map[string]string{"sys/class/net/eth0/queues/rx-1/rps_cpus": "", "sys/class/net/wlan0/queues/rx-0/rps_cpus": "00"}, nil, "interrupts", doctorWarn, "no RPS: eth0, wlan0",
			"echo ff,ffffffff > /sys/class/net/eth0/queues/rx-0/rps_cpus;echo ff,ffffffff > /sys/class/net/wlan0/queues/rx-0/rps_cpus"},
		{"interrupts of one core", map[string]string{"sys/class/net/wlan0/queues/rx-0/rps_cpus": "00000000,00000800"}, nil, "interrupts", doctorWarn, "no RPS: wlan0",
			"echo ff,ffffffff > /sys/class/net/wlan0/queues/rx-0/rps_cpus"},
		{"interrupts together", map[string]string{"proc/irq/101/effective_affinity_list": "0\n", "sys/class/net/wlan0/queues/rx-0/rps_cpus": "0"}, nil, "interrupts", doctorWarn,
			"one receive queue and no RPS: wlan0; all interrupts on one core and no RPS: eth0 (core 0)",
			"i=0; for n in 100 101; do echo $((i % 40)) > /proc/irq/$n/smp_affinity_list; i=$((i+1)); done;echo ff,ffffffff > /sys/class/net/wlan0/queues/rx-0/rps_cpus"},
		{"interrupts without names", map[string]string{"proc/irq/100/mlx5_comp0@pci:0000:3b:00.0/x": "", "proc/irq/101/mlx5_comp1@pci:0000:3b:00.0/x": "", "proc/irq/101/effective_affinity_list": "7\n",
			"proc/irq/100/effective_affinity_list": "7\n"}, nil, "interrupts", doctorWarn, "on one core and no RPS: eth0 (core 7)",
			"i=0; for n in 99 100 101; do echo $((i % 40)) > /proc/irq/$n/smp_affinity_list; i=$((i+1)); done"},
		{"interrupts of an older kernel", map[string]string{"proc/irq/100/effective_affinity_list": "", "proc/irq/101/effective_affinity_list": "", "proc/irq/100/smp_affinity_list": "3", "proc/irq/101/smp_affinity_list": "3",
			"proc/irq/100/mlx5_comp0@pci:0000:3b:00.0/x": "", "proc/irq/101/mlx5_comp1@pci:0000:3b:00.0/x": "", "proc/irq/100/eth0-TxRx-0/x": "-", "proc/irq/101/eth0-TxRx-1/x": "-"}, nil,
			"interrupts", doctorWarn, "eth0 (core 3)", "i=0; for n in 100 101; do echo $((i % 40)) > /proc/irq/$n/smp_affinity_list; i=$((i+1)); done"},
		{"interrupts that may go anywhere", map[string]string{"proc/irq/100/effective_affinity_list": "", "proc/irq/101/effective_affinity_list": ""}, nil, "interrupts", doctorOK, "spread: eth0", ""},
		{"interrupts together, and RPS", map[string]string{"proc/irq/101/effective_affinity_list": "0\n", "sys/class/net/eth0/queues/rx-0/rps_cpus": "3"}, nil, "interrupts", doctorOK, "spread: eth0", ""},
		{"one interrupt of many queues", map[string]string{"sys/class/net/eth0/device/msi_irqs/101": "", "proc/irq/100/smp_affinity_list": "0"}, nil, "interrupts", doctorWarn, "no RPS: eth0 (core 0)",
			"for q in /sys/class/net/eth0/queues/rx-*; do echo ff,ffffffff > $q/rps_cpus; done"},
		{"no interrupts known", map[string]string{"sys/class/net/eth0/device/msi_irqs/99": "", "sys/class/net/eth0/device/msi_irqs/100": "", "sys/class/net/eth0/device/msi_irqs/101": ""}, nil, "interrupts", doctorOK, "spread: eth0", ""},
		{"one core", map[string]string{"sys/class/net/wlan0/queues/rx-0/rps_cpus": "0"}, func(h *host) { h.cores = 1 }, "interrupts", doctorOK, "spread: eth0, wlan0", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := goodHost()
			maps.Copy(files, c.files)
			maps.DeleteFunc(files, func(_, text string) bool { return text == "" })
			h := hostOf(t, files)
			if c.change != nil {
				c.change(h)
			}
			var out, talk bytes.Buffer
			err := h.report(&out, &talk, "json")
			var all []finding
			if e := json.Unmarshal(out.Bytes(), &all); e != nil || len(all) != len(checks) {
				t.Fatalf("%v: %s", e, out.String())
			}
			var coded *exitError
			if failed := c.level == doctorFail; failed != errors.As(err, &coded) || failed && coded.code != exitFailed {
				t.Errorf("%v", err)
			}
			sum := map[string]string{doctorOK: "0 failures, 0 warnings\n", doctorWarn: "0 failures, 1 warning\n", doctorFail: "1 failure, 0 warnings\n"}
			if talk.String() != sum[c.level] {
				t.Errorf("%q is said in the end", talk.String())
			}
			for _, f := range all {
				want := doctorOK
				if f.Check == c.check {
					want = c.level
					if got := strings.Join(f.Fix, ";"); got != c.fix {
						t.Errorf("mended by %q, want %q", got, c.fix)
					}
					if whole, exact := strings.CutPrefix(c.text, "="); exact && f.Text != whole || !exact && !strings.Contains(f.Text, c.text) {
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

// idleRun is a bench connect on the machine name: 400 bytes of the server a socket, and 8,000 of the kernel for both ends.
func idleRun(name string) *load.Result {
	r := &load.Result{Verdict: load.Done, Server: &load.Server{PerSocket: 400}, Opening: load.Opening{Opened: 1000}, Kernel: &[2]load.Slab{{Slabs: 1}, {}}}
	r.Settings.Verb, r.Host.Name = load.Connect, name
	r.Series = []load.Point{{Open: 1000, SlabSize: 8_000_001}}
	return r
}

// A run tells what a socket takes here only if it was here, and if its sockets were idle.
func TestDoctorMeasured(t *testing.T) {
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*load.Result)
		why    string
	}{
		{"good", func(*load.Result) {}, ""},
		{"required", func(r *load.Result) { r.Verdict = load.Pass }, ""},
		{"another verb", func(r *load.Result) { r.Settings.Verb = load.Echo }, "a run of bench echo: want one of bench connect"},
		{"another host", func(r *load.Result) { r.Host.Name += "-2" }, "measured on " + name + "-2, and this is " + name},
		{"another host of this name", func(r *load.Result) { r.Host.Machine += "2" }, "measured on another machine of the name " + name},
		{"invalid", func(r *load.Result) { r.Verdict = load.Invalid }, "a run that is INVALID"},
		{"failed", func(r *load.Result) { r.Verdict = load.Fail }, "a run that is FAIL"},
		{"no server", func(r *load.Result) { r.Server = nil }, "does not say what a socket takes"},
		{"few sockets", func(r *load.Result) { r.Server.PerSocket = 0 }, "1,000 sockets at least"},
	} {
		r := idleRun(name)
		r.Host.Machine = load.ThisMachine()
		c.change(r)
		h := host{}
		if err := h.measure(r); (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) || (h.measured == nil) != (err != nil) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// The limits that count are the service's where there is one.
func TestDoctorLimits(t *testing.T) {
	none := func() (string, error) { return "", os.ErrNotExist }
	const limitsFile = "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 %s               files\n"
	for _, c := range []struct {
		name string
		unit string
		pid  int
		want limits
	}{
		{"service", "LoadState=loaded\nLimitNOFILE=2097152\nMemoryMax=8589934592\nMainPID=0\n", 0,
			limits{2097152, "unit LimitNOFILE=2097152", "systemctl edit ticketgate  # [Service] LimitNOFILE=", 8 << 30, hostOnly}},
		{"service without limits", "MainPID=7\nLoadState=loaded\nLimitNOFILE=infinity\nMemoryMax=infinity\n", 0,
			limits{math.MaxUint64, "unit LimitNOFILE=infinity", "systemctl edit ticketgate  # [Service] LimitNOFILE=", unlimited, 7}},
		{"process", "LoadState=loaded\nLimitNOFILE=1\n", 7, limits{4096, "limit 4096 of process 7", "prlimit --pid 7 --nofile=", unlimited, 7}},
	} {
		h := hostOf(t, map[string]string{"proc/7/limits": fmt.Sprintf(limitsFile, "4096")})
		h.unit = func() (string, error) { return c.unit, nil }
		if err := h.find(c.pid); err != nil || h.limits != c.want {
			t.Errorf("%s: %+v, %v", c.name, h.limits, err)
		}
	}
	h := hostOf(t, nil)
	h.unit = none
	if err := h.find(0); err != nil || !strings.HasSuffix(h.limits.text, " of this shell") || h.limits.files == 4<<20 || h.limits.pid != os.Getpid() {
		t.Errorf("no systemd: %+v, %v", h.limits, err)
	}
	h.unit = func() (string, error) { return "LoadState=not-found\nLimitNOFILE=524288\n", nil }
	if err := h.find(0); err != nil || !strings.HasSuffix(h.limits.text, " of this shell") {
		t.Errorf("no service: %+v, %v", h.limits, err)
	}
	if err := h.find(8); err == nil || !strings.Contains(err.Error(), "--pid 8: its limits cannot be read") {
		t.Errorf("no such process: %v", err)
	}
}

// What people read has each command below the finding that it mends, and says in the end what it adds up to: the first minutes of
// an operator in the product reference, on a machine like the one there.
func TestDoctorTable(t *testing.T) {
	files := goodHost()
	files["proc/sys/fs/nr_open"] = "2097152\n"
	files["proc/sys/net/netfilter/nf_conntrack_max"] = "262144\n"
	files["proc/sys/net/netfilter/nf_conntrack_count"] = "0\n"
	files["proc/sys/net/ipv4/ip_local_port_range"] = "32768\t60999\n"
	h := hostOf(t, files)
	h.limits.text, h.relays, h.relaysKnown, h.sources = "unit LimitNOFILE=2097152", 0, false, 1
	var out, talk bytes.Buffer
	err := h.report(&out, &talk, "table")
	if err == nil || err.Error() != "doctor: this machine is not ready for 1000000 sockets" || talk.Len() > 0 {
		t.Errorf("%v, %s", err, talk.String())
	}
	const want = `ok    open files      unit LimitNOFILE=2097152, fs.nr_open=2097152
fail  conntrack       nf_conntrack_max=262144 < 1000000: raise it, or exempt the gate port (doctor --explain conntrack)
                      sysctl -w net.netfilter.nf_conntrack_max=1000000
warn  backend ports   1 source x 28232 ports per target: room for 28232 relays, wanted 1000000; add source_addresses or targets
                      sysctl -w net.ipv4.ip_local_port_range="10240 65535"
                      sudoedit /etc/ticketgate/ticketgate.yaml  # backends: 19 targets in all
ok    memory          125.0 GiB, estimate for target 5.1 GiB (5504 bytes a socket, measured elsewhere: §ticketgate bench connect§ on this host and --measured refine it)
ok    backlog         somaxconn=65535, tcp_max_syn_backlog=65535
ok    tcp_mem         room for a page of data on 2000000 connections
ok    clock           synchronised
ok    ktls            the kernel has TLS
ok    io_uring        many sockets are read and written in one system call
ok    interrupts      spread: eth0, wlan0
1 failure, 1 warning
`
	if got := strings.ReplaceAll(out.String(), "`", "§"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A name may be said with a space or a hyphen; what it finds is below what it is about.
func TestDoctorExplain(t *testing.T) {
	files := goodHost()
	files["proc/sys/fs/nr_open"] = "9"
	h := hostOf(t, files)
	h.target, h.relays = 100, 0
	for _, name := range []string{"open files", "open-files"} {
		var out bytes.Buffer
		if err := h.explain(&out, name); err != nil || !strings.HasPrefix(out.String(), "A socket is a descriptor") ||
			!strings.HasSuffix(out.String(), "\n\nfail  open files      limit 4194304, fs.nr_open=9: 100 sockets need 111: raise fs.nr_open\n                      sysctl -w fs.nr_open=111\n") {
			t.Errorf("%s: %v\n%s", name, err, out.String())
		}
	}
}

// The interrupts of a virtio card are those of the PCI device on which it sits.
func TestDoctorVirtio(t *testing.T) {
	const pci = "sys/devices/pci0000:00/0000:00:03.0/"
	for _, c := range []struct{ core, level, text string }{
		{"1\n", doctorWarn, "all interrupts on one core and no RPS: eth7 (core 1)"},
		{"0\n", doctorOK, "spread: eth0, eth7, wlan0"},
	} {
		files := goodHost()
		maps.Copy(files, map[string]string{
			pci + "virtio2/vendor": "0x1af4\n", pci + "msi_irqs/37": "msix\n", pci + "msi_irqs/38": "msix\n", pci + "msi_irqs/39": "msix\n", pci + "msi_irqs/40": "msix\n",
			"proc/irq/37/effective_affinity_list": "5\n", "proc/irq/38/effective_affinity_list": "1\n", "proc/irq/39/effective_affinity_list": "0\n", "proc/irq/40/effective_affinity_list": c.core,
			"proc/irq/37/virtio2-config/x": "-", "proc/irq/38/virtio2-input.0/x": "-", "proc/irq/39/virtio2-output.0/x": "-", "proc/irq/40/virtio2-input.1/x": "-",
			"sys/class/net/eth7/queues/rx-0/rps_cpus": "0\n", "sys/class/net/eth7/queues/rx-1/rps_cpus": "0\n",
		})
		h := hostOf(t, files)
		if err := os.Symlink("../../../devices/pci0000:00/0000:00:03.0/virtio2", filepath.Join(h.root, "sys/class/net/eth7/device")); err != nil {
			t.Fatal(err)
		}
		f := h.interrupts()
		if f.Level != c.level || f.Text != c.text || f.Level == doctorWarn && f.Fix[0] != "i=0; for n in 38 40; do echo $((i % 40)) > /proc/irq/$n/smp_affinity_list; i=$((i+1)); done" {
			t.Errorf("%+v, want %+v", f, c)
		}
	}
}

// Of a configuration count the addresses that its streams are relayed to: what differs in the path alone shares the ports, and what
// no stream has takes none.
func TestDoctorTargets(t *testing.T) {
	c := &config.Config{
		Streams: map[string]config.Stream{"a": {Backend: "many"}, "b": {Backend: "many"}, "c": {Backend: "one"}, "d": {Backend: "echo"}, "e": {Feed: "clock"}},
		Backends: map[string]config.Backend{
			"many":  {Targets: []string{"ws://10.0.1.11:7001/ws", "ws://10.0.1.11:7002/ws", "ws://Chat.example/ws"}},
			"one":   {Targets: []string{"ws://chat.example:80/other"}},
			"echo":  {Kind: "echo"},
			"spare": {Targets: []string{"ws://10.0.1.12:7001/ws"}},
		},
	}
	if n := relayTargets(c); n != 3 {
		t.Errorf("%d targets, want 3", n)
	}
}

// TestDoctorCommand: the command looks at this machine, in the form that people read.
func TestDoctorCommand(t *testing.T) {
	got := ticketgate(t, "", nil, "doctor", "--target", "1")
	mends := strings.Count(got.out, "\n"+strings.Repeat(" ", 22))
	if got.code != exitOK || !strings.HasPrefix(got.out, "ok    open files      ") || strings.Count(got.out, "\n") != len(checks)+mends+1 ||
		!regexp.MustCompile(`\n0 failures, \d+ warnings?\n$`).MatchString(got.out) || got.errors != "" {
		t.Errorf("%+v", got)
	}
	got = ticketgate(t, "", nil, "doctor", "--target", "2000000000")
	if got.code != exitFailed || !strings.Contains(got.out, "\nfail  memory          ") || !strings.Contains(got.out, "\nwarn  backend ports   1 source x ") ||
		!strings.Contains(got.errors, "ticketgate: doctor: this machine is not ready for 2000000000 sockets") {
		t.Errorf("%+v", got)
	}
	got = ticketgate(t, "", nil, "doctor", "--target", "2000000000", "--relays", "0", "-o", "json")
	var all []finding
	if err := json.Unmarshal([]byte(got.out), &all); err != nil || got.code != exitFailed || len(all) != len(checks) || all[2].Check != "backend ports" || all[2].Text != "no relays wanted" {
		t.Errorf("%v: %+v", err, got)
	}
	file := filepath.Join(t.TempDir(), "gw.yaml")
	const text = "version: 1\nlisten: { gate: { public_url: \"ws://127.0.0.1:8081\" } }\nstreams: { a: { backend: a } }\nbackends: { a: { targets: [\"ws://10.0.1.11:7001/ws\", \"ws://10.0.1.11:7002/ws\"] } }\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got = ticketgate(t, "", nil, "doctor", "--target", "1", "--config", file, "--explain", "backend ports")
	if got.code != exitOK || !strings.Contains(got.out, " ports per target x 2 targets: room for ") {
		t.Errorf("%+v", got)
	}
	if got := ticketgate(t, "", nil, "doctor", "--explain", "open", "files", "--target", "1"); got.code != exitOK || !strings.Contains(got.out, "\nok    open files") {
		t.Errorf("%+v", got)
	}
	help := ticketgate(t, "", nil, "doctor", "--help")
	for _, c := range checks {
		if got := ticketgate(t, "", nil, "doctor", "--explain", c.name); got.code != exitOK || len(got.out) < 80 {
			t.Errorf("%s: %+v", c.name, got)
		}
		if name := strings.ReplaceAll(c.name, " ", "-"); !strings.Contains(help.out, name) {
			t.Errorf("--help does not name %s", name)
		}
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--explain", "nothing"}, exitUsage, "--explain nothing: there are open-files, conntrack, backend-ports, memory, backlog, tcp_mem, clock, ktls, io_uring, interrupts\n"},
		{[]string{"--explain", "open", "file"}, exitUsage, "--explain open file: there are "},
		{[]string{"files"}, exitUsage, "see: ticketgate doctor --help"},
		{[]string{"--explain", ""}, exitUsage, "there are open-files, "},
		{[]string{"--target", "0"}, exitUsage, "--target 0: want"},
		{[]string{"--target", "9000000000000000000"}, exitUsage, "--target 9000000000000000000: want"},
		{[]string{"--relays", "-1"}, exitUsage, "--relays -1: want how many of the 100000 sockets"},
		{[]string{"--target", "10", "--relays", "11"}, exitUsage, "--relays 11: want how many of the 10 sockets"},
		{[]string{"--sources", "0"}, exitUsage, "--sources 0: want 1 to 1048576"},
		{[]string{"--sources", "-1"}, exitUsage, "--sources -1: want 1"},
		{[]string{"--pid", "0"}, exitUsage, "--pid 0: want a process"},
		{[]string{"-o", "xml"}, exitUsage, "-o xml: want table or json"},
		{[]string{"--measured", filepath.Join(t.TempDir(), "none")}, exitFailed, "no such file"},
		{[]string{"--config", filepath.Join(t.TempDir(), "none")}, exitConfig, "no such file"},
	} {
		if got := ticketgate(t, "", nil, append([]string{"doctor"}, c.args...)...); got.code != c.code || !strings.Contains(got.errors, c.want) {
			t.Errorf("%v: %+v", c.args, got)
		}
	}
}
