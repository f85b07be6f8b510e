package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"ticketgate/bench/load"
	"ticketgate/engine/reactor"
	"ticketgate/internal/config"
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

	Fix []string `json:"fix,omitempty"` // commands that would mend it; doctor runs none of them
}

// fix is f with another command.
func (f finding) fix(format string, args ...any) finding {
	f.Fix = append(f.Fix, fmt.Sprintf(format, args...))
	return f
}

// A host is the machine that doctor looks at.
type host struct {
	root   string // "/", or where a test has written another machine
	cores  int
	limits limits
	synced func() (bool, error)
	uring  func() error
	unit   func() (string, error) // what systemctl shows of the service

	target   int
	measured *load.Result // of bench connect on this host; nil: none

	relays      int    // so many of the sockets take a connection to a backend
	relaysKnown bool   // the user has said so; else they may be none or all
	sources     int    // addresses that those may come from
	targets     int    // addresses that they may go to
	config      string // says so; "": none
}

// A check is one thing to look at.
type check struct {
	name    string
	explain string
	look    func(*host) finding
}

// checks are what doctor does, in the order in which it says so. A name may have a space, for which --explain takes a hyphen, too.
var checks = []check{
	{"open files", `A socket is a descriptor, a relayed one two. The limit is that of the service where systemd has one called ticketgate, of --pid, or
else of this shell; it cannot be above fs.nr_open, and all processes together not above fs.file-max. The gateway leaves a tenth
unused, for everything else. What sysctl sets is gone after a restart: write it into /etc/sysctl.d, too.`, (*host).openFiles},
	{"conntrack", `A firewall that tracks connections has a table of them, and drops new ones when it is full. A relayed socket has two rows, each of
about 320 bytes. Raise net.netfilter.nf_conntrack_max, or do not track the gate's port (here 9443):
  nft add table inet ticketgate
  nft add chain inet ticketgate in '{ type filter hook prerouting priority raw; }'
  nft add chain inet ticketgate out '{ type filter hook output priority raw; }'
  nft add rule inet ticketgate in tcp dport 9443 notrack
  nft add rule inet ticketgate out tcp sport 9443 notrack`, (*host).conntrack},
	{"backend ports", `A relay to one backend address takes a local port of its own: as many as net.ipv4.ip_local_port_range has without
net.ipv4.ip_local_reserved_ports, for each pair of source address and target. Widen the range, or give the backend more targets:
another port of the same machine is one. source_addresses are not available in this version.

How many of the sockets will be relayed only you know. Without --relays they may be all, and too few ports are a warning; with
--relays N too few are a failure, and --relays 0 says that there is none. --config FILE counts the targets of that configuration:
addresses with a port that differ, of all backends that a stream has; without it there is one.`, (*host).ports},
	{"memory", `What the target takes: user space and kernel, without data under way. What there is, is the host's memory or what the service's
control group may use of it; a tenth of it is left to others, and with less than 40 % left over doctor warns. It is an estimate from
measurements elsewhere, unless --measured names the JSON of a run on this host, as root, with the server on it too, to a stream of
the kind that will be used (for --relays one whose backend is here as well):
  ticketgate bench connect -c 15000 --json run.json && ticketgate doctor --target N --measured run.json`, (*host).memory},
	{"backlog", `Connections that came and were not accepted yet wait in a queue: net.core.somaxconn long at most. Beyond it they are dropped
and come again a second later. net.ipv4.tcp_max_syn_backlog is the same for those that have not finished TCP's handshake.`, (*host).backlog},
	{"tcp_mem", `The kernel has one budget for the data of all TCP sockets, in pages of 4 KiB: net.ipv4.tcp_mem. From its second figure on it
shrinks buffers, beyond the third it drops data.`, (*host).tcpMemory},
	{"clock", `Tickets and JWT live by the wall clock, in all nodes the same: run chrony or systemd-timesyncd.`, (*host).clock},
	{"ktls", `With kernel TLS an idle TLS socket costs no more than a plain one; without, some 3.6 KB of the gateway. It is a module; for it to be
there after a restart:
  echo tls > /etc/modules-load.d/tls.conf`, (*host).ktls},
	{"io_uring", `With io_uring the gateway reads and writes many sockets in one system call, which saves up to a third of what messages cost.
Without, it works as well. Linux 5.18 or later; it may be forbidden by the system (kernel.io_uring_disabled), or by a filter around
the process, with systemd: SystemCallFilter=@system-service io_uring_setup io_uring_enter`, (*host).ioUring},
	{"interrupts", `A network card gives the interrupts of a receive queue to one core. With one queue, spread packets in software (RPS) over as many cores
as the gateway has loops: a bit for each core in the queue's rps_cpus. With several queues, give each interrupt a core of its own in
/proc/irq/N/smp_affinity_list; irqbalance, where it runs, may move them again. Both are gone after a restart.`, (*host).interrupts},
}

// The most that can be asked for: beyond it figures would wrap.
const (
	targetMax  = 1 << 40
	sourcesMax = 1 << 20
)

