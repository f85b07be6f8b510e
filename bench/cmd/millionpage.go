package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"ticketgate/bench"
	loadtool "ticketgate/bench/load"
)

const (
	millionPings = 0.95 // of the pings that are due: with fewer answered a run has failed
	millionBytes = 640  // of the gateways' user space that a socket is to take at most
	extrapolated = 10e6 // sockets
)

// A millionRun is what one run found.
type millionRun struct {
	*loadtool.Result
	gateways int
	files    int // descriptors that each may have
	ping     time.Duration
	watch    time.Duration // of the gateways, before the first socket
	resting  time.Duration // processor time a second of all gateways then
	redis    *[2]int64     // its resident memory before and with all sockets; nil: there is none
}

// lost is how many sockets did not stay open.
func (m *millionRun) lost() (n uint64) {
	for _, v := range m.Run.Errors {
		n += v
	}
	return n
}

// open is how many sockets were open at the end.
func (m *millionRun) open() int {
	if len(m.Series) == 0 {
		return 0
	}
	return m.Series[len(m.Series)-1].Open
}

// pingsDue is how many pings the sockets get at least while they are held: as many each as whole times between pings fit in, because
// sockets that were opened in less than one are asked at the same moments. Where none fits in, those are counted whose first ping
// must fall into the hold: it comes four fifths of the time between pings after the socket was opened at the earliest.
func (m *millionRun) pingsDue() uint64 {
	held, opening := m.Settings.Duration, m.Opening.Took
	if held >= m.ping {
		return uint64(m.Opening.Wanted) * uint64(held/m.ping)
	}
	return uint64(max(0, m.openAt(opening+held-m.ping)-m.openAt(opening-m.ping*4/5)))
}

// openAt is how many sockets were open so long after the first began to be opened.
func (m *millionRun) openAt(t time.Duration) (open int) {
	for _, p := range m.Series {
		if p.At > t {
			break
		}
		open = p.Open
	}
	return open
}

var errMillion = errors.New("this is no run to be shown")

// failed says what keeps m from being what it was to show.
func (m *millionRun) failed() error {
	var why []string
	say := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	if n := m.lost(); n > 0 {
		say("%d sockets were lost", n)
	}
	if n := m.open(); n < m.Opening.Wanted {
		say("%s of %s sockets were open at the end", whole(n), whole(m.Opening.Wanted))
	}
	if due := m.pingsDue(); float64(m.Run.Pings) < millionPings*float64(due) {
		say("%s pings were answered, of %s that were due", whole(int(m.Run.Pings)), whole(int(due)))
	}
	if m.Run.Took < m.Settings.Duration {
		say("it ended after %s of %s", m.Run.Took, m.Settings.Duration)
	}
	if m.Verdict == loadtool.Fail || m.Verdict == loadtool.Invalid {
		why = append(why, m.Why...)
	}
	if len(why) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", errMillion, strings.Join(why, "; "))
}

// slope is what a socket added to the gateways' resident memory while sockets were opened, by least squares over all points from a tenth
// of them on: before and at the end the heap is in other states, here it is in the same all the time. 0: there were too few points.
func (m *millionRun) slope() float64 {
	var n, x, y, xx, xy float64
	for _, p := range m.Series {
		if p.Phase != "open" || p.Open < m.Opening.Wanted/10 {
			continue
		}
		open, rss := float64(p.Open), float64(p.RSS)
		n, x, y, xx, xy = n+1, x+open, y+rss, xx+open*open, xy+open*rss
	}
	if d := n*xx - x*x; d > 0 {
		return (n*xy - x*y) / d
	}
	return 0
}

// A pinging is what the gateways' processor time goes to while the sockets are held.
type pinging struct {
	resting float64 // cores, of one gateway, without a socket
	each    float64 // µs for a ping and its pong, with what a held socket takes besides; 0: there were no pings
}

func (m *millionRun) pinging() pinging {
	p := pinging{resting: m.resting.Seconds() / float64(m.gateways)}
	if more := m.Server.CPU.Seconds() - m.resting.Seconds()*m.Run.Took.Seconds(); more > 0 && m.Run.Pings > 0 {
		p.each = more * 1e6 / float64(m.Run.Pings)
	}
	return p
}

// cores is how many cores so many sockets and gateways take, with a ping in every.
func (p pinging) cores(sockets, gateways float64, every time.Duration) float64 {
	return p.resting*gateways + p.each*sockets/every.Seconds()/1e6
}

// keepMillion writes m in its part of the page.
func (r *runner) keepMillion(m *millionRun) error {
	part := r.millionPart()
	text := m.text(part, commandLine())
	if r.out == "-" {
		fmt.Print(text)
		return nil
	}
	return replaceIn(r.out, partsOfMillion, part, text)
}

// partsOfMillion are in the order in which they stand.
var partsOfMillion = []string{"native", "guest"}

func (o options) millionPart() string {
	if o.programs != "" {
		return "guest"
	}
	return "native"
}

// A share is what one socket takes, in bytes.
type share struct{ user, store, slabs, kernel float64 }

func (m *millionRun) share() share {
	n := float64(max(m.open(), 1))
	s := share{
		user:   float64(m.Server.After-m.Server.Before) / n,
		slabs:  float64(m.Kernel[1].Slabs-m.Kernel[0].Slabs) / n,
		kernel: float64(m.Kernel[1].Used-m.Kernel[0].Used) / n,
	}
	if m.redis != nil {
		s.store = float64(m.redis[1]-m.redis[0]) / n
	}
	return s
}

