package main

import (
	"cmp"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"math/bits"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ticketgate/internal/config"
)

// What a socket takes where nobody has measured it: the gateway's own rows and what Go keeps beside them, and one end in the
// kernel (bench/RESULTS.md: 336 and 742 bytes, and 8,676 of both ends, with a little to spare).
const (
	socketUser    = 384
	socketRelayed = 832
	socketKernel  = 5 << 10 // an end
)

// connections is how many the gateway has in all: descriptors, and rows of what tracks connections.
func (h *host) connections() uint64 {
	return uint64(h.target) + uint64(h.relays)
}

func (h *host) openFiles() finding {
	need := h.connections() * 10 / 9
	open, known := h.number("proc/sys/fs/nr_open")
	all, counted := h.number("proc/sys/fs/file-max")
	f := ok("%s", h.limits.text)
	if known {
		f.Text += fmt.Sprintf(", fs.nr_open=%d", open)
	}
	var short []string
	if known && open < need {
		short = append(short, "fs.nr_open")
		f = f.fix("sysctl -w fs.nr_open=%d", need)
	}
	used, _ := strconv.ParseUint(firstField(h.read("proc/sys/fs/file-nr")), 10, 64)
	if counted && all < need+used {
		short = append(short, fmt.Sprintf("fs.file-max=%d, of which %d are used", all, used))
		f = f.fix("sysctl -w fs.file-max=%d", need+used)
	}
	if h.limits.files < need {
		short = append(short, "the limit of the process")
		f = f.fix("%s%d", h.limits.fix, need)
	}
	if len(short) > 0 {
		f.Level = doctorFail
		f.Text += fmt.Sprintf(": %d sockets need %d: raise %s", h.target, need, strings.Join(short, ", and "))
	}
	return f
}

func firstField(text string) string {
	f := strings.Fields(text)
	if len(f) == 0 {
		return ""
	}
	return f[0]
}

func (h *host) conntrack() finding {
	most, loaded := h.number("proc/sys/net/netfilter/nf_conntrack_max")
	held, _ := h.number("proc/sys/net/netfilter/nf_conntrack_count")
	need := h.connections()
	switch {
	case !loaded:
		return ok("connections are not tracked")
	case most >= need+held:
		return ok("nf_conntrack_max=%d, %d of it in use", most, held)
	}
	f := fail("nf_conntrack_max=%d < %d", most, need)
	if held > 0 {
		f.Text += fmt.Sprintf(" + %d in use", held)
	}
	f.Text += ": raise it, or exempt the gate port"
	return f.fix("sysctl -w net.netfilter.nf_conntrack_max=%d", need+held)
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
		return warn("%s: below %d, so that a rush of clients waits a second more", text, backlogWanted).
			fix("sysctl -w net.core.somaxconn=%d net.ipv4.tcp_max_syn_backlog=%d", max(queue, backlogWanted), max(half, backlogWanted))
	default:
		return ok("%s", text)
	}
}

// The widest range of local ports that leaves alone what services listen on.
const portLow, portHigh = 10240, 65535

// ports looks whether relays have a local port each: a failure if the user wants so many relays, and a warning if nobody has
// said how many of the sockets are relayed.
func (h *host) ports() finding {
	wanted, short := h.target, warn
	if h.relaysKnown {
		wanted, short = h.relays, fail
	}
	f := strings.Fields(h.read("proc/sys/net/ipv4/ip_local_port_range"))
	switch {
	case h.targets == 0 && !h.relaysKnown:
		return ok("no relays: no stream of %s has a backend with targets", h.config)
	case wanted == 0:
		return ok("no relays wanted")
	case len(f) != 2:
		return warn("ip_local_port_range cannot be read")
	}
	low, err := strconv.Atoi(f[0])
	high, err2 := strconv.Atoi(f[1])
	if err != nil || err2 != nil || high < low {
		return warn("ip_local_port_range is %q", strings.Join(f, " "))
	}
	reserved := h.read("proc/sys/net/ipv4/ip_local_reserved_ports")
	ports := portsFree(low, high, reserved)
	text := fmt.Sprintf("%s x %d ports per target", countOf(h.sources, "source"), ports)
	if h.targets != 1 {
		text += fmt.Sprintf(" x %s", countOf(h.targets, "target"))
	}
	room := h.sources * h.targets * ports
	text += fmt.Sprintf(": room for %d relays", room)
	if room >= wanted {
		return ok("%s", text)
	}
	lacking := short("%s, wanted %d; add source_addresses or targets", text, wanted)
	if widest := portsFree(portLow, portHigh, reserved); widest > ports {
		ports = widest
		lacking = lacking.fix(`sysctl -w net.ipv4.ip_local_port_range="%d %d"`, portLow, portHigh)
	}
	if each := h.sources * ports; each > 0 && each*h.targets < wanted {
		lacking = lacking.fix("sudoedit %s  # backends: %d targets in all", cmp.Or(h.config, configFile), (wanted+each-1)/each)
	}
	return lacking
}

