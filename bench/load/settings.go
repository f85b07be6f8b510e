package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Settings is what a run is asked to do: what two runs must have in common to be compared.
type Settings struct {
	Verb     string        `json:"verb"`
	Target   string        `json:"target,omitempty"` // handshake address of a gateway
	Plain    string        `json:"plain,omitempty"`  // or a WebSocket server without tickets
	Key      string        `json:"-"`
	Stream   string        `json:"stream,omitempty"`
	Clients  int           `json:"clients,omitempty"`
	Sockets  int           `json:"sockets,omitempty"`
	Ramp     float64       `json:"ramp,omitempty"`
	Insist   bool          `json:"insist,omitempty"` // another attempt for each socket that could not be opened
	Rate     string        `json:"rate,omitempty"`   // for ParseSchedule; "": closed loop
	Poisson  bool          `json:"poisson,omitempty"`
	InFlight int           `json:"in_flight,omitempty"`
	Size     int           `json:"size,omitempty"`
	Duration time.Duration `json:"duration"`
	Settle   time.Duration `json:"settle"`
	Timeout  time.Duration `json:"timeout,omitempty"` // of a ticket, and of connecting and upgrading; 0: none
	Procs    int           `json:"procs"`
	Lanes    int           `json:"lanes"`
	Sources  []string      `json:"sources,omitempty"`
	Seed     uint64        `json:"seed"`
	Backend  string        `json:"backend,omitempty"` // where relay listens as the backend
	Attacks  []string      `json:"attacks,omitempty"`
	Hostile  int           `json:"hostile,omitempty"` // peers of each attack
	Pin      bool          `json:"pin,omitempty"`     // each process stays on one core
	PIDs     []int         `json:"-"`
}

// The most of what can be asked for.
const (
	socketsMax  = 100_000_000
	procsMax    = 1000
	lanesMax    = 10_000              // of each process: each has a connection of its own
	hostileMax  = 10_000              // of each attack: all in one process
	durationMax = 30 * 24 * time.Hour // the backend of relay listens for a year
	settleMax   = time.Hour
	timeoutMax  = time.Hour
	underWayMax = 4 << 30 // bytes: client, server and kernel hold them, a million messages of 4 KiB
)

// Check says what is wrong with s.
func (s *Settings) Check() error {
	if (s.Target == "") == (s.Plain == "") {
		return errors.New("want --target, the handshake address of a gateway, or --plain, a WebSocket server's ws:// address")
	}
	if s.Plain != "" {
		if _, err := plainOf(s.Plain); err != nil {
			return err
		}
		if s.Verb == Tickets {
			return errors.New("tickets: a plain WebSocket server has none: want --target")
		}
	} else if err := s.checkTarget(); err != nil {
		return err
	}
	if err := errors.Join(s.checkBounds()...); err != nil {
		return err
	}
	for _, text := range s.Sources {
		if a, err := netip.ParseAddr(text); err != nil || !a.Is4() {
			return fmt.Errorf("--source %s: want IPv4 addresses, such as 127.0.0.2 or 127.0.0.2-127.0.0.9", text)
		}
	}
	_, err := s.schedule()
	return err
}

