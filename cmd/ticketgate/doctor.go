package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ticketgate/bench/load"
	"ticketgate/engine/reactor"
)

func init() { commands = append(commands, doctorCmd) }

// What a finding is worth.
const (
	doctorOK   = "ok"
	doctorWarn = "warn" // it works, but not as it could
	doctorFail = "fail" // the target will not be reached
)

// A finding is what one check says.
type finding struct {
	Level string `json:"level"`
	Check string `json:"check"`
	Text  string `json:"text"`
}

// What a socket takes where nobody has measured it: the gateway's own rows and what Go keeps beside them, and one end in the
// kernel (bench/RESULTS.md).
const (
	socketUser   = 384
	socketKernel = 5 << 10
)

// A host is the machine that doctor looks at.
type host struct {
	root   string // "/", or where a test has written another machine
	files  uint64 // hard limit of descriptors of this process
	synced func() (bool, error)
	uring  func() error

	target   int
	measured *load.Result // of bench connect on this host; nil: none
	relays   bool         // each socket takes a connection to a backend
	sources  int          // addresses that those may come from
}

// A check is one thing to look at.
type check struct {
	name    string
	explain string
	look    func(*host) finding
}

// checks are what doctor does, in the order in which it says so.
var checks = []check{
	{"files", `A socket is a descriptor, a relayed one two. The limit is that of the process (systemd: LimitNOFILE=2097152 in the unit; a
shell: ulimit -n), which cannot be above fs.nr_open (sysctl -w fs.nr_open=2097152, and a line in /etc/sysctl.d). The gateway leaves
a tenth unused, for everything else.`, (*host).openFiles},
	{"conntrack", `A firewall that tracks connections has a table of them, and drops new ones when it is full. Raise
net.netfilter.nf_conntrack_max above the target (a row is about 320 bytes), or do not track the gate's port:
  nft add rule raw prerouting tcp dport 9443 notrack`, (*host).conntrack},
	{"backlog", `Connections that came and were not accepted yet wait in a queue: net.core.somaxconn long at most. Beyond it they are dropped
and come again a second later. net.ipv4.tcp_max_syn_backlog is the same for those that have not finished TCP's handshake.
  sysctl -w net.core.somaxconn=65535 net.ipv4.tcp_max_syn_backlog=65535`, (*host).backlog},
	{"ports", `A relay to one backend address takes a local port of its own: as many as net.ipv4.ip_local_port_range has, for each source
address. Widen it (sysctl -w net.ipv4.ip_local_port_range="10240 65535"), or give the backend more targets.`, (*host).ports},
	{"memory", `What the target takes: user space and kernel, without data under way. It is an estimate from measurements elsewhere, unless
--measured names the JSON of a run on this host:
  ticketgate bench connect -c 15000 --json run.json && ticketgate doctor --target N --measured run.json`, (*host).memory},
	{"clock", `Tickets and JWT live by the wall clock, in all nodes the same: run chrony or systemd-timesyncd.`, (*host).clock},
	{"ktls", `With kernel TLS an idle TLS socket costs no more than a plain one; without, some 3.6 KB of the gateway. It is a module:
  modprobe tls; echo tls > /etc/modules-load.d/tls.conf`, (*host).ktls},
	{"io_uring", `With io_uring the gateway reads and writes many sockets in one system call, which saves up to a third of what messages cost.
Without, it works as well. Linux 5.18 or later; it may be forbidden by the system, or by a filter around the process:
  sysctl -w kernel.io_uring_disabled=0; with systemd: SystemCallFilter=@system-service io_uring_setup io_uring_enter`, (*host).ioUring},
	{"interrupts", `A network card with one queue gives all its interrupts to one core. Spread packets in software (RPS) over as many cores as
the gateway has loops:
  echo ff > /sys/class/net/eth0/queues/rx-0/rps_cpus`, (*host).interrupts},
}