// relayTargets is how many addresses c's streams are relayed to: targets that differ in their paths alone share the ports.
func relayTargets(c *config.Config) int {
	seen := make(map[string]bool)
	for _, s := range c.Streams {
		for _, target := range c.Backends[s.Backend].Targets {
			if u, err := url.Parse(target); err == nil {
				seen[net.JoinHostPort(strings.ToLower(u.Hostname()), cmp.Or(u.Port(), "80"))] = true
			}
		}
	}
	return len(seen)
}

// portsFree is how many ports from low to high are not in reserved, a list such as "8080,9100-9200".
func portsFree(low, high int, reserved string) int {
	n := high - low + 1
	for from, to := range ranges(reserved) {
		n -= max(0, min(to, high)-max(from, low)+1)
	}
	return max(n, 0)
}

// ranges reads a list as the kernel writes them, "8080,9100-9200".
func ranges(list string) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		for part := range strings.SplitSeq(list, ",") {
			first, last, isRange := strings.Cut(part, "-")
			if !isRange {
				last = first
			}
			from, err := strconv.Atoi(first)
			to, err2 := strconv.Atoi(last)
			if err == nil && err2 == nil && !yield(from, to) {
				return
			}
		}
	}
}

// socketBytes is what a socket takes in all, and where that is known from.
func (h *host) socketBytes() (float64, string) {
	all, relayed := float64(h.target), float64(h.relays)
	user := (socketUser*(all-relayed) + socketRelayed*relayed) / all
	kernel := socketKernel * float64(h.connections()) / all
	from := "measured elsewhere: `ticketgate bench connect` on this host and --measured refine it"
	if r := h.measured; r != nil {
		user, from = r.Server.PerSocket, "from `ticketgate bench connect` on this host"
		if end, known := r.KernelEnd(); known {
			kernel = end
		} else {
			from += ", the kernel's part elsewhere: only root may measure it"
		}
	}
	return user + kernel, from
}

// hostOnly is a machine's files as no process of it sees them.
const hostOnly = 0

// seenBy is a machine's files as its process pid sees them.
type seenBy struct {
	fs.FS
	pid int
}

// Open implements fs.FS.
func (s seenBy) Open(name string) (fs.File, error) {
	if rest, self := strings.CutPrefix(name, "proc/self/"); self {
		name = fmt.Sprintf("proc/%d/%s", s.pid, rest)
	}
	return s.FS.Open(name)
}

// Parts of the memory that the target may take.
const (
	memoryMost  = 0.9 // the rest is the system's
	memoryAmple = 0.6 // with less left, data under way may fill it
)

func (h *host) memory() finding {
	root := os.DirFS(h.root)
	machine := config.MemoryLimit("auto", seenBy{root, hostOnly})
	total := min(config.MemoryLimit("auto", seenBy{root, h.limits.pid}), h.limits.memory)
	of := ""
	if total < machine {
		of = " of its control group"
	}
	each, from := h.socketBytes()
	need := each * float64(h.target)
	const gib = 1 << 30
	text := fmt.Sprintf("%.1f GiB%s, estimate for target %.1f GiB (%.0f bytes a socket, %s)", float64(total)/gib, of, need/gib, each, from)
	var f finding
	switch {
	case machine == unlimited:
		return warn("/proc/meminfo cannot be read")
	case need > memoryMost*float64(machine):
		missing, room := need/memoryMost-float64(machine), memoryMost*float64(total)/each
		return fail("%s: %.1f GiB are missing; there is room for --target %.0f", text, missing/gib, math.Floor(room))
	case need > memoryMost*float64(total):
		f = fail("%s: raise its limit", text)
	case need > memoryAmple*float64(total):
		f = warn("%s: little is left for data under way", text)
	default:
		return ok("%s", text)
	}
	f.Fix = h.raiseMemory(min(need/memoryAmple, float64(machine)))
	return f
}