// checkBounds says which figures cannot be, or cannot be together.
func (s *Settings) checkBounds() (all []error) {
	want := func(ok bool, format string, args ...any) {
		if !ok {
			all = append(all, fmt.Errorf(format, args...))
		}
	}
	want(s.Duration > 0 && s.Duration <= durationMax, "--duration %s: want more than 0, and at most %s", s.Duration, durationMax)
	want(s.Settle >= 0 && s.Settle <= settleMax, "--settle %s: want 0 to %s", s.Settle, settleMax)
	want(s.Timeout >= 0 && s.Timeout <= timeoutMax, "--timeout %s: want at most %s, or 0 for none", s.Timeout, timeoutMax)
	want(s.Procs >= 0 && s.Procs <= procsMax, "--procs %d: want 1 to %d", s.Procs, procsMax)
	want(s.Lanes >= 1 && s.Lanes <= lanesMax, "--lanes %d: want 1 to %d", s.Lanes, lanesMax)
	want(s.Ramp >= 0 && s.Ramp <= rateMax, "--ramp %v: want sockets a second, at most 1e9, or 0 for as fast as they come", s.Ramp) // false also of what is no number
	want(s.Clients >= 0 && s.Clients <= 9_999_999, "--clients %d: want 0 to 9999999", s.Clients)
	want(s.Size >= 0 && s.Size <= 15<<20, "--size %d: want 0 to 15 MiB", s.Size)
	if s.hasSockets() {
		want(s.Sockets >= 1 && s.Sockets <= socketsMax, "-c %d: want 1 to %d sockets", s.Sockets, socketsMax)
		want(s.Procs <= max(s.Sockets, 1), "--procs %d: more than there are sockets (-c %d): some would have nothing to do", s.Procs, s.Sockets)
	}
	if s.Rate == "" {
		want(s.InFlight >= 1, "--in-flight %d: want at least 1", s.InFlight)
	}
	if s.Rate == "" && s.messages() {
		want(float64(s.Sockets)*float64(s.InFlight)*float64(s.Size) <= underWayMax,
			"-c %d, --in-flight %d and --size %d: more than 4 GiB would be under way at once", s.Sockets, s.InFlight, s.Size)
	}
	if s.Verb == Relay {
		want(s.Size >= RelaySizeMin, "--size %d: messages of relay tell two times: want at least %d", s.Size, RelaySizeMin)
		want(s.Backend != "", "relay: want --backend ADDRESS: bench listens there as the backend that the stream relays to")
	}
	if s.Verb == Hostile {
		want(len(s.Attacks) > 0, "--attack: want one at least: there are %s", strings.Join(Attacks, ", "))
		want(s.Hostile >= 1 && s.Hostile <= hostileMax, "--hostile %d: want 1 to %d", s.Hostile, hostileMax)
	}
	for _, kind := range s.Attacks {
		want(slices.Contains(Attacks, kind), "--attack %s: there are %s", kind, strings.Join(Attacks, ", "))
	}
	for _, pid := range s.PIDs {
		want(pid > 0, "--server-pid %d: want a process", pid)
	}
	return all
}

func (s *Settings) checkTarget() error {
	u, err := url.Parse(s.Target)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("--target %q: want the handshake address, such as http://127.0.0.1:8080", HideSecrets(s.Target))
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil:
		return fmt.Errorf("--target %q: want scheme, host and port alone, such as http://127.0.0.1:8080", HideSecrets(s.Target))
	case isIPv6(u.Hostname()):
		return fmt.Errorf("--target %s: bench speaks IPv4 alone", s.Target)
	case u.Scheme == "https":
		return fmt.Errorf("--target %s: bench speaks no TLS; give an address behind it, or a listener without", s.Target)
	case s.Key == "":
		return errors.New("no API key: give --key, or set TICKETGATE_KEY")
	case strings.ContainsFunc(s.Key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("this is no API key: it has a space, a line end or another character that no key has")
	case s.Stream == "" && s.Verb == Relay:
		return errors.New("relay: want --stream NAME: one that relays to what bench listens on, --backend")
	case s.Stream == "":
		return errors.New("no stream: give --stream")
	}
	return nil
}

// apiHost is the host of Target, which Check has seen.
func (s *Settings) apiHost() string {
	u, err := url.Parse(s.Target)
	if err != nil {
		return ""
	}
	return u.Host
}

// reportPoints is in how many points of the series every process reports twice: of many processes the coordinator could not hear
// all in each.
func (s *Settings) reportPoints() int { return max(1, s.Procs/reportsEach) }

// every is the time between two reports of a process.
func (s *Settings) every() time.Duration { return pointEvery / 2 * time.Duration(s.reportPoints()) }