func doctorCmd(e *env) *cobra.Command {
	h := &host{root: "/", sources: 1, synced: clockSynced, uring: reactor.CanBatch}
	var explain, measured string
	output := "table"
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say whether this machine can hold so many sockets",
		Long: `doctor looks at the limits of this machine and says what stands between it and --target open sockets. It changes nothing.
It exits with 1 if something fails.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			switch {
			case explain != "":
				return explainCheck(e.stdout, explain)
			case h.target < 1:
				return usagef("doctor: --target %d: want how many sockets this machine shall hold", h.target)
			case output != "table" && output != "json":
				return usagef("doctor: -o %s: want table or json", output)
			}
			if measured != "" {
				r, err := readRun(measured)
				if err != nil {
					return err
				}
				h.measured = r
			}
			var r unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
				return fmt.Errorf("getrlimit: %w", err)
			}
			h.files = r.Max
			return h.report(e.stdout, output)
		},
	}
	f := c.Flags()
	f.IntVar(&h.target, "target", 100_000, "sockets that this machine shall hold")
	f.BoolVar(&h.relays, "relays", false, "each is relayed: it takes a second descriptor, and a port")
	f.IntVar(&h.sources, "sources", 1, "with --relays: pairs of source address and backend target")
	f.StringVar(&measured, "measured", "", "JSON of a bench connect on this host, for what a socket takes")
	f.StringVar(&explain, "explain", "", "say what a check is about, and how to mend it")
	f.StringVarP(&output, "output", "o", output, "table or json")
	return c
}

func explainCheck(w io.Writer, name string) error {
	var names []string
	for _, c := range checks {
		if c.name == name {
			_, err := fmt.Fprintln(w, c.explain)
			return err
		}
		names = append(names, c.name)
	}
	return usagef("doctor: --explain %s: there are %s", name, strings.Join(names, ", "))
}

// report makes all checks.
func (h *host) report(w io.Writer, output string) error {
	var all []finding
	failures, warnings := 0, 0
	for _, c := range checks {
		f := c.look(h)
		f.Check = c.name
		switch f.Level {
		case doctorFail:
			failures++
		case doctorWarn:
			warnings++
		}
		if f.Level != doctorOK {
			f.Text += fmt.Sprintf(" (doctor --explain %s)", c.name)
		}
		all = append(all, f)
	}
	if output == "json" {
		if err := json.NewEncoder(w).Encode(all); err != nil {
			return err
		}
	} else {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, f := range all {
			fmt.Fprintf(t, "%s\t%s\t%s\n", f.Level, f.Check, f.Text)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if failures > 0 {
		return &exitError{exitFailed, fmt.Sprintf("doctor: %s, %s", countOf(failures, "failure"), countOf(warnings, "warning"))}
	}
	return nil
}

func countOf(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func ok(format string, args ...any) finding {
	return finding{Level: doctorOK, Text: fmt.Sprintf(format, args...)}
}

func warn(format string, args ...any) finding {
	return finding{Level: doctorWarn, Text: fmt.Sprintf(format, args...)}
}

func fail(format string, args ...any) finding {
	return finding{Level: doctorFail, Text: fmt.Sprintf(format, args...)}
}

// read is a file of the machine, without the line end; "" if there is none.
func (h *host) read(path string) string {
	b, err := os.ReadFile(filepath.Join(h.root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// number is the number that a file of the machine has; false if it has none.
func (h *host) number(path string) (uint64, bool) {
	n, err := strconv.ParseUint(h.read(path), 10, 64)
	return n, err == nil
}

func (h *host) openFiles() finding {
	each := 1
	if h.relays {
		each = 2
	}
	need := uint64(h.target) * uint64(each) * 10 / 9
	open, known := h.number("proc/sys/fs/nr_open")
	text := fmt.Sprintf("limit %d, fs.nr_open=%d", h.files, open)
	switch {
	case known && open < need:
		return fail("%s: %d sockets need %d: raise both", text, h.target, need)
	case h.files < need:
		return fail("%s: %d sockets need %d: raise the limit of the process", text, h.target, need)
	default:
		return ok("%s", text)
	}
}

func (h *host) conntrack() finding {
	most, loaded := h.number("proc/sys/net/netfilter/nf_conntrack_max")
	switch {
	case !loaded:
		return ok("connections are not tracked")
	case most < uint64(h.target):
		return fail("nf_conntrack_max=%d < %d: raise it, or exempt the gate's port", most, h.target)
	default:
		return ok("nf_conntrack_max=%d", most)
	}
}

// backlogWanted is what a gate that comes back after a restart may find waiting, at 20,000 admissions a second.
const backlogWanted = 4096

func (h *host) backlog() finding {
	queue, known := h.number("proc/sys/net/core/somaxconn")
	half, known2 := h.number("proc/sys/net/ipv4/tcp_max_syn_backlog")
	text := fmt.Sprintf("somaxconn=%d, tcp_max_syn_backlog=%d", queue, half)
	switch {
	case !known || !known2:
		return warn("somaxconn or tcp_max_syn_backlog cannot be read")
	case queue < backlogWanted || half < backlogWanted:
		return warn("%s: below %d, so that a rush of clients waits a second more", text, backlogWanted)
	default:
		return ok("%s", text)
	}
}

func (h *host) ports() finding {
	f := strings.Fields(h.read("proc/sys/net/ipv4/ip_local_port_range"))
	if len(f) != 2 {
		return warn("ip_local_port_range cannot be read")
	}
	low, err := strconv.Atoi(f[0])
	high, err2 := strconv.Atoi(f[1])
	if err != nil || err2 != nil || high < low {
		return warn("ip_local_port_range is %q", strings.Join(f, " "))
	}
	room := h.sources * (high - low + 1)
	text := fmt.Sprintf("%s x %d ports: room for %d relays", countOf(h.sources, "source and target"), high-low+1, room)
	switch {
	case !h.relays:
		return ok("%d of an address (only relays take one each: --relays)", high-low+1)
	case room < h.target:
		return fail("%s, wanted %d; add targets or addresses", text, h.target)
	default:
		return ok("%s", text)
	}
}

// socketBytes is what a socket takes in all, and where that is known from.
func (h *host) socketBytes() (float64, string) {
	r := h.measured
	if r == nil || r.Server == nil || r.Server.PerSocket <= 0 {
		return socketUser + socketKernel, "from measurements elsewhere: --measured refines it"
	}
	kernel := float64(socketKernel)
	if k := r.Kernel; k != nil && r.Opening.Opened > 0 && k[1].Slabs > k[0].Slabs {
		kernel = float64(k[1].Slabs-k[0].Slabs) / float64(r.Opening.Opened) // of both ends: the client was here too
	}
	return r.Server.PerSocket + kernel, "as measured on " + r.Host.Name
}

func (h *host) memory() finding {
	var total float64
	for line := range strings.Lines(h.read("proc/meminfo")) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			kib, err := strconv.ParseUint(f[1], 10, 64)
			if err == nil {
				total = float64(kib << 10)
			}
		}
	}
	each, from := h.socketBytes()
	need := each * float64(h.target)
	const gib = 1 << 30
	text := fmt.Sprintf("%.1f GiB, %.1f GiB for the target at %.0f bytes a socket (%s)", total/gib, need/gib, each, from)
	switch {
	case total == 0:
		return warn("/proc/meminfo cannot be read")
	case need > 0.9*total:
		return fail("%s", text)
	case need > 0.6*total:
		return warn("%s: little is left for data under way", text)
	default:
		return ok("%s", text)
	}
}

// clockSynced asks the kernel whether something keeps its clock right (adjtimex).
func clockSynced() (bool, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err
}

func (h *host) clock() finding {
	synced, err := h.synced()
	switch {
	case err != nil:
		return warn("adjtimex: %v", err)
	case !synced:
		return warn("nothing keeps the wall clock right")
	default:
		return ok("synchronised")
	}
}

func (h *host) ktls() finding {
	if slices.Contains(strings.Fields(h.read("proc/sys/net/ipv4/tcp_available_ulp")), "tls") {
		return ok("the kernel has TLS")
	}
	return warn("the kernel has no TLS: TLS sockets cost the gateway some 3.6 KB more each")
}

func (h *host) ioUring() finding {
	if err := h.uring(); err != nil {
		return warn("each read and write is a system call of its own: %v", err)
	}
	return ok("many sockets are read and written in one system call")
}

func (h *host) interrupts() finding {
	cards, err := filepath.Glob(filepath.Join(h.root, "sys/class/net/*/device"))
	if err != nil {
		return warn("%v", err)
	}
	var single, fine []string
	for _, card := range cards {
		dir := filepath.Dir(card)
		queues, err := filepath.Glob(filepath.Join(dir, "queues/rx-*"))
		if err != nil {
			return warn("%v", err)
		}
		spread := len(queues) > 1
		for _, q := range queues {
			mask, err := os.ReadFile(filepath.Join(q, "rps_cpus"))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return warn("%v", err)
			}
			spread = spread || strings.Trim(string(mask), "0,\n") != ""
		}
		if name := filepath.Base(dir); spread {
			fine = append(fine, name)
		} else {
			single = append(single, name)
		}
	}
	switch {
	case len(single) > 0:
		return warn("one receive queue and no RPS: %s", strings.Join(single, ", "))
	case len(fine) == 0:
		return ok("no network card")
	default:
		return ok("spread: %s", strings.Join(fine, ", "))
	}
}