// raiseMemory are the commands that give the gateway so many bytes: one for each control group of its that has less.
func (h *host) raiseMemory(bytes float64) []string {
	limit := fmt.Sprintf("%.0fM", math.Ceil(bytes/(1<<20)))
	ofService := "systemctl edit " + serviceUnit + "  # [Service] MemoryMax=" + limit
	var fixes []string
	if float64(h.limits.memory) < bytes {
		fixes = append(fixes, ofService)
	}
	for line := range strings.Lines(h.read(fmt.Sprintf("proc/%d/cgroup", h.limits.pid))) {
		group, v2 := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		for ; v2; group = path.Dir(group) {
			file := path.Join("sys/fs/cgroup", group, "memory.max")
			most, limited := h.number(file)
			name := path.Base(group)
			fix := ofService
			switch ext := path.Ext(name); {
			case name == serviceUnit+".service":
			case ext == ".service" || ext == ".slice" || ext == ".scope":
				fix = fmt.Sprintf("systemctl set-property %s MemoryMax=%s", name, limit)
			default: // a container's, or one that somebody has made by hand
				fix = fmt.Sprintf("echo %s > /%s", limit, file)
			}
			if limited && float64(most) < bytes && !slices.Contains(fixes, fix) {
				fixes = append(fixes, fix)
			}
			if group == "" || group == "." {
				break
			}
		}
	}
	return fixes
}

// tcpMemory compares the pages of net.ipv4.tcp_mem, from whose second figure on TCP shrinks its buffers, with one for each
// connection: idle ones have none, and one with data under way has one at least.
func (h *host) tcpMemory() finding {
	var low, pressure, high uint64
	text := h.read("proc/sys/net/ipv4/tcp_mem")
	if _, err := fmt.Sscan(text, &low, &pressure, &high); err != nil {
		return warn("tcp_mem cannot be read")
	}
	need := h.connections()
	if pressure >= need {
		return ok("room for a page of data on %d connections", pressure)
	}
	f := warn("tcp_mem=%q pages: data under way on all sockets at once needs %d, beyond %d TCP shrinks its buffers", strings.Join(strings.Fields(text), " "), need, pressure)
	if machine := config.MemoryLimit("auto", seenBy{os.DirFS(h.root), hostOnly}); need*uint64(os.Getpagesize()) > uint64(machine)/2 {
		f.Text += ", and more than half of the memory"
		return f
	}
	return f.fix(`sysctl -w net.ipv4.tcp_mem="%d %d %d"`, need/4*3, need, need/2*3)
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
		return warn("nothing keeps the wall clock right").fix("timedatectl set-ntp true")
	default:
		return ok("synchronised")
	}
}

func (h *host) ktls() finding {
	if slices.Contains(strings.Fields(h.read("proc/sys/net/ipv4/tcp_available_ulp")), "tls") {
		return ok("the kernel has TLS")
	}
	return warn("the kernel has no TLS: TLS sockets cost the gateway some 3.6 KB more each").fix("modprobe tls")
}

func (h *host) ioUring() finding {
	err := h.uring()
	if err == nil {
		return ok("many sockets are read and written in one system call")
	}
	f := warn("each read and write is a system call of its own: %v", err)
	if n, known := h.number("proc/sys/kernel/io_uring_disabled"); known && n > 0 {
		f = f.fix("sysctl -w kernel.io_uring_disabled=0")
	}
	return f
}

func (h *host) interrupts() finding {
	cards, err := filepath.Glob(filepath.Join(h.root, "sys/class/net/*/device"))
	if err != nil {
		return warn("%v", err)
	}
	var single, together, fine, fixes []string
	for _, device := range cards {
		card := filepath.Base(filepath.Dir(device))
		if state := h.read("sys/class/net/" + card + "/operstate"); state != "" && state != "up" && state != "unknown" {
			continue // nothing comes through it
		}
		queues, rps := h.queues(card)
		irqs := h.irqs(device)
		cores := h.coresOf(irqs)
		switch {
		case rps || h.cores == 1 || queues > 1 && len(cores) != 1: // 0: nobody knows which
			fine = append(fine, card)
		case queues < 2:
			single = append(single, card)
			fixes = append(fixes, fmt.Sprintf("echo %s > /sys/class/net/%s/queues/rx-0/rps_cpus", coreMask(h.cores), card))
		default:
			together = append(together, fmt.Sprintf("%s (core %d)", card, cores[0]))
			fixes = append(fixes, h.spreadQueues(card, irqs))
		}
	}
	var wrong []string
	if len(single) > 0 {
		wrong = append(wrong, "one receive queue and no RPS: "+strings.Join(single, ", "))
	}
	if len(together) > 0 {
		wrong = append(wrong, "all interrupts on one core and no RPS: "+strings.Join(together, ", "))
	}
	switch {
	case len(wrong) > 0:
		f := warn("%s", strings.Join(wrong, "; "))
		f.Fix = fixes
		return f
	case len(fine) == 0:
		return ok("no network card in use")
	default:
		return ok("spread: %s", strings.Join(fine, ", "))
	}
}