// productPing is how often a socket is pinged if the configuration says nothing.
const productPing = 25 * time.Second

const guestAbout = "In a guest whose processor is emulated: only bytes are to be taken from here, never times. `make bench-million-guest` makes what to take there.\n"

func (m *millionRun) text(part, command string) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("# %s sockets\n", whole(m.open()))
	say("Written by `%s` on %s. Do not edit.\n", command, m.Started.Format("2006-01-02 15:04 MST"))
	if part == "guest" {
		say(guestAbout)
	}
	servers := fmt.Sprintf("%d gateways of %d descriptors each share one port (SO_REUSEPORT) and one Redis, which all count in", m.gateways, m.files)
	if m.gateways == 1 {
		servers = "One gateway in one process, with the memory store"
	}
	say("%s; %d client process%s from %d addresses. Each socket came through a ticket of its own, is counted for its client (%d sockets a client) and rate-limited, and is pinged every %s.\n",
		servers, m.Client.Processes, map[bool]string{true: "es"}[m.Client.Processes != 1], len(m.Settings.Sources), millionEach, m.ping)
	m.table(say)
	m.tenMillion(say)
	return b.String()
}

func (m *millionRun) table(say func(string, ...any)) {
	one, srv, p := m.share(), m.Server, m.pinging()
	row := func(name, format string, args ...any) { say("| %s | "+format+" |", append([]any{name}, args...)...) }
	say("| | |\n|---|---|")
	row("machine", "%s, %d cores, %.1f GiB, Linux %s", m.Host.CPU, m.Host.Cores, gib(float64(m.Host.Memory)), m.Host.Kernel)
	row("opened", "%s of %s, in %s (%.0f a second)", whole(int(m.Opening.Opened)), whole(m.Opening.Wanted), m.Opening.Took.Round(time.Second), float64(m.Opening.Opened)/m.Opening.Took.Seconds())
	row("held", "%s, with %s pings answered; %s were due at least", m.Run.Took.Round(time.Second), whole(int(m.Run.Pings)), whole(int(m.pingsDue())))
	row("open at the end", "%s; %d were lost", whole(m.open()), m.lost())
	row("gateways, user space, a socket beyond what they take without any", "**%s B**; at most %d are wanted: %s (resident %s MiB before, when %d for each had come and gone; %s MiB with all open, and what opening them left behind; %s MiB at the end)",
		bench.Number(one.user), millionBytes, map[bool]string{true: "met", false: "missed"}[one.user <= millionBytes], mib(srv.Before), millionWarm, mib(srv.Full), mib(srv.After))
	if slope := m.slope(); slope > 0 {
		row("the same, as the slope of resident memory while they were opened", "%s B", bench.Number(slope))
	}
	if m.redis != nil {
		row("Redis, a socket", "%s B (resident %s MiB before, %s MiB at the end)", bench.Number(one.store), mib(m.redis[0]), mib(m.redis[1]))
	}
	store := int64(0)
	if m.redis != nil {
		store = m.redis[1]
	}
	row("user space in all", "%.2f GiB: what the gateways take without a socket (%s MiB each), the sockets, and the store", gib(float64(srv.After+store)), mib(srv.Before/int64(m.gateways)))
	row("kernel, a socket, both ends", "%s B of slabs; %s B of all that it uses beside the page cache", bench.Number(one.slabs), bench.Number(one.kernel))
	row("client, user space, a socket", "%s B", bench.Number(m.Client.PerSocket))
	row("together", "%.1f GiB more than without a socket: gateways, store, client, and the kernel for both ends", gib(float64(m.open())*(one.user+one.store+one.kernel+m.Client.PerSocket)))
	row("gateways, CPU while holding", "%.2f cores; %.2f of them without a socket (watched for %s before)", srv.Cores, p.resting*float64(m.gateways), m.watch)
	if p.each > 0 {
		row("the rest, for each ping and its pong", "%s µs, with all else that there is to do for an idle socket", bench.Number(p.each))
	}
}

func (m *millionRun) tenMillion(say func(string, ...any)) {
	one, p := m.share(), m.pinging()
	gateways := float64(m.gateways)
	if m.gateways > 1 { // one that holds all may hold more
		gateways *= extrapolated / float64(max(m.open(), 1))
	}
	socket := one.kernel/2 + one.user + one.store
	pings := "what pings cost was not seen"
	if p.each > 0 {
		pings = fmt.Sprintf("pings every %s would take %.1f cores like these", productPing, p.cores(extrapolated, gateways, productPing))
	}
	say("\n## Ten million\n")
	say("A socket takes %s B of the gateway's memory, %s B of Redis's and, if both ends cost the same, %s B of its kernel's: %s B. Ten million would take %.1f GiB on %.0f gateway%s, and %s, as long as nothing is sent: a socket with data under way takes what TCP's buffers take. "+
		"It assumes that memory and pings a socket stay as they are, that descriptors and ports are there (`fs.nr_open`; a client has one of each), and that the network card's share, which loopback does not have, is paid on top.",
		bench.Number(one.user), bench.Number(one.store), bench.Number(one.kernel/2), bench.Number(socket), gib(socket*extrapolated), gateways, map[bool]string{true: "s"}[gateways > 1], pings)
}

func gib(bytes float64) float64 { return bytes / (1 << 30) }