// hasSockets says that the verb begins with Sockets open ones.
func (s *Settings) hasSockets() bool { return s.Verb != Tickets && s.Verb != Churn }

// messages says that the verb sends messages.
func (s *Settings) messages() bool {
	return s.Verb == Echo || s.Verb == Relay || s.Verb == Soak || s.Verb == Hostile
}

// schedule is nil for a closed loop.
func (s *Settings) schedule() (*Schedule, error) {
	if s.Rate == "" {
		return nil, nil //nolint:nilnil // that is what it says
	}
	all, err := ParseSchedule(s.Rate, s.Duration)
	all.Poisson = s.Poisson
	return &all, err
}

// A place is a WebSocket server.
type place struct{ host, path string }

// shown is s as it may be written down.
func (s *Settings) shown() Settings {
	all := *s
	all.Plain = HideSecrets(s.Plain)
	return all
}

// HideSecrets is the address text without what may be one: the name and password before its host, and its query.
func HideSecrets(text string) string {
	text, _, query := strings.Cut(text, "?")
	scheme, rest, absolute := strings.Cut(text, "://")
	if !absolute {
		scheme, rest = "", text
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = "***" + rest[at:]
	}
	if absolute {
		rest = scheme + "://" + rest
	}
	if query {
		rest += "?***"
	}
	return rest
}

func plainOf(text string) (place, error) {
	u, err := url.Parse(text)
	hint := ""
	switch {
	case err == nil && u.Scheme == "wss":
		hint = "bench speaks no TLS: want a ws:// address"
	case err != nil || u.Host == "" || u.Scheme != "ws":
		hint = "want a WebSocket address, such as ws://127.0.0.1:9000/echo"
	case u.User != nil:
		hint = "bench sends no name and no password: leave them out"
	}
	if hint != "" {
		return place{}, fmt.Errorf("--plain %q: %s", HideSecrets(text), hint)
	}
	if isIPv6(u.Hostname()) {
		return place{}, fmt.Errorf("--plain %q: bench speaks IPv4 alone", HideSecrets(text))
	}
	return place{u.Host, u.RequestURI()}, nil
}

func isIPv6(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && !a.Unmap().Is4()
}

// resolveWithin is how long a name may take: a worker does nothing else meanwhile, and is given up when it says nothing for 30 s.
const resolveWithin = 5 * time.Second

// resolve turns host or host:port into an IPv4 address and port.
func resolve(host, port string) (string, error) {
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(host, port)
	}
	name, service, err := net.SplitHostPort(host)
	if err != nil {
		return "", fmt.Errorf("%s: %w", host, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveWithin)
	defer cancel()
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp4", service)
	if err != nil {
		return "", fmt.Errorf("%s: %w", host, err)
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
	if err == nil && len(all) == 0 {
		err = &net.DNSError{Err: "no address", Name: name, IsNotFound: true}
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", host, err)
		if unknown := (*net.DNSError)(nil); errors.As(err, &unknown) {
			err = &unreachableError{err}
		}
		return "", err
	}
	return netip.AddrPortFrom(all[0].Unmap(), uint16(number)).String(), nil
}

// ParseSources reads "127.0.0.2,127.0.0.4-127.0.0.9": IPv4 addresses and ranges of them.
func ParseSources(text string) ([]string, error) {
	var all []string
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		a, err := netip.ParseAddr(first)
		b := a
		if err == nil && isRange {
			b, err = netip.ParseAddr(last)
		}
		if err != nil || !a.Is4() || !b.Is4() || b.Less(a) {
			return nil, fmt.Errorf("--source %q: want IPv4 addresses, such as 127.0.0.2 or 127.0.0.2-127.0.0.9", part)
		}
		for {
			if len(all) == 1<<16 {
				return nil, fmt.Errorf("--source %q: more than 65536 addresses", part)
			}
			all = append(all, a.String())
			if a == b {
				break
			}
			a = a.Next()
		}
	}
	return all, nil
}