func doctorCmd(e *env) *cobra.Command {
	h := &host{root: "/", cores: runtime.NumCPU(), sources: 1, targets: 1, synced: clockSynced, uring: reactor.CanBatch, unit: showUnit}
	var explain, measured string
	var pid int
	output := "table"
	c := &cobra.Command{
		Use:   "doctor [--target N] [--explain CHECK]",
		Short: "Say whether this machine can hold so many sockets",
		Long: `doctor looks at the limits of this machine and says what stands between it and --target open sockets, with the command that
would mend it, where one does. It changes nothing. It exits with 1 if something fails.

Checks: ` + strings.Join(checkNames(), ", ") + `.`,
		Args: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("explain") { // a name as it is printed may be two words
				return nil
			}
			return cobra.NoArgs(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			h.relaysKnown = c.Flags().Changed("relays")
			switch {
			case h.target < 1 || h.target > targetMax:
				return usagef("doctor: --target %d: want how many sockets this machine shall hold", h.target)
			case h.relays < 0 || h.relays > h.target:
				return usagef("doctor: --relays %d: want how many of the %d sockets are relayed", h.relays, h.target)
			case h.sources < 1 || h.sources > sourcesMax:
				return usagef("doctor: --sources %d: want 1 to %d", h.sources, sourcesMax)
			case c.Flags().Changed("pid") && pid < 1:
				return usagef("doctor: --pid %d: want a process", pid)
			case output != "table" && output != "json":
				return usagef("doctor: -o %s: want table or json", output)
			}
			if err := h.find(pid); err != nil {
				return err
			}
			if c.Flags().Changed("config") {
				configured, err := config.Load(h.config, e.environ, nil)
				if err != nil {
					return err
				}
				h.targets = relayTargets(configured)
			}
			if c.Flags().Changed("measured") {
				r, err := readRun(measured)
				if err == nil {
					err = h.measure(r)
				}
				if err != nil {
					return fmt.Errorf("doctor: --measured %s: %w", measured, err)
				}
			}
			if c.Flags().Changed("explain") {
				return h.explain(e.stdout, strings.Join(append([]string{explain}, args...), " "))
			}
			return h.report(e.stdout, e.stderr, output)
		},
	}
	f := c.Flags()
	f.IntVar(&h.target, "target", 100_000, "sockets that this machine shall hold")
	f.IntVar(&h.relays, "relays", 0, "so many of them are relayed, which takes a second descriptor and a port (default: unknown, and ports are counted for all)")
	f.IntVar(&h.sources, "sources", 1, "addresses that relays come from")
	f.StringVar(&h.config, "config", "", "a gateway's configuration, for how many targets its backends have (default: one target)")
	f.IntVar(&pid, "pid", 0, "process of the gateway, whose limits count (default: the service ticketgate, or this shell)")
	f.StringVar(&measured, "measured", "", "JSON of a bench connect on this host, for what a socket takes")
	f.StringVar(&explain, "explain", "", "say what a check is about, and how to mend it")
	f.StringVarP(&output, "output", "o", output, "table or json")
	_ = c.MarkFlagFilename("config", "yaml", "yml") // fails only for a flag that is not there
	_ = c.MarkFlagFilename("measured", "json")
	return c
}

// checkNames are the checks as --explain takes them without quotes.
func checkNames() []string {
	var names []string
	for _, c := range checks {
		names = append(names, hyphened(c.name))
	}
	return names
}

func hyphened(name string) string { return strings.ReplaceAll(name, " ", "-") }

// explain says what a check is about, and what it finds.
func (h *host) explain(w io.Writer, name string) error {
	for _, c := range checks {
		if hyphened(c.name) == hyphened(name) {
			if _, err := fmt.Fprintf(w, "%s\n\n", c.explain); err != nil {
				return err
			}
			return writeFindings(w, []finding{h.look(c)})
		}
	}
	return usagef("doctor: --explain %s: there are %s", name, strings.Join(checkNames(), ", "))
}

// look makes one check.
func (h *host) look(c check) finding {
	f := c.look(h)
	f.Check = c.name
	return f
}

// writeFindings is the form that people read. The longest name has 13 letters.
func writeFindings(w io.Writer, all []finding) error {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintf(&b, "%-6s%-16s%s\n", f.Level, f.Check, f.Text)
		for _, fix := range f.Fix {
			fmt.Fprintf(&b, "%22s%s\n", "", fix)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// report makes all checks and says in the end what they add up to: to talk where w takes JSON.
func (h *host) report(w, talk io.Writer, output string) error {
	var all []finding
	failures, warnings := 0, 0
	for _, c := range checks {
		f := h.look(c)
		switch f.Level {
		case doctorFail:
			failures++
			f.Text += fmt.Sprintf(" (doctor --explain %s)", hyphened(c.name))
		case doctorWarn:
			warnings++
		}
		all = append(all, f)
	}
	var err error
	if output == "json" {
		j := json.NewEncoder(w)
		j.SetEscapeHTML(false) // commands have > in them
		err, w = j.Encode(all), talk
	} else {
		err = writeFindings(w, all)
	}
	if err == nil {
		_, err = fmt.Fprintf(w, "%s, %s\n", countOf(failures, "failure"), countOf(warnings, "warning"))
	}
	if err == nil && failures > 0 {
		err = &exitError{exitFailed, fmt.Sprintf("doctor: this machine is not ready for %d sockets", h.target)}
	}
	return err
}

// measure takes what a socket takes from a run on this machine.
func (h *host) measure(r *load.Result) error {
	name, err := os.Hostname()
	switch {
	case err != nil:
		return err
	case r.Settings.Verb != load.Connect:
		return fmt.Errorf("a run of bench %s: want one of bench connect, whose sockets are idle", r.Settings.Verb)
	case r.Verdict != load.Done && r.Verdict != load.Pass:
		return fmt.Errorf("a run that is %s", r.Verdict)
	case r.Host.Name != name:
		return fmt.Errorf("measured on %s, and this is %s", r.Host.Name, name)
	case r.Host.Machine != load.ThisMachine():
		return fmt.Errorf("measured on another machine of the name %s", name)
	case r.Server == nil || r.Server.PerSocket <= 0:
		return errors.New("it does not say what a socket takes: want the server on this machine, and 1,000 sockets at least")
	}
	h.measured = r
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