// spreadQueues is the command that gives the receive queues of card a core each; if they have one interrupt together, all cores.
func (h *host) spreadQueues(card string, irqs []string) string {
	if len(irqs) == 1 {
		return fmt.Sprintf("for q in /sys/class/net/%s/queues/rx-*; do echo %s > $q/rps_cpus; done", card, coreMask(h.cores))
	}
	return fmt.Sprintf("i=0; for n in %s; do echo $((i %% %d)) > /proc/irq/$n/smp_affinity_list; i=$((i+1)); done", strings.Join(irqs, " "), h.cores)
}

// queues is how many receive queues card has, and whether software spreads what comes through one of them.
func (h *host) queues(card string) (n int, rps bool) {
	queues, _ := filepath.Glob(filepath.Join(h.root, "sys/class/net", card, "queues/rx-*")) // the pattern is well-formed
	for _, q := range queues {
		mask, err := os.ReadFile(filepath.Join(q, "rps_cpus"))
		rps = rps || err == nil && coresIn(string(mask)) > 1
	}
	return len(queues), rps
}

// irqs are the numbers of the interrupts by which a card says that something has come; where the names of none tell, all of the card's.
func (h *host) irqs(device string) []string {
	device, err := filepath.EvalSymlinks(device)
	if err != nil {
		return nil
	}
	if strings.HasPrefix(filepath.Base(device), "virtio") { // its interrupts are those of the PCI device below it
		device = filepath.Dir(device)
	}
	entries, _ := os.ReadDir(filepath.Join(device, "msi_irqs")) // none: a virtual card, or an old one
	var all, receive []string
	for _, e := range entries {
		all = append(all, e.Name())
		if h.receives(e.Name()) {
			receive = append(receive, e.Name())
		}
	}
	if len(receive) > 0 {
		all = receive
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
	return all
}

// receives says by the name that the driver gave the interrupt irq whether it is of a receive queue: virtio2-input.0,
// eth0-TxRx-3, mlx5_comp7@pci:0000:3b:00.0, but not virtio2-output.0, eth0-tx-1 or mlx5_async0@pci:0000:3b:00.0.
func (h *host) receives(irq string) bool {
	entries, _ := os.ReadDir(filepath.Join(h.root, "proc/irq", irq))
	for _, e := range entries {
		name := strings.ToLower(e.Name())
		if e.IsDir() && (strings.Contains(name, "rx") || strings.Contains(name, "input") || strings.Contains(name, "comp")) {
			return true
		}
	}
	return false
}

// coresOf are the cores that take the interrupts irqs. An older kernel does not say which core does, only which may.
func (h *host) coresOf(irqs []string) []int {
	var cores []int
	for _, irq := range irqs {
		list := cmp.Or(h.read("proc/irq/"+irq+"/effective_affinity_list"), h.read("proc/irq/"+irq+"/smp_affinity_list"))
		for from, to := range ranges(list) {
			for core := from; core <= min(to, from+1); core++ { // two are as many as all
				cores = append(cores, core)
			}
		}
	}
	slices.Sort(cores)
	return slices.Compact(cores)
}

// coresIn is how many cores are in mask, such as "00000000,0000000f".
func coresIn(mask string) (n int) {
	for _, digit := range mask {
		if v, err := strconv.ParseUint(string(digit), 16, 8); err == nil {
			n += bits.OnesCount64(v)
		}
	}
	return n
}

// coreMask has the first n cores, in groups of 32 as the kernel writes them.
func coreMask(n int) string {
	var groups []string
	for ; n > 0; n -= 32 {
		groups = append(groups, fmt.Sprintf("%x", uint64(1)<<min(n, 32)-1))
	}
	slices.Reverse(groups)
	return strings.Join(groups, ",")
}
